"""Animatable 3D Gaussian head avatars from monocular video."""
