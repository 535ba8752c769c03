"""The captured iteration, without a GPU: a stand-in for the capture runs the iteration again on the memory it was given."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gafcore.avatars.density import DensityConfig
from gafcore.cameras import resize
from gafcore.fitting import DivergedError, Execution, FitConfig, PriorViews, PseudoConfig, PseudoTruths, fit, loop
from gafcore.fitting.graphs import KINDS, WARM_UP, StepGraphs
from gafcore.fitting.inputs import Pictures, make_inputs
from gafcore.fitting.lpips import Lpips, expected_shapes
from gafcore.fitting.schedule import background_at
from gafcore.fitting.state import FitState
from gafcore.fitting.step import Scene, StageTimes, Terms, take_step
from gafcore.ops import pair_room
from tests.cases.ball import ball_capture, with_picture_to_spoil
from tests.cases.small_prior import tiny_prior

DENSITY = DensityConfig(start=10, every=10, grad_threshold=1e-5)
CONFIG = FitConfig(iterations=40, density=DENSITY, sh_degree=1, sh_every=15, color_correction="frame")


@pytest.fixture(autouse=True)
def nothing_remembered():
    pair_room.forget()
    yield
    pair_room.forget()


@pytest.fixture(scope="module")
def capture():
    return ball_capture()


class Recorder:
    """In a graph's place: nothing runs when it is made, each replay runs the iteration and puts its figures where the first one's go."""

    def __init__(self, around=None):
        self.made = self.replays = 0
        self.around = around

    def __call__(self, fn):
        self.made += 1
        out = torch.full((2,), float("nan"))

        def replay():
            self.replays += 1
            if self.around is None:
                out.copy_(fn())
            else:
                with self.around:
                    values = fn()
                out.copy_(values)

        return out, replay


def run(capture, monkeypatch, config=CONFIG, recorder=None, **options):
    monkeypatch.setattr(loop, "graphs_on", lambda _: recorder)
    return fit(capture, config, progress=False, **options)


def assert_same_bits(a, b):
    for name, x in a.avatar.parameters().items():
        assert torch.equal(x, getattr(b.avatar, name)), name
    for name, x in a.avatar.params.items():
        assert x is None or torch.equal(x, getattr(b.avatar.params, name)), name
    assert torch.equal(a.avatar.binding, b.avatar.binding)
    assert a.history == b.history
    if a.color_correction is not None:
        assert torch.equal(a.color_correction, b.color_correction)


def test_the_same_bits_as_iterations_one_by_one(capture, monkeypatch):
    """Over three density rounds and a degree of colour that begins in between."""
    recorder = Recorder()
    graphs = run(capture, monkeypatch, recorder=recorder)
    assert_same_bits(graphs, run(capture, monkeypatch))
    # From the start, after the rounds at 10, 20 and 30, and at iteration 16, when the degree grows.
    assert recorder.made == 5 and recorder.replays == 40 - 5 * WARM_UP
    assert {"capture", "replay"} <= set(graphs.seconds)


class Forgetful:
    """Like a graph it keeps addresses, not tensors: it knows only whether what an iteration used is still there."""

    def __init__(self):
        self.used, self.replays = [], 0

    def __call__(self, fn):
        held = [cell.cell_contents for cell in fn.__closure__]
        self.used = [weakref.ref(x) for x in held if isinstance(x, torch.Tensor)]
        return torch.zeros(2), self.replay

    def replay(self):
        self.replays += 1
        assert self.used and all(x() is not None for x in self.used)


def test_memory_of_a_captured_iteration_lives_as_long_as_its_graph(capture, monkeypatch):
    graph = Forgetful()
    run(capture, monkeypatch, replace(CONFIG, iterations=6), graph)
    assert graph.replays == 4


def test_execution_can_do_without(capture, monkeypatch):
    recorder = Recorder()
    run(capture, monkeypatch, replace(CONFIG, iterations=9), recorder, execution=Execution(device="cpu", graph=False))
    assert recorder.made == 0


def test_a_resumed_fit_meets_the_same_bits(capture, monkeypatch, tmp_path):
    config = replace(CONFIG, checkpoint_every=13)

    def stop(iteration, _):
        if iteration == 27:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(capture, monkeypatch, config, Recorder(), out=tmp_path, callback=stop)
    resumed = run(capture, monkeypatch, config, Recorder(), out=tmp_path, resume=True)
    assert resumed.iterations == 40 - 26
    assert_same_bits(resumed, run(capture, monkeypatch, config))


def test_figures_of_a_step_stay_when_the_next_one_overwrites_them(capture, monkeypatch):
    steps = []
    run(capture, monkeypatch, replace(CONFIG, iterations=9), Recorder(), callback=lambda _, step: steps.append(step))
    plain = []
    run(capture, monkeypatch, replace(CONFIG, iterations=9), callback=lambda _, step: plain.append((step.loss, step.psnr)))
    assert [(step.loss, step.psnr) for step in steps] == plain
    assert len(set(plain)) == 9


def test_pictures_of_two_sizes_have_a_graph_each(capture, monkeypatch):
    def small(frame):
        return replace(
            frame, camera=resize(frame.camera, 24, 24), image=lambda: frame.image()[::2, ::2], mask=lambda: frame.mask()[::2, ::2]
        )

    frames = tuple(small(f) if i in (0, 4) else f for i, f in enumerate(capture.frames))
    mixed, config = replace(capture, frames=frames), replace(CONFIG, density=DensityConfig(start=99), sh_degree=0)
    recorder = Recorder()
    assert_same_bits(run(mixed, monkeypatch, config, recorder), run(mixed, monkeypatch, config))
    assert recorder.made == 2 and recorder.replays == 40 - 2 * WARM_UP


def test_captured_again_when_the_room_for_pairs_is_nearly_full(capture, monkeypatch):
    monkeypatch.setattr(pair_room, "STEP", 64)
    monkeypatch.setattr(pair_room, "_FIRST_GUESS", 0)
    recorder = Recorder()
    config = replace(CONFIG, iterations=12, density=DensityConfig(start=99), sh_degree=0)
    assert_same_bits(run(capture, monkeypatch, config, recorder), run(capture, monkeypatch, config))
    assert recorder.made == 2  # with the smallest room there is, and with what the first replay needed
    room = pair_room.room_of(capture.rig.template, 1, 128, 48, 48)
    assert room.capacity >= pair_room._SPARE * room.n_pairs > 64


def test_a_prior_decides_on_the_host_so_nothing_is_captured(capture, monkeypatch):
    side, recorder = capture.frames[1].camera, Recorder()
    black = torch.zeros(1, side.height, side.width, 3)
    config = replace(CONFIG, iterations=8)
    with_prior = run(capture, monkeypatch, config, recorder, prior=lambda _: PriorViews([side], black))
    assert recorder.made == 0
    assert_same_bits(with_prior, run(capture, monkeypatch, config, prior=lambda _: PriorViews([side], black)))


def small_prior(**options):
    return PseudoTruths(tiny_prior(), PseudoConfig(**{"refresh_every": 8, "prior_fades": 0.4, "prior_until": 0.9, **options}))


@pytest.mark.parametrize("start", ["regression", "refined", "render"])
@pytest.mark.parametrize("yields", [0.0, 4.0], ids=["in-one-sum", "giving-way"])
def test_with_the_small_prior_the_same_bits(capture, monkeypatch, start, yields):
    """Over five new sets, a weight that fades and ends, three density rounds and a degree of colour."""
    recorder, priors = Recorder(), [small_prior(prior_start=start, prior_yields=yields) for _ in range(2)]
    graphs = run(capture, monkeypatch, recorder=recorder, prior=priors[0])
    assert_same_bits(graphs, run(capture, monkeypatch, prior=priors[1]))
    assert all(torch.equal(x, priors[1].state()[name]) for name, x in priors[0].state().items())
    # Five iterations make sets; in every stretch two of a kind warm up: renders of 64 pixels, of 48 (the third and fifth set), or none.
    assert len(priors[0].state()["timestep"]) == 5
    assert recorder.made == 6 and recorder.replays == 20


def test_a_prior_that_looks_every_time_is_asked_one_by_one(capture, monkeypatch):
    recorder = Recorder()
    for options in (dict(prior_start="sds"), dict(refresh_every=1)):
        run(capture, monkeypatch, replace(CONFIG, iterations=8), recorder, prior=small_prior(prior_until=1.0, **options))
    assert recorder.made == 0


def test_a_fit_that_goes_on_with_a_prior_meets_the_same_bits(capture, monkeypatch, tmp_path):
    config = replace(CONFIG, checkpoint_every=13)

    def stop(iteration, _):
        if iteration == 27:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(capture, monkeypatch, config, Recorder(), out=tmp_path, callback=stop, prior=small_prior())
    resumed = run(capture, monkeypatch, config, Recorder(), out=tmp_path, resume=True, prior=small_prior())
    assert_same_bits(resumed, run(capture, monkeypatch, config, prior=small_prior()))


def test_captured_again_when_the_room_for_a_priors_pairs_is_nearly_full(capture, monkeypatch):
    monkeypatch.setattr(pair_room, "STEP", 64)
    config, recorder = replace(CONFIG, iterations=6, density=DensityConfig(start=99), sh_degree=0), Recorder()
    room = pair_room.room_of(capture.rig.template, 2, 128, 64, 64)  # of the prior's two views, four times its own 16 pixels
    room.capacity = 64
    frames = pair_room.room_of(capture.rig.template, 1, 128, 48, 48)
    frames.capacity = 1 << 20
    run(capture, monkeypatch, config, recorder, prior=small_prior())
    assert recorder.made == 2 and frames.n_pairs == 0
    assert room.capacity >= pair_room._SPARE * room.n_pairs > 64


def test_what_cannot_be_captured_goes_on_one_by_one(capture, monkeypatch):
    calls = []

    def failing(fn):
        calls.append(fn)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    config = replace(CONFIG, iterations=12)
    with pytest.warns(RuntimeWarning, match=r"not be captured as a CUDA graph \(operation not permitted when stream is capturing\)"):
        result = run(capture, monkeypatch, config, failing)
    assert len(calls) == 1
    assert_same_bits(result, run(capture, monkeypatch, config))


def test_a_divergence_is_noticed_before_a_checkpoint_and_by_its_iteration(capture, monkeypatch, tmp_path):
    broken, spoil = with_picture_to_spoil(capture)
    config = replace(CONFIG, iterations=30, checkpoint_every=6, sh_degree=0)
    # Pictures are kept, so one that changes must be read anew: no memory for them.
    options = dict(out=tmp_path, execution=Execution(device="cpu", picture_mb=0))
    with pytest.raises(DivergedError, match=r"iteration (8|9|10|11): the loss is nan on the frame of timestep 0, camera 0"):
        run(broken, monkeypatch, config, Recorder(), callback=lambda i, _: spoil() if i == 7 else None, **options)
    assert (tmp_path / "checkpoints" / "step_000006.safetensors").exists()
    assert_same_bits(run(capture, monkeypatch, config, Recorder(), resume=True, **options), run(capture, monkeypatch, config))


# ---- what an iteration may ask


class AsksNothing(TorchDispatchMode):
    """Fails where an op would wait for a GPU, or bring something from the host's memory: neither can be captured."""

    READS = frozenset({
        "_local_scalar_dense", "nonzero", "is_nonzero", "item", "equal", "masked_select", "unique", "_unique2", "unique_dim", "bincount",
        "repeat_interleave", "unique_consecutive", "histc", "nonzero_numpy", "lift_fresh", "_pin_memory", "pin_memory",
    })  # fmt: skip

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        solver = name.startswith(("linalg_", "_linalg_")) and name not in ("linalg_vector_norm", "linalg_cross")
        assert name not in self.READS and not solver, f"an iteration asks the host: {func}"
        if name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
            assert all(x is None or x.dtype not in (torch.bool, torch.uint8) for x in args[1]), f"a mask as an index: {func}"
        self.count += 1
        return func(*args, **(kwargs or {}))


def lpips_of_noise():
    g = torch.Generator().manual_seed(0)
    return Lpips({name: 0.05 * torch.randn(shape, generator=g) for name, shape in expected_shapes().items()})


@pytest.mark.parametrize("perceptual", [None, lpips_of_noise], ids=["plain", "lpips"])
@pytest.mark.parametrize("color", ["none", "shared", "frame"])
def test_a_captured_iteration_asks_nothing_of_the_host(capture, monkeypatch, color, perceptual):
    watch = AsksNothing()
    monkeypatch.setattr(loop, "_perceptual", lambda *_: None if perceptual is None else perceptual())
    # The degree of colour grows at the second iteration, so that the first graph has higher harmonics, too.
    config = FitConfig(iterations=WARM_UP + 2, color_correction=color, sh_degree=1, sh_every=1, density=DensityConfig(start=99))
    recorder = Recorder(watch)
    run(capture, monkeypatch, config, recorder)
    assert recorder.replays == 1 and watch.count > 200


@pytest.mark.parametrize("yields", [0.0, 4.0], ids=["in-one-sum", "giving-way"])
@pytest.mark.parametrize("perceptual", [None, lpips_of_noise], ids=["plain", "lpips"])
@pytest.mark.parametrize("seen", [0.5, 1.0])
def test_nor_does_one_with_the_small_prior(capture, monkeypatch, seen, perceptual, yields):
    watch = AsksNothing()
    monkeypatch.setattr(loop, "_perceptual", lambda *_: None if perceptual is None else perceptual())
    config = FitConfig(iterations=1 + WARM_UP + 2, color_correction="frame", density=DensityConfig(start=99))
    recorder = Recorder(watch)
    run(capture, monkeypatch, config, recorder, prior=small_prior(prior_until=1.0, prior_fades=1.0, prior_seen=seen, prior_yields=yields))
    assert recorder.replays == 2 and watch.count > 500


def test_the_watch_sees_what_it_must():
    x = torch.arange(3.0)
    for question in (
        lambda: float(x[0]), lambda: bool(x.sum() > 0), lambda: x[x > 0], lambda: torch.tensor([1.0, 2.0]), lambda: (x > 1).nonzero(),
        lambda: x.new_tensor([1.0]), lambda: x.sum().item(),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match="asks the host|a mask as an index"), AsksNothing():
            question()


# ---- directly


def scene_and_state(capture) -> tuple[Scene, FitState]:
    config = replace(CONFIG, sh_degree=0, color_correction="none")
    state = loop._start(capture, (0, 2, 4, 6), config, torch.device("cpu"))
    return loop._scene(capture.rig, capture.params, capture, config, Terms(), torch.device("cpu")), state


def test_too_many_kinds_of_pictures_share_a_bounded_number_of_graphs(capture):
    scene, state = scene_and_state(capture)
    recorder = Recorder()
    graphs, times, pictures = StepGraphs(scene, recorder), StageTimes(), Pictures(torch.device("cpu"), 10**7)
    for size in range(20, 20 + KINDS + 2):
        frame = capture.frames[0]
        sized = replace(
            frame,
            camera=resize(frame.camera, size, size),
            image=lambda size=size: torch.zeros(size, size, 3),
            mask=lambda size=size: torch.zeros(size, size),
        )
        inputs = make_inputs(size, sized, capture.background, background_at(scene.config, 1), pictures)
        for _ in range(WARM_UP + 1):
            if graphs.take_step(state, inputs, times) is None:
                take_step(state, scene, sized, inputs, times)
    assert recorder.made == KINDS
    assert state.iteration == (KINDS + 2) * (WARM_UP + 1)
