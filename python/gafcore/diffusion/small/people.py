"""What the small prior learns from: synthetic people by seed, each with one picture to start from and views from around the head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gafcore.captures.synthetic.capture import make_model
from gafcore.captures.synthetic.look import Look, random_look
from gafcore.captures.synthetic.motion import random_identity, random_motion
from gafcore.captures.synthetic.noise import generator, normal, uniform
from gafcore.captures.synthetic.render import Model, render_views
from gafcore.diffusion.small.found_hair import DETAIL, found_offset
from gafcore.diffusion.small.pose import placement_of
from gafcore.diffusion.small.views import HeadPose, head_pose, view_camera
from gafcore.diffusion.small.warp import Carried, carry
from gafcore.mesh import normal_map
from gafcore.rigs.base import Rig
from gafcore.types import Camera, RigParams

SIZE = 64
INPUT_SIZE = 128  # colours are carried from a picture of twice the resolution, as a capture offers
N_VIEWS = 8  # made of each person; a training set is four of them
_N_MOMENTS = 24
_LONG_HAIRED = 0.2  # share of people who get long hair instead of the style that their seed would give them


@dataclass(frozen=True)
class Person:
    """One person at one moment, as small integers; pictures hold colour times coverage, and coverage.

    Angles are in the head's own axes, degrees: azimuth positive on its left, elevation positive above.
    """

    image: np.ndarray  # uint8 [64, 64, 4], the input
    image_normals: np.ndarray  # int8 [64, 64, 3], of the tracked rig, times 127
    targets: np.ndarray  # uint8 [8, 64, 64, 4]
    fill: np.ndarray  # uint8 [8, 64, 64, 3], see `Carried`
    visibility: np.ndarray  # uint8 [8, 64, 64], 0 or 255
    normals: np.ndarray  # int8 [8, 64, 64, 3]
    angles: np.ndarray  # float32 [8, 2]
    placements: np.ndarray  # float32 [8, 4], see `placement_of`
    cameras: np.ndarray  # float32 [9, 25]: viewmat and K, the input's first

    @staticmethod
    def names() -> tuple[str, ...]:
        return tuple(f.name for f in fields(Person))


@dataclass(frozen=True)
class _Drawn:
    """Who and when: what a seed decides before cameras are placed. `rng` draws those."""

    look: Look
    hair_length: float
    params: RigParams
    tracked: RigParams
    rng: torch.Generator


@torch.no_grad()
def make_person(rig: Rig, seed: int) -> Person:
    """The person of a seed. The rig that carries colours is tracked: a little off the truth, with hair only as what a fit finds of it."""
    drawn, model = _modelled(rig, seed)
    vertices, tracked = rig.vertices(drawn.params)[0], rig.vertices(drawn.tracked)[0]
    pose = head_pose(rig, tracked)
    camera = _input_camera(pose, drawn.rng)
    targets, angles = _target_cameras(pose, drawn.rng)
    picture = _input_picture(model, vertices, camera)
    truths = _cut_out(torch.stack(render_views(model, vertices, targets, samples=3)))
    carried = carry(picture, camera, targets, tracked, rig.faces, rig=rig)
    small = _half(camera)
    normals = normal_map(tracked, rig.faces, small)[0]
    placements = torch.stack([placement_of(target, pose) for target in targets])
    return _pack(picture, normals, truths, carried, angles, placements, [small, *targets])


@torch.no_grad()
def make_input(rig: Rig, seed: int) -> tuple[Float[Tensor, "128 128 4"], Camera, Float[Tensor, "V 3"]]:
    """The input picture of `make_person` alone (colour times coverage, and coverage), its camera, and the rig as tracked in it, metres."""
    drawn, model = _modelled(rig, seed)
    tracked = rig.vertices(drawn.tracked)[0]
    camera = _input_camera(head_pose(rig, tracked), drawn.rng)
    return _input_picture(model, rig.vertices(drawn.params)[0], camera), camera, tracked


@torch.no_grad()
def tracked_vertices(rig: Rig, seed: int) -> Float[Tensor, "V 3"]:
    """The rig that carried the colours of a person's `fill`, metres: not stored, for its seed says it."""
    return rig.vertices(_draw(rig, seed).tracked)[0]


def _draw(rig: Rig, seed: int) -> _Drawn:
    shape = random_identity(rig, seed, strength=0.9)
    rng = generator(seed, "prior views")
    look = look_of(seed)
    params = random_motion(rig, shape, seed, _N_MOMENTS, 2.0)[int(torch.randint(_N_MOMENTS, (), generator=rng))]
    length = uniform(rng, 0.7, 1.4)
    return _Drawn(look, length, params, _tracked(rig, params, look, seed, length, rng), rng)


def _modelled(rig: Rig, seed: int) -> tuple[_Drawn, Model]:
    drawn = _draw(rig, seed)
    return drawn, make_model(rig, drawn.params, drawn.look, seed, 128, detail=DETAIL, hair_length=drawn.hair_length)


def _input_picture(model: Model, vertices: Float[Tensor, "V 3"], camera: Camera) -> Float[Tensor, "128 128 4"]:
    (picture,) = render_views(model, vertices, [camera], samples=2)
    return _cut_out(picture)


def look_of(seed: int) -> Look:
    """As a synthetic capture of this seed has it, but that some have long hair."""
    return random_look(seed, "long" if uniform(generator(seed, "long haired"), 0, 1) < _LONG_HAIRED else "random")


def _tracked(rig: Rig, params: RigParams, look: Look, seed: int, length: float, rng: torch.Generator) -> RigParams:
    """The parameters as a tracker would find them: identity, expression, turn and place with small errors, hair as a static offset.

    People are tracked more or less well, from exactly, as synthetic captures are, to errors with the standard deviations below.
    """
    worse = uniform(rng, 0, 1)
    shape = params.shape + worse * 0.15 * normal(rng, *params.shape.shape)
    expr = (params.expr + worse * 0.06 * normal(rng, *params.expr.shape)).clamp(0, 1)
    rotation = params.rotation + worse * math.radians(1.0) * normal(rng, 1, 3)
    translation = params.translation + worse * 0.0015 * normal(rng, 1, 3)
    noisy = replace(params, shape=shape, expr=expr, rotation=rotation, translation=translation)
    chance = float(normal(rng, 1))
    return replace(noisy, static_offset=found_offset(rig, noisy, params, look, seed, length=length, chance=chance, worse=worse))


def _input_camera(pose: HeadPose, rng: torch.Generator) -> Camera:
    """Mostly from the front, sometimes from the side, from near and far."""
    azimuth, elevation = 0.28 * float(normal(rng, 1)), 0.14 * float(normal(rng, 1))
    roll, distance = 0.05 * float(normal(rng, 1)), uniform(rng, 0.6, 1.8)
    camera = view_camera(_jittered(pose, rng), max(min(azimuth, 0.9), -0.9), elevation, distance, INPUT_SIZE, roll)
    zoom = distance / 1.1 * uniform(rng, 0.94, 1.06)  # crops undo the distance
    return replace(camera, K=camera.K * torch.tensor([[zoom, 1, 1], [1, zoom, 1], [1, 1, 1]]))


def _target_cameras(pose: HeadPose, rng: torch.Generator) -> tuple[list[Camera], Float[Tensor, "8 2"]]:
    """GAF's ranges: azimuth within 90 degrees, one view in each eighth, elevation within 30, 1.0 to 1.2 m away."""
    cameras, angles = [], []
    for k in range(N_VIEWS):
        azimuth, elevation = -90 + 180 * (k + uniform(rng, 0, 1)) / N_VIEWS, uniform(rng, -30, 30)
        roll = 0.03 * float(normal(rng, 1))
        distance = uniform(rng, 1.0, 1.2)
        cameras.append(view_camera(_jittered(pose, rng), math.radians(azimuth), math.radians(elevation), distance, SIZE, roll))
        angles.append((azimuth, elevation))
    return cameras, torch.tensor(angles)


def _jittered(pose: HeadPose, rng: torch.Generator) -> HeadPose:
    return replace(pose, center=pose.center + 0.004 * normal(rng, 3))


def _cut_out(rgba: Float[Tensor, "*N H W 4"]) -> Float[Tensor, "*N H W 4"]:
    """Colour times coverage, from colour on white."""
    return torch.cat([rgba[..., :3] - (1 - rgba[..., 3:]), rgba[..., 3:]], -1)


def _half(camera: Camera) -> Camera:
    return replace(camera, K=camera.K * torch.tensor([[0.5], [0.5], [1.0]]), width=camera.width // 2, height=camera.height // 2)


def _pack(
    picture: Tensor, image_normals: Tensor, truths: Tensor, carried: Carried, angles: Tensor, placements: Tensor, cameras: Sequence[Camera]
) -> Person:
    small = avg_pool2d(picture.permute(2, 0, 1)[None], 2)[0].permute(1, 2, 0)
    return Person(
        image=_bytes(small),
        image_normals=_signed(image_normals),
        targets=_bytes(truths),
        fill=_bytes(carried.fill),
        visibility=_bytes(carried.visibility),
        normals=_signed(carried.normals),
        angles=angles.numpy().astype(np.float32),
        placements=placements.numpy(),
        cameras=torch.stack([torch.cat([c.viewmat.flatten(), c.K.flatten()]) for c in cameras]).numpy(),
    )


def _bytes(x: Tensor) -> np.ndarray:
    return (x.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()


def _signed(x: Tensor) -> np.ndarray:
    return (x.clamp(-1, 1) * 127).round().to(torch.int8).numpy()
