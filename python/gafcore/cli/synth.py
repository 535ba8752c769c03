"""`gafcore synth`: a synthetic person, filmed by sixteen cameras, written as a capture."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gafcore.captures import synthetic, vhap
from gafcore.captures.synthetic import SynthConfig
from gafcore.captures.vhap_write import check_target
from gafcore.cli.flags import Flat


@dataclass(frozen=True)
class Synth:
    """Make a synthetic capture: a random person with known geometry, expressions and head motion, seen by sixteen cameras."""

    out: Path
    """Folder to write (VHAP layout with rig.json beside it)."""
    config: Flat[SynthConfig] = field(default_factory=SynthConfig)

    def run(self) -> None:
        check_target(self.out)
        made = synthetic.make(self.config)
        vhap.write(made.capture, self.out)
        sizes = ", ".join(f"{name} {len(numbers)}" for name, numbers in made.capture.splits.items())
        print(f"wrote {self.out}: {len(made.capture.params)} timesteps; frames: {sizes}")
