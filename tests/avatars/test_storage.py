from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gafcore.avatars import RiggedAvatar, init_avatar, load_avatar, read_params, render, save_avatar, storage, write_params
from gafcore.cameras import from_angles
from gafcore.errors import InputError, MissingError
from tests.cases.ball import ball_params, ball_rig

PLY = "point_cloud/iteration_7/point_cloud.ply"
PARAMS = "point_cloud/iteration_7/flame_param.npz"


@pytest.fixture(autouse=True)
def known_rig(monkeypatch):
    """The ball is no rig that `load_rig` knows."""
    monkeypatch.setattr(storage, "load_rig", lambda *_, **__: ball_rig())


def make_avatar(degree: int = 1) -> RiggedAvatar:
    rig = ball_rig()
    g = torch.Generator().manual_seed(0)
    avatar = init_avatar(rig, ball_params(rig), torch.rand(rig.faces.shape[0], 3, generator=g), opacity=0.6, sh_degree=degree)
    for x in avatar.parameters().values():
        x += 0.05 * torch.randn(x.shape, generator=g)
    return avatar


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_a_loaded_avatar_renders_the_same_bits(tmp_path, degree):
    avatar = make_avatar(degree)
    save_avatar(avatar, tmp_path, iteration=7)
    loaded = load_avatar(tmp_path)
    cameras = [from_angles(a, 0.2, 1.0, focal_px=150, width=40, height=30) for a in (0.0, 2.0)]
    for t in range(len(avatar.params)):
        want, got = (render(a, cameras, a.params[t]) for a in (avatar, loaded))
        assert torch.equal(want.image, got.image)
    assert loaded.sh_degree == degree


def test_layout_and_manifest(tmp_path):
    save_avatar(make_avatar(), tmp_path, iteration=7, info={"made": "by a test"})
    manifest = json.loads((tmp_path / "avatar.json").read_text())
    assert manifest["gaussians"] == PLY and manifest["params"] == PARAMS
    assert manifest["rig"] == {"kind": "ball"} and manifest["info"] == {"made": "by a test"}
    assert manifest["n_gaussians"] == 128 and manifest["n_timesteps"] == 4 and manifest["sh_degree"] == 1
    with np.load(tmp_path / PARAMS) as arrays:
        assert {k: arrays[k].shape for k in arrays.files} == {
            "shape": (1,),
            "expr": (4, 2),
            "rotation": (4, 3),
            "neck_pose": (4, 3),
            "jaw_pose": (4, 3),
            "eyes_pose": (4, 6),
            "translation": (4, 3),
        }


def test_the_rigs_file_may_move_together_with_the_avatar(tmp_path, monkeypatch):
    spec = {"name": "ict", "path": str(tmp_path / "a/rigs/ict.npz"), "sha256": "0"}
    avatar = make_avatar()
    save_avatar(replace(avatar, rig=replace(avatar.rig, spec=spec)), tmp_path / "a/avatars/one")
    assert json.loads((tmp_path / "a/avatars/one/avatar.json").read_text())["rig"]["path"] == "../../rigs/ict.npz"
    (tmp_path / "a").rename(tmp_path / "b")
    asked = []
    monkeypatch.setattr(storage, "load_rig", lambda given, **_: asked.append(given) or ball_rig())
    load_avatar(tmp_path / "b/avatars/one")
    assert asked == [{**spec, "path": str(tmp_path / "b/rigs/ict.npz")}]


def test_nan_is_not_saved(tmp_path):
    avatar = make_avatar()
    avatar.quats[3, 1] = float("nan")
    with pytest.raises(InputError, match="avatar not saved: its quats holds NaN"):
        save_avatar(avatar, tmp_path / "a")
    good = make_avatar()
    with pytest.raises(InputError, match="its expr holds NaN"):
        save_avatar(replace(good, params=replace(good.params, expr=good.params.expr / 0)), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_empty_folder_says_what_is_missing(tmp_path):
    with pytest.raises(MissingError, match=r"no avatar here \(avatar.json is missing\)"):
        load_avatar(tmp_path)


def edit(tmp_path, **changes):
    path = tmp_path / "avatar.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "'format' must be 'gafcore-avatar'"),
        ({"version": 99}, "'version' must be 1, got 99"),
        ({"gaussians": 5}, "'gaussians' must be str, got 5"),
        ({"gaussians": "../a.ply"}, r"avatar.json: 'gaussians': '../a.ply' leads out of"),
        ({"params": "gone.npz"}, r"avatar.json: 'params' names .*gone.npz, which does not exist"),
        ({"sh_degree": 4}, "'sh_degree' must be 0 to 3, got 4"),
        ({"sh_degree": True}, "'sh_degree' must be int, got True"),
        ({"n_gaussians": 3}, "n_gaussians is 3, but the files hold 128"),
        ({"sha256": {PLY: "0"}}, "does not match its SHA-256"),
        ({"sha256": {"gone.ply": "0"}}, r"avatar.json: 'sha256' names .*gone.ply, which does not exist"),
    ],
)
def test_a_wrong_manifest_is_named(tmp_path, changes, message):
    save_avatar(make_avatar(), tmp_path, iteration=7)
    edit(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        load_avatar(tmp_path)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), name=st.sampled_from(["avatar.json", PLY, PARAMS]))
def test_damage_never_goes_unnoticed(tmp_path_factory, data, name):
    folder = tmp_path_factory.mktemp("avatar")
    save_avatar(make_avatar(), folder, iteration=7)
    path = folder / name
    raw = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255).filter(lambda b: b != raw[at]))
    path.write_bytes(raw)
    try:
        load_avatar(folder)
    except InputError:
        return
    assert name == "avatar.json"  # a byte of `info` or of white space may change; the sealed files may not


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("expr", np.zeros((4, 3), np.float32), r"'expr' must be \[\*, 2\], got \[4, 3\]"),
        ("rotation", np.zeros((3, 3), np.float32), "'rotation' has 3 timesteps, but 'expr' has 4"),
        ("shape", np.zeros(9, np.float32), r"'shape' must be \[1\] or \[1, 1\], got \[9\]"),
        ("jaw_pose", np.full((4, 3), np.nan), "'jaw_pose' holds NaN"),
        ("neck_pose", np.full((4, 3), "a"), "'neck_pose' must hold numbers"),
        ("dynamic_offset", np.ones((4, 66, 3)), "'dynamic_offset' is not supported"),
        ("static_offset", np.ones((1, 5, 3)), r"'static_offset' must be \[66, 3\] or \[1, 66, 3\]"),
    ],
)
def test_motion_files_are_checked_array_by_array(tmp_path, name, value, message):
    rig = ball_rig()
    arrays = {k: x.numpy() for k, x in ball_params(rig).items() if x is not None}
    np.savez(tmp_path / "motion.npz", **(arrays | {name: value}))
    with pytest.raises(InputError, match=r"motion.npz: array " + message):
        read_params(tmp_path / "motion.npz", rig)


def test_motion_files_as_vhap_writes_them(tmp_path):
    """Shape with a leading 1, float64, a zero dynamic offset, a static offset of [1, V, 3]."""
    rig = ball_rig()
    params = ball_params(rig)
    arrays = {k: x.double().numpy() for k, x in params.items() if x is not None}
    arrays |= {"shape": arrays["shape"][None], "static_offset": np.ones((1, 66, 3)), "dynamic_offset": np.zeros((4, 66, 3))}
    np.savez(tmp_path / "motion.npz", **arrays)
    got = read_params(tmp_path / "motion.npz", rig)
    assert torch.equal(got.expr, params.expr) and torch.equal(got.shape, params.shape)
    assert torch.equal(got.static_offset, torch.ones(66, 3))


def test_motion_round_trip_and_a_file_that_is_no_archive(tmp_path):
    rig = ball_rig()
    params = ball_params(rig)
    write_params(tmp_path / "motion.npz", params)
    for (name, want), (_, got) in zip(params.items(), read_params(tmp_path / "motion.npz", rig).items(), strict=True):
        assert got is want is None or torch.equal(got, want), name
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 nothing else")
    with pytest.raises(InputError, match="bad.npz: not readable as an npz file"):
        read_params(tmp_path / "bad.npz", rig)
