"""The kernels as differentiable PyTorch functions."""

from gafcore.ops.bind_triangles import bind_triangles
from gafcore.ops.interpolate import interpolate
from gafcore.ops.linear_blend_skinning import linear_blend_skinning
from gafcore.ops.photometric_loss import photometric_loss
from gafcore.ops.rasterization import rasterization
from gafcore.ops.rasterize_mesh import MeshRaster, rasterize_mesh

__all__ = ["MeshRaster", "bind_triangles", "interpolate", "linear_blend_skinning", "photometric_loss", "rasterization", "rasterize_mesh"]
