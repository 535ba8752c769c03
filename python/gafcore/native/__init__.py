"""The compiled kernels: loads the module, checks tensors at the edge, hands over pointers."""

from gafcore.native import check
from gafcore.native.module import (
    adam_cuda,
    capturing,
    compiler,
    cuda_architectures,
    cuda_obstacle,
    cuda_version,
    empty,
    empty_like,
    has_cuda,
    isa_name,
    launch,
    launch_fields,
    scratch_bytes,
    uses_cuda,
)

__all__ = [
    "adam_cuda",
    "capturing",
    "check",
    "compiler",
    "cuda_architectures",
    "cuda_obstacle",
    "cuda_version",
    "empty",
    "empty_like",
    "has_cuda",
    "isa_name",
    "launch",
    "launch_fields",
    "scratch_bytes",
    "uses_cuda",
]
