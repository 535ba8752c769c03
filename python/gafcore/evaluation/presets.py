"""The rows of GAF's table 3 as presets: which prior, from where, and how it joins the fit."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gafcore.diffusion.conditioning import SD_GUIDANCE, NormalAxes
from gafcore.diffusion.small.prior import load_prior
from gafcore.errors import InputError
from gafcore.files import read_json
from gafcore.fitting.controlnet_prior import check_controlnet_prior, make_controlnet_prior
from gafcore.fitting.pipeline_prior import need_diffusers
from gafcore.fitting.prior import Prior
from gafcore.fitting.pseudo import PseudoConfig, is_pipeline, make_prior

_FULL = PseudoConfig(prior_trust="full")
_FROM_RENDERS = replace(_FULL, prior_start="render", prior_levels=(0.02, 0.98))
PAPER = replace(_FROM_RENDERS, prior_weight=1.0, prior_yields=0.0, prior_fades=1.0, refresh_every=1)
"""GAF's pseudo ground truths, from noised renders, with the paper's settings."""
_SDS = replace(_FROM_RENDERS, prior_start="sds", prior_weight=60.0)


@dataclass(frozen=True)
class Preset:
    """A row.

    Attributes:
        source: What stands behind it: nothing, `PriorSources.prior`, a prior conditioned on poses, or Stable Diffusion with a ControlNet.
        small: How a small prior joins the fit; None: it cannot.
        pipeline: How a diffusers pipeline does; None: it cannot.
        upsample: Use a pipeline's upsampler.
    """

    source: Literal["none", "prior", "pose", "sd", "personalised"]
    small: PseudoConfig | None = None
    pipeline: PseudoConfig | None = None
    upsample: bool = True


PRESETS: dict[str, Preset] = {
    "none": Preset("none"),
    "pretrained-sd": Preset("sd", pipeline=PAPER),
    "personalised-sd": Preset("personalised", pipeline=PAPER),
    "sds": Preset("prior", small=_SDS, pipeline=_SDS),
    "pose": Preset("pose", small=_FULL, pipeline=PAPER),
    "no-upsampler": Preset("prior", pipeline=PAPER, upsample=False),
    "full": Preset("prior", small=PseudoConfig(), pipeline=PAPER),
    "render": Preset("prior", small=PAPER, pipeline=PAPER),
    "refined": Preset("prior", small=PseudoConfig(prior_start="refined")),
    "regression": Preset("prior", small=PseudoConfig()),
}
"""In the order of table 3, then uses of a small prior by name: `render` is the paper's, `regression` the default, and `refined` the same
made sharper by a little noise and denoising. `full` is a prior as it is meant: a small one at the defaults of `gafcore fit`, a pipeline
as in the paper. `sds`, score distillation, gives way and fades as those defaults do; the gradient of its squared loss is small, and its
weight is the largest of three that were tried on one person with the small prior, 2, 20 and 60 (docs/small_prior.md). `render`, `sds` and
`pose` have all of their weight on every capture: a weaker prior that were heeded less would be compared with nothing."""
TABLE_3 = ("none", "pretrained-sd", "personalised-sd", "sds", "pose", "no-upsampler", "full")


@dataclass(frozen=True)
class PriorSources:
    """Where priors come from."""

    prior: str = "small"
    """The prior of the rows sds, no-upsampler and full (also render, refined, regression): "small", the path of another small one, or the
    folder of a multi-view pipeline."""
    pose_prior: str | None = None
    """The prior of the row pose: the path of a small one or a pipeline trained with the condition "pose"."""
    sd: Path | None = None
    """Folder of a Stable Diffusion pipeline (1.x or 2.x, diffusers' layout, safetensors) for the row pretrained-sd."""
    personalised_sd: Path | None = None
    """The same, fine-tuned on pictures of the person (DreamBooth), for the row personalised-sd."""
    controlnet: Path | None = None
    """Folder of a ControlNet for normal maps that goes with both."""
    prompt: str = ""
    """What pretrained Stable Diffusion is told."""
    personalised_prompt: str = ""
    """What the personalised one is told: the words that it was fine-tuned with."""
    sd_guidance: float = SD_GUIDANCE
    """Guidance scale of both; without a prompt there is none."""
    normal_axes: NormalAxes = "left_up_back"
    """Directions in which red, green and blue grow in the ControlNet's normal maps; left_up_back is that of ControlNet 1.1."""
    refresh_every: int | None = None
    """Iterations between new pseudo ground truths, for all rows but `sds`; each row's own by default."""

    def __post_init__(self) -> None:
        if self.refresh_every is not None and self.refresh_every < 1:
            raise InputError(f"refresh_every must be at least 1, got {self.refresh_every}")
        if not 0 <= self.sd_guidance < math.inf:
            raise InputError(f"sd_guidance must be 0 or more, got {self.sd_guidance}")


def check_presets(names: tuple[str, ...]) -> None:
    """Raises:
    InputError: A name is unknown or given twice, or there is none.
    """
    unknown = [name for name in names if name not in PRESETS]
    if unknown or not names:
        raise InputError(f"unknown presets {unknown}; known are {list(PRESETS)}" if unknown else f"no preset; known are {list(PRESETS)}")
    if len(set(names)) < len(names):
        raise InputError(f"presets are named twice: {sorted({n for n in names if names.count(n) > 1})}")


def why_not(name: str, sources: PriorSources) -> str | None:
    """Why a row cannot be run with what the user gave; None where it can. Cheap, but what was given is looked at.

    Raises:
        MissingError, InputError: What was given for this row is not there or of another kind.
    """
    preset = PRESETS[name]
    if preset.source in ("sd", "personalised"):
        flag, folder = ("--sd", sources.sd) if preset.source == "sd" else ("--personalised-sd", sources.personalised_sd)
        absent = [f"{f} FOLDER" for f, given in ((flag, folder), ("--controlnet", sources.controlnet)) if given is None]
        if folder is None or sources.controlnet is None:
            return f"needs {' '.join(absent)}"
        check_controlnet_prior(folder, sources.controlnet)
        return None
    if preset.source == "pose":
        if sources.pose_prior is None:
            return "needs --pose-prior PATH"
        _check_pose(sources.pose_prior)
        return None
    if preset.source == "none":
        return None
    return _why_not_prior(preset, sources.prior)


def settings(name: str, sources: PriorSources) -> PseudoConfig | None:
    """How the prior of a row joins the fit; None without one."""
    preset = PRESETS[name]
    if preset.source == "none":
        return None
    path = sources.pose_prior if preset.source == "pose" else sources.prior
    small = preset.source in ("prior", "pose") and not is_pipeline(str(path))
    chosen = preset.small if small else preset.pipeline
    if chosen is None or sources.refresh_every is None:
        return chosen
    return replace(chosen, refresh_every=sources.refresh_every)


def described(name: str, sources: PriorSources) -> dict[str, Any]:
    """What decides a row's prior, as JSON values. Folders and files count by their paths: what is in them is not read."""
    preset, config = PRESETS[name], settings(name, sources)
    out: dict[str, Any] = {"preset": name, "pseudo": None if config is None else asdict(config)}
    if preset.source == "prior":
        return out | {"prior": sources.prior}
    if preset.source == "pose":
        return out | {"prior": sources.pose_prior}
    if preset.source == "none":
        return out
    folder, prompt = _sd(preset, sources)
    return out | {
        "prior": str(folder),
        "controlnet": str(sources.controlnet),
        "prompt": prompt,
        "guidance": sources.sd_guidance,
        "axes": sources.normal_axes,
    }


def prior_of(name: str, sources: PriorSources) -> Prior | None:
    """A row's prior, new: with an empty pool. Call it where `why_not` has nothing to say.

    Raises:
        MissingError, InputError: It cannot be read.
    """
    preset, config = PRESETS[name], settings(name, sources)
    if config is None:
        return None
    if preset.source in ("sd", "personalised"):
        folder, prompt = _sd(preset, sources)
        given = dict(guidance_scale=sources.sd_guidance, axes=sources.normal_axes)
        assert folder is not None and sources.controlnet is not None
        return make_controlnet_prior(folder, sources.controlnet, config, prompt, **given)
    path = sources.pose_prior if preset.source == "pose" else sources.prior
    return make_prior(str(path), config, upsample=preset.upsample)


def _sd(preset: Preset, sources: PriorSources) -> tuple[Path | None, str]:
    return (sources.sd, sources.prompt) if preset.source == "sd" else (sources.personalised_sd, sources.personalised_prompt)


def _why_not_prior(preset: Preset, path: str) -> str | None:
    if path == "none":
        return "needs --prior"
    if is_pipeline(path):
        need_diffusers(path)
        if preset.pipeline is None:
            return "a pipeline has no regression to start from: needs --prior small, or another small prior"
        index = read_json(Path(path) / "model_index.json")
        has_upsampler = isinstance(index, dict) and (index.get("upsampler") or [None])[0] is not None
        if preset.upsample or has_upsampler:
            return None
        return "this pipeline has no upsampler to leave out: needs --prior FOLDER of one that has"
    loaded = load_prior(None if path == "small" else path)
    if preset.small is None:
        return "a small prior has no upsampler to leave out: needs --prior FOLDER of a multi-view pipeline that has one"
    if loaded.diffusion is None and preset.small.prior_start != "regression":
        return "this prior holds a regression only: needs one whose diffusion was trained too"
    return None


def _check_pose(path: str) -> None:
    if is_pipeline(path):
        need_diffusers(path)
        config = read_json(Path(path) / "unet" / "config.json")
        condition = config.get("condition") if isinstance(config, dict) else None
    else:
        condition = load_prior(path).condition
    if condition != "pose":
        raise InputError(f"--pose-prior {path}: its condition is {condition!r}; expected one that was trained with the condition 'pose'")
