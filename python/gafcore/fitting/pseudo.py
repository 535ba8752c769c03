"""Pseudo ground truths (GAF, section 4.2): views of the avatar that no camera took, as the small prior thinks they should look.

Every `refresh_every` iterations a set of views is made from the training picture of that iteration and put into a pool, the oldest one
leaving when the pool is full. Every iteration compares the avatar with views from the pool, at the prior's own resolution: what 64 pixels
cannot show is left to the training pictures, so that the prior's blur does not reach them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.cameras import camera_position, resize, stack
from gafcore.captures.synthetic.noise import uniform
from gafcore.diffusion.small.conditions import Conditions, prepare, random_views
from gafcore.diffusion.small.prior import SmallPrior, load_prior
from gafcore.errors import InputError
from gafcore.fitting.cut_out import cut_out
from gafcore.fitting.prior import PriorRequest, PriorViews
from gafcore.fitting.trust import Trust, measured
from gafcore.types import Camera, Capture

EPS2D = 0.3  # square pixels: the blur of splats that training pictures are drawn with
_MOST_SUPERSAMPLED = 4  # 256 pixels for the shipped prior: four views cost as much as one training picture of 512
_STEPS = 10  # of the whole schedule, as GAF's t/20 of 1000 would be 50: more do not help this prior
_SET = ("targets", "seen", "within", "viewmats", "Ks", "side", "eps2d", "timestep", "background")
_ON_HOST = ("side", "timestep")  # of a set: what is read as numbers; the rest is on the prior's device


@dataclass(frozen=True)
class PseudoConfig:
    """How the prior joins a fit."""

    prior_weight: float = 2.0
    """Of L_img on the prior's views (GAF: 1), of a person whom the prior knows."""
    prior_trust: Literal["measured", "full"] = "measured"
    """measured: a person whom the small prior draws worse than those it was made for gets less of the weight, by the square of the ratio
    of squared errors on training pictures; full: all of it (GAF). Pipelines always have all of it."""
    refresh_every: int = 10
    """Iterations between new sets of pseudo ground truths (GAF: 1)."""
    prior_start: Literal["regression", "refined", "render", "sds"] = "regression"
    """Where targets come from: the one-pass regression; the same, noised and denoised for sharpness; the avatar's own renders, noised
    and denoised (GAF); or, every iteration anew, one step from the noised render and a squared loss (score distillation)."""
    prior_levels: tuple[float, float] = (0.25, 0.5)
    """Range of the noise levels (GAF: 0.02 to 0.98)."""
    prior_seen: float = 1.0
    """Weight of pixels whose surface the training picture shows, relative to the others (GAF: 1). Less than 1 trusts the prior less where
    pictures know better; with the shipped prior it only cost quality."""
    prior_yields: float = 4.0
    """Where the prior pulls a Gaussian against the rest of the loss (the training picture and the penalties), its pull is left out, but
    for what exceeds so many times theirs (GAF: 0)."""
    prior_fades: float = 0.5
    """Share of the iterations after which the prior's weight goes down, in a straight line to zero at `prior_until`: less than that, or 1
    for not at all (GAF). What no picture shows has grown by then and is held in place by little; what the pictures show gets sharp."""
    prior_until: float = 1.0
    """Share of the iterations after which the prior is silent (GAF: 1)."""
    prior_views: int = 4
    """Views compared in an iteration, of the four in a set (GAF: 4)."""
    prior_mb: int = 16
    """Memory for the pool of sets, MB; the oldest set leaves."""

    def __post_init__(self) -> None:
        low, high = self.prior_levels
        if not 0 < low <= high <= 1:
            raise InputError(f"prior_levels must be 0 < low <= high <= 1, got {low} and {high}")
        for name in ("prior_seen", "prior_until", "prior_fades"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be 0 to 1, got {getattr(self, name)}")
        if self.prior_until <= self.prior_fades < 1:
            raise InputError(
                f"prior_fades must be less than prior_until ({self.prior_until}), or 1 to keep the weight, got {self.prior_fades}"
            )
        if self.prior_trust not in ("measured", "full"):
            raise InputError(f"prior_trust must be measured or full, got {self.prior_trust!r}")
        for name in ("prior_weight", "prior_yields"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("refresh_every", "prior_views", "prior_mb"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


def make_prior(name: str, config: PseudoConfig = PseudoConfig(), *, upsample: bool = True) -> PseudoTruths | None:
    """The prior that a flag names: "small" for the shipped one, "none", a file that scripts/train_small_prior.py wrote, or the folder of a
    multi-view pipeline.

    Args:
        name: As above.
        config: How it joins the fit.
        upsample: Use a pipeline's upsampler, if it has one.

    Raises:
        MissingError, InputError: As `load_prior`.
    """
    if name == "none":
        return None
    if is_pipeline(name):
        from gafcore.fitting.pipeline_prior import PipelineTruths, load_pipeline

        return PipelineTruths(load_pipeline(name), config, upsample=upsample)
    return PseudoTruths(load_prior(None if name == "small" else name), config)


def is_pipeline(name: str) -> bool:
    """Whether a prior's name is the folder of a diffusers pipeline."""
    return (Path(name) / "model_index.json").is_file()


class PseudoTruths:
    """A `fitting.Prior` over the small prior's networks, asked on the fit's device. `state` and `restore` let a resumed fit go on with the
    same pool.

    On a GPU only an iteration that makes a new set waits: for the posed vertices, about which cameras and a crop are chosen on the host.

    Raises:
        InputError: `config` starts from something that needs a diffusion network, and `prior` has none.
    """

    def __init__(self, prior: SmallPrior, config: PseudoConfig = PseudoConfig()) -> None:
        if prior.diffusion is None and config.prior_start != "regression":
            raise InputError(f"the prior holds a regression only, so prior_start must be regression, got {config.prior_start!r}")
        self.prior, self.config, self.n_views = prior, config, prior.n_views
        self._trust = Trust() if config.prior_trust == "measured" and config.prior_weight > 0 else None
        self._pool: list[dict[str, Tensor]] = []
        self._device = torch.device("cpu")
        set_bytes = prior.n_views * (prior.size**2 * 5 + 4 * (16 + 9)) + 64
        self.capacity = max(1, config.prior_mb * 1_000_000 // set_bytes)

    @property
    def identity(self) -> str:
        """Changes with the weights and the settings: a resumed fit must meet the same."""
        digest = hashlib.sha256(json.dumps([asdict(self.config), self.prior.condition]).encode())
        for network in (self.prior.regression, self.prior.diffusion):
            for x in () if network is None else network.state_dict().values():
                digest.update(x.cpu().numpy().tobytes())
        return digest.hexdigest()

    def move_to(self, device: torch.device) -> torch.device:
        """Networks and pool go to the fit's device, and that is where to ask."""
        self.prior, self._device = self.prior.to(device), device
        self._pool = [self._placed(s) for s in self._pool]
        return device

    def __call__(self, request: PriorRequest) -> PriorViews | None:
        if not self.recalls(request.iteration, request.iterations):
            self._pool.append(self._placed(self._made(request)))
            del self._pool[: -1 if self._distilling else -self.capacity]
        return self.recall(request.iteration, request.iterations, request.generator)

    def recalls(self, iteration: int, iterations: int) -> bool:
        """Whether no set is made then."""
        makes = self._distilling or (iteration - 1) % self.config.refresh_every == 0
        return not makes or self._weight(iteration, iterations) == 0

    def recall(self, iteration: int, iterations: int, generator: torch.Generator) -> PriorViews | None:
        """Views from the pool as it is."""
        weight = self._weight(iteration, iterations)
        if weight == 0:
            return None
        chosen = self._pool[int(torch.randint(len(self._pool), (), generator=generator))]
        views = torch.randperm(self.n_views, generator=generator)[: self.config.prior_views].tolist()
        size = int(chosen["side"])
        return PriorViews(
            cameras=[Camera(chosen["viewmats"][i], chosen["Ks"][i], size, size) for i in views],
            targets=_rows(chosen["targets"], views).float() / 255,
            weight=weight,
            timestep=int(chosen["timestep"]),
            background=chosen["background"],
            mask=_rows(chosen["within"], views).float() if self._distilling else self._trusted(chosen, views),
            squared=self._distilling,
            yields=self.config.prior_yields,
            eps2d=chosen["eps2d"],
        )

    def _trusted(self, chosen: dict[str, Tensor], views: list[int]) -> Float[Tensor, "N H W"]:
        """Weights of pixels. Of parts of the rig beyond the picture's edge the prior knows nothing: where a picture ended at the chin, it
        made shoulders half transparent."""
        seen, within = (_rows(chosen[name], views).float() for name in ("seen", "within"))
        return (1 - (1 - self.config.prior_seen) * seen) * within

    def _placed(self, made: dict[str, Tensor]) -> dict[str, Tensor]:
        """A set where iterations read it."""
        return {name: x.to("cpu" if name in _ON_HOST else self._device) for name, x in made.items()}

    @property
    def _distilling(self) -> bool:
        return self.config.prior_start == "sds"

    def _weight(self, iteration: int, iterations: int) -> float:
        """Of the views at an iteration; 0 where the prior is silent."""
        if iteration > self.config.prior_until * iterations:
            return 0.0
        share = 1.0 if self._trust is None else self._trust.share
        return self.config.prior_weight * share * self._faded(iteration / iterations)

    def _faded(self, share: float) -> float:
        """What is left of the weight after this share of the fit."""
        begin, end = self.config.prior_fades, self.config.prior_until
        return 1.0 if share <= begin else max(end - share, 0.0) / (end - begin)

    def measure(self, capture: Capture, numbers: Sequence[int]) -> None:
        """Find out how far to trust the small prior here (`PseudoConfig.prior_trust`).

        Raises:
            InputError: A training frame has no mask.
        """
        if self._trust is not None:
            self._trust = measured(self.prior, capture, numbers, self._device)

    def notes(self) -> tuple[str, ...]:
        """What was measured."""
        return () if self._trust is None else self._trust.notes(self.config.prior_weight)

    def state(self) -> dict[str, Tensor]:
        """The pool, stacked, and what was measured."""
        pool = {name: torch.stack([s[name] for s in self._pool]).cpu() for name in _SET} if self._pool else {}
        return pool if self._trust is None else pool | self._trust.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on with the pool of `state`, or with an empty one, and with what was measured."""
        if self._trust is not None:
            self._trust = Trust.of(state)
        n = len(state["timestep"]) if "timestep" in state else 0
        self._pool = [self._placed({name: state[name][i].clone() for name in _SET}) for i in range(n)]

    def _made(self, request: PriorRequest) -> dict[str, Tensor]:
        """A set from the training picture of this iteration."""
        rng = request.generator
        cameras = random_views(request.rig, request.vertices, self.prior.n_views, self.prior.size, rng)
        background = torch.rand(3, generator=rng)
        given = prepare(
            cut_out(request.frame, request.captured_on),
            request.frame.camera,
            request.rig,
            request.vertices,
            cameras,
            background,
            condition=self.prior.condition,
        )
        targets = self._views(request, given, cameras, background)[0].permute(0, 2, 3, 1)
        fine, eps2d = _as_fine(request, cameras)
        viewmats, Ks = stack(fine)
        values = ((targets + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8)
        seen, within = (x.to(torch.uint8) for x in (given.conditions[0, :, 0] > 0.5, given.within > 0.5))
        cameras_and_moment = dict(viewmats=viewmats, Ks=Ks, timestep=torch.tensor(request.frame.timestep))
        pixels = dict(side=torch.tensor(fine[0].width), eps2d=torch.tensor(eps2d))
        return dict(targets=values, seen=seen, within=within, **pixels, background=background, **cameras_and_moment)

    def _views(self, request: PriorRequest, given: Conditions, cameras: list[Camera], background: Tensor) -> Float[Tensor, "1 N 3 H W"]:
        conditions = (given.image, given.fill, given.conditions)
        kind, rng = self.config.prior_start, request.generator
        if kind in ("render", "sds"):
            fine, _ = _as_fine(request, cameras)
            renders = request.render(fine, background).permute(0, 3, 1, 2)
            start = 2 * torch.nn.functional.avg_pool2d(renders, fine[0].width // cameras[0].width)[None].clamp(0, 1) - 1
        else:
            start = self.prior.regress(*conditions)
        if kind == "regression":
            return start
        level = uniform(rng, *self.config.prior_levels)
        return self.prior.denoise(*conditions, start, level, generator=rng, steps=1 if kind == "sds" else _STEPS)


def rendered_set(targets: Float[Tensor, "N s s 3"], cameras: Sequence[Camera], timestep: int, background: Tensor) -> dict[str, Tensor]:
    """A set for the pool whose targets (0..1) are a whole number of times as large as their cameras say, and are compared as they are."""
    viewmats, Ks = stack(cameras)
    side, factor = targets.shape[1], targets.shape[1] / cameras[0].width
    Ks = Ks * torch.tensor([factor, factor, 1.0])[:, None]
    values = (255 * targets + 0.5).clamp(0, 255).to(torch.uint8)
    seen = torch.zeros(targets.shape[:3], dtype=torch.uint8)
    within = torch.ones_like(seen)
    pixels = dict(side=torch.tensor(side), eps2d=torch.tensor(EPS2D))
    cameras_and_moment = dict(viewmats=viewmats, Ks=Ks, timestep=torch.tensor(timestep))
    return dict(targets=values, seen=seen, within=within, **pixels, background=background, **cameras_and_moment)


def rendered_capacity(config: PseudoConfig, n_views: int, side: int) -> int:
    """How many such sets `prior_mb` holds, at least one."""
    return max(1, config.prior_mb * 1_000_000 // (n_views * (side**2 * 5 + 100) + 64))


def _as_fine(request: PriorRequest, cameras: list[Camera]) -> tuple[list[Camera], float]:
    """The prior's cameras with about as many times its pixels as the training picture has on the head, and the rasterizer's blur there.

    Every splat is widened by about a pixel, and the training pictures shape the splats to what they look like then: widened by more or
    less in metres, the same avatar is thicker or thinner, and what is fitted to that is wrong in the training pictures.
    """
    camera, middle = request.frame.camera, request.vertices.mean(0).cpu()
    ratio = len(cameras) * _px_per_m(camera, middle) / sum(_px_per_m(c, middle) for c in cameras)
    factor = min(max(round(ratio), 1), _MOST_SUPERSAMPLED)
    return [resize(c, factor * c.width, factor * c.height) for c in cameras], EPS2D * (factor / ratio) ** 2


def _rows(x: Tensor, numbers: list[int]) -> Tensor:
    """These rows of `x`. As an index their numbers would be brought to a GPU, which waits for it."""
    return torch.stack([x[i] for i in numbers])


def _px_per_m(camera: Camera, point: Float[Tensor, "3"]) -> float:
    """Pixels across a metre that faces the camera at a point."""
    return float(camera.K[0, 0]) / float((camera_position(camera) - point).norm())
