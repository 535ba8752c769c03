"""`gafcore track`: a raw clip becomes a capture."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gafcore.cli.flags import Flat, PathArgument
from gafcore.tracking import TrackConfig, track_to_folder


@dataclass(frozen=True)
class Track:
    """Fit a head rig to every frame of a clip (video, folder of pictures or one picture) and write the result as a capture."""

    clip: PathArgument
    """Anything that PyAV opens, a folder of pictures, or one picture."""
    out: Path
    """Folder to write: the capture, report.json, and an overlay of the mesh to look at."""
    config: Flat[TrackConfig] = field(default_factory=TrackConfig)

    def run(self) -> None:
        tracked = track_to_folder(self.clip, self.out, self.config)
        report = tracked.report
        print(f"wrote {self.out}")
        for name, value in report.items():
            print(f"{name}: {value}")
        print(f"look at {self.out / 'overlay.png'}: the mesh must lie on the face")
