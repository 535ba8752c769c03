"""Meshes posed by joints: linear blend skinning over forward kinematics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from gafcore.native import check, launch
from gafcore.ops.registry import apply, contiguous, define, new_like, once, ordinary

_INPUTS = "Tensor vertices, Tensor weights, Tensor axis_angles, Tensor joints, Tensor parents"
_forward_op = define(f"linear_blend_skinning({_INPUTS}, Tensor translations) -> (Tensor, Tensor)")
_backward_op = define(f"linear_blend_skinning_backward({_INPUTS}, Tensor transforms, Tensor v_posed) -> (Tensor, Tensor, Tensor, Tensor)")


def _fields(vertices, weights, axis_angles, joints, parents):
    tensors = dict(vertices=vertices, weights=weights, axis_angles=axis_angles, joints=joints, parents=parents)
    return dict(n_batch=vertices.shape[0], n_vertices=vertices.shape[1], n_joints=weights.shape[1], **tensors)


@_forward_op.native
def _forward(vertices, weights, axis_angles, joints, parents, translations):
    inputs = contiguous(vertices, weights, axis_angles, joints, parents)
    posed, transforms = _forward_fake(vertices, weights, axis_angles, joints, parents, translations)
    fields = dict(_fields(*inputs), translations=translations.contiguous(), posed=posed, transforms=transforms)
    launch("linear_blend_skinning_fwd", vertices, **fields)
    return posed, transforms


@_forward_op.fake
def _forward_fake(vertices, weights, axis_angles, joints, parents, translations):  # noqa: ARG001
    return new_like(vertices), vertices.new_empty(*joints.shape[:2], 12)


@_backward_op.native
def _backward(vertices, weights, axis_angles, joints, parents, transforms, v_posed):
    inputs = contiguous(vertices, weights, axis_angles, joints, parents)
    transforms, v_posed = transforms.contiguous(), v_posed.contiguous()
    out = _backward_fake(vertices, weights, axis_angles, joints, parents, transforms, v_posed)
    v_vertices, v_axis_angles, v_joints, v_translations = out
    launch(
        "linear_blend_skinning_bwd",
        vertices,
        **_fields(*inputs),
        transforms=transforms,
        v_posed=v_posed,
        v_vertices=v_vertices,
        v_axis_angles=v_axis_angles,
        v_joints=v_joints,
        v_translations=v_translations,
    )
    return out


@_backward_op.fake
def _backward_fake(vertices, weights, axis_angles, joints, parents, transforms, v_posed):  # noqa: ARG001
    return new_like(vertices), new_like(axis_angles), new_like(joints), vertices.new_empty(vertices.shape[0], 3)


class _LinearBlendSkinning(torch.autograd.Function):
    @staticmethod
    def forward(ctx, eager, vertices, weights, axis_angles, joints, parents, translations):
        posed, transforms = _forward_op(vertices, weights, axis_angles, joints, parents, translations, eager=eager)
        ctx.save_for_backward(vertices, weights, axis_angles, joints, parents, transforms)
        ctx.eager = eager
        return posed

    @staticmethod
    @once
    def backward(ctx, v_posed):
        eager = ctx.eager and ordinary(v_posed)
        v_vertices, v_axis_angles, v_joints, v_translations = _backward_op(*ctx.saved_tensors, v_posed, eager=eager)
        return None, v_vertices, None, v_axis_angles, v_joints, None, v_translations


@lru_cache(maxsize=64)
def _parents_on(parents: tuple[int, ...], device: torch.device) -> Tensor:
    for j, parent in enumerate(parents):
        if not -1 <= parent < j:
            raise ValueError(f"parents must be -1 or the number of an earlier joint, got {parent} for joint {j}")
    # An ordinary tensor, whatever mode the first call is made in: it serves the calls of all others, too.
    with torch.inference_mode(False), unset_fake_temporarily():
        return torch.tensor(parents, dtype=torch.int64, device=device)


def linear_blend_skinning(
    vertices: Float[Tensor, "B V 3"],
    weights: Float[Tensor, "V J"],
    axis_angles: Float[Tensor, "B J 3"],
    joints: Float[Tensor, "B J 3"],
    parents: Sequence[int],
    translations: Float[Tensor, "B 3"],
) -> Float[Tensor, "B V 3"]:
    """Pose a mesh: every vertex goes to the weighted mean of where its joints' transforms take it.

    Args:
        vertices: Rest pose, metres.
        weights: Of each vertex's joints; rows that sum to 1 keep rigid motions rigid. No gradient.
        axis_angles: Each joint's rotation relative to its parent, radians; smooth at zero.
        joints: Where the joints are in the rest pose, metres.
        parents: Each joint's parent, which comes before it; -1 for a root.
        translations: Added to all vertices, metres.

    Returns:
        Posed vertices, metres, differentiable in all float arguments but `weights`.

    Raises:
        ValueError: A shape, dtype or device does not fit, or a parent does not come before its child.
    """
    sizes = check.tensor("vertices", vertices, ("B", "V", 3))
    check.tensor("weights", weights, ("V", "J"), sizes, like=vertices)
    check.tensor("axis_angles", axis_angles, ("B", "J", 3), sizes, like=vertices)
    check.tensor("joints", joints, ("B", "J", 3), sizes, like=vertices)
    check.tensor("translations", translations, ("B", 3), sizes, like=vertices)
    if len(parents) != sizes["J"]:
        raise ValueError(f"parents must name one parent for each of the {sizes['J']} joints, got {len(parents)}")
    inputs = (vertices, weights, axis_angles, joints, _parents_on(tuple(parents), vertices.device), translations)
    eager = ordinary(*inputs)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (vertices, axis_angles, joints, translations)):
        return apply(_LinearBlendSkinning, eager, *inputs, eager=eager)
    return _forward_op(*inputs, eager=eager)[0]
