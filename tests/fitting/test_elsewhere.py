"""A whole iteration on the device "meta", which stands in for a GPU: nothing can be read from it, and CPU tensors do not mix with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gafcore.avatars import render
from gafcore.avatars.density import densify_and_prune
from gafcore.diffusion.small import conditions
from gafcore.diffusion.small.prior import SmallPrior
from gafcore.diffusion.small.views import head_pose
from gafcore.fitting import FitConfig, PseudoConfig, PseudoTruths, loop, optim, pseudo
from gafcore.fitting.graphs import WARM_UP, StepGraphs
from gafcore.fitting.inputs import Pictures, make_inputs
from gafcore.fitting.schedule import background_at, generator
from gafcore.fitting.state import GAUSSIAN_TENSORS
from gafcore.fitting.step import StageTimes, Terms, compare, figures, move, take_step
from gafcore.ops import rasterization_blend
from tests.cases.ball import ball_capture
from tests.cases.small_prior import TINY, woken
from tests.fitting.test_graphs import AsksNothing, lpips_of_noise

META = torch.device("meta")


@pytest.fixture(scope="module")
def capture():
    return ball_capture()


@pytest.fixture
def rows(monkeypatch):
    """What Adam's kernel was given. Blending, whose outputs have sizes that only a GPU knows, gets one."""
    given = []
    monkeypatch.setattr(optim, "adam_cuda", lambda rows, *_: given.append(rows))

    def blended(splats, depths, radii, features, backgrounds, width, height, n_channels, keep, **_):
        c, new = depths.shape[0], splats.new_empty
        shapes = (c, height, width, n_channels), (c, height, width, 1)
        return *(new(s) for s in shapes), new((1, 64), dtype=torch.uint8), new(3, dtype=torch.int64)

    monkeypatch.setattr(rasterization_blend, "_forward_op", blended)
    return given


def elsewhere(capture, config, terms=None):
    terms = Terms() if terms is None else terms
    state = loop._start(capture, (0, 2, 4, 6), config, META)
    scene = loop._scene(capture.rig.to(META), loop.person(state, capture.params.to(META)), capture, config, terms, META)
    inputs = make_inputs(2, capture.frames[2], capture.background, background_at(config, 1), Pictures(META, 10**7))
    return state, scene, inputs


@pytest.mark.parametrize("perceptual", [False, True], ids=["plain", "lpips"])
@pytest.mark.parametrize("color", ["none", "shared", "frame"])
@pytest.mark.parametrize("background", ["random", "white"])
def test_an_iteration_stays_where_it_is(capture, rows, color, perceptual, background):
    config = FitConfig(color_correction=color, sh_degree=1, background=background)
    terms = Terms(lpips_of_noise().to(META)) if perceptual else Terms()
    state, scene, inputs = elsewhere(capture, config, terms)
    for degree in (0, 1):
        outcome = compare(state, scene, inputs, degree, StageTimes())
        move(state, outcome, inputs, StageTimes())
        names = {"means", "quats", "log_scales", "opacity_logits", "sh_dc", *(["sh_rest"] if degree else [])}
        names |= {"rig.expr", "rig.rotation", "rig.neck_pose", "rig.jaw_pose", "rig.eyes_pose", "rig.translation"}
        assert len(rows[-1]) == len(names) + (color != "none")
        assert {x.device for row in rows[-1] for x in row} == {META}
        assert figures(outcome).device == outcome.n_pairs[0].device == META
    assert all(x.device == META for x in (*state.tensors.values(), *state.adam.state().values(), state.stats.views))


def test_an_ordinary_iteration_does_not_look(capture, rows):
    config = FitConfig()
    state, scene, inputs = elsewhere(capture, config)
    step = take_step(state, scene, capture.frames[2], inputs, StageTimes(), look=False)
    assert step.values.device == META and state.iteration == 1 and len(rows) == 1
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        take_step(state, scene, capture.frames[2], inputs, StageTimes(), look=True)


@pytest.fixture
def posed(monkeypatch, capture):
    """What a new set reads on the host: where the head is, which "meta" cannot say. Returns how often it was asked."""
    asked, vertices = [], capture.rig.vertices(capture.params[1])[0]
    known = head_pose(capture.rig, vertices)
    monkeypatch.setattr(conditions, "head_pose", lambda *_: (asked.append("pose"), known)[1])
    fine = pseudo._as_fine

    def as_fine(request, cameras):
        asked.append("size")
        return fine(replace(request, vertices=vertices), cameras)

    monkeypatch.setattr(pseudo, "_as_fine", as_fine)
    return asked


class NothingMoves(TorchDispatchMode):
    """Fails where a tensor goes from one device to another: a GPU is waited for on the way, unless the memory is pinned. So it is for a
    list of numbers as an index, which torch makes a tensor of before this can see it: no index is allowed."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out, name = func(*args, **(kwargs or {})), func.overloadpacket.__name__
        assert name != "index", "an index, which may have come from the host"
        if name in ("_to_copy", "copy_"):
            assert {x.device for x in args if isinstance(x, torch.Tensor)} == {out.device}, f"{func} from one device to another"
        return out


@pytest.mark.parametrize("condition", ["rig", "pose"])
@pytest.mark.parametrize("start", ["regression", "refined", "render", "sds"])
def test_the_small_prior_is_asked_there(capture, rows, posed, start, condition):
    """The networks, what they are given, and the pool. Only a new set asks the host, and for nothing but where the head is."""
    networks, given = [woken(replace(TINY, condition=condition), seed) for seed in (1, 2)], []
    for network in networks:
        network.register_forward_pre_hook(lambda _, args: given.extend(args))
    truths = PseudoTruths(SmallPrior(*networks), PseudoConfig(prior_start=start, refresh_every=2, prior_views=1))
    assert truths.move_to(META) == META
    state, scene, inputs = elsewhere(capture, FitConfig(), Terms(prior=truths))
    assert scene.rig_of_prior is None
    frame = Pictures(META, 10**7).on_device(2, capture.frames[2])
    take_step(state, scene, frame, inputs, StageTimes(), look=False)
    assert given and {x.device for x in given} == {META}
    assert {x.device for network in networks for x in network.parameters()} == {META}
    assert {name for name, x in truths._pool[0].items() if x.device != META} == {"side", "timestep"}
    assert set(posed) == {"pose", "size"}
    if start != "sds":  # which makes a set every time
        posed.clear()
        another = replace(frame, timestep=frame.timestep + 1)  # than the set in the pool
        with NothingMoves():
            take_step(state, scene, another, inputs, StageTimes(), look=False)
        assert len(truths._pool) == 1 and len(rows) == 2 and posed == []


def test_any_other_prior_is_asked_on_the_cpu(capture, rows):
    """As far as "meta" goes: its rig cannot be copied to the CPU."""
    _, scene, _ = elsewhere(capture, FitConfig())
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        loop._scene(scene.rig, scene.shared, capture, FitConfig(), Terms(prior=lambda _: None), torch.device("cpu"))


def test_its_inputs_are_copied_without_a_look(capture, rows):
    """As far as the host can follow: what is copied to the host in the end cannot be read from "meta"."""
    state, scene, inputs = elsewhere(capture, FitConfig())

    def captured(fn):
        with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
            fn()
        assert len(rows) == 1  # it came as far as the optimiser
        return torch.empty(2, device=META), lambda: None

    graphs = StepGraphs(scene, captured)
    results = [graphs.take_step(state, inputs, StageTimes()) for _ in range(WARM_UP + 1)]
    assert results[:-1] == [None] * WARM_UP and results[-1].values.device == META


def test_so_are_the_small_priors_views(capture, rows, posed):
    """From the pool to the memory of a graph; the iteration that makes the set is no graph's."""
    truths = PseudoTruths(SmallPrior(woken(seed=1), None), PseudoConfig(refresh_every=9, prior_views=1))
    truths.move_to(META)
    state, scene, inputs = elsewhere(capture, FitConfig(), Terms(prior=truths))
    frame = Pictures(META, 10**7).on_device(2, capture.frames[2])
    begun = []

    def captured(fn):
        with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
            fn()
        begun.append(len(rows))
        return torch.empty(2, device=META), lambda: None

    graphs = StepGraphs(scene, captured)
    assert graphs.take_step(state, inputs, StageTimes()) is None
    take_step(state, scene, frame, inputs, StageTimes(), look=False)
    with NothingMoves():
        results = [graphs.take_step(state, inputs, StageTimes()) for _ in range(WARM_UP)]
    results.append(graphs.take_step(state, inputs, StageTimes()))  # its figures go to the host in the end
    with NothingMoves():
        results.append(graphs.take_step(state, inputs, StageTimes()))
    assert results[:WARM_UP] == [None] * WARM_UP and all(x.values.device == META for x in results[WARM_UP:])
    assert begun == [2] and len(truths._pool) == 1


def test_a_density_round_asks_for_its_counts_only(capture):
    """`tolist` is its only question: the first one fails on "meta", and on the CPU there is no other."""
    config = FitConfig().density
    for device, watch in ((META, pytest.raises(NotImplementedError, match="meta")), (torch.device("cpu"), AsksNothing())):
        state = loop._start(capture, (0, 2, 4, 6), FitConfig(), device)
        tensors = {name: x.detach() for name, x in state.tensors.items() if name in GAUSSIAN_TENSORS}
        sizes = torch.ones(capture.rig.faces.shape[0], device=device)
        rng = generator(FitConfig(), "density", 1)
        with watch:
            step = densify_and_prune(tensors, state.binding, sizes, state.stats, config, rng)
    assert step.source.shape == (128,)


def test_an_avatar_moves_whole_and_cameras_follow_it(capture, rows):
    avatar = loop.initial_avatar(capture, (0, 2)).to(META)
    assert all(x.device == META for x in (*avatar.parameters().values(), avatar.binding, avatar.rig.faces, avatar.params.expr))
    image = render(avatar, [capture.frames[0].camera], avatar.params[0], torch.ones(3)).image
    assert image.shape == (1, 48, 48, 3) and image.device == META
