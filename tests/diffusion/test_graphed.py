"""Replayed passes give the plain passes' bits: with a stand-in for capturing here, on a GPU in tests/gpu/test_graphed.py."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
from gafcore.attention.choice import backend_within
from gafcore.diffusion import graphed
from gafcore.diffusion.pipeline import MultiViewHeadPipeline
from tests.diffusion.test_pipeline import call_inputs


class Recorder:
    """In place of a graph: the function itself, whose result goes where the first one lies."""

    def __init__(self):
        self.captures = self.replays = 0

    def __call__(self, fn):
        self.captures += 1
        out = fn()
        out.fill_(torch.nan)  # a graph computes nothing when it is captured

        def replay():
            self.replays += 1
            out.copy_(fn())

        return out, replay


@pytest.fixture
def pair(tiny_parts):
    """A pipeline, the same with graphs, and what records them."""

    def make(**parts):
        plain, recorder = MultiViewHeadPipeline(**tiny_parts(**parts)), Recorder()
        replayed = MultiViewHeadPipeline(**plain.components)
        for pipe in (plain, replayed):
            pipe.set_progress_bar_config(disable=True)
        replayed.enable_graphs(recorder)
        return plain, replayed, recorder

    return make


@pytest.mark.parametrize("parts", [{}, dict(input_mode="reference"), dict(condition="pose")], ids=["frame", "reference", "pose"])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_same_bits_for_any_picture_and_timestep(pair, parts, guidance_scale):
    plain, replayed, recorder = pair(**parts)
    for seed in (0, 1):
        inputs = call_inputs(seed=seed, guidance_scale=guidance_scale)
        if parts.get("condition") == "pose":
            inputs["viewmats"] = torch.eye(4).repeat(4, 1, 1) + 0.1 * seed
        # call_inputs' generators are used up by a call
        assert torch.equal(replayed(**inputs | fresh()).images, plain(**inputs | fresh()).images)
    assert recorder.captures == 1
    assert recorder.replays == 6


def fresh():
    return dict(generator=torch.Generator().manual_seed(7))


def test_another_kind_of_call_is_captured_beside(pair, monkeypatch):
    monkeypatch.setattr(graphed, "KEPT", 2)
    plain, replayed, recorder = pair()
    for guidance_scale in (1.0, 3.0, 1.0, 3.0):
        inputs = call_inputs(guidance_scale=guidance_scale)
        assert torch.equal(replayed(**inputs | fresh()).images, plain(**inputs | fresh()).images)
    assert recorder.captures == 2
    replayed(**call_inputs(2))  # two heads: the oldest kind leaves
    replayed(**call_inputs(guidance_scale=1.0))
    assert recorder.captures == 4


def test_weights_may_change_in_place_and_move(pair):
    plain, replayed, recorder = pair()
    replayed(**call_inputs())
    with torch.no_grad():
        for x in plain.unet.parameters():
            x.mul_(1.01)
    assert torch.equal(replayed(**call_inputs()).images, plain(**call_inputs()).images)
    assert recorder.captures == 1
    before = [x.data for x in plain.unet.parameters()]  # kept, so that the new ones cannot lie there
    plain.unet.to(torch.float64).to(torch.float32)
    assert before[0].data_ptr() != next(plain.unet.parameters()).data_ptr()
    assert torch.equal(replayed(**call_inputs()).images, plain(**call_inputs()).images)
    assert recorder.captures == 2


def test_another_backend_of_attention_is_captured_anew(pair, monkeypatch):
    _, replayed, recorder = pair()
    replayed(**call_inputs())
    with backend_within("sdpa"):
        replayed(**call_inputs())
    monkeypatch.setenv("GAFCORE_ATTENTION", "sdpa")
    replayed(**call_inputs())
    assert recorder.captures == 3


def test_another_denoiser_or_one_that_is_offloaded_runs_without(pair, tiny_parts):
    _, replayed, recorder = pair()
    replayed(**call_inputs())
    other = MultiViewHeadPipeline(**replayed.components | {"unet": tiny_parts(seed=1)["unet"]})
    other.set_progress_bar_config(disable=True)
    replayed.register_modules(unet=other.unet)
    assert torch.equal(replayed(**call_inputs()).images, other(**call_inputs()).images)
    replayed.enable_graphs(recorder)
    replays = recorder.replays
    replayed.unet._hf_hook = object()  # as diffusers' offloading leaves it
    replayed(**call_inputs())
    assert recorder.replays == replays


def test_without_graphs_again(pair):
    _, replayed, recorder = pair()
    replayed.disable_graphs()
    replayed(**call_inputs())
    assert recorder.captures == 0


def test_where_there_can_be_none(tiny_parts):
    pipe = MultiViewHeadPipeline(**tiny_parts())
    with pytest.raises(ValueError, match=r"CUDA graphs need a denoiser on a GPU, got one on cpu; move the pipeline"):
        pipe.enable_graphs()
    pipe.unet._hf_hook = object()
    with pytest.raises(ValueError, match="offloaded moves between calls"):
        pipe.enable_graphs(Recorder())
