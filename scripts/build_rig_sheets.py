"""Draw docs/images/rig_NAME.png: a rig from all sides, with expressions and as other people.

python scripts/build_rig_sheets.py procedural
python scripts/build_rig_sheets.py ict:PATH
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch
from rig_paint import Palette, shade
from torch import Tensor

from gafcore.cameras import from_angles
from gafcore.pictures import save_sheet
from gafcore.rigs import Rig, load_rig
from gafcore.types import RigParams

OUT = Path(__file__).parent.parent / "docs/images"
_CELL_PX, _SAMPLES = 200, 3
_BOTH = ("Left", "Right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rig")
    rig = load_rig(parser.parse_args().rig)
    rows = [_sides(rig), _mouths(rig), _eyes(rig), *_people(rig)]
    labels = ["neutral", "mouth", "eyes", "identities", ""]
    save_sheet(OUT / f"rig_{rig.name}.png", rows, row_labels=labels)


def expressed(rig: Rig, coefficients: dict[str, float]) -> RigParams:
    """Neutral but for the named expressions; a name may lack its side and then means both."""
    params = rig.neutral()
    for name, value in coefficients.items():
        for full in (name, *(name + side for side in _BOTH)):
            if full in rig.expression_names:
                params.expr[0, rig.expression_names.index(full)] = value
    return params


def _sides(rig: Rig) -> list[Tensor]:
    return [_draw(rig, rig.neutral(), azimuth, whole=True) for azimuth in (0, 45, 90, 135, 180)]


def _mouths(rig: Rig) -> list[Tensor]:
    shown = [({"jawOpen": 1.0}, 0), ({"jawOpen": 1.0}, 60), ({"mouthSmile": 1.0}, 0)]
    shown += [({"mouthSmile": 0.8, "jawOpen": 0.25}, 30), ({"mouthPucker": 1.0}, 30)]
    return [_draw(rig, expressed(rig, coefficients), azimuth) for coefficients, azimuth in shown]


def _eyes(rig: Rig) -> list[Tensor]:
    turned = []
    for yaw, pitch in ((0.5, 0.0), (-0.5, 0.0)):
        params = rig.neutral()
        params.eyes_pose[0] = torch.tensor([pitch, yaw, 0, pitch, yaw, 0])
        turned.append(_draw(rig, params, 0))
    blinks = [_draw(rig, expressed(rig, {"eyeBlink": amount}), azimuth) for amount, azimuth in ((0.5, 0), (1.0, 30))]
    return [*blinks, *turned, _draw(rig, expressed(rig, {"browInnerUp": 1.0, "browOuterUp": 1.0, "eyeWide": 1.0}), 0)]


def _people(rig: Rig) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(4)
    people = [replace(rig.neutral(), shape=torch.randn(rig.n_shape, generator=generator)) for _ in range(5)]
    return [[_draw(rig, person, azimuth) for person in people] for azimuth in (0, 40)]


def _draw(rig: Rig, params: RigParams, azimuth_deg: float, whole: bool = False) -> Tensor:
    """One cell on white, anti-aliased; the head alone or with the neck."""
    size, distance = _CELL_PX * _SAMPLES, 1.2
    focal, target = (size * 3.0, (0, -0.02, 0)) if whole else (size * 4.4, (0, 0.005, 0))
    camera = from_angles(math.radians(azimuth_deg), 0.05, distance, focal_px=focal, width=size, height=size, target=target)
    palette = Palette(
        skin=torch.tensor([0.86, 0.68, 0.57]), hair=None, brows=torch.tensor([0.33, 0.23, 0.17]),
        lips=torch.tensor([0.75, 0.44, 0.40]), iris=torch.tensor([0.30, 0.42, 0.48]),
    )  # fmt: skip
    key = camera.viewmat[:3, :3].T @ torch.nn.functional.normalize(torch.tensor([-0.45, -0.55, -0.75]), dim=0)
    image, mask = shade(rig, rig.vertices(params)[0], camera, palette, key, 0.32, 0.72)
    image = torch.where(mask[..., None], image, 1.0)
    return image.view(_CELL_PX, _SAMPLES, _CELL_PX, _SAMPLES, 3).mean((1, 3))


if __name__ == "__main__":
    main()
