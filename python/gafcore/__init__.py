"""Animatable 3D Gaussian head avatars from monocular video."""

from gafcore.ops import bind_triangles, interpolate, photometric_loss, rasterization, rasterize_mesh

__version__ = "0.1.0"
__all__ = ["bind_triangles", "interpolate", "photometric_loss", "rasterization", "rasterize_mesh"]
