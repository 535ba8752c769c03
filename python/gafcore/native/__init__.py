"""The compiled kernels: loads the module, checks tensors at the edge, hands over pointers."""

from gafcore.native import check
from gafcore.native.module import compiler, empty, has_cuda, isa_name, launch

__all__ = ["check", "compiler", "empty", "has_cuda", "isa_name", "launch"]
