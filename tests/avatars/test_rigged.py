from __future__ import annotations

import math

import pytest
import torch

from gafcore.avatars import init_avatar, pose, render
from gafcore.avatars.rigged import triangle_sizes
from gafcore.cameras import from_angles
from gafcore.ops import bind_triangles
from tests.cases.ball import ball_params, ball_rig


@pytest.fixture
def rig():
    return ball_rig()


def camera(size: int = 40):
    return from_angles(0.3, 0.1, 1.0, focal_px=3.2 * size, width=size, height=size - 6)


def test_one_gaussian_a_face(rig):
    colors = torch.rand(128, 3, generator=torch.Generator().manual_seed(0))
    avatar = init_avatar(rig, ball_params(rig), colors, sh_degree=2)
    assert avatar.binding.tolist() == list(range(128))
    assert not avatar.means.any() and not avatar.log_scales.any()
    assert torch.equal(avatar.quats, torch.tensor([1.0, 0, 0, 0]).expand(128, 4))
    torch.testing.assert_close(torch.sigmoid(avatar.opacity_logits), torch.full((128,), 0.1))
    shown = 0.5 + avatar.sh[:, 0] / (2 * math.sqrt(math.pi))
    torch.testing.assert_close(shown, colors)
    assert avatar.sh.shape == (128, 9, 3) and not avatar.sh[:, 1:].any()


def test_bad_arguments_are_named(rig):
    params = ball_params(rig)
    with pytest.raises(ValueError, match="sh_degree must be 0 to 3, got 4"):
        init_avatar(rig, params, sh_degree=4)
    with pytest.raises(ValueError, match=r"colors must be \[128, 3\], one a face, got \(5, 3\)"):
        init_avatar(rig, params, torch.zeros(5, 3))
    with pytest.raises(ValueError, match="opacity must lie strictly between 0 and 1, got 1.0"):
        init_avatar(rig, params, opacity=1.0)
    with pytest.raises(ValueError, match=r"params must hold 1 timestep or one a camera \(3\), got 2"):
        render(init_avatar(rig, params), [camera()] * 3, params[:2])


def test_gaussians_ride_on_their_triangles(rig):
    """At rest each mean is its triangle's centroid; turned and moved, the same after that motion."""
    avatar = init_avatar(rig, ball_params(rig))
    neutral = rig.neutral(2)
    angle = 0.4
    neutral.rotation[1, 1] = angle
    neutral.translation[1] = torch.tensor([0.1, 0.2, 0.3])
    gaussians = pose(avatar, neutral)
    centroids = rig.template[rig.faces].mean(1)
    torch.testing.assert_close(gaussians.means[0], centroids)
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    torch.testing.assert_close(gaussians.means[1], centroids @ turn.T + torch.tensor([0.1, 0.2, 0.3]))


def test_the_triangles_unit_is_the_kernels(rig):
    sizes = triangle_sizes(rig.template, rig.faces)
    one = torch.zeros(128, 3)
    _, _, scales = bind_triangles(rig.template[None], rig.faces, torch.arange(128), one, torch.ones(128, 4), one)
    torch.testing.assert_close(scales[0, :, 0], sizes)


def test_cameras_share_a_timestep_or_have_one_each(rig):
    params = ball_params(rig)
    avatar = init_avatar(rig, params, torch.rand(128, 3, generator=torch.Generator().manual_seed(0)), opacity=0.7)
    black = torch.zeros(3)
    both = render(avatar, [camera(), camera()], params[[0, 3]], black)
    assert both.image.shape == (2, 34, 40, 3) and both.alpha.shape == (2, 34, 40)
    for i, t in enumerate((0, 3)):
        alone = render(avatar, [camera()], params[t], black)
        torch.testing.assert_close(both.image[i], alone.image[0])
    assert float((both.image[0] - both.image[1]).abs().max()) > 0.01


def test_background_shows_where_the_head_is_not(rig):
    avatar = init_avatar(rig, ball_params(rig), opacity=0.7)
    red = torch.tensor([1.0, 0, 0])
    on_red = render(avatar, [camera()], avatar.params[0], red)
    on_black = render(avatar, [camera()], avatar.params[0], torch.zeros(3))
    torch.testing.assert_close(on_red.image, on_black.image + (1 - on_black.alpha[..., None]) * red)
    small = from_angles(0.0, 0.0, 1.0, focal_px=40, width=40, height=40)
    torch.testing.assert_close(render(avatar, [small], avatar.params[0]).image[0, 0, 0], torch.ones(3))
