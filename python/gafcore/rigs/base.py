"""The rig: a head mesh that identity, expression and pose coefficients move. Every rig is one `Rig`; only the data differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gafcore.ops import linear_blend_skinning
from gafcore.rigs.skinning import axis_angle_to_matrix, blend, joint_transforms
from gafcore.types import LandmarkEmbedding, Mesh, RigParams

JOINT_NAMES = ("root", "neck", "jaw", "left_eye", "right_eye")
JOINT_PARENTS = (-1, 0, 1, 1, 1)


@dataclass(frozen=True, eq=False)
class Rig:
    """A skinned blendshape model of a head, evaluated in FLAME's order (reference: Li et al. 2017).

    template + shape + expression + static offset -> joints -> pose-dependent correctives -> skinning -> translation.
    Metres, y up, the face looks along +z; left is the subject's left (+x).
    """

    name: str
    spec: dict[str, Any]  # what `load_rig` needs to give this rig again; JSON
    template: Float[Tensor, "V 3"]
    shape_basis: Float[Tensor, "S V 3"]  # coefficients ~ N(0, 1)
    expr_basis: Float[Tensor, "E V 3"]  # coefficients 0..1 where the names are ARKit's
    faces: Int[Tensor, "F 3"]  # counter-clockwise seen from outside
    uvs: Float[Tensor, "Vt 2"]
    uv_faces: Int[Tensor, "F 3"]
    joint_regressor: Float[Tensor, "J V"]
    skin_weights: Float[Tensor, "V J"]  # rows sum to 1
    regions: dict[str, Bool[Tensor, "V"]]
    landmarks: dict[str, LandmarkEmbedding]
    expression_names: tuple[str, ...]
    landmark_spread: dict[str, Float[Tensor, "L"]] = field(default_factory=dict)  # metres; how far a detector's idea of the point wanders
    pose_basis: Float[Tensor, "P V 3"] | None = None  # P = 9 (J - 1): correctives driven by R - I of every joint but the root
    joint_names: tuple[str, ...] = JOINT_NAMES
    joint_parents: tuple[int, ...] = JOINT_PARENTS

    @property
    def n_vertices(self) -> int:
        return self.template.shape[0]

    @property
    def n_shape(self) -> int:
        return self.shape_basis.shape[0]

    @property
    def n_expr(self) -> int:
        return self.expr_basis.shape[0]

    def neutral(self, n: int = 1) -> RigParams:
        """All coefficients and rotations zero, for `n` timesteps."""
        zeros = self.template.new_zeros
        pose = {name: zeros(n, size) for name, size in self._pose_sizes()}
        return RigParams(shape=zeros(self.n_shape), **pose)

    def vertices(self, params: RigParams, subset: Int[Tensor, "M"] | None = None) -> Float[Tensor, "B V 3"]:
        """Posed vertices, metres; differentiable in every parameter.

        Args:
            params: Coefficients for B timesteps.
            subset: Evaluate only these vertices, in this order: [B, M, 3]. Costs in proportion to M.

        Raises:
            ValueError: A parameter's size does not fit this rig.
        """
        self._check(params)
        axis_angles = self._axis_angles(params)
        template, shape_basis, expr_basis, weights, pose_basis = self._rows(subset)
        base = torch.addmv(template.flatten(), shape_basis.flatten(1).T, params.shape).view(-1, 3)
        if params.static_offset is not None:
            base = base + (params.static_offset if subset is None else params.static_offset[subset])
        vertices = blend(base, expr_basis, params.expr)
        if pose_basis is not None:
            identity = torch.eye(3, dtype=base.dtype, device=base.device)
            turns = axis_angle_to_matrix(axis_angles[:, 1:]) - identity
            vertices = vertices + blend(torch.zeros_like(base), pose_basis, turns.flatten(1))
        return linear_blend_skinning(vertices, weights, axis_angles, self.rest_joints(params), self.joint_parents, params.translation)

    def joint_positions(self, params: RigParams) -> Float[Tensor, "B J 3"]:
        """Where the joints are after posing, metres."""
        self._check(params)
        joints = self.rest_joints(params)
        rotation, translation = joint_transforms(axis_angle_to_matrix(self._axis_angles(params)), joints, self.joint_parents)
        return (rotation @ joints[..., None])[..., 0] + translation + params.translation[:, None]

    def mesh(self, params: RigParams) -> Mesh:
        """The posed mesh of a single timestep.

        Raises:
            ValueError: `params` holds more than one timestep.
        """
        if len(params) != 1:
            raise ValueError(f"mesh takes one timestep, got {len(params)}; choose one with params[t]")
        return Mesh(self.vertices(params)[0], self.faces, self.uvs, self.uv_faces)

    def landmark_points(self, vertices: Float[Tensor, "B V 3"], name: str) -> Float[Tensor, "B L 3"]:
        """The points of a landmark set ("ibug68", "mediapipe") on posed vertices.

        Raises:
            ValueError: This rig has no such set.
        """
        embedding = self._embedding(name)
        corners = vertices[:, self.faces[embedding.faces]]  # [B, L, 3, 3]
        return (corners * embedding.barycentrics.to(vertices.dtype)[..., None]).sum(-2)

    def posed_landmarks(self, params: RigParams, name: str) -> Float[Tensor, "B L 3"]:
        """`landmark_points(vertices(params), name)` without evaluating the rest of the mesh."""
        embedding = self._embedding(name)
        corners = self.faces[embedding.faces].flatten()
        used, inverse = torch.unique(corners, return_inverse=True)
        points = self.vertices(params, used)[:, inverse].unflatten(1, (-1, 3))
        return (points * embedding.barycentrics.to(points.dtype)[..., None]).sum(-2)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Rig:
        """A copy with every tensor on `device` and every floating tensor in `dtype`."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device=device, dtype=dtype if value.is_floating_point() else None)
            if isinstance(value, dict):
                return {k: move(v) for k, v in value.items()}
            if isinstance(value, LandmarkEmbedding):
                return LandmarkEmbedding(move(value.faces), move(value.barycentrics), move(value.indices))
            return value

        return replace(self, **{f.name: move(getattr(self, f.name)) for f in fields(self)})

    @cached_property
    def _joint_bases(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rest joints [J,3] and how identity [S,J,3] and expression [E,J,3] move them: the regressor applied once, not every call."""
        regress: Callable[[Tensor], Tensor] = lambda x: self.joint_regressor @ x  # noqa: E731
        return regress(self.template), regress(self.shape_basis), regress(self.expr_basis)

    def rest_joints(self, params: RigParams) -> Float[Tensor, "B J 3"]:
        """Where the joints are before any of them turns: they follow identity, expression and static offset, metres."""
        template, shape_basis, expr_basis = self._joint_bases
        base = blend(template, shape_basis, params.shape[None])[0]
        if params.static_offset is not None:
            base = base + self.joint_regressor @ params.static_offset
        return blend(base, expr_basis, params.expr)

    def _rows(self, subset: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        if subset is None:
            return self.template, self.shape_basis, self.expr_basis, self.skin_weights, self.pose_basis
        pose_basis = None if self.pose_basis is None else self.pose_basis[:, subset]
        return self.template[subset], self.shape_basis[:, subset], self.expr_basis[:, subset], self.skin_weights[subset], pose_basis

    @staticmethod
    def _axis_angles(params: RigParams) -> Float[Tensor, "B 5 3"]:
        return torch.cat([params.rotation, params.neck_pose, params.jaw_pose, params.eyes_pose], -1).unflatten(-1, (5, 3))

    def _embedding(self, name: str) -> LandmarkEmbedding:
        if name not in self.landmarks:
            raise ValueError(f"rig {self.name!r} has no landmarks {name!r}; it has {sorted(self.landmarks)}")
        return self.landmarks[name]

    def _pose_sizes(self) -> list[tuple[str, int]]:
        return [("expr", self.n_expr), ("rotation", 3), ("neck_pose", 3), ("jaw_pose", 3), ("eyes_pose", 6), ("translation", 3)]

    def _check(self, params: RigParams) -> None:
        n = params.expr.shape[0]
        expected: dict[str, tuple[int, ...]] = {name: (n, size) for name, size in self._pose_sizes()}
        expected["shape"] = (self.n_shape,)
        expected["static_offset"] = (self.n_vertices, 3)
        for name, value in params.items():
            if value is not None and tuple(value.shape) != expected[name]:
                raise ValueError(f"rig {self.name!r}: {name} must be {list(expected[name])}, got {list(value.shape)}")
