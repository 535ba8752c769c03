"""Which device a name means, and what is said where there is no GPU to use."""

from __future__ import annotations

import pytest
import torch

from gafcore import devices
from gafcore.cli import doctor
from gafcore.devices import cuda_missing, resolve
from gafcore.errors import InputError
from gafcore.ops import pair_room


@pytest.fixture
def machine(monkeypatch):
    """Sets what the compiled module and torch say about CUDA."""

    def set_up(compiled: bool = True, obstacle: str = "", seen: bool = True, refusal: str = "") -> None:
        monkeypatch.setattr(devices, "has_cuda", lambda: compiled)
        monkeypatch.setattr(doctor, "has_cuda", lambda: compiled)
        monkeypatch.setattr(doctor, "cuda_version", lambda: "13.0")
        monkeypatch.setattr(doctor, "cuda_architectures", lambda: ("80-real", "90"))
        monkeypatch.setattr(devices, "cuda_obstacle", lambda: obstacle)
        monkeypatch.setattr(devices, "_refusal", lambda: refusal)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: seen)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Card")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))

    return set_up


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"compiled": False}, r"compiled without CUDA; put nvcc .* on PATH.*GAF_CUDA=ON \(`gafcore doctor` says where to get nvcc\)"),
        ({"obstacle": "no device"}, "its CUDA kernels cannot run here: no device"),
        ({"seen": False}, r"torch \S+ does not see it; install a build of torch with CUDA"),
        ({"refusal": "no kernel image"}, r"do not run on Card \(sm_70\): no kernel image; install again on this machine"),
    ],
)
def test_what_is_missing_is_said(machine, facts, said):
    machine(**facts)
    with pytest.raises(InputError, match=f"device cuda cannot be used: .*{said}; or go on with --device cpu"):
        resolve("cuda")
    assert resolve("auto") == resolve("cpu") == torch.device("cpu")
    line = doctor.cuda_line()
    assert line.startswith("CUDA kernels: none" if "compiled" in facts else "CUDA kernels: compiled with CUDA 13.0")
    assert cuda_missing() in line


def test_where_nothing_is_missing_auto_is_the_current_gpu(machine):
    machine()
    assert resolve("auto") == resolve("cuda") == torch.device("cuda", 1)
    assert resolve("cpu") == torch.device("cpu")
    assert doctor.cuda_line() == "CUDA kernels: compiled with CUDA 13.0 for sm_80, sm_90, PTX of 90 for later cards, they run on Card"


def test_other_names_are_refused():
    with pytest.raises(InputError, match="device must be one of auto, cpu, cuda, got 'tpu'"):
        resolve("tpu")


def test_workspaces_are_reported_until_they_are_freed(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    pair_room.forget()
    pair_room.room_of(torch.zeros(1), 1, 10, 64, 48).fit(100_000)
    (kind,) = devices.workspaces()
    assert (kind["n_gaussians"], kind["width"], kind["n_pairs"]) == (10, 64, 100_000)
    assert kind["capacity"] >= 130_000 and {"kept_bytes", "scratch_bytes", "backward_scratch_bytes"} <= set(kind)
    for initialized in (False, True):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda initialized=initialized: initialized)
        devices.free_workspaces()
        assert devices.workspaces() == [] and len(emptied) == initialized
