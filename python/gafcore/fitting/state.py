"""Everything that changes while an avatar is fitted, in one place: what a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gafcore.avatars.density import DensityStats, densify_and_prune, empty_stats
from gafcore.avatars.rigged import RiggedAvatar
from gafcore.fitting.config import FitConfig
from gafcore.fitting.optim import NamedAdam
from gafcore.fitting.schedule import generator, means_rate
from gafcore.rigs import Rig
from gafcore.types import RigParams

GAUSSIAN_TENSORS = ("means", "quats", "log_scales", "opacity_logits", "sh_dc", "sh_rest")
RIG_TENSORS = ("expr", "rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation")
_REST_SLOWDOWN = 20  # higher spherical harmonics learn at this fraction of the constant's rate, as in 3D Gaussian Splatting
HISTORY = ("iteration", "loss", "psnr", "n_gaussians")


@dataclass
class FitState:
    """A fit between two iterations. `iteration` steps are done."""

    iteration: int
    binding: Int[Tensor, "N"]
    adam: NamedAdam
    stats: DensityStats
    fixed: dict[str, Tensor]  # rig and colour tensors that this fit does not move
    history: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in HISTORY})
    prior: dict[str, Tensor] = field(default_factory=dict)  # what a `StatefulPrior` remembers

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, moving or not."""
        return {**self.fixed, **self.adam.tensors}

    def record(self, **values: float) -> None:
        for name in HISTORY:
            self.history[name].append(float(values[name]))


def initial_tensors(avatar: RiggedAvatar, config: FitConfig) -> dict[str, Tensor]:
    """Copies of the avatar's and its rig's tensors, and the colour correction, under the names that the optimiser uses."""
    tensors = {name: x.clone() for name, x in avatar.parameters().items()}
    sh = tensors.pop("sh")
    tensors["sh_dc"] = sh[:, :1].clone()
    if config.sh_degree > 0:
        tensors["sh_rest"] = sh[:, 1:].clone()
    tensors.update({f"rig.{name}": getattr(avatar.params, name).clone() for name in RIG_TENSORS})
    if avatar.params.static_offset is not None:
        tensors["rig.static_offset"] = avatar.params.static_offset.clone()
    if config.color_correction != "none":
        rows = len(avatar.params) if config.color_correction == "frame" else 1
        tensors["color"] = sh.new_zeros(rows, 2, 3)
    return tensors


def make_state(tensors: dict[str, Tensor], binding: Int[Tensor, "N"], config: FitConfig) -> FitState:
    """A state over `tensors`, with an optimiser that has not moved yet."""
    rates = _rates(config)
    moving = {name: x for name, x in tensors.items() if rates[name] > 0}
    fixed = {name: x for name, x in tensors.items() if name not in moving}
    return FitState(0, binding, NamedAdam(moving, rates, config.lr.eps), empty_stats(binding.shape[0], binding.device), fixed)


def _rates(config: FitConfig) -> dict[str, float]:
    lr, tune = config.lr, float(config.tune_rig)
    rates = {"means": lr.means, "quats": lr.quats, "log_scales": lr.log_scales, "opacity_logits": lr.opacities}
    rates |= {"sh_dc": lr.colors, "sh_rest": lr.colors / _REST_SLOWDOWN, "color": lr.color_correction}
    rates |= {f"rig.{name}": tune * lr.pose for name in RIG_TENSORS}
    rates |= {"rig.static_offset": 0.0, "rig.expr": tune * lr.expr, "rig.translation": tune * lr.translation}
    return rates


def set_rates(state: FitState, config: FitConfig, iteration: int) -> None:
    """Step sizes of the coming iteration (from 1)."""
    state.adam.set_rate("means", means_rate(config, iteration))


def person(state: FitState, tracked: RigParams) -> RigParams:
    """`tracked` with the static offset that this fit started from: it is found once, and kept in the state."""
    return replace(tracked, static_offset=state.tensors.get("rig.static_offset"))


def rig_params(state: FitState, shared: RigParams) -> RigParams:
    """The rig's parameters as tuned so far; `shared` supplies what belongs to the person."""
    tensors = state.tensors
    return replace(shared, **{name: tensors[f"rig.{name}"] for name in RIG_TENSORS})


def current_avatar(state: FitState, rig: Rig, params: RigParams, sh_degree: int) -> RiggedAvatar:
    """The avatar as it stands, sharing the optimiser's tensors: gradients flow."""
    tensors = state.tensors
    sh = tensors["sh_dc"] if sh_degree == 0 else torch.cat([tensors["sh_dc"], tensors["sh_rest"]], dim=1)
    return RiggedAvatar(
        rig=rig,
        params=params,
        binding=state.binding,
        means=tensors["means"],
        quats=tensors["quats"],
        log_scales=tensors["log_scales"],
        opacity_logits=tensors["opacity_logits"],
        sh=sh[:, : (sh_degree + 1) ** 2],
        sh_degree=sh_degree,
    )


def finished_avatar(state: FitState, rig: Rig, shared: RigParams, sh_degree: int) -> RiggedAvatar:
    """A detached copy for keeps, on the rig it was given on."""
    avatar = current_avatar(state, rig, rig_params(state, shared), sh_degree)
    copies: dict[str, Any] = {name: x.detach().clone() for name, x in avatar.parameters().items()}
    return replace(avatar, params=avatar.params.map(lambda _, x: x.detach().clone()), binding=avatar.binding.clone(), **copies)


def density_round(state: FitState, triangle_sizes: Float[Tensor, "F"], config: FitConfig) -> None:
    """Add and remove Gaussians, carry the optimiser along, start the statistics afresh."""
    moving = {name: x.detach() for name, x in state.tensors.items() if name in GAUSSIAN_TENSORS}
    source = generator(config, "density", state.iteration)
    step = densify_and_prune(moving, state.binding, triangle_sizes, state.stats, config.density, source)
    state.binding = step.tensors.pop("binding")
    state.adam.replace(step.tensors, step.source, step.fresh)
    state.fixed.update({name: x for name, x in step.tensors.items() if name in state.fixed})
    state.stats = empty_stats(state.binding.shape[0], state.binding.device)
