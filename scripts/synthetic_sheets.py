"""Draws the contact sheets of docs/captures.md: `python scripts/synthetic_sheets.py docs/images [--ict PATH]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from gafcore.captures.synthetic import SynthConfig, make
from gafcore.pictures import save_sheet
from gafcore.rigs import load_rig
from gafcore.rigs.base import Rig
from gafcore.types import Capture

CAMERAS_PERSON = (6, "short")
PEOPLE = ((0, "bun"), (1, "short"), (2, "buzz"), (3, "curly"), (4, "bob"), (5, "bald"), (6, "short"))


def camera_sheet(path: Path, rig: str, size: int) -> None:
    """All sixteen cameras of one timestep: the upper row of cameras above the lower one, from the subject's right to the left."""
    seed, hair = CAMERAS_PERSON
    made = make(SynthConfig(rig=rig, seed=seed, size=size, n_timesteps=48, samples=4, page_px=2 * size, hair=hair))
    frames = made.views[_liveliest(made.capture)]
    rows = [[frames[c].image() for c in range(first, 16, 2)] for first in (1, 0)]
    save_sheet(path, rows, ["15° above", "eye level"], [f"cameras {c}, {c + 1}" for c in range(0, 16, 2)])


def identity_sheet(path: Path, rigs: list[str], size: int) -> None:
    """Different people of each rig, each in the middle of doing something else."""
    rows = [[_portrait(load_rig(rig), seed, hair, size) for seed, hair in PEOPLE] for rig in rigs]
    save_sheet(path, rows, ["procedural", "ICT-FaceKit"][: len(rigs)])


def _portrait(rig: Rig, seed: int, hair: str, size: int) -> Tensor:
    made = make(SynthConfig(seed=seed, size=size, n_timesteps=48, samples=4, page_px=2 * size, hair=hair), rig=rig)
    return made.views[_liveliest(made.capture)][(8, 5, 11)[seed % 3]].image()


def _liveliest(capture: Capture) -> int:
    """The timestep with the most smile, eyes open and head up."""
    params, names = capture.params, capture.rig.expression_names

    def strength(word: str) -> Tensor:
        return params.expr[:, [word in name for name in names]].sum(-1)

    tilt = (params.rotation + params.neck_pose)[:, 0].abs()
    return int((strength("mouthSmile") - 2 * strength("eyeBlink") - strength("eyeLookDown") - 4 * tilt).argmax())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ict", help="packed npz or FaceXModel folder of ICT-FaceKit")
    parser.add_argument("--size", type=int, default=180)
    options = parser.parse_args()
    camera_sheet(options.out / "synthetic_cameras.png", "procedural", options.size)
    identity_sheet(options.out / "synthetic_identities.png", ["procedural"] + ([f"ict:{options.ict}"] if options.ict else []), options.size)


if __name__ == "__main__":
    main()
