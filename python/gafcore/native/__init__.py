"""The compiled kernels: loads the module, checks tensors at the edge, hands over pointers."""

from gafcore.native import check
from gafcore.native.module import compiler, isa_name, launch

__all__ = ["check", "compiler", "isa_name", "launch"]
