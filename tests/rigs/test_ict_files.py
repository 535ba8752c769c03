"""Readers of ICT-FaceKit on a tiny model of the same layout, whole and damaged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gafcore.errors import InputError, MissingError
from gafcore.rigs.ict_files import fingerprint, read_model

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 2, 0.25]], np.float32)
FACES = np.array([[0, 1, 2, 3], [3, 2, 4, -1]])


def tiny_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "v": VERTICES,
        "faces": FACES.astype(np.int32),
        "vt": rng.random((5, 2)).astype(np.float32),
        "faces_uv": FACES.astype(np.int32),
        "identity": rng.normal(size=(2, 5, 3)).astype(np.float16),
        "expression": rng.normal(size=(1, 5, 3)).astype(np.float16),
        "expression_names": np.array(["jawOpen"]),
    }


def write_obj(path, vertices, faces=True):
    lines = ["# comment", *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices)]
    if faces:
        lines += [
            *(f"vt {i / 10:.3f} {i / 20:.3f} 0.0" for i in range(5)),
            "vn 0 0 1",
            "g part",
            "f 1/1/1 2/2/1 3/3/1 4/4/1",
            "f 4/4 3/3 5/5",
        ]
    path.write_text("\n".join(lines) + "\n")


def write_folder(folder):
    folder.mkdir()
    write_obj(folder / "generic_neutral_mesh.obj", VERTICES)
    write_obj(folder / "identity000.obj", VERTICES + 1)
    write_obj(folder / "identity001.obj", VERTICES + 2)
    write_obj(folder / "jawOpen.obj", VERTICES - [0, 3, 0])
    write_obj(folder / "browDown_L.obj", VERTICES)
    return folder


def test_npz_round_trip(tmp_path):
    np.savez(tmp_path / "a.npz", **tiny_arrays())
    model = read_model(tmp_path / "a.npz")
    np.testing.assert_array_equal(model.vertices, VERTICES)
    np.testing.assert_array_equal(model.faces, FACES)
    assert model.expression_names == ("jawOpen",)


def test_folder_of_objs(tmp_path):
    model = read_model(write_folder(tmp_path / "FaceXModel"))
    np.testing.assert_array_equal(model.vertices, VERTICES)
    np.testing.assert_array_equal(model.faces, FACES)
    np.testing.assert_array_equal(model.uv_faces, FACES)
    assert model.uvs.shape == (5, 2)
    assert model.expression_names == ("browDown_L", "jawOpen")
    np.testing.assert_allclose(model.identity, np.stack([np.full((5, 3), 1.0), np.full((5, 3), 2.0)]), atol=1e-6)
    np.testing.assert_allclose(model.expression[1], np.tile([0, -3.0, 0], (5, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("v", None, r"no field 'v'; it has"),
        ("v", np.zeros((5, 2), np.float32), r"v must be \[\*, 3\] of kind f, got \[5, 2\] float32"),
        ("v", np.full((5, 3), np.nan, np.float32), "v holds NaN"),
        ("faces", FACES.astype(np.float32), r"faces must be \[\*, 4\] of kind i/u"),
        ("faces", np.full((2, 4), 5, np.int32), r"faces points outside 0\.\.4"),
        ("faces", np.full((2, 4), -1, np.int32), "faces points outside"),
        ("faces_uv", FACES[:1].astype(np.int32), "faces_uv has 1 rows, faces has 2"),
        ("identity", np.zeros((2, 4, 3), np.float16), r"identity must be \[\*, 5, 3\]"),
        ("expression", np.zeros((2, 5, 3), np.float16), r"expression must be \[1, 5, 3\]"),
        ("expression_names", np.array([1, 2]), "expression_names must be a list of text"),
    ],
)
def test_wrong_fields_are_named(tmp_path, key, value, message):
    arrays = tiny_arrays()
    if value is None:
        del arrays[key]
    else:
        arrays[key] = value
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_model(tmp_path / "a.npz")


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **{**tiny_arrays(), "v": np.array([{"a": 1}], object)})
    with pytest.raises(InputError, match="without pickles"):
        read_model(tmp_path / "a.npz")


def test_single_array_and_missing_paths(tmp_path):
    with (tmp_path / "a.npz").open("wb") as stream:
        np.save(stream, VERTICES)
    with pytest.raises(InputError, match="single array"):
        read_model(tmp_path / "a.npz")
    with pytest.raises(MissingError, match="no such file or folder; ICT-FaceKit"):
        read_model(tmp_path / "absent")
    with pytest.raises(MissingError, match="generic_neutral_mesh"):
        read_model(tmp_path)
    with pytest.raises(MissingError, match="cannot be read"):
        fingerprint(tmp_path / "absent")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_npz_is_an_input_error(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    np.savez_compressed(path, **tiny_arrays())
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="cut"):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    for _ in range(data.draw(st.integers(0, 4))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        model = read_model(path)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert model.faces.max() < len(model.vertices)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v 1 2\n", "does not hold 3 numbers"),
        ("v 1 2 x\n", "does not hold 3 numbers"),
        ("v 1 2 nan\n", "NaN or infinite"),
        ("v 1 2 3\nvt 0 0\nf 1 1 1\n", "triangles or quads of v/vt"),
        ("v 1 2 3\nvt 0 0\nf 1/1 1/1 1/1 1/1 1/1\n", "triangles or quads of v/vt"),
        ("v 1 2 3\nvt 0 0\nf 1/1 1/1 a/1\n", "not a number"),
        ("v 1 2 3\nvt 0 0\nf 1/1 2/1 1/1\n", r"faces points outside 0\.\.0"),
    ],
)
def test_damaged_obj_is_an_input_error(tmp_path, text, message):
    folder = write_folder(tmp_path / "FaceXModel")
    for path in folder.glob("*.obj"):
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_model(folder)


def test_shapes_of_another_mesh_are_refused(tmp_path):
    folder = write_folder(tmp_path / "FaceXModel")
    write_obj(folder / "identity001.obj", VERTICES[:4], faces=False)
    with pytest.raises(InputError, match=r"identity001\.obj: 4 vertices, but generic_neutral_mesh\.obj has 5"):
        read_model(folder)


def test_folder_without_shapes_is_refused(tmp_path):
    write_obj(tmp_path / "generic_neutral_mesh.obj", VERTICES)
    with pytest.raises(InputError, match="identityNNN"):
        read_model(tmp_path)
