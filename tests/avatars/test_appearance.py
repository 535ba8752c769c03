from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gafcore.avatars import appearance, pose, render
from gafcore.avatars.appearance import face_regions, initial_avatar, mirror_faces, seen_colors
from gafcore.cameras import from_angles
from gafcore.types import Capture, Frame
from tests.cases.ball import ball_params, ball_rig


def flat_capture(color: tuple[float, float, float], azimuth: float = 0.0, masked: bool = False) -> Capture:
    """One picture of one colour."""
    rig = ball_rig()
    camera = from_angles(azimuth, 0.0, 1.0, focal_px=300, width=64, height=64)
    image = torch.tensor(color).expand(64, 64, 3)
    mask = torch.ones(64, 64)
    if masked:
        mask[:, :32] = 0
    frame = Frame(camera, 0, 0, lambda: image, lambda: mask)
    return Capture((frame,), rig, ball_params(rig), {"train": (0,)})


@pytest.fixture(params=["on the CPU", "as on a GPU"])
def complete_colors(request, monkeypatch):
    """Both ways; the second in several slices."""
    monkeypatch.setattr(appearance, "_PAIRS", 50 * 128)
    return appearance.complete_colors if request.param == "on the CPU" else appearance._completed_densely


def test_only_faces_towards_the_camera_are_seen():
    capture = flat_capture((0.2, 0.4, 0.6))
    colors, seen = seen_colors(capture, list(capture.frames))
    vertices = capture.rig.vertices(capture.params[0])[0]
    a, b, c = (vertices[capture.rig.faces[:, i]] for i in range(3))
    normal, centre = torch.linalg.cross(b - a, c - a), (a + b + c) / 3
    towards = (normal * (torch.tensor([0, 0, 1.0]) - centre)).sum(-1) > 0
    assert not (seen & ~towards).any()
    assert float((seen & towards).sum() / towards.sum()) > 0.95  # a sliver at the rim may cover no pixel centre
    torch.testing.assert_close(colors[seen], torch.tensor([0.2, 0.4, 0.6]).expand(int(seen.sum()), 3))


def test_pixels_outside_the_mask_show_nothing():
    capture = flat_capture((0.2, 0.4, 0.6), masked=True)
    _, seen = seen_colors(capture, list(capture.frames))
    centre = capture.rig.template[capture.rig.faces].mean(1)
    assert seen.any() and float(centre[seen, 0].min()) > -0.02


def test_hidden_faces_take_the_mirror_images_colour(complete_colors):
    """Seen from one side, where colour runs from front to back: the other side gets the reflected colours."""
    rig = ball_rig()
    centre = rig.template[rig.faces].mean(1)
    truth = torch.stack([0.5 + 4 * centre[:, 2], 0.5 + 4 * centre[:, 1], torch.full((128,), 0.3)], -1)
    seen = centre[:, 0] > 0
    colors = torch.where(seen[:, None], truth, torch.zeros(3))
    torch.testing.assert_close(complete_colors(rig, colors, seen), truth, atol=1e-5, rtol=0)


def test_what_has_no_seen_mirror_image_takes_from_its_neighbours(complete_colors):
    rig = ball_rig()
    centre = rig.template[rig.faces].mean(1)
    seen = centre[:, 2] > 0
    colors = torch.where((centre[:, 1] > 0)[:, None], torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0]))
    rig = replace(rig, regions={})
    got = complete_colors(rig, torch.where(seen[:, None], colors, torch.zeros(3)), seen)
    assert torch.equal(got[seen], colors[seen])
    clear = ~seen & (centre[:, 1].abs() > 0.06)
    torch.testing.assert_close(got[clear], colors[clear], atol=0.05, rtol=0)


def test_regions_do_not_lend_each_other_colours(complete_colors):
    rig = ball_rig()
    centre = rig.template[rig.faces].mean(1)
    front, eye = rig.template[:, 2] > 0, torch.zeros(66, dtype=torch.bool)
    eye[rig.faces[centre[:, 1] > 0.05].flatten()] = True
    rig = replace(rig, regions={"eye": eye, "face": front})
    labels = face_regions(rig)
    inside = (labels & 1) > 0
    colors = torch.where(inside[:, None], torch.tensor([1.0, 1, 1]), torch.tensor([0.4, 0.2, 0.1]))
    seen = torch.rand(128, generator=torch.Generator().manual_seed(0)) > 0.5
    got = complete_colors(rig, colors * seen[:, None], seen)
    torch.testing.assert_close(got[inside], colors[inside])


def test_a_region_with_few_or_no_seen_faces_and_a_lopsided_mesh(complete_colors):
    """An eye of which three faces are seen has fewer than eight to take from; another one has none, so that all others are asked."""
    rig, g = ball_rig(), torch.Generator().manual_seed(1)
    centre = rig.template[rig.faces].mean(1)
    some, none = ((rig.template - centre[i]).norm(dim=-1) < 0.07 for i in (5, 90))
    rig = replace(rig, template=rig.template + 0.02 * torch.rand(66, 3, generator=g), regions={"some": some, "none": none})
    labels, seen = face_regions(rig), torch.rand(128, generator=g) > 0.6
    assert (labels == 1).sum() > 8 and (labels == 2).sum() > 2
    seen[labels == 2] = False
    seen[(labels == 1).nonzero()[:, 0]] = torch.arange(int((labels == 1).sum())) < 3
    colors = torch.rand(128, 3, generator=g) * seen[:, None]
    known = appearance.complete_colors(rig, colors, seen)
    torch.testing.assert_close(complete_colors(rig, colors, seen), known, atol=1e-6, rtol=0)


def test_mirror_faces_of_a_symmetric_mesh_are_an_involution():
    rig = ball_rig()
    twins = mirror_faces(rig.template[rig.faces].mean(1).numpy())
    assert (twins >= 0).all()
    np.testing.assert_array_equal(twins[twins], np.arange(128))


def test_nothing_seen_is_grey(complete_colors):
    rig = ball_rig()
    assert torch.equal(complete_colors(rig, torch.zeros(128, 3), torch.zeros(128, dtype=torch.bool)), torch.full((128, 3), 0.5))


def test_the_first_avatar_is_a_textured_mesh_from_every_side():
    capture = flat_capture((0.2, 0.4, 0.6))
    avatar = initial_avatar(capture, (0,), opacity=0.9)
    assert len(avatar) == 128
    torch.testing.assert_close(torch.sigmoid(avatar.opacity_logits), torch.full((128,), 0.9))
    gaussians = pose(avatar, capture.params[0])
    thin = gaussians.scales[0].argmin(-1)
    assert bool((thin == 1).all())  # along the triangle's normal
    for azimuth in (0.0, 2.0, 3.1):
        camera = from_angles(azimuth, 0.0, 1.0, focal_px=300, width=64, height=64)
        view = render(avatar, [camera], capture.params[0])
        centre = view.image[0, 28:36, 28:36]
        torch.testing.assert_close(centre, torch.tensor([0.2, 0.4, 0.6]).expand(8, 8, 3), atol=0.03, rtol=0)
