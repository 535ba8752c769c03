"""The kernels as differentiable PyTorch functions."""

from gafcore.ops.bind_triangles import bind_triangles

__all__ = ["bind_triangles"]
