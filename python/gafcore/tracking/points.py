"""The few points of a rig that a detector sees, and where a pinhole camera sees them, with exact derivatives.

Frame of this module: the camera is at the origin and looks along -z, x right, y up (the head's own axes when it faces the camera), metres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gafcore.rigs.base import Rig
from gafcore.rigs.skinning import axis_angle_to_matrix

_STILL_M = 2e-4  # expressions that move a joint by less leave it where it is: turned by half a radian that is a tenth of a millimetre

TURNING = ("jaw", "left_eye", "right_eye")  # joints that turn against the head; root and neck move the head as a whole


@dataclass(frozen=True)
class PointModel:
    """L points of a rig: linear in identity and expression, then turned with jaw and eyes, then with the head.

    A point takes the barycentric mean of its corners' skinning weights; over one triangle these hardly differ.
    """

    rest: Float[Tensor, "L 3"]
    shape: Float[Tensor, "S L 3"]
    expr: Float[Tensor, "E L 3"]
    weights: Float[Tensor, "L 3"]  # of the joints in TURNING
    centres: Float[Tensor, "4 3"]  # root, then TURNING
    centres_shape: Float[Tensor, "S 4 3"]
    centres_expr: Float[Tensor, "E 4 3"]

    @property
    def n_points(self) -> int:
        return self.rest.shape[0]

    @property
    def layout(self) -> Layout:
        return Layout(self.expr.shape[0])

    def at_shape(self, shape: Float[Tensor, "S"]) -> PointModel:
        """The same points with the identity fixed (S = 0)."""
        fix = lambda rest, basis: rest + (shape @ basis.flatten(1)).view_as(rest)  # noqa: E731
        none = self.shape[:0]
        return replace(
            self,
            rest=fix(self.rest, self.shape),
            centres=fix(self.centres, self.centres_shape),
            shape=none,
            centres_shape=self.centres_shape[:0],
        )

    def with_modes(self, modes: Float[Tensor, "M L 3"]) -> PointModel:
        """The same points with further shared modes that move only them, not the joints."""
        still = self.centres_shape.new_zeros(len(modes), 4, 3)
        return replace(self, shape=torch.cat([self.shape, modes]), centres_shape=torch.cat([self.centres_shape, still]))

    def of_points(self, which: Bool[Tensor, "L"]) -> PointModel:
        """Only some of the points."""
        return replace(self, rest=self.rest[which], shape=self.shape[:, which], expr=self.expr[:, which], weights=self.weights[which])

    def to(self, dtype: torch.dtype) -> PointModel:
        return PointModel(**{k: v.to(dtype) for k, v in vars(self).items()})


@dataclass(frozen=True)
class Layout:
    """Where a frame's parameters are in its vector."""

    n_expr: int
    rotation = slice(0, 3)
    translation = slice(3, 6)
    eyes = slice(6, 10)  # left pitch, left yaw, right pitch, right yaw
    jaw = slice(10, 13)

    @property
    def expr(self) -> slice:
        return slice(13, 13 + self.n_expr)

    @property
    def size(self) -> int:
        return 13 + self.n_expr


def point_model(rig: Rig, landmarks: str) -> PointModel:
    """The points of a landmark set as a model of their own, float64.

    Raises:
        ValueError: The rig has no such landmark set, or lacks a joint that tracking turns.
    """
    if landmarks not in rig.landmarks:
        raise ValueError(f"rig {rig.name!r} has no landmarks {landmarks!r}; it has {sorted(rig.landmarks)}")
    missing = {"root", *TURNING} - set(rig.joint_names)
    if missing:
        raise ValueError(f"rig {rig.name!r} lacks the joints {sorted(missing)}; it has {list(rig.joint_names)}")
    embedding = rig.landmarks[landmarks]
    corners = rig.faces[embedding.faces]  # [L, 3]
    bary = embedding.barycentrics.double()[..., None]
    mean = lambda x: (x[..., corners, :].double() * bary).sum(-2)  # noqa: E731
    joints = [rig.joint_names.index(name) for name in ("root", *TURNING)]
    regressor = rig.joint_regressor[joints]
    regress = lambda x: (regressor @ x).double()  # noqa: E731
    centres_expr = regress(rig.expr_basis)
    weights = mean(rig.skin_weights)[:, joints[1:]]
    turns = torch.cat([torch.ones(1, dtype=torch.bool), (weights > 0).any(0)])  # a joint that turns no point may be anywhere
    moves = turns & (centres_expr.abs().amax((0, 2)) > _STILL_M)
    return PointModel(
        rest=mean(rig.template),
        shape=mean(rig.shape_basis),
        expr=mean(rig.expr_basis),
        weights=weights,
        centres=regress(rig.template),
        centres_shape=regress(rig.shape_basis),
        centres_expr=centres_expr * moves[:, None],
    )


def _turns(layout: Layout, theta: Tensor) -> Float[Tensor, "T 3 3"]:
    """Axis-angle of jaw, left eye, right eye. Eyes only pitch and yaw: nothing shows their roll."""
    eyes, roll = theta[:, layout.eyes].unflatten(1, (2, 2)), theta.new_zeros(len(theta), 2, 1)
    return torch.cat([theta[:, None, layout.jaw], torch.cat([eyes, roll], -1)], 1)


def _linear(rest: Tensor, shape_basis: Tensor, expr_basis: Tensor, shape: Tensor, expr: Tensor) -> Tensor:
    base = rest.flatten() + shape @ shape_basis.flatten(1)
    return torch.addmm(base[None], expr, expr_basis.flatten(1)).unflatten(1, (-1, 3))


def place(model: PointModel, theta: Float[Tensor, "T P"], shape: Float[Tensor, "S"]) -> Float[Tensor, "T L 3"]:
    """The points before the camera, metres. Linear blend skinning with the head as one piece."""
    layout = model.layout
    expr = theta[:, layout.expr]
    points = _linear(model.rest, model.shape, model.expr, shape, expr)
    centres = _linear(model.centres, model.centres_shape, model.centres_expr, shape, expr)
    local = points
    rotations = axis_angle_to_matrix(_turns(layout, theta))
    for k in range(len(TURNING)):
        weight, arm = model.weights[:, k, None], points - centres[:, None, 1 + k]
        local = local + weight * (arm @ rotations[:, k].mT - arm)
    root = centres[:, None, 0]
    head = axis_angle_to_matrix(theta[:, layout.rotation])
    return (local - root) @ head.mT + root + theta[:, None, layout.translation]


def project(points: Float[Tensor, "T L 3"], focal_px: Tensor, centre: tuple[float, float]) -> Float[Tensor, "T L 2"]:
    """Pixels. Points at or behind the camera go far away instead of to infinity: the solver rejects such a step by its cost."""
    depth = (-points[..., 2]).clamp(min=1e-3)
    u = centre[0] + focal_px * points[..., 0] / depth
    v = centre[1] - focal_px * points[..., 1] / depth
    return torch.stack([u, v], -1)


def right_jacobian(rotation: Float[Tensor, "T 3"]) -> Float[Tensor, "T 3 3"]:
    """J with exp(r + d) = exp(r) exp(J d) to first order."""
    angle2 = (rotation * rotation).sum(-1)[:, None, None]
    near = angle2 < 1e-4
    safe = torch.where(near, torch.ones_like(angle2), angle2)
    angle = safe.sqrt()
    a = torch.where(near, 0.5 - angle2 / 24, (1 - angle.cos()) / safe)
    b = torch.where(near, 1 / 6 - angle2 / 120, (angle - angle.sin()) / (safe * angle))
    cross = skew(rotation)
    return torch.eye(3, dtype=rotation.dtype) - a * cross + b * (cross @ cross)


def skew(x: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """The matrix of the cross product with x."""
    a, b, c = x.unbind(-1)
    zero = torch.zeros_like(a)
    return torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], -1).unflatten(-1, (3, 3))
