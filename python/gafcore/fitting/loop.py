"""Fitting an avatar to a capture, from the first Gaussian to the saved folder."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gafcore.avatars.appearance import initial_avatar
from gafcore.avatars.density import is_round
from gafcore.avatars.rigged import RiggedAvatar, triangle_sizes
from gafcore.avatars.storage import save_avatar
from gafcore.files import check_output_folder, write_json
from gafcore.fitting.checkpoint import FOLDER, check_no_unfinished, drop_previous, load_checkpoint, save_checkpoint, set_aside
from gafcore.fitting.config import FitConfig, to_json
from gafcore.fitting.data import fingerprint, training_frames
from gafcore.fitting.display import Display, tensorboard
from gafcore.fitting.interrupts import Interrupted, StopRequest, stop_requests
from gafcore.fitting.lpips import load_lpips
from gafcore.fitting.prior import Prior, StatefulPrior
from gafcore.fitting.schedule import frame_at
from gafcore.fitting.state import FitState, density_round, finished_avatar, initial_tensors, make_state, person
from gafcore.fitting.step import StageTimes, StepResult, Terms, bake_shape, check_finite, take_step
from gafcore.types import Capture

_RECORD_EVERY = 10  # iterations between rows of the history

Callback = Callable[[int, StepResult], None]


@dataclass(frozen=True)
class FitResult:
    """A fitted avatar and how the fit went.

    Attributes:
        avatar: On the capture's rig, with the tuned rig parameters of all timesteps.
        history: Columns "iteration", "loss", "psnr" (dB, training picture), "n_gaussians"; a row every ten iterations.
        seconds: Wall-clock time of the iterations of this call, by stage; "total" is all of it.
        iterations: Iterations of this call (fewer than configured after a resume).
        color_correction: [1 or T, 2, 3] log-gain and offset a channel, where it was fitted.
        notes: What a reader of the figures should know, e.g. that LPIPS was off.
    """

    avatar: RiggedAvatar
    history: dict[str, list[float]]
    seconds: dict[str, float]
    iterations: int
    color_correction: Tensor | None
    notes: tuple[str, ...]


def fit(
    capture: Capture,
    config: FitConfig = FitConfig(),  # noqa: B008  (frozen)
    *,
    prior: Prior | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    callback: Callback | None = None,
) -> FitResult:
    """Fit an animatable Gaussian avatar to the frames of one split (GAF, section 4.2-4.4).

    Args:
        capture: Pictures, cameras, rig and its tracked parameters.
        config: See `FitConfig`.
        prior: Supplies targets for unseen views (`gafcore.fitting.prior`).
        out: Folder for checkpoints, the avatar (`gafcore.avatars.load_avatar` reads it) and history.json; nothing is written without it.
        resume: Go on from the newest checkpoint in `out`. On the CPU the result has the same bits as a run that was never interrupted.
        progress: Show progress on stderr.
        callback: Called after every iteration.

    Raises:
        InputError: The capture lacks what the configuration asks for, the checkpoint to resume from is another fit's, or `out` is a file
            or holds an unfinished fit and `resume` was not asked for.
        DivergedError: The loss or a parameter became NaN; the last checkpoint is intact.
        CheckpointError: A checkpoint could not be written; the one before it is intact.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was written first where there is an `out`.
    """
    folder = None if out is None else Path(out)
    if folder is not None:
        check_output_folder(folder)
        if not resume:
            check_no_unfinished(folder)
    numbers = training_frames(capture, config.split)
    identity = fingerprint(capture, numbers)
    if isinstance(prior, StatefulPrior):
        identity["prior"] = prior.identity
    terms = Terms(_perceptual(config), prior)
    if resume:
        state = _resume(folder, config, identity)
    else:
        state = _start(capture, numbers, config)
        if folder is not None:
            set_aside(folder)
    if isinstance(prior, StatefulPrior):
        prior.restore(state.prior)
    times, first = StageTimes(), state.iteration
    begin = time.perf_counter()
    events = folder / "tensorboard" if folder is not None and config.tensorboard else None
    with stop_requests() as stop, tensorboard(events) as writer, Display(config.iterations, state.iteration, progress) as display:
        rig, shared = bake_shape(capture.rig, person(state, capture.params))
        while state.iteration < config.iterations:
            frame = capture.frames[frame_at(config, state.iteration + 1, numbers)]
            step = take_step(state, rig, shared, frame, capture.background, config, terms, times)
            if is_round(config.density, state.iteration, config.iterations):
                with times.stage("density"):
                    density_round(state, triangle_sizes(rig.template, rig.faces), config)
            _report(state, step, display, writer, callback)
            _checkpoint_if_due(state, config, identity, folder, stop, prior)
    seconds = {**times.seconds, "total": time.perf_counter() - begin}
    check_finite(state)
    avatar = finished_avatar(state, capture.rig, person(state, capture.params), config.sh_degree)
    color = state.tensors.get("color")
    notes = _notes(config, prior)
    result = FitResult(avatar, state.history, seconds, state.iteration - first, None if color is None else color.detach().clone(), notes)
    if folder is not None:
        _save(folder, result, config, state.iteration)
    return result


def _start(capture: Capture, numbers: tuple[int, ...], config: FitConfig) -> FitState:
    avatar = initial_avatar(capture, numbers, opacity=config.init_opacity, sh_degree=config.sh_degree)
    return make_state(initial_tensors(avatar, config), avatar.binding, config)


def _resume(folder: Path | None, config: FitConfig, identity: dict[str, str]) -> FitState:
    if folder is None:
        raise ValueError("resume needs out, the folder that holds the checkpoints")
    return load_checkpoint(folder, config, identity)


def _perceptual(config: FitConfig):
    if config.lpips_weights is None or config.loss.lpips == 0:
        return None
    return load_lpips(config.lpips_weights)


def _report(state: FitState, step: StepResult, display: Display, writer: Any, callback: Callback | None) -> None:
    n = state.binding.shape[0]
    display.update(state.iteration, n, loss=step.loss, psnr=step.psnr)
    if state.iteration % _RECORD_EVERY == 0:
        state.record(iteration=state.iteration, loss=step.loss, psnr=step.psnr, n_gaussians=n)
        if writer is not None:
            for name, value in (("loss", step.loss), ("psnr", step.psnr), ("n_gaussians", n)):
                writer.add_scalar(name, value, state.iteration)
    if callback is not None:
        callback(state.iteration, step)


def _checkpoint_if_due(
    state: FitState, config: FitConfig, identity: dict[str, str], folder: Path | None, stop: StopRequest, prior: Prior | None
) -> None:
    """Write a checkpoint when it is time, at the end, or before obeying a signal."""
    finished = state.iteration == config.iterations
    stopping = stop.signal_number is not None and not finished
    due = config.checkpoint_every > 0 and (finished or state.iteration % config.checkpoint_every == 0)
    outdated = finished and folder is not None and (folder / FOLDER).is_dir()  # of an interrupt: it would say that the fit is unfinished
    if folder is not None and (due or stopping or outdated):
        check_finite(state)
        if isinstance(prior, StatefulPrior):
            state.prior = prior.state()
        save_checkpoint(folder, state, config, identity)
    if stopping:
        assert stop.signal_number is not None
        name = signal.Signals(stop.signal_number).name
        where = "nothing was kept: no output folder" if folder is None else f"resume with the checkpoint in {folder / FOLDER}"
        raise Interrupted(f"stopped by {name} after iteration {state.iteration} of {config.iterations}; {where}", stop.signal_number)


def _notes(config: FitConfig, prior: Prior | None) -> tuple[str, ...]:
    notes = []
    if config.lpips_weights is None:
        notes.append("The LPIPS term was off: no weights given (--lpips-weights).")
    if prior is None:
        notes.append("No prior on unseen views.")
    return tuple(notes)


def _save(folder: Path, result: FitResult, config: FitConfig, iteration: int) -> None:
    info = {"config": to_json(config), "notes": list(result.notes)}
    if result.color_correction is not None:
        info["color_correction"] = result.color_correction.tolist()
    save_avatar(result.avatar, folder, iteration=iteration, info=info)
    write_json(folder / "history.json", result.history)
    write_json(folder / "timing.json", {"iterations": result.iterations, "seconds": result.seconds})
    drop_previous(folder)
