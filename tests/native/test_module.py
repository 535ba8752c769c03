from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

import gafcore
from gafcore.native import _native, capturing, launch

SCENE = """
import torch, gafcore
torch.manual_seed(0)
v, f, b = torch.randn(1, 50, 3), torch.randint(0, 50, (80, 3)), torch.randint(0, 80, (3000,))
args = v, f, b, torch.randn(3000, 3), torch.randn(3000, 4), torch.randn(3000, 3)
"""


def scene():
    names: dict[str, object] = {}
    exec(SCENE, names)
    return names["args"]


def test_arguments_are_checked_by_name():
    with pytest.raises(TypeError, match="missing argument 'n_batch'"):
        launch("bind_triangles_fwd", torch.zeros(1))
    with pytest.raises(TypeError, match="not a field"):
        launch("bind_triangles_fwd", torch.zeros(1), n_batch=0, n_vertices=0, n_faces=0, n_gaussians=0, wrong=1)


def test_calls_from_several_threads_at_once_give_the_same_bits():
    args = scene()
    want = gafcore.bind_triangles(*args)
    results: list[tuple[torch.Tensor, ...]] = []
    workers = [threading.Thread(target=lambda: results.extend(gafcore.bind_triangles(*args) for _ in range(20))) for _ in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert len(results) == 80
    assert all(torch.equal(a, b) for r in results for a, b in zip(r, want, strict=True))


class _OnDevice(torch.Tensor):
    """Says that it is on the second GPU, without there being one."""

    device = torch.device("cuda:1")


def test_the_tensors_device_is_asked_whether_it_captures(monkeypatch):
    asked, capturing_on, current = [], 1, [0]

    class Device:
        def __init__(self, device):
            self.index = device.index

        def __enter__(self):
            self.before, current[0] = current[0], self.index

        def __exit__(self, *_):
            current[0] = self.before

    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "device", Device)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: asked.append(current[0]) or current[0] == capturing_on)
    x = torch.zeros(1).as_subclass(_OnDevice)
    assert capturing(x) and current == [0]
    capturing_on = 0
    assert not capturing(x)
    current[0] = 1
    assert not capturing(x)
    assert asked == [1, 1, 1]
    assert not capturing(torch.zeros(1)) and len(asked) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork exists on Unix only")
def test_works_in_a_forked_child():
    code = SCENE + (
        "import os\n"
        "want = gafcore.bind_triangles(*args)[0]\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0 if torch.equal(gafcore.bind_triangles(*args)[0], want) else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork exists on Unix only")
def test_works_in_a_child_forked_while_another_thread_takes_memory():
    code = SCENE + (
        "import os, threading\n"
        "from gafcore.native import _native\n"
        "def hammer():\n"
        "    while True: gafcore.photometric_loss(*images)\n"
        "images = torch.rand(2, 40, 40, 3)\n"
        "torch.set_num_threads(1)\n"
        "threading.Thread(target=hammer, daemon=True).start()\n"
        "for _ in range(150):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        _native.Scratch(1 << 12)\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(pid, 0)[1] == 0\n"
        "os._exit(0)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_no_more_threads_means_fewer_workers():
    code = SCENE + (
        "import resource\n"
        "torch.set_num_threads(1)\n"
        "want = gafcore.bind_triangles(*args)\n"
        "torch.set_num_threads(16)\n"
        "with open('/proc/self/statm') as f: now = int(f.read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now + (12 << 20), resource.RLIM_INFINITY))\n"  # room for the stack of one thread
        "for _ in range(3):\n"
        "    got = gafcore.bind_triangles(*args)\n"
        "    assert all(torch.equal(a, b) for a, b in zip(got, want))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("n_bytes", [1, 128, 4096 + 64, 1 << 20, 1 << 21])
def test_memory_is_aligned_for_sixteen_doubles(n_bytes):
    blocks = [_native.Scratch(n_bytes) for _ in range(8)]
    assert all(torch.frombuffer(b, dtype=torch.uint8).data_ptr() % 128 == 0 for b in blocks)


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_instruction_set_can_be_lowered(isa):
    code = "from gafcore.native import isa_name; print(isa_name())"

    def chosen(wish: dict[str, str]) -> str:
        env = {k: v for k, v in os.environ.items() if k != "GAFCORE_ISA"} | wish  # this process may itself have been lowered
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60).stdout.strip()

    order = ["baseline", "avx2", "avx512"]
    assert chosen({"GAFCORE_ISA": isa}) == min(isa, chosen({}), key=order.index)
