"""Every reader against damaged and hostile files: it reads them or refuses them by name, and never leaves the folder it was given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from gafcore.avatars import load_avatar, read_params, save_avatar, storage
from gafcore.avatars.ply import read_ply
from gafcore.captures import video
from gafcore.cli.evaluate import read_history
from gafcore.errors import GafError, InputError
from gafcore.fitting.checkpoint import check_no_unfinished, load_checkpoint, save_checkpoint
from gafcore.fitting.config import FitConfig
from gafcore.fitting.lpips import load_lpips
from gafcore.fitting.state import initial_tensors, make_state
from gafcore.movies import write_frames
from gafcore.rigs import load_rig
from gafcore.rigs.ict_files import read_model
from gafcore.rigs.load import read_spec
from tests.avatars.test_storage import make_avatar
from tests.cases.ball import ball_rig
from tests.cases.mutations import broken_bytes, broken_json

CONFIG, IDENTITY = FitConfig(iterations=5), {"frames": "0"}
OBJ = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nf 1/1 2/2 3/3\nf 1/1 2/2 3/3 4/3\n"
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]  # Pillow and torch warn about damage in their own ways


@dataclass(frozen=True)
class Case:
    """A file to break, and what reads it."""

    file: Path
    read: Callable[[], object]
    is_json: bool = False


def _avatar(folder: Path) -> dict[str, Case]:
    save_avatar(make_avatar(), folder)
    ply, motion = (folder / "point_cloud/iteration_0" / name for name in ("point_cloud.ply", "flame_param.npz"))
    return {
        "avatar.json": Case(folder / "avatar.json", lambda: load_avatar(folder), is_json=True),
        "ply": Case(ply, lambda: read_ply(ply, 128)),
        "motion": Case(motion, lambda: read_params(motion, ball_rig())),
    }


def _fit(folder: Path) -> dict[str, Case]:
    avatar = make_avatar(0)
    tensors = save_checkpoint(folder, make_state(initial_tensors(avatar, CONFIG), avatar.binding, CONFIG), CONFIG, IDENTITY)
    latest, history = tensors.parent / "latest.json", folder / "history.json"
    history.write_text(json.dumps({name: [1.0, 2.0] for name in ("iteration", "loss", "psnr", "n_gaussians")}))
    document = json.loads(latest.read_text())

    def resume_sealed():
        """With the right hash, so that the damage is met by what reads the tensors."""
        latest.write_text(json.dumps({**document, "sha256": hashlib.sha256(tensors.read_bytes()).hexdigest()}))
        return load_checkpoint(folder, CONFIG, IDENTITY)

    return {
        "latest.json": Case(latest, lambda: load_checkpoint(folder, CONFIG, IDENTITY), is_json=True),
        "latest.json, a new fit": Case(latest, lambda: check_no_unfinished(folder), is_json=True),
        "checkpoint": Case(tensors, resume_sealed),
        "history.json": Case(history, lambda: read_history(history), is_json=True),
    }


def _weights(folder: Path) -> dict[str, Case]:
    weights = {"lin0.model.1.weight": torch.zeros(1, 64, 1, 1), "features.0.bias": torch.zeros(64)}
    save_file(weights, folder / "w.safetensors")
    torch.save(weights, folder / "w.pth")
    torch.save(weights, folder / "old.pth", _use_new_zipfile_serialization=False)
    files = [folder / name for name in ("w.safetensors", "w.pth", "old.pth")]
    return {f"LPIPS {file.name}": Case(file, lambda file=file: load_lpips(file)) for file in files}


def _rigs(folder: Path) -> dict[str, Case]:
    spec, packed, objs = folder / "rig.json", folder / "ict.npz", folder / "FaceXModel"
    spec.write_text(json.dumps({"name": "ict", "path": "ict.npz", "parts": ["face"], "sha256": "0"}))
    points, quads = np.zeros((12, 3), np.float32), np.array([[0, 1, 2, 3]] * 4)
    modes = np.zeros((2, 12, 3), np.float16)
    arrays = {"v": points, "vt": points[:, :2], "faces": quads, "faces_uv": quads, "identity": modes, "expression": modes}
    np.savez(packed, **arrays, expression_names=np.array(["a", "b"]))
    objs.mkdir()
    for name in ("generic_neutral_mesh", "identity000", "jawOpen"):
        (objs / f"{name}.obj").write_text(OBJ)
    return {
        "rig.json": Case(spec, lambda: read_spec(spec), is_json=True),
        "ICT npz": Case(packed, lambda: read_model(packed)),
        "ICT neutral": Case(objs / "generic_neutral_mesh.obj", lambda: read_model(objs)),
        "ICT shape": Case(objs / "jawOpen.obj", lambda: read_model(objs)),
    }


def _clips(folder: Path) -> dict[str, Case]:
    noise = [np.random.default_rng(i).integers(0, 255, (16, 24, 3), dtype=np.uint8) for i in range(4)]
    files = [write_frames(folder / "clip.mp4", noise)]
    for suffix in ("png", "jpg", "webp", "tif", "bmp"):
        files.append(folder / f"picture.{suffix}")
        Image.fromarray(noise[0]).save(files[-1])
    return {file.name: Case(file, lambda file=file: list(video.read(file))) for file in files}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    found: dict[str, Case] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "load_rig", lambda spec, **_: ball_rig() if spec == {"kind": "ball"} else load_rig(spec))
        for make in (_avatar, _fit, _weights, _rigs, _clips):
            found |= make(tmp_path_factory.mktemp(make.__name__))
        yield found


DOCUMENTS = ("avatar.json", "latest.json", "latest.json, a new fit", "history.json", "rig.json")
BINARIES = (
    "ply", "motion", "checkpoint", "LPIPS w.safetensors", "LPIPS w.pth", "LPIPS old.pth", "ICT npz", "ICT neutral", "ICT shape",
    "clip.mp4", "picture.png", "picture.jpg", "picture.webp", "picture.tif", "picture.bmp",
)  # fmt: skip
FUZZ = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def _survives(case: Case, data: bytes) -> None:
    """It is read, or refused with a message that names the file or, where it names others, its folder."""
    good = case.file.read_bytes()
    case.file.write_bytes(data)
    try:
        case.read()
    except GafError as error:
        assert case.file.name in str(error) or str(case.file.parent.name) in str(error), str(error)
    finally:
        case.file.write_bytes(good)


def test_every_case_reads_before_it_is_broken(cases):
    assert set(cases) == {*DOCUMENTS, *BINARIES}
    for name, case in cases.items():
        if name.startswith("LPIPS"):  # two of its tensors; the whole is 58 MB
            with pytest.raises(InputError, match="is missing; LPIPS needs"):
                case.read()
        elif name == "latest.json, a new fit":
            with pytest.raises(InputError, match="holds an unfinished fit"):
                case.read()
        else:
            case.read()


@pytest.mark.parametrize("name", DOCUMENTS)
@FUZZ
@given(data=st.data())
def test_wrong_values_in_documents(cases, name, data):
    case = cases[name]
    _survives(case, data.draw(broken_json(json.loads(case.file.read_text()))))


@pytest.mark.parametrize("name", [*DOCUMENTS, *BINARIES])
@FUZZ
@given(data=st.data())
def test_damaged_bytes(cases, name, data):
    case = cases[name]
    _survives(case, data.draw(broken_bytes(case.file.read_bytes())))


OUTSIDE = ("../outside", "/etc/hostname", "a/../../outside", "link/outside", "point_cloud/../../outside")


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize(("name", "fields"), [("avatar.json", ("gaussians", "params", "sha256")), ("latest.json", ("file",))])
def test_paths_that_lead_out_are_refused(cases, tmp_path, name, fields, path):
    """Also where the file is there to be read, and through a link."""
    case = cases[name]
    folder = case.file.parent
    (folder.parent / "outside").write_bytes(b"secret")
    link = folder / "link"
    if not link.exists():
        link.symlink_to(folder.parent)
    good = case.file.read_text()
    for field in fields:
        value = {path: "0"} if field == "sha256" else path
        case.file.write_text(json.dumps({**json.loads(good), field: value}))
        try:
            with pytest.raises(InputError, match=f"{case.file.name}: '{field}': .*leads out of"):
                case.read()
        finally:
            case.file.write_text(good)
