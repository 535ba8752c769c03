"""What a synthetic person does over time: talking, blinking, smiling, looking about and turning the head, all smooth."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.captures.synthetic.noise import generator, over_time, uniform
from gafcore.rigs.base import Rig
from gafcore.types import RigParams

# Head turns, radians, as standard deviations of smooth noise: (pitch, yaw, roll). The neck takes its share, the body the rest.
_HEAD_SWING = (0.09, 0.22, 0.05)
_NECK_SHARE = 0.7
_BODY_SWAY_M = 0.004
_GAZE_SWING = (0.10, 0.20)  # pitch, yaw
_BLINK_S = 0.22

# Poses of the face that come and go, by ARKit name without side: strength at full swing.
_MOODS: tuple[dict[str, float], ...] = (
    {"mouthSmile": 0.8, "cheekSquint": 0.5, "eyeSquint": 0.3},
    {"mouthSmile": 0.6, "jawOpen": 0.35, "mouthUpperUp": 0.3, "mouthLowerDown": 0.3, "cheekSquint": 0.4},
    {"browInnerUp": 0.8, "browOuterUp": 0.8, "eyeWide": 0.6, "jawOpen": 0.3},
    {"browDown": 0.8, "noseSneer": 0.4, "mouthFrown": 0.4, "eyeSquint": 0.4},
    {"mouthPucker": 0.8, "browInnerUp": 0.3},
    {"mouthFrown": 0.6, "mouthShrugLower": 0.5, "browInnerUp": 0.5},
    {"mouthFunnel": 0.6, "jawOpen": 0.25, "eyeWide": 0.3},
    {"cheekPuff": 0.7, "mouthPress": 0.3},
)
_SYLLABLE_S = 0.24
_VISEMES: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.40, "mouthLowerDown": 0.20},
    {"jawOpen": 0.22, "mouthStretch": 0.35, "mouthUpperUp": 0.2},
    {"jawOpen": 0.18, "mouthFunnel": 0.55},
    {"mouthPucker": 0.55, "jawOpen": 0.08},
    {"mouthPress": 0.45, "mouthRollLower": 0.3},
    {"jawOpen": 0.12, "mouthLowerDown": 0.35, "mouthUpperUp": 0.25},
)


def random_identity(rig: Rig, seed: int, strength: float = 0.8) -> Float[Tensor, "S"]:
    """Shape coefficients of a plausible person: N(0, strength^2), never beyond two standard deviations."""
    return (torch.randn(rig.n_shape, generator=generator(seed, "identity")) * strength).clamp(-2 * strength, 2 * strength)


def random_motion(rig: Rig, shape: Float[Tensor, "S"], seed: int, n_timesteps: int, fps: float) -> RigParams:
    """Parameters over time for the person with these shape coefficients.

    Rigs with ARKit's expression names get acted poses; others get smooth noise on their leading expression coefficients and a talking jaw.
    """
    neutral = rig.neutral(n_timesteps)
    rng = generator(seed, "head motion")
    head = torch.stack([over_time(rng, n_timesteps, fps, 1.6) * swing for swing in _HEAD_SWING], -1)
    sway = torch.stack([over_time(rng, n_timesteps, fps, 2.5) * _BODY_SWAY_M for _ in range(3)], -1)
    gaze = _gaze(seed, n_timesteps, fps)
    acted = _Faces(rig)
    if acted.has("jawOpen"):
        expr, jaw_pose = _act(acted, gaze, seed, n_timesteps, fps), neutral.jaw_pose
    else:
        expr, jaw_pose = _stir(neutral.expr, seed, fps), _talking_jaw(seed, n_timesteps, fps)
    return RigParams(
        shape=shape,
        expr=expr,
        rotation=head * (1 - _NECK_SHARE),
        neck_pose=head * _NECK_SHARE,
        jaw_pose=jaw_pose,
        eyes_pose=torch.cat([gaze, gaze], -1),
        translation=sway,
    )


class _Faces:
    """Expression coefficients by ARKit name without side, however the rig spells the side (`eyeBlinkLeft` or `eyeBlink_L`)."""

    def __init__(self, rig: Rig) -> None:
        self.n_expr = rig.n_expr
        self._columns: dict[str, list[int]] = {}
        for column, name in enumerate(rig.expression_names):
            self._columns.setdefault(name, []).append(column)
            for side in ("Left", "Right", "_L", "_R"):
                if name.endswith(side) and len(name) > len(side):
                    self._columns.setdefault(name.removesuffix(side), []).append(column)
                    self._columns.setdefault(name.removesuffix(side) + side.strip("_")[0], []).append(column)

    def has(self, name: str) -> bool:
        return name in self._columns

    def add(self, expr: Tensor, pose: dict[str, float], envelope: Tensor) -> None:
        for name, strength in pose.items():
            for column in self._columns.get(name, ()):
                expr[:, column] += strength * envelope


def _act(faces: _Faces, gaze: Tensor, seed: int, n: int, fps: float) -> Float[Tensor, "T E"]:
    expr = torch.zeros(n, faces.n_expr)
    _moods(faces, expr, seed, fps)
    _talk(faces, expr, seed, fps)
    _look(faces, expr, gaze)
    expr = expr.clamp(0, 1)
    blink = _blinks(seed, n, fps)
    faces.add(expr, {"eyeWide": -1.0, "eyeSquint": -0.5}, blink)
    faces.add(expr, {"eyeBlink": 1.0}, blink)
    return expr.clamp(0, 1)


def _moods(faces: _Faces, expr: Tensor, seed: int, fps: float) -> None:
    """One mood after another, each about a second and a half, with a rest between some of them."""
    rng, time = generator(seed, "moods"), torch.arange(len(expr)) / fps
    start, last = 0.2, -1
    while start < float(time[-1]) + 1:
        mood = int(torch.randint(len(_MOODS), (), generator=rng))
        mood = (mood + 1) % len(_MOODS) if mood == last else mood
        length, strength, rest = uniform(rng, 1.0, 2.0), uniform(rng, 0.6, 1.0), uniform(rng, -0.3, 0.5)
        faces.add(expr, _MOODS[mood], strength * _bump(time, start, length))
        start, last = start + length + rest, mood


def _talk(faces: _Faces, expr: Tensor, seed: int, fps: float) -> None:
    """Syllables in phrases: the phrase's envelope opens and closes, the visemes change under it."""
    rng, n = generator(seed, "talk"), len(expr)
    phrase = torch.sigmoid(over_time(rng, n, fps, 1.5) * 3)
    time = torch.arange(n) / fps
    for k in range(int(n / fps / _SYLLABLE_S) + 2):
        viseme = _VISEMES[int(torch.randint(len(_VISEMES), (), generator=rng))]
        strength, late = uniform(rng, 0.5, 1.0), uniform(rng, -0.05, 0.05)
        faces.add(expr, viseme, strength * phrase * _bump(time, (k - 0.6) * _SYLLABLE_S + late, 1.7 * _SYLLABLE_S))


def _look(faces: _Faces, expr: Tensor, gaze: Tensor) -> None:
    """Lids follow the eyes. Positive pitch looks down, positive yaw towards the subject's left."""
    pitch, yaw = gaze.unbind(-1)[:2]
    full = math.radians(30)  # ARKit's coefficients reach 1 near this angle
    looks = {"eyeLookDown": pitch, "eyeLookUp": -pitch, "eyeLookOutL": yaw, "eyeLookInR": yaw, "eyeLookInL": -yaw, "eyeLookOutR": -yaw}
    for name, angle in looks.items():
        faces.add(expr, {name: 1.0}, (angle / full).clamp(0, 1))


def _gaze(seed: int, n: int, fps: float) -> Float[Tensor, "T 3"]:
    rng = generator(seed, "gaze")
    pitch, yaw = (over_time(rng, n, fps, 0.7) * swing for swing in _GAZE_SWING)
    return torch.stack([pitch.clamp(-0.25, 0.25), yaw.clamp(-0.45, 0.45), torch.zeros(n)], -1)


def _blinks(seed: int, n: int, fps: float) -> Float[Tensor, "T"]:
    rng, time = generator(seed, "blinks"), torch.arange(n) / fps
    closed, start = torch.zeros(n), uniform(rng, 0.2, 1.2)
    while start < n / fps:
        closed = torch.maximum(closed, _bump(time, start, _BLINK_S))
        start += uniform(rng, 1.2, 3.0)
    return closed


def _bump(time: Tensor, start: float, length: float) -> Tensor:
    """Rises from 0 at `start` to 1 and falls back to 0 at `start + length`; flat at the top."""
    phase = ((time - start) / length).clamp(0, 1)
    return torch.sin(math.pi * phase).clamp_min(0) ** 2 * (2 - torch.sin(math.pi * phase) ** 2)


def _stir(expr: Tensor, seed: int, fps: float) -> Tensor:
    rng, out = generator(seed, "expression"), expr.clone()
    for column in range(min(12, expr.shape[1])):
        out[:, column] = 0.7 * over_time(rng, len(expr), fps, 0.8)
    return out


def _talking_jaw(seed: int, n: int, fps: float) -> Float[Tensor, "T 3"]:
    opening = over_time(generator(seed, "jaw"), n, fps, 0.3).clamp_min(0) * 0.12
    return torch.stack([opening, torch.zeros(n), torch.zeros(n)], -1)
