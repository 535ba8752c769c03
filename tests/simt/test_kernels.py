"""That every kernel of csrc/cuda is run: conftest.py asks at the end of the suite, and here is what it asks with."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gafcore import bind_triangles, rasterization
from tests.cases import rasterization as scenes
from tests.cases.bindings import binding_cases
from tests.simt import conftest, kernels
from tests.simt.emulator import KIND, emulated
from tests.simt.parity import assert_close

LISTING = """
0000000000012a30 t gaf::cuda::(anonymous namespace)::bind_fwd_kernel(gaf::BindTrianglesArgs<float>)
0000000000012b00 t void gaf::cuda::(anonymous namespace)::blend_bucket_vjp<2, true>(gaf::cuda::BlendPass, gaf::cuda::PairSums)
0000000000012c00 t void gaf::cuda::(anonymous namespace)::blend_tiles<1>(gaf::cuda::BlendPass, bool) [clone .cold]
0000000000012d00 t gaf::(anonymous namespace)::read(pybind11::dict const&)
0000000000012e00 b gaf::cuda::(anonymous namespace)::blend_tiles(int)::site
"""


def test_instances_are_told_apart_by_their_arguments():
    assert kernels.symbols(LISTING) == {0x12A30: "bind_fwd_kernel", 0x12B00: "blend_bucket_vjp<2, true>"}


def test_every_kernel_of_the_sources_is_in_the_module():
    assert {"adam_update_kernel", "blend_tiles", "photometric_fwd_kernel", "number_kernel"} <= kernels.sources()
    with emulated():
        assert {name.split("<")[0] for name in kernels.compiled().values()} == kernels.sources()


def test_a_launch_counts_for_its_kernel():
    with emulated() as module:
        places = [place for place, name in kernels.compiled().items() if name == "bind_fwd_kernel"]
        before = module.launches_by_place()
        bind_triangles(*binding_cases()[0].inputs(torch.float32))
        after = module.launches_by_place()
    assert {place: n - before.get(place, 0) for place, n in after.items() if n > before.get(place, 0)} == {places[0]: 1}


def test_what_was_not_launched_is_named(monkeypatch):
    with emulated() as module:
        places = {name: place for place, name in kernels.compiled().items()}
        monkeypatch.setattr(
            kernels, "load", lambda: Idle(module, {p: 1 for n, p in places.items() if n not in ("bind_fwd_kernel", "blend_tiles<2>")})
        )
        assert kernels.never_run() == ["bind_fwd_kernel", "blend_tiles<2>"]
        assert kernels.never_run(instances=False) == ["bind_fwd_kernel"]


@pytest.mark.skipif(KIND == "tsan", reason="the race detector's build has small scenes only")
def test_absolute_gradients_of_two_channels():
    """The one instance that test_rasterization.py does not reach."""
    scene = scenes.scene(n=40, scale=0.05, cameras=1, channels=2, absgrad=True, width=21, height=19)
    found = []
    for emulate in (False, True):
        tensors = scene.tensors(torch.float32, grad=True)
        with emulated() if emulate else nullcontext():
            image, _, meta = scene.call(rasterization, tensors)
            meta["means2d"].retain_grad()
            (image**2).sum().backward()
        found.append([meta["means2d"].absgrad, meta["means2d"].grad])
    assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


class Idle:
    def __init__(self, module, launches):
        self.__file__, self.launches_by_place = module.__file__, lambda: launches


@pytest.fixture
def session():
    """A session that ran every file of this folder, and one that it has no say about."""
    files = [*conftest.FOLDER.glob("test_*.py"), Path("elsewhere.py")]
    config = SimpleNamespace(option=SimpleNamespace(collectonly=False), args=["tests/simt"], stash=pytest.Stash())
    items = [SimpleNamespace(path=path, config=config) for path in files]
    return SimpleNamespace(items=items, config=config, exitstatus=pytest.ExitCode.OK)


@pytest.mark.parametrize("idle", [[], ["blend_tiles<2>"]])
def test_the_whole_suite_fails_for_a_kernel_that_never_ran(session, monkeypatch, idle):
    monkeypatch.setattr(conftest, "module_path", lambda: conftest.FOLDER)
    monkeypatch.setattr(kernels, "never_run", lambda instances: idle)
    conftest.pytest_deselected(session.items[-1:])
    conftest.pytest_sessionfinish(session, session.exitstatus)
    assert session.exitstatus == (pytest.ExitCode.TESTS_FAILED if idle else pytest.ExitCode.OK)


def test_a_part_of_the_suite_is_not_asked_for_every_kernel(session):
    assert conftest.is_whole(session)
    some = SimpleNamespace(items=session.items[1:], config=session.config)
    assert not conftest.is_whole(some)
    session.config.args = ["tests/simt/test_adam.py::test_one"]
    assert not conftest.is_whole(session)
    session.config.args = ["tests"]
    conftest.pytest_deselected(session.items[:1])
    assert not conftest.is_whole(session)
