"""Avatars: Gaussians driven by a rig, their density control, and their form on disk."""

from gafcore.avatars.rigged import Render, RiggedAvatar, draw, init_avatar, pose, pose_on, render
from gafcore.avatars.storage import load_avatar, read_params, save_avatar, write_params

__all__ = [
    "Render",
    "RiggedAvatar",
    "draw",
    "init_avatar",
    "load_avatar",
    "pose",
    "pose_on",
    "read_params",
    "render",
    "save_avatar",
    "write_params",
]
