"""A whole iteration on the device "meta", which stands in for a GPU: nothing can be read from it, and CPU tensors do not mix with it."""

from __future__ import annotations

import pytest
import torch

from gafcore.avatars import render
from gafcore.avatars.density import densify_and_prune
from gafcore.fitting import FitConfig, loop, optim
from gafcore.fitting.graphs import WARM_UP, StepGraphs
from gafcore.fitting.inputs import Pictures, make_inputs
from gafcore.fitting.schedule import background_at, generator
from gafcore.fitting.state import GAUSSIAN_TENSORS
from gafcore.fitting.step import StageTimes, Terms, compare, figures, move, take_step
from gafcore.ops import rasterization_blend
from tests.cases.ball import ball_capture
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
    scene = loop._scene(capture.rig.to(META), loop.person(state, capture.params.to(META)), capture, config, terms)
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
        assert figures(outcome).device == outcome.n_pairs.device == META
    assert all(x.device == META for x in (*state.tensors.values(), *state.adam.state().values(), state.stats.views))


def test_an_ordinary_iteration_does_not_look(capture, rows):
    config = FitConfig()
    state, scene, inputs = elsewhere(capture, config)
    step = take_step(state, scene, capture.frames[2], inputs, StageTimes(), look=False)
    assert step.values.device == META and state.iteration == 1 and len(rows) == 1
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        take_step(state, scene, capture.frames[2], inputs, StageTimes(), look=True)


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
