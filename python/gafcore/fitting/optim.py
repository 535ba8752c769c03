"""Adam over named tensors whose rows come and go."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

_MOMENTS = ("exp_avg", "exp_avg_sq")


class NamedAdam:
    """`torch.optim.Adam` (fused) with one tensor and one step size a name.

    Density control replaces tensors by ones with other rows; `replace` carries the moments of the rows along.
    """

    def __init__(self, tensors: dict[str, Tensor], rates: dict[str, float], eps: float) -> None:
        groups = [{"params": [x.requires_grad_()], "lr": rates[name], "name": name} for name, x in tensors.items()]
        self._adam = torch.optim.Adam(groups, eps=eps, fused=True)

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {group["name"]: group["params"][0] for group in self._adam.param_groups}

    def set_rate(self, name: str, rate: float) -> None:
        for group in self._adam.param_groups:
            if group["name"] == name:
                group["lr"] = rate

    def step(self) -> None:
        """One update; tensors without a gradient stay, all gradients are dropped."""
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def replace(self, new: dict[str, Tensor], source: Int[Tensor, "M"], fresh: Bool[Tensor, "M"]) -> None:
        """Put `new` tensors in place: row i continues the moments of old row `source[i]`, or starts from zero where `fresh`."""
        for group in self._adam.param_groups:
            if group["name"] not in new:
                continue
            old, tensor = group["params"][0], new[group["name"]].detach().requires_grad_()
            state = self._adam.state.pop(old, {})
            for key in _MOMENTS:
                if key in state:
                    state[key] = state[key][source]
                    state[key][fresh] = 0
            group["params"][0] = tensor
            if state:
                self._adam.state[tensor] = state

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts, named "means.exp_avg" and so on."""
        return {f"{name}.{key}": value for name, x in self.tensors.items() for key, value in self._adam.state.get(x, {}).items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """What `state` returned, for the same tensors."""
        for name, x in self.tensors.items():
            own = {key: state[f"{name}.{key}"].clone() for key in ("step", *_MOMENTS) if f"{name}.{key}" in state}
            if own:
                self._adam.state[x] = own
