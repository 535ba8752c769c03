from __future__ import annotations

import errno
import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gafcore.avatars import render, storage
from gafcore.avatars.density import DensityConfig
from gafcore.errors import InputError, MissingError
from gafcore.fitting import CheckpointError, DivergedError, FitConfig, Interrupted, LearningRates, PriorViews, checkpoint, fit
from gafcore.fitting.step import StepResult
from gafcore.types import Capture
from tests.cases.ball import ball_capture, ball_rig, with_picture_to_spoil

QUICK = FitConfig(iterations=12, density=DensityConfig(start=4, every=4, grad_threshold=1e-5), checkpoint_every=6, sh_degree=1, sh_every=5)


@pytest.fixture(scope="module")
def capture() -> Capture:
    return ball_capture()


@pytest.fixture(autouse=True)
def known_rig(monkeypatch):
    """The ball is no rig that `load_rig` knows."""
    monkeypatch.setattr(storage, "load_rig", lambda *_, **__: ball_rig())


def run(capture: Capture, config: FitConfig = QUICK, **options):
    return fit(capture, config, progress=False, **options)


def tensors(result) -> dict[str, torch.Tensor]:
    avatar = result.avatar
    rig = {f"rig.{name}": x for name, x in avatar.params.items() if x is not None}
    return {**avatar.parameters(), "binding": avatar.binding, **rig}


def assert_same_bits(a, b) -> None:
    for (name, x), y in zip(tensors(a).items(), tensors(b).values(), strict=True):
        assert torch.equal(x, y), name
    assert a.history == b.history


def test_a_fit_learns_and_generalises(capture):
    config = FitConfig(iterations=150, background="white", density=DensityConfig(start=50, every=50))
    result = run(capture, config)
    frame = capture.frames[0]
    truth = frame.image()
    image = render(result.avatar, [frame.camera], result.avatar.params[frame.timestep]).image[0]
    assert float((image - truth).square().mean()) < 1e-3  # 30 dB
    assert result.history["psnr"][-1] > result.history["psnr"][0] + 3
    assert result.history["iteration"] == [10.0 * i for i in range(1, 16)]
    assert result.iterations == 150 and result.seconds["total"] > 0
    assert "The LPIPS term was off" in result.notes[0]


def test_the_folder_it_leaves(capture, tmp_path):
    result = run(capture, out=tmp_path)
    loaded = storage.load_avatar(tmp_path)
    frame = capture.frames[1]
    want, got = (render(a, [frame.camera], a.params[frame.timestep]).image for a in (result.avatar, loaded))
    assert torch.equal(want, got)
    assert json.loads((tmp_path / "history.json").read_text()) == result.history
    assert (tmp_path / "point_cloud/iteration_12/point_cloud.ply").is_file()
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["latest.json", "step_000012.safetensors"]
    timing = json.loads((tmp_path / "timing.json").read_text())
    assert {"rig", "bind", "render", "loss", "backward", "optimiser", "total"} <= set(timing["seconds"])


def test_same_seed_same_bits(capture):
    assert_same_bits(run(capture), run(capture))


def stop_after(n: int):
    def callback(iteration: int, _: StepResult) -> None:
        if iteration == n:
            os.kill(os.getpid(), signal.SIGTERM)

    return callback


@pytest.mark.parametrize("at", [1, 5, 8])
def test_interrupted_and_resumed_equals_uninterrupted(capture, tmp_path, at):
    """Before, between and right after density rounds, with a degree of colour that has not started yet and one that has."""
    config = replace(QUICK, color_correction="frame", background="random")
    with pytest.raises(Interrupted, match=f"stopped by SIGTERM after iteration {at} of 12; resume with the checkpoint") as caught:
        run(capture, config, out=tmp_path, callback=stop_after(at))
    assert caught.value.exit_code == 143
    resumed = run(capture, config, out=tmp_path, resume=True)
    assert resumed.iterations == 12 - at
    assert_same_bits(resumed, run(capture, config))


def test_ctrl_c_without_a_folder(capture):
    before = signal.getsignal(signal.SIGINT)

    def press(_: int, __: StepResult) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="nothing was kept: no output folder") as caught:
        run(capture, callback=press)
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_a_fit_on_another_thread_leaves_signals_alone(capture):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(capture, replace(QUICK, iterations=2))))
    thread.start()
    thread.join(60)
    assert results[0].iterations == 2


def test_resume_refuses_another_fit(capture, tmp_path):
    with pytest.raises(MissingError, match="no checkpoint to resume from"):
        run(capture, out=tmp_path, resume=True)
    run(capture, replace(QUICK, iterations=6), out=tmp_path)
    with pytest.raises(InputError, match=r"made with another config: 'iterations' differs \(checkpoint 6, now 12\)"):
        run(capture, out=tmp_path, resume=True)
    config = replace(QUICK, iterations=6)
    with pytest.raises(InputError, match=r"'lr.means' differs \(checkpoint 0.005, now 0.1\)"):
        run(capture, replace(config, lr=LearningRates(means=0.1)), out=tmp_path, resume=True)
    other = replace(capture, params=replace(capture.params, expr=capture.params.expr + 1))
    with pytest.raises(InputError, match="made with another capture: 'rig parameters' differs"):
        run(other, config, out=tmp_path, resume=True)
    fewer = replace(capture, splits={"train": capture.splits["train"][1:]})
    with pytest.raises(InputError, match="made with another capture: 'cameras' differs"):
        run(fewer, config, out=tmp_path, resume=True)
    with pytest.raises(ValueError, match="resume needs out"):
        run(capture, resume=True)


def test_resuming_a_finished_fit_gives_it_again(capture, tmp_path):
    first = run(capture, out=tmp_path)
    again = run(capture, out=tmp_path, resume=True)
    assert again.iterations == 0
    assert_same_bits(first, again)


def test_a_damaged_checkpoint_is_refused(capture, tmp_path):
    run(capture, out=tmp_path)
    path = tmp_path / "checkpoints/step_000012.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="does not match its SHA-256"):
        run(capture, out=tmp_path, resume=True)
    path.unlink()
    with pytest.raises(InputError, match="step_000012.safetensors: not readable"):
        run(capture, out=tmp_path, resume=True)


def test_a_full_disk_leaves_the_last_checkpoint(capture, tmp_path, monkeypatch):
    """No space when the second checkpoint is written: the fit ends clearly, and goes on from the first one once there is room."""

    full = []

    def no_space(_: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", no_space)
    with pytest.raises(
        CheckpointError, match="step_000012.safetensors: checkpoint not written: the disk is full; the last good one is iteration 6"
    ):
        run(capture, out=tmp_path, callback=lambda i, _: full.append(i) if i == 7 else None)
    monkeypatch.undo()
    monkeypatch.setattr(storage, "load_rig", lambda *_, **__: ball_rig())
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["latest.json", "step_000006.safetensors"]
    assert_same_bits(run(capture, out=tmp_path, resume=True), run(capture))


def test_nan_ends_the_fit_and_leaves_the_last_checkpoint(capture, tmp_path):
    broken, spoil = with_picture_to_spoil(capture)
    with pytest.raises(DivergedError, match=r"iteration \d+: the loss is nan on the frame of timestep 0, camera 0"):
        run(broken, out=tmp_path, callback=lambda i, _: spoil() if i == 7 else None)
    assert json.loads((tmp_path / "checkpoints/latest.json").read_text())["iteration"] == 6
    assert_same_bits(run(capture, out=tmp_path, resume=True), run(capture))


@pytest.mark.parametrize("every", [0, 6])
def test_nan_that_the_loss_does_not_show_is_never_written(capture, tmp_path, every):
    config = replace(QUICK, lr=LearningRates(quats=1e300), checkpoint_every=every, density=DensityConfig(start=99))
    with pytest.raises(DivergedError, match=rf"after iteration {every or 12}: quats holds NaN or infinity; try smaller learning rates"):
        run(capture, config, out=tmp_path)
    assert not (tmp_path / "checkpoints/latest.json").exists() and not (tmp_path / "avatar.json").exists()


def test_a_new_fit_does_not_leave_an_old_ones_checkpoint(capture, tmp_path):
    run(capture, out=tmp_path)
    with pytest.raises(Interrupted):
        run(capture, out=tmp_path, callback=stop_after(2))
    assert json.loads((tmp_path / "checkpoints/latest.json").read_text())["iteration"] == 2
    assert not (tmp_path / "avatar.json").exists()  # the old one's would be taken for this one's
    run(capture, out=tmp_path, resume=True)
    assert storage.load_avatar(tmp_path)
    assert not list(tmp_path.glob("*previous*"))


def test_a_finished_fits_checkpoint_stays_until_the_next_one_has_its_first(capture, tmp_path):
    run(capture, out=tmp_path)

    def crash(iteration: int, _: StepResult) -> None:
        if iteration == 3:
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        run(capture, out=tmp_path, callback=crash)
    assert (tmp_path / "checkpoints.previous/step_000012.safetensors").exists() and (tmp_path / "avatar.previous.json").exists()
    with pytest.raises(MissingError, match="no checkpoint to resume from"):
        run(capture, out=tmp_path, resume=True)


def test_an_unfinished_fit_is_not_overwritten(capture, tmp_path):
    with pytest.raises(Interrupted):
        run(capture, out=tmp_path, callback=stop_after(8))
    with pytest.raises(InputError, match=r"unfinished fit \(iteration 8 of 12\); use --resume, or another --out, or remove .*checkpoints"):
        run(capture, out=tmp_path)
    (tmp_path / "checkpoints/latest.json").write_text("{")
    with pytest.raises(InputError, match=r"not readable as JSON .*; use --resume, or another --out"):
        run(capture, out=tmp_path)
    assert (tmp_path / "checkpoints/step_000008.safetensors").exists()


def test_a_fit_resumed_without_checkpoints_counts_as_finished(capture, tmp_path):
    config = replace(QUICK, checkpoint_every=0)
    with pytest.raises(Interrupted):
        run(capture, config, out=tmp_path, callback=stop_after(8))
    run(capture, config, out=tmp_path, resume=True)
    assert json.loads((tmp_path / "checkpoints/latest.json").read_text())["iteration"] == 12
    run(capture, config, out=tmp_path)
    assert not (tmp_path / "checkpoints").exists() and (tmp_path / "avatar.json").exists()


def test_a_file_in_the_way_is_refused_before_any_work(capture, tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(InputError, match="x: is a file"):
        run(capture, out=tmp_path / "x", callback=lambda *_: pytest.fail("began"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells which file a descriptor is")
def test_older_checkpoints_go_only_when_the_pointer_is_on_the_disk(capture, tmp_path, monkeypatch):
    events = []
    sync, unlink = os.fsync, Path.unlink
    monkeypatch.setattr(os, "fsync", lambda d: (events.append(Path(os.readlink(f"/proc/self/fd/{d}")).name), sync(d)))
    monkeypatch.setattr(Path, "unlink", lambda p, **k: (events.append(f"unlink {p.name}"), unlink(p, **k)))
    run(capture, out=tmp_path)
    second = ["step_000012.safetensors", "checkpoints", "latest.json", "checkpoints", "unlink step_000006.safetensors"]
    assert events[4:9] == second


def test_a_prior_joins_the_loss(capture):
    """A prior that wants the side view black: it is asked every iteration, sees renders, and pulls them towards black."""
    side = capture.frames[1].camera
    black = torch.zeros(1, side.height, side.width, 3)
    requests = []

    def prior(request):
        requests.append((request.iteration, float(request.render([side]).mean()), float(torch.rand(1, generator=request.generator))))
        assert len(request.params) == 1 and not request.params.expr.requires_grad
        return PriorViews([side], black, weight=5.0) if request.iteration % 2 else None

    config = replace(QUICK, sh_degree=0, lr=LearningRates(colors=0.1))
    pulled = run(capture, config, prior=prior)
    assert [i for i, *_ in requests] == list(range(1, 13))
    assert requests[-1][1] < requests[0][1] - 0.02
    assert len({draw for *_, draw in requests}) == 12
    free = run(capture, config)
    params = capture.params[0]
    assert float(render(pulled.avatar, [side], params).image.mean()) < float(render(free.avatar, [side], params).image.mean()) - 0.02
    assert "No prior on unseen views." in free.notes and "No prior on unseen views." not in pulled.notes


def test_a_priors_targets_must_fit_its_cameras(capture):
    camera = capture.frames[1].camera
    expected = r"targets must be \[1, 48, 48, 3\] for its cameras, or smaller by a whole factor, got \[1, 9, 9, 3\]"
    with pytest.raises(ValueError, match=expected):
        run(capture, prior=lambda _: PriorViews([camera], torch.zeros(1, 9, 9, 3)))


def test_a_camera_that_adapts_is_matched(capture):
    """Every other picture brighter by a quarter: with a correction a frame the fit explains it, without it cannot."""
    frames = tuple(
        replace(f, image=lambda f=f: 1 - f.mask()[..., None] + 1.25 * (f.image() - (1 - f.mask()[..., None]))) if f.timestep % 2 else f
        for f in capture.frames
    )
    uneven = replace(capture, frames=frames)
    rates = LearningRates(color_correction=0.01)
    plain, matched = (run(uneven, FitConfig(iterations=120, background="white", lr=rates, color_correction=c)) for c in ("none", "frame"))
    assert plain.color_correction is None and matched.color_correction.shape == (4, 2, 3)
    assert matched.history["psnr"][-1] > plain.history["psnr"][-1] + 1
    gain = matched.color_correction[:, 0].exp().mean(-1)
    assert float((gain[1::2] / gain[::2]).min()) > 1.1
    assert run(uneven, replace(QUICK, color_correction="shared")).color_correction.shape == (1, 2, 3)


def test_the_rig_is_tuned_on_training_timesteps_only(capture):
    some = replace(capture, splits={"train": (0, 2, 4)})
    tuned = run(some, replace(QUICK, iterations=9)).avatar.params
    assert not torch.equal(tuned.expr[:3], capture.params.expr[:3])
    assert torch.equal(tuned.expr[3], capture.params.expr[3])
    assert torch.equal(tuned.shape, capture.params.shape)
    still = run(some, replace(QUICK, iterations=3, tune_rig=False)).avatar.params
    assert torch.equal(still.expr, capture.params.expr) and torch.equal(still.rotation, capture.params.rotation)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"test": (0,)}, r"no frames in split 'train'; it has \['test'\]"),
        ({"train": ()}, "no frames in split 'train'"),
        ({"train": (0, 2), "test": (2,)}, "frame 2 is in the splits 'train' and 'test'"),
    ],
)
def test_splits_are_checked(capture, splits, message):
    with pytest.raises(InputError, match=message):
        run(replace(capture, splits=splits))


def test_pictures_are_checked(capture):
    def with_frame(**changes) -> Capture:
        return replace(capture, frames=(replace(capture.frames[0], **changes),), splits={"train": (0,)})

    with pytest.raises(InputError, match=r"frame of timestep 0, camera 0: the picture is \(5, 48, 3\), its camera says \(48, 48, 3\)"):
        run(with_frame(image=lambda: torch.zeros(5, 48, 3)))
    with pytest.raises(InputError, match="has no mask, so its background"):
        run(with_frame(mask=None), replace(QUICK, background="black"))


def test_tensorboard_is_optional(capture, tmp_path, monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingError, match=r"pip install gafcore\[tensorboard\]"):
        run(capture, replace(QUICK, iterations=1, tensorboard=True), out=tmp_path)


def test_progress_off_a_terminal_is_a_few_lines(capture, capsys):
    fit(capture, replace(QUICK, iterations=10))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("fit 10/10  loss 0.") and "Gaussians" in lines[-1] and "it/s" in lines[-1]
