"""`gafcore render`: pictures of an avatar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from gafcore.avatars import load_avatar
from gafcore.cli.flags import PathArgument
from gafcore.devices import DeviceName, resolve
from gafcore.errors import InputError
from gafcore.export.video import Shot, camera_shots, motion_shots, orbit_camera, orbit_shots, render_shots
from gafcore.movies import write_frames
from gafcore.progress import track

COLORS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


@dataclass(frozen=True)
class Render:
    """Render an avatar to a video or a folder of pictures: an orbit, a fixed camera, or another recording's motion."""

    avatar: PathArgument
    """Folder of an avatar, as `gafcore fit` writes it."""
    out: Path
    """A video (.mp4, .mov, .mkv) or, without a suffix, a folder of pictures."""
    orbit: bool = False
    """Swing the camera about the head; the default when neither --camera nor --motion is given."""
    still: bool = False
    """Keep the first timestep's expression during an orbit."""
    camera: tuple[float, float, float] | None = None
    """Azimuth and elevation in degrees (0 0 is frontal) and distance in metres, of a fixed camera."""
    motion: Path | None = None
    """Rig parameters over time (.npz) to play on this avatar, as flame_param.npz of another avatar."""
    frames: int = 120
    """Pictures of an orbit."""
    size: tuple[int, int] = (512, 512)
    """Width and height, pixels."""
    fps: float = 30.0
    """Pictures a second of a video."""
    background: str = "white"
    """white or black."""
    device: DeviceName = "auto"
    """Where to render: cpu, cuda, or auto: the GPU where there is one and gafcore was compiled with CUDA."""

    def run(self) -> None:
        if self.orbit and (self.camera or self.motion):
            raise InputError("--orbit cannot be combined with --camera or --motion; choose one")
        if self.background not in COLORS:
            raise InputError(f"--background must be white or black, got {self.background!r}")
        if min(self.size) < 1 or self.frames < 1:
            raise InputError(f"--size and --frames must be at least 1, got {self.size} and {self.frames}")
        avatar = load_avatar(self.avatar, device=resolve(self.device))
        shots = self.shots(avatar)
        pictures = render_shots(avatar, track(shots, "render"), torch.tensor(COLORS[self.background]))
        write_frames(self.out, pictures, fps=self.fps)
        print(f"wrote {self.out}: {len(shots)} pictures of {self.size[0]}x{self.size[1]}")

    def shots(self, avatar) -> list[Shot]:
        if self.camera is None and self.motion is None:
            return orbit_shots(avatar, self.frames, *self.size, still=self.still)
        azimuth, elevation, distance = self.camera or (0.0, 0.0, 1.0)
        if not distance > 0:
            raise InputError(f"--camera needs a distance > 0 m, got {distance}")
        camera = orbit_camera(*self.size, azimuth_rad=math.radians(azimuth), elevation_rad=math.radians(elevation), distance_m=distance)
        return motion_shots(avatar, self.motion, camera) if self.motion else camera_shots(avatar, [camera])
