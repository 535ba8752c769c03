"""The emulator finds every planted mistake, and passes the right twin of each."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.simt.emulator import KIND, load, module_path

# How each is found. "all": by every build, as an exception; "end": the process ends with a message; "result": another result than the right
# twin's in some order of threads, or a race; "race", "ubsan": only by the build that looks for such.
MISTAKES = {
    "missing_barrier": ("result", r"data race"),
    "write_after_read": ("result", r"data race"),
    "off_by_one_shared": ("all", r"shared memory was written 0 bytes behind values|use-after-poison|index 64 out of bounds"),
    "divergent_barrier": ("all", r"divergent barrier"),
    "early_exit": ("all", r"has ended"),
    "wrong_mask": ("all", r"has ended|deadlock"),
    "lane_not_in_mask": ("all", r"reads lane 9, which is not in its mask"),
    "divergent_vote": ("all", r"of its mask is in a vote"),
    "unwritten_output": ("result", ""),
    "outside": ("all", r"wrote just outside|use-after-poison|WRITE of size 4|ends the process"),
    "far_outside": ("end", r"access to 0x|SEGV"),
    "missing_syncwarp": ("result", r"data race"),
    "shuffle_is_no_barrier": ("race", r"data race"),
    "misaligned": ("ubsan", r"misaligned address"),
    "sum_without_atomic": ("race", r"data race"),
    "race_of_blocks": ("race", r"data race"),
    "endless": ("end", r"runs for longer than"),
    "too_much_shared": ("all", r"more than 48 KiB"),
    "deadlock": ("all", r"deadlock|has ended"),
}

# Run in a process of its own, because some mistakes end it.
SCRIPT = """
import ctypes, importlib.util, sys
path, name, right, order, timeout_s = sys.argv[1], sys.argv[2], sys.argv[3] == "right", sys.argv[4], float(sys.argv[5])
spec = importlib.util.spec_from_file_location("_simt", path)
m = importlib.util.module_from_spec(spec)
spec.loader.exec_module(m)
m.configure(order, 3, timeout_s)
p = m.allocate(65 * 4)
zeros = (ctypes.c_float * 65)()
m.write(p + 256, ctypes.addressof(zeros) + 256, 4)
m.run_planted(name, right, p)
m.read(ctypes.addressof(zeros), p, 65 * 4)
m.release(p)
print("result", list(zeros))
"""

# Starts those processes: a command a line, its status and what it wrote back. Under ThreadSanitizer each start from pytest's own process
# would first copy the page tables of its gigabytes of shadow memory.
STARTER = """
import json, subprocess, sys
for line in sys.stdin:
    done = subprocess.run(json.loads(line), capture_output=True, text=True, timeout=120)
    print(json.dumps([done.returncode, done.stdout + done.stderr]), flush=True)
"""

Run = Callable[[str, bool, str], tuple[int, str]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Of (name of a planted mistake, whether its right twin, order of threads): exit status and output."""
    load()
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert starter.stdin is not None and starter.stdout is not None

    def run(name: str, right: bool, order: str) -> tuple[int, str]:
        timeout_s = 0.3 if name == "endless" else 2.0
        command = [sys.executable, "-c", SCRIPT, str(module_path()), name, "right" if right else "wrong", order, str(timeout_s)]
        print(json.dumps(command), file=starter.stdin, flush=True)
        code, text = json.loads(starter.stdout.readline())
        return code, text

    yield run
    starter.stdin.close()
    assert starter.wait(timeout=30) == 0


def test_every_planted_kernel_is_tried():
    assert set(load().planted) == set(MISTAKES)


@pytest.mark.parametrize("name", MISTAKES)
def test_right_twin_passes(run: Run, name: str):
    code, text = run(name, True, "random")
    assert code == 0 and "result" in text and "data race" not in text, text


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_found(run: Run, name: str):
    kind, message = MISTAKES[name]
    if kind == "race" and KIND != "tsan":
        pytest.skip("races without a visible effect are found by the ThreadSanitizer build")
    if kind == "ubsan" and KIND != "asan":
        pytest.skip("alignment is checked by the AddressSanitizer + UndefinedBehaviorSanitizer build")
    if kind == "end" and KIND == "tsan" and name == "endless":
        pytest.skip("ThreadSanitizer delays the watchdog's signal; the plain build has it")
    outputs = []
    for order in ("fifo", "lifo"):
        outputs.append(run(name, False, order))
        if message and re.search(message, outputs[-1][1]):
            return
    right = run(name, True, "fifo")[1].replace("nan", "NaN")
    assert kind == "result" and any(text.replace("nan", "NaN") != right for _, text in outputs), outputs[0][1]
