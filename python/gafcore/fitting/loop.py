"""Fitting an avatar to a capture, from the first Gaussian to the saved folder."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gafcore.avatars.appearance import initial_avatar
from gafcore.avatars.density import is_round
from gafcore.avatars.frames import describe
from gafcore.avatars.rigged import RiggedAvatar, triangle_sizes
from gafcore.avatars.storage import save_avatar
from gafcore.devices import resolve
from gafcore.files import check_output_folder, write_json
from gafcore.fitting.checkpoint import FOLDER, check_no_unfinished, drop_previous, load_checkpoint, save_checkpoint, set_aside
from gafcore.fitting.config import FitConfig, to_json
from gafcore.fitting.data import fingerprint, training_frames
from gafcore.fitting.display import Display, tensorboard
from gafcore.fitting.execution import Execution, own_stream
from gafcore.fitting.graphs import Capture as GraphCapture
from gafcore.fitting.graphs import StepGraphs, capture_graph
from gafcore.fitting.inputs import Inputs, Pictures, make_inputs
from gafcore.fitting.interrupts import Interrupted, StopRequest, stop_requests
from gafcore.fitting.losses import Perceptual
from gafcore.fitting.lpips import load_lpips
from gafcore.fitting.prior import DevicePrior, MeasuredPrior, Prior, StatefulPrior
from gafcore.fitting.readings import Reading, Readings, StepResult
from gafcore.fitting.schedule import background_at, frame_at
from gafcore.fitting.state import FitState, density_round, finished_avatar, initial_tensors, make_state, person
from gafcore.fitting.step import Scene, StageTimes, Terms, bake_shape, check_finite, take_step
from gafcore.rigs import Rig
from gafcore.types import Capture, Frame, RigParams

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
    execution: Execution = Execution(device="cpu"),  # noqa: B008  (frozen)
) -> FitResult:
    """Fit an animatable Gaussian avatar to the frames of one split (GAF, section 4.2-4.4).

    Args:
        capture: Pictures, cameras, rig and its tracked parameters.
        config: See `FitConfig`.
        prior: Supplies targets for unseen views (`gafcore.fitting.prior`).
        out: Folder for checkpoints, the avatar (`gafcore.avatars.load_avatar` reads it) and history.json; nothing is written without it.
        resume: Go on from the newest checkpoint in `out`. On the CPU the result has the same bits as a run that was never interrupted.
        progress: Show progress on stderr.
        callback: Called after every iteration. On a GPU, looking at its figures waits for the iteration to end.
        execution: On which device, and how: nothing that the result depends on but for rounding. The first avatar is made on the CPU, so
            all devices start from the same bits, and random numbers are the same everywhere.

    Raises:
        InputError: The capture lacks what the configuration asks for, the device cannot be used, the checkpoint to resume from is another
            fit's, or `out` is a file or holds an unfinished fit and `resume` was not asked for.
        DivergedError: The loss or a parameter became NaN; the last checkpoint is intact. On a GPU that is noticed some iterations later,
            but before anything is written.
        CheckpointError: A checkpoint could not be written; the one before it is intact.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was written first where there is an `out`.
    """
    folder = None if out is None else Path(out)
    device = resolve(execution.device)
    if folder is not None:
        check_output_folder(folder)
        if not resume:
            check_no_unfinished(folder)
    numbers = training_frames(capture, config.split)
    identity = fingerprint(capture, numbers)
    asked = prior.move_to(device) if isinstance(prior, DevicePrior) else torch.device("cpu")
    if isinstance(prior, StatefulPrior):
        identity["prior"] = prior.identity
    state = _resume(folder, config, identity, device) if resume else _start(capture, numbers, config, device)
    if isinstance(prior, StatefulPrior):
        prior.restore(state.prior)
    if isinstance(prior, MeasuredPrior) and not resume:
        prior.measure(replace(capture, params=person(state, capture.params).to("cpu")), numbers)
    if folder is not None and not resume:
        set_aside(folder)  # when nothing more can be wrong with what was given
    rig, tracked = capture.rig, capture.params
    if device.type != "cpu":
        rig, tracked = rig.to(device), tracked.to(device)
    run = _Run(capture, numbers, config, identity, folder, prior, callback, execution)
    first = state.iteration
    begin = time.perf_counter()
    terms = Terms(_perceptual(config, device), prior)
    with own_stream(device):
        run.iterate(state, _scene(rig, person(state, tracked), capture, config, terms, asked), progress)
    seconds = {**run.times.seconds, "total": time.perf_counter() - begin}
    check_finite(state)
    avatar = finished_avatar(state, rig, person(state, tracked), config.sh_degree)
    color = state.tensors.get("color")
    notes = _notes(config, prior)
    result = FitResult(avatar, state.history, seconds, state.iteration - first, None if color is None else color.detach().clone(), notes)
    if folder is not None:
        _save(folder, result, config, state.iteration)
    return result


@dataclass
class _Run:
    """The iterations of one call of `fit`: what goes in and out of them besides the state."""

    capture: Capture
    numbers: tuple[int, ...]
    config: FitConfig
    identity: dict[str, str]
    folder: Path | None
    prior: Prior | None
    callback: Callback | None
    execution: Execution
    times: StageTimes = field(default_factory=StageTimes)
    readings: Readings = field(default_factory=Readings)

    def iterate(self, state: FitState, scene: Scene, progress: bool) -> None:
        """All iterations that are left."""
        config, device = self.config, state.binding.device
        graphs = StepGraphs(scene, graph_of) if self.execution.graph and (graph_of := graphs_on(device)) is not None else None
        at_once = device.type == "cpu" and graphs is None  # there, looking at a loss costs nothing
        pictures = None if at_once else Pictures(device, self.execution.picture_mb * 1_000_000)
        if at_once:
            self.readings = Readings(together=1)
        events = self.folder / "tensorboard" if self.folder is not None and config.tensorboard else None
        with (
            stop_requests() as stop,
            tensorboard(events) as writer,
            Display(config.iterations, state.iteration, progress) as display,
        ):
            report = partial(self._report, state, display, writer)
            while state.iteration < config.iterations:
                frame, inputs = self._next(state.iteration + 1, pictures, kept=scene.rig_of_prior is None)
                step = None if graphs is None else graphs.take_step(state, inputs, self.times)
                step = take_step(state, scene, frame, inputs, self.times, look=at_once) if step is None else step
                if is_round(config.density, state.iteration, config.iterations):
                    with self.times.stage("density"):
                        density_round(state, triangle_sizes(scene.rig.template, scene.rig.faces), config)
                self.readings.add(state.iteration, describe(frame), state.binding.shape[0], step)
                report(self.readings.arrived())
                if self.callback is not None:
                    self.callback(state.iteration, step)
                self._checkpoint_if_due(state, stop, report)
            report(self.readings.arrived(all_of_them=True))

    def _next(self, iteration: int, pictures: Pictures | None, *, kept: bool) -> tuple[Frame, Inputs]:
        """The frame, and as `inputs`; with `kept`, its own picture is the one in `pictures`, too."""
        with self.times.stage("picture"):
            number = frame_at(self.config, iteration, self.numbers)
            frame = self.capture.frames[number]
            inputs = make_inputs(number, frame, self.capture.background, background_at(self.config, iteration), pictures)
            return frame if pictures is None or not kept else pictures.on_device(number, frame), inputs

    @staticmethod
    def _report(state: FitState, display: Display, writer: Any, readings: list[Reading]) -> None:
        for r in readings:
            display.update(r.iteration, r.n_gaussians, loss=r.loss, psnr=r.psnr)
            if r.iteration % _RECORD_EVERY == 0:
                state.record(iteration=r.iteration, loss=r.loss, psnr=r.psnr, n_gaussians=r.n_gaussians)
                if writer is not None:
                    for name, value in (("loss", r.loss), ("psnr", r.psnr), ("n_gaussians", r.n_gaussians)):
                        writer.add_scalar(name, value, r.iteration)

    def _checkpoint_if_due(self, state: FitState, stop: StopRequest, report: Callable[[list[Reading]], None]) -> None:
        """Write a checkpoint when it is time, at the end, or before obeying a signal."""
        config, folder = self.config, self.folder
        finished = state.iteration == config.iterations
        stopping = stop.signal_number is not None and not finished
        due = config.checkpoint_every > 0 and (finished or state.iteration % config.checkpoint_every == 0)
        # An interrupt's checkpoint would go on saying that the fit is unfinished.
        outdated = finished and folder is not None and (folder / FOLDER).is_dir()
        if folder is not None and (due or stopping or outdated):
            report(self.readings.arrived(all_of_them=True))  # its history, and whether any of these iterations diverged
            check_finite(state)
            if isinstance(self.prior, StatefulPrior):
                state.prior = self.prior.state()
            save_checkpoint(folder, state, config, self.identity)
        if stopping:
            assert stop.signal_number is not None
            name = signal.Signals(stop.signal_number).name
            where = "nothing was kept: no output folder" if folder is None else f"resume with the checkpoint in {folder / FOLDER}"
            raise Interrupted(f"stopped by {name} after iteration {state.iteration} of {config.iterations}; {where}", stop.signal_number)


def graphs_on(device: torch.device) -> GraphCapture | None:
    """How iterations on `device` are made repeatable, if they can be."""
    return capture_graph if device.type == "cuda" else None


def _scene(rig: Rig, who: RigParams, capture: Capture, config: FitConfig, terms: Terms, asked: torch.device) -> Scene:
    """`asked`: where the prior is."""
    baked, shared = bake_shape(rig, who)
    elsewhere = terms.prior is not None and baked.template.device != asked
    return Scene(baked, shared, capture.background, config, terms, baked.to(asked) if elsewhere else None)


def _start(capture: Capture, numbers: tuple[int, ...], config: FitConfig, device: torch.device) -> FitState:
    """On every device from the same bits: the first avatar is made on the CPU."""
    avatar = initial_avatar(capture, numbers, opacity=config.init_opacity, sh_degree=config.sh_degree)
    tensors = {name: x.to(device) for name, x in initial_tensors(avatar, config).items()}
    return make_state(tensors, avatar.binding.to(device), config)


def _resume(folder: Path | None, config: FitConfig, identity: dict[str, str], device: torch.device) -> FitState:
    if folder is None:
        raise ValueError("resume needs out, the folder that holds the checkpoints")
    return load_checkpoint(folder, config, identity, device)


def _perceptual(config: FitConfig, device: torch.device) -> Perceptual | None:
    if config.lpips_weights is None or config.loss.lpips == 0:
        return None
    return load_lpips(config.lpips_weights).to(device)


def _notes(config: FitConfig, prior: Prior | None) -> tuple[str, ...]:
    notes = []
    if config.lpips_weights is None:
        notes.append("The LPIPS term was off: no weights given (--lpips-weights).")
    if prior is None:
        notes.append("No prior on unseen views.")
    if isinstance(prior, MeasuredPrior):
        notes += prior.notes()
    return tuple(notes)


def _save(folder: Path, result: FitResult, config: FitConfig, iteration: int) -> None:
    info = {"config": to_json(config), "notes": list(result.notes)}
    if result.color_correction is not None:
        info["color_correction"] = result.color_correction.tolist()
    save_avatar(result.avatar, folder, iteration=iteration, info=info)
    write_json(folder / "history.json", result.history)
    write_json(folder / "timing.json", {"iterations": result.iterations, "seconds": result.seconds})
    drop_previous(folder)
