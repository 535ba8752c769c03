"""Captures: pictures with cameras and rig parameters, read from disk, made up, or taken from a clip."""

from gafcore.captures.vhap import read, write

__all__ = ["read", "write"]
