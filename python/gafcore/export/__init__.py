"""Avatars as files that other programs show."""

from gafcore.export.video import Shot, camera_shots, motion_shots, orbit_shots, render_shots

__all__ = ["Shot", "camera_shots", "motion_shots", "orbit_shots", "render_shots"]
