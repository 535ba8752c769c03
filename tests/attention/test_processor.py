"""The processor inside diffusers' own Attention: ordinary attention, views jointly or alone, the input as a frame or a reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gafcore.attention.processor import MultiViewAttnProcessor, Views

Attention = pytest.importorskip("diffusers.models.attention_processor", reason="the extra `diffusion` is not installed").Attention
ROWS, FRAMES, LENGTH, WIDTH, HEADS = 2, 3, 6, 32, 2


@pytest.fixture(scope="module")
def layer():
    torch.manual_seed(0)
    return Attention(query_dim=WIDTH, heads=HEADS, dim_head=WIDTH // HEADS).double().eval()


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randn(ROWS, FRAMES, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _stock(layer, x: Tensor, context: Tensor | None = None) -> Tensor:
    """diffusers' own processor: the oracle."""
    from diffusers.models.attention_processor import AttnProcessor2_0

    layer.set_processor(AttnProcessor2_0())
    return layer(x, encoder_hidden_states=context)


def _ours(layer, x: Tensor, views: Views | None = None, context: Tensor | None = None) -> Tensor:
    layer.set_processor(MultiViewAttnProcessor("layer"))
    return layer(x, encoder_hidden_states=context, **({} if views is None else {"views": views}))


def test_without_views_it_is_diffusers_processor(layer, tokens):
    x = tokens.flatten(0, 1)
    torch.testing.assert_close(_ours(layer, x), _stock(layer, x))
    context = x[:, :4] * 2
    torch.testing.assert_close(_ours(layer, x, Views(FRAMES), context), _stock(layer, x, context))


def test_joint_attention_runs_over_all_frames(layer, tokens):
    together = _stock(layer, tokens.flatten(1, 2)).unflatten(1, (FRAMES, LENGTH))
    torch.testing.assert_close(_ours(layer, tokens.flatten(0, 1), Views(FRAMES)), together.flatten(0, 1))


def test_cached_reference_equals_keys_put_behind(layer, tokens):
    reference = tokens[:, 0] * 0.7 + 1
    views = Views(n_frames=1).recording()
    alone = _ours(layer, reference, views)
    torch.testing.assert_close(alone, _stock(layer, reference))
    # Row 0 sees reference 1, row 1 has its reference dropped.
    out = _ours(layer, tokens.flatten(0, 1), Views(FRAMES, references=views.references, ref_index=torch.tensor([1, -1])))
    seen = _stock(layer, tokens[0].flatten(0, 1)[None], torch.cat([tokens[0].flatten(0, 1), reference[1]])[None])
    blind = _stock(layer, tokens[1].flatten(0, 1)[None])
    torch.testing.assert_close(out, torch.cat([seen, blind]).reshape(ROWS * FRAMES, LENGTH, WIDTH))


@pytest.mark.parametrize("as_frame", [True, False])
def test_views_alone_see_themselves_and_the_input(layer, tokens, as_frame):
    frames, picture = tokens, tokens[:, -1]
    if as_frame:
        out = _ours(layer, frames.flatten(0, 1), Views(FRAMES, joint=False, input_last=True)).unflatten(0, (ROWS, FRAMES))
    else:
        recording = Views(1).recording()
        _ours(layer, picture, recording)
        views = Views(FRAMES, joint=False, references=recording.references, ref_index=torch.arange(ROWS))
        out = _ours(layer, frames.flatten(0, 1), views).unflatten(0, (ROWS, FRAMES))
    for row in range(ROWS):
        for frame in range(FRAMES):
            keys = frames[row, frame]
            if frame < FRAMES - 1 or not as_frame:
                keys = torch.cat([keys, picture[row]])
            torch.testing.assert_close(out[row, frame], _stock(layer, frames[row, frame][None], keys[None])[0])


def test_gradients_reach_the_reference(layer, tokens):
    reference = tokens[:1, 0].clone().requires_grad_()
    recording = Views(1).recording()
    _ours(layer, reference, recording)
    views = Views(FRAMES, references=recording.references, ref_index=torch.tensor([0, 0]))
    _ours(layer, tokens.flatten(0, 1), views).sum().backward()
    assert reference.grad is not None and float(reference.grad.abs().max()) > 0


def test_what_it_does_not_do_is_refused(layer, tokens):
    layer.set_processor(MultiViewAttnProcessor("down.0"))
    with pytest.raises(ValueError, match=r"down\.0: masks"):
        layer(tokens.flatten(0, 1), attention_mask=torch.zeros(ROWS * FRAMES, 1, LENGTH))
