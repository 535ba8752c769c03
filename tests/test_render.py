"""CompiledRenderer: equal pictures from the plain path and from a repeated call, and growth of the room for pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gafcore.avatars import init_avatar, render
from gafcore.cameras import from_angles
from gafcore.ops import pair_room
from gafcore.render import CompiledRenderer
from tests.cases.ball import ball_params, ball_rig

WIDTH, HEIGHT = 40, 34


def avatar_of_ball():
    rig = ball_rig()
    params = replace(ball_params(rig), static_offset=0.002 * torch.randn(rig.template.shape, generator=torch.Generator().manual_seed(1)))
    colors = torch.rand(128, 3, generator=torch.Generator().manual_seed(0))
    return init_avatar(rig, params, colors, opacity=0.7, sh_degree=1)


def cameras(*angles: float):
    return [from_angles(a, 0.1, 1.0, focal_px=130.0, width=WIDTH, height=HEIGHT) for a in angles]


class Recorder:
    """In a graph's place: the call's results stay in the memory of the first, and `captures` counts how often it was made."""

    def __init__(self):
        self.captures = 0

    def __call__(self, fn):
        self.captures += 1
        out = fn()

        def replay():
            new = fn()
            out.image.copy_(new.image)
            out.alpha.copy_(new.alpha)

        return out, replay


@pytest.mark.parametrize("capture", [None, Recorder()], ids=["plain", "repeated"])
@pytest.mark.parametrize("poses", [1, 2])
def test_pictures_equal_those_of_the_avatar(capture, poses):
    avatar, background = avatar_of_ball(), torch.tensor([0.1, 0.2, 0.3])
    options = {} if capture is None else dict(graph=True, capture=capture)
    renderer = CompiledRenderer(avatar, WIDTH, HEIGHT, n_views=2, n_poses=poses, background=background, **options)
    for step in range(3):
        views, params = cameras(0.3 * step, 0.5 - step), avatar.params[[step, 3 - step][:poses]]
        got = renderer(views, params)
        want = render(avatar, views, params, background)
        torch.testing.assert_close(got.image, want.image, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(got.alpha, want.alpha, rtol=1e-4, atol=1e-4)
        assert want.alpha.max() > 0.5


def test_a_repeated_call_writes_to_the_same_memory_and_is_made_once():
    avatar, capture = avatar_of_ball(), Recorder()
    renderer = CompiledRenderer(avatar, WIDTH, HEIGHT, graph=True, capture=capture)
    first = renderer(cameras(0.0), avatar.params[0])
    before = first.image.clone()
    second = renderer(cameras(1.0), avatar.params[1])
    assert second.image.data_ptr() == first.image.data_ptr()
    assert not torch.equal(first.image, before)
    assert capture.captures == 1


def test_it_is_made_again_when_the_room_for_pairs_has_grown(monkeypatch):
    pair_room.forget()
    monkeypatch.setattr(pair_room, "STEP", 64)
    monkeypatch.setattr(pair_room, "_FIRST_GUESS", 1)
    avatar, capture = avatar_of_ball(), Recorder()
    renderer = CompiledRenderer(avatar, WIDTH, HEIGHT, graph=True, capture=capture)
    n_pairs = int(renderer(cameras(0.0), avatar.params[0]).meta["n_pairs"])
    room = pair_room.room_of(avatar.means, 1, len(avatar), WIDTH, HEIGHT)
    room.capacity = renderer._capacity = n_pairs - 1
    renderer(cameras(0.1), avatar.params[1])
    assert capture.captures == 2
    assert room.capacity >= 1.3 * n_pairs
    renderer(cameras(0.2), avatar.params[1])
    assert capture.captures == 2
    pair_room.forget()


def test_the_avatar_keeps_no_gradient():
    avatar = avatar_of_ball()
    image = CompiledRenderer(avatar, WIDTH, HEIGHT)(cameras(0.0), avatar.params[0]).image
    assert not image.requires_grad


def test_half_precision_is_not_seen():
    avatar = avatar_of_ball()
    view, params = cameras(0.4), avatar.params[2]
    whole, half = (CompiledRenderer(avatar, WIDTH, HEIGHT, half=h)(view, params).image for h in (False, True))
    assert 0 < (whole - half).abs().max() < 1 / 255


def test_wrong_numbers_are_named():
    avatar = avatar_of_ball()
    renderer = CompiledRenderer(avatar, WIDTH, HEIGHT)
    with pytest.raises(ValueError, match=r"expected 1 camera\(s\) of 40x34, got 40x34, 40x34"):
        renderer(cameras(0.0, 1.0), avatar.params[0])
    with pytest.raises(ValueError, match=r"expected 1 camera\(s\) of 40x34, got 8x8"):
        renderer([from_angles(0, 0, 1, focal_px=9, width=8, height=8)], avatar.params[0])
    with pytest.raises(ValueError, match=r"expected 1 pose\(s\), got 2"):
        renderer(cameras(0.0), avatar.params[:2])
    with pytest.raises(ValueError, match=r"n_poses must be 1 or n_views \(1\), got 3"):
        CompiledRenderer(avatar, WIDTH, HEIGHT, n_poses=3)
    with pytest.raises(ValueError, match="a CUDA graph needs an avatar on a GPU, got one on cpu"):
        CompiledRenderer(avatar, WIDTH, HEIGHT, graph=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graph_gives_the_bits_of_the_plain_path():
    avatar = avatar_of_ball()
    moved = replace(
        avatar, rig=avatar.rig.to("cuda"), params=avatar.params.to("cuda"), binding=avatar.binding.cuda(),
        **{k: v.cuda() for k, v in avatar.parameters().items()},
    )  # fmt: skip
    with_graph, plain = (CompiledRenderer(moved, WIDTH, HEIGHT, graph=graph) for graph in (True, False))
    for step in range(4):
        views, params = cameras(0.3 * step), avatar.params[step]
        assert torch.equal(with_graph(views, params).image, plain(views, params).image)
