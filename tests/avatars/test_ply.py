from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gafcore.avatars.ply import read_ply, write_ply
from gafcore.errors import InputError, MissingError


def tensors(n: int = 5, degree: int = 1) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "means": torch.randn(n, 3, generator=g),
        "quats": torch.randn(n, 4, generator=g),
        "log_scales": torch.randn(n, 3, generator=g),
        "opacity_logits": torch.randn(n, generator=g),
        "sh": torch.randn(n, (degree + 1) ** 2, 3, generator=g),
        "binding": torch.arange(n) * 3,
    }


def test_the_file_is_what_gaussian_avatars_writes(tmp_path):
    """Header and bytes against a reader written here from the format's description."""
    values = tensors()
    write_ply(tmp_path / "a.ply", values)
    raw = (tmp_path / "a.ply").read_bytes()
    header, body = raw.split(b"end_header\n", 1)
    lines = header.decode().split("\n")
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 5"]
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(45)), "opacity"]
    names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3", "binding_0"]
    assert lines[3:-1] == [f"property float {name}" for name in names]
    table = np.frombuffer(body, dtype="<f4").reshape(5, len(names))
    column = {name: table[:, i] for i, name in enumerate(names)}
    np.testing.assert_array_equal(column["y"], values["means"][:, 1])
    np.testing.assert_array_equal(column["nz"], 0)
    np.testing.assert_array_equal(column["f_dc_2"], values["sh"][:, 0, 2])
    np.testing.assert_array_equal(column["f_rest_16"], values["sh"][:, 2, 1])  # channel-major: 15 of red, then green's second
    np.testing.assert_array_equal(column["f_rest_3"], 0)
    np.testing.assert_array_equal(column["opacity"], values["opacity_logits"])
    np.testing.assert_array_equal(column["scale_2"], values["log_scales"][:, 2])
    np.testing.assert_array_equal(column["rot_0"], values["quats"][:, 0])
    np.testing.assert_array_equal(column["binding_0"], [0, 3, 6, 9, 12])


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip_is_exact(tmp_path, degree):
    values = tensors(degree=degree)
    write_ply(tmp_path / "a.ply", values)
    got = read_ply(tmp_path / "a.ply", n_faces=13)
    k = (degree + 1) ** 2
    for name, x in values.items():
        assert torch.equal(got[name][:, :k] if name == "sh" else got[name], x), name
    assert torch.equal(got["sh"][:, k:], torch.zeros(5, 16 - k, 3))


def test_no_gaussians(tmp_path):
    write_ply(tmp_path / "a.ply", tensors(0))
    assert read_ply(tmp_path / "a.ply", 1)["sh"].shape == (0, 16, 3)


def test_messages_name_file_and_property(tmp_path):
    path = tmp_path / "a.ply"
    with pytest.raises(MissingError, match="a.ply: no such file"):
        read_ply(path, 1)
    write_ply(path, tensors())
    with pytest.raises(InputError, match=r"a.ply: binding_0 must be whole numbers in 0\.\.11, got 12"):
        read_ply(path, 12)
    path.write_bytes(path.read_bytes().replace(b"property float scale_1", b"property float scale_9"))
    with pytest.raises(InputError, match="a.ply: property 'scale_1' is missing"):
        read_ply(path, 13)
    values = tensors()
    values["opacity_logits"][2] = float("nan")
    write_ply(path, values)
    with pytest.raises(InputError, match="a.ply: property 'opacity' holds NaN"):
        read_ply(path, 13)


def test_a_face_number_too_large_for_a_float_is_refused(tmp_path):
    values = tensors()
    values["binding"][0] = 2**24
    with pytest.raises(ValueError, match="binding must be < 16777216"):
        write_ply(tmp_path / "a.ply", values)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_damaged_file_never_crashes_the_reader(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    write_ply(path, tensors())
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, min(len(raw), 400) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        read_ply(path, 100)
    except InputError as error:
        assert "a.ply" in str(error)
