"""A fit on a GPU: the CPU's within rounding, the same bits with graphs and without, and checkpoints that change device. `pytest -m gpu`."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest
import torch

from gafcore.avatars import render, storage
from gafcore.avatars.density import DensityConfig
from gafcore.captures.synthetic import SynthConfig, make
from gafcore.evaluation import evaluate
from gafcore.export.video import motion_shots, orbit_camera, orbit_shots, render_shots
from gafcore.fitting import (
    DivergedError,
    Execution,
    FitConfig,
    Interrupted,
    LearningRates,
    PriorViews,
    PseudoConfig,
    PseudoTruths,
    fit,
    graphs,
    make_prior,
)
from gafcore.ops import pair_room
from tests.cases.ball import ball_capture, ball_rig, with_picture_to_spoil
from tests.cases.small_prior import tiny_prior
from tests.kernels import gpu_obstacle

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(gpu_obstacle()), reason=f"no GPU to run on: {gpu_obstacle()}")]

STEADY = FitConfig(iterations=100, density=DensityConfig(start=999))
LIVELY = FitConfig(
    iterations=100, density=DensityConfig(start=20, every=20, grad_threshold=1e-4), sh_degree=1, sh_every=30, color_correction="frame"
)
GRAPHS, ONE_BY_ONE, CPU = Execution(device="cuda"), Execution(device="cuda", graph=False), Execution(device="cpu")


@pytest.fixture(autouse=True)
def known_rig(monkeypatch):
    """The ball is no rig that `load_rig` knows."""
    monkeypatch.setattr(storage, "load_rig", lambda *_, device="cpu", **__: ball_rig().to(device))
    pair_room.forget()


@pytest.fixture(autouse=True)
def no_failed_capture(recwarn):
    """A capture that fails is a warning to users and a failure here."""
    yield
    assert [str(w.message) for w in recwarn if "could not be captured" in str(w.message)] == []


@pytest.fixture(scope="module")
def capture():
    return ball_capture()


def run(capture, config, execution, **options):
    return fit(capture, config, progress=False, execution=execution, **options)


def tensors(result):
    rig = {f"rig.{name}": x for name, x in result.avatar.params.items() if x is not None}
    found = {**result.avatar.parameters(), "binding": result.avatar.binding, **rig}
    return {name: x.detach().cpu() for name, x in found.items()}


def assert_same_bits(a, b):
    for (name, x), y in zip(tensors(a).items(), tensors(b).values(), strict=True):
        assert torch.equal(x, y), name
    assert a.history == b.history


def assert_near(a, b, share):
    """Differences are a small share of how far the fit went."""
    start = tensors(run(ball_capture(), replace(STEADY, iterations=1), CPU))
    for (name, x), y in zip(tensors(a).items(), tensors(b).values(), strict=True):
        if name in start and x.shape == start[name].shape and x.is_floating_point():
            moved = (x - start[name]).abs().mean()
            assert (x - y).abs().mean() <= share * moved + 1e-7, f"{name}: {(x - y).abs().mean():.3g} apart, moved by {moved:.3g}"


def test_a_hundred_steps_are_the_cpus_within_rounding(capture):
    cpu, gpu = run(capture, STEADY, CPU), run(capture, STEADY, GRAPHS)
    assert gpu.avatar.means.device.type == "cuda"
    early = [abs(a / b - 1) for a, b in zip(gpu.history["loss"], cpu.history["loss"], strict=True)]
    assert max(early[:3]) < 1e-3, early
    assert max(early) < 1e-2, early
    assert_near(cpu, gpu, 0.02)


def test_with_density_rounds_counts_and_losses_stay_together(capture):
    """A gradient at the threshold may fall on either side of it, so counts agree roughly only; right after a round that split others
    losses were an eighth apart once."""
    cpu, gpu = run(capture, LIVELY, CPU), run(capture, LIVELY, GRAPHS)
    assert len(gpu.avatar) == pytest.approx(len(cpu.avatar), rel=0.1)
    assert max(cpu.history["n_gaussians"]) > 128
    assert gpu.history["loss"] == pytest.approx(cpu.history["loss"], rel=0.15)
    assert gpu.history["loss"][-1] == pytest.approx(cpu.history["loss"][-1], rel=0.1)
    assert gpu.history["loss"][:2] == pytest.approx(cpu.history["loss"][:2], rel=1e-3)


@pytest.mark.parametrize("config", [STEADY, LIVELY], ids=["steady", "lively"])
def test_graphs_give_the_bits_of_kernels_launched_one_by_one(capture, config, monkeypatch):
    made = []
    real = graphs.capture_graph
    monkeypatch.setattr("gafcore.fitting.loop.capture_graph", lambda fn: (made.append(1), real(fn))[1])
    with_graphs = run(capture, config, GRAPHS)
    assert len(made) >= (1 if config is STEADY else 5)
    assert_same_bits(with_graphs, run(capture, config, ONE_BY_ONE))
    assert_same_bits(with_graphs, run(capture, config, GRAPHS))


@pytest.mark.parametrize(("first", "then"), [(CPU, GRAPHS), (GRAPHS, CPU), (GRAPHS, ONE_BY_ONE)], ids=["cpu-gpu", "gpu-cpu", "gpu-gpu"])
def test_a_checkpoint_goes_on_on_another_device(capture, tmp_path, first, then):
    def stop(iteration, _):
        if iteration == 47:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped by SIGTERM after iteration 47 of 100"):
        run(capture, LIVELY, first, out=tmp_path, callback=stop)
    resumed = run(capture, LIVELY, then, out=tmp_path, resume=True)
    assert resumed.iterations == 53
    assert resumed.history["iteration"] == [10.0 * i for i in range(1, 11)]
    whole = run(capture, LIVELY, first)
    if first.device == then.device:
        assert_same_bits(resumed, whole)
    else:
        assert resumed.history["loss"][:4] == whole.history["loss"][:4]
        assert resumed.history["loss"] == pytest.approx(whole.history["loss"], rel=0.1)


def test_renders_and_figures_are_the_cpus(capture, tmp_path):
    run(capture, replace(LIVELY, color_correction="none"), GRAPHS, out=tmp_path)
    here, there = (storage.load_avatar(tmp_path, device=device) for device in ("cpu", "cuda"))
    frame = capture.frames[3]
    want, got = (render(a, [frame.camera], a.params[frame.timestep]).image.cpu() for a in (here, there))
    assert (want - got).abs().max() < 1 / 255
    figures = [evaluate(a, capture, progress=False) for a in (here, there)]
    for split in figures[0].splits:
        for name, value in figures[0].mean(split).items():
            assert figures[1].mean(split)[name] == pytest.approx(value, rel=1e-3), (split, name)
    motion = next(tmp_path.glob("**/flame_param.npz"))
    shots = [[*orbit_shots(a, 3, 48, 40), *motion_shots(a, motion, orbit_camera(48, 40))[:2]] for a in (here, there)]
    for a, b in zip(render_shots(here, shots[0]), render_shots(there, shots[1], torch.ones(3)), strict=True):
        assert abs(a.astype(int) - b.astype(int)).max() <= 1


@pytest.mark.parametrize("yields", [0.0, 4.0], ids=["in-one-sum", "giving-way"])
def test_a_prior_that_says_nothing_of_devices_is_asked_on_the_cpu(capture, yields):
    side = capture.frames[1].camera
    black = torch.zeros(1, side.height, side.width, 3)

    def prior(request):
        seen = (request.vertices, request.background, request.params.expr, request.rig.template, request.render([side]))
        assert {x.device.type for x in (*seen, request.frame.image(), request.frame.mask())} == {"cpu"}
        return PriorViews([side], black, weight=5.0, timestep=1, background=torch.zeros(3), mask=torch.ones(1, 48, 48), yields=yields)

    config = replace(STEADY, iterations=20)
    assert run(capture, config, GRAPHS, prior=prior).history["loss"] == pytest.approx(
        run(capture, config, CPU, prior=prior).history["loss"], rel=1e-3
    )


def with_prior(capture, execution, config, truths, **options):
    """The result, every iteration's loss, and where the networks were given their inputs."""
    losses, devices = [], set()
    networks = (truths.prior.regression, truths.prior.diffusion)
    hooks = [n.register_forward_pre_hook(lambda _, args: devices.update(x.device.type for x in args)) for n in networks]
    result = run(capture, config, execution, prior=truths, callback=lambda _, step: losses.append(step.loss), **options)
    for hook in hooks:
        hook.remove()
    assert {x.device.type for n in networks for x in n.parameters()} == {execution.device}
    return result, losses, devices


def targets_apart(a, b):
    """Of two priors' pools, in steps of their 8 bits, a row a set."""
    return (a.state()["targets"].int() - b.state()["targets"].int()).abs().float().flatten(1)


@pytest.mark.parametrize("start", ["regression", "refined", "render", "sds"])
def test_the_small_prior_says_there_what_it_says_on_the_cpu(capture, start, monkeypatch):
    """The first set up to rounding, TF32 apart; what follows is about avatars that go apart themselves."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    config, pseudo = replace(STEADY, iterations=20), PseudoConfig(prior_start=start, refresh_every=5)
    truths = [PseudoTruths(tiny_prior(), pseudo) for _ in range(2)]
    cpu, wanted, _ = with_prior(capture, CPU, config, truths[0])
    gpu, losses, devices = with_prior(capture, GRAPHS, config, truths[1])
    assert devices == {"cuda"}
    assert {x.device.type for x in truths[1].state().values()} == {"cpu"}
    assert losses[:5] == pytest.approx(wanted[:5], rel=2e-3) and losses == pytest.approx(wanted, rel=2e-2)
    assert cpu.notes == gpu.notes
    pools = [t.state() for t in truths]
    for name in ("viewmats", "Ks", "background", "timestep", "side"):
        torch.testing.assert_close(pools[0][name], pools[1][name], rtol=1e-3, atol=1e-4)
    apart = targets_apart(*truths)
    assert (apart[0] > 1).float().mean() < (0.05 if start == "sds" else 0.01) and apart.mean() < 0.5


def test_the_shipped_prior_on_a_head_with_tf32_as_torch_has_it():
    head = make(SynthConfig(size=128, n_timesteps=4, eval_timesteps=1, seed=5)).capture
    config, truths = replace(STEADY, iterations=10), [make_prior("small", PseudoConfig(refresh_every=5)) for _ in range(2)]
    _, wanted, _ = with_prior(head, CPU, config, truths[0])
    _, losses, devices = with_prior(head, GRAPHS, config, truths[1])
    assert devices == {"cuda"}
    assert losses == pytest.approx(wanted, rel=1e-2)
    assert truths[1]._trust.psnr == pytest.approx(truths[0]._trust.psnr, abs=0.1)  # dB; 0.03 seen on an H200
    apart = targets_apart(*truths)
    assert apart[0].mean() < 0.05 and apart.mean() < 0.5


def test_with_the_small_prior_every_run_gives_the_same_bits(capture):
    results = [with_prior(capture, GRAPHS, LIVELY, PseudoTruths(tiny_prior(), PseudoConfig(refresh_every=5)))[0] for _ in range(2)]
    assert_same_bits(*results)


@pytest.mark.parametrize("start", ["regression", "render"])
@pytest.mark.parametrize("config", [replace(STEADY, iterations=30), replace(LIVELY, iterations=30)], ids=["steady", "lively"])
def test_with_the_small_prior_graphs_give_the_bits_of_kernels_launched_one_by_one(capture, config, start, monkeypatch):
    """Over three sets, the later two between replays."""
    made, pseudo = [], PseudoConfig(refresh_every=10, prior_start=start)
    real = graphs.capture_graph
    monkeypatch.setattr("gafcore.fitting.loop.capture_graph", lambda fn: (made.append(1), real(fn))[1])
    truths = [PseudoTruths(tiny_prior(), pseudo) for _ in range(2)]
    with_graphs, losses, _ = with_prior(capture, GRAPHS, config, truths[0])
    assert len(made) >= (1 if config.sh_degree == 0 else 2)
    one_by_one, wanted, _ = with_prior(capture, ONE_BY_ONE, config, truths[1])
    assert_same_bits(with_graphs, one_by_one)
    assert losses == wanted and len(truths[0].state()["timestep"]) == 3
    assert all(torch.equal(x, truths[1].state()[name]) for name, x in truths[0].state().items())


@pytest.mark.parametrize(("first", "then"), [(CPU, GRAPHS), (GRAPHS, CPU), (GRAPHS, GRAPHS)], ids=["cpu-gpu", "gpu-cpu", "gpu-gpu"])
def test_a_checkpoint_with_a_pool_changes_device(capture, tmp_path, first, then):
    def stop(iteration, _):
        if iteration == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    config, pseudo = replace(STEADY, iterations=20), PseudoConfig(refresh_every=5)
    with pytest.raises(Interrupted):
        run(capture, config, first, out=tmp_path, callback=stop, prior=PseudoTruths(tiny_prior(), pseudo))
    resumed, _, devices = with_prior(capture, then, config, PseudoTruths(tiny_prior(), pseudo), out=tmp_path, resume=True)
    assert resumed.iterations == 13 and devices == {then.device}
    whole, _, _ = with_prior(capture, first, config, PseudoTruths(tiny_prior(), pseudo))
    if first.device == then.device:
        assert_same_bits(resumed, whole)
    else:
        assert resumed.history["loss"] == pytest.approx(whole.history["loss"], rel=2e-2)


def test_a_divergence_is_found_before_anything_is_written(capture, tmp_path):
    broken, spoil = with_picture_to_spoil(capture)
    config, execution = replace(STEADY, iterations=60, checkpoint_every=20), Execution(device="cuda", picture_mb=0)
    with pytest.raises(DivergedError, match=r"iteration (8|9|10|11): the loss is nan on the frame of timestep 0, camera 0"):
        run(broken, config, execution, out=tmp_path, callback=lambda i, _: spoil() if i == 7 else None)
    assert not (tmp_path / "checkpoints" / "latest.json").exists()
    assert run(capture, replace(STEADY, iterations=10), GRAPHS).history["loss"][0] < 1  # usable afterwards


def test_parameters_that_are_not_finite_are_never_written(capture, tmp_path):
    config = replace(STEADY, iterations=40, checkpoint_every=20, lr=LearningRates(quats=1e300))
    with pytest.raises(DivergedError, match="after iteration 20: quats holds NaN or infinity|iteration .*: the loss is"):
        run(capture, config, GRAPHS, out=tmp_path)
    assert not (tmp_path / "checkpoints" / "latest.json").exists()


def test_figures_seen_by_a_callback_are_those_of_its_iteration(capture):
    steps = []
    result = run(capture, replace(STEADY, iterations=30), GRAPHS, callback=lambda _, step: steps.append(step))
    assert [steps[i].loss for i in (9, 19, 29)] == result.history["loss"]
    assert len({step.loss for step in steps}) == 30
