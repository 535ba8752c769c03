"""Adam over named tensors whose rows come and go."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from gafcore.native import adam_cuda, uses_cuda

_LARGEST = torch.finfo(torch.float32).max
_MOMENTS = ("exp_avg", "exp_avg_sq")


class NamedAdam:
    """`torch.optim.Adam` (fused) with one tensor and one step size a name; on a GPU, one kernel for all of them.

    Density control replaces tensors by ones with other rows; `replace` carries the moments of the rows along.
    """

    def __init__(self, tensors: dict[str, Tensor], rates: dict[str, float], eps: float) -> None:
        groups = [{"params": [x.requires_grad_()], "lr": rates[name], "name": name} for name, x in tensors.items()]
        self._adam = torch.optim.Adam(groups, eps=eps, fused=True)
        self._rates: dict[str, Tensor] = {}  # step sizes on the GPU, where a captured graph reads them

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {group["name"]: group["params"][0] for group in self._adam.param_groups}

    def set_rate(self, name: str, rate: float) -> None:
        for group in self._adam.param_groups:
            if group["name"] == name:
                group["lr"] = rate
                if name in self._rates:
                    self._rates[name].fill_(min(rate, _LARGEST))

    def step(self) -> None:
        """One update; tensors without a gradient stay, all gradients are dropped."""
        if all(uses_cuda(x) and x.is_contiguous() for x in self.tensors.values()):
            self._step_at_once()
        else:
            self._adam.step()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        self._adam.zero_grad(set_to_none=True)

    def _step_at_once(self) -> None:
        rows = []
        for group in self._adam.param_groups:
            x, name = group["params"][0], group["name"]
            if x.grad is None:
                continue
            if x not in self._adam.state:
                zero = torch.zeros((), dtype=torch.float32, device=x.device)
                self._adam.state[x] = {"step": zero} | {key: torch.zeros_like(x) for key in _MOMENTS}
            if name not in self._rates:
                self._rates[name] = torch.full((), min(group["lr"], _LARGEST), dtype=torch.float32, device=x.device)
            state = self._adam.state[x]
            rows.append((x.detach(), x.grad.contiguous(), *(state[key] for key in _MOMENTS), state["step"], self._rates[name]))
        if rows:
            group = self._adam.param_groups[0]
            beta1, beta2 = group["betas"]
            adam_cuda(rows, beta1, beta2, group["eps"])

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
        """What `state` returned, for the same tensors, on whichever device."""
        for name, x in self.tensors.items():
            own = {key: state[f"{name}.{key}"].to(x.device, copy=True) for key in ("step", *_MOMENTS) if f"{name}.{key}" in state}
            if own:
                self._adam.state[x] = own
