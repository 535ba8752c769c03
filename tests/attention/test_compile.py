"""The kernels compile to machine code for GPUs, tensor cores included. No GPU is needed, and none of this says how fast they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SHARED_LIMIT = 99 * 1024  # a block's on compute capability 8.6 and 8.9, the smallest of the supported ones
SCRIPT = Path(__file__).with_name("compile_kernels.py")


def test_kernels_compile_for_a100_and_h100(tmp_path):
    # In a process of its own: this one may have imported Triton with its interpreter on.
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    run = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    made = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(made) == 5
    for row in made:
        assert row["cubin"] > 0 and row["shared"] <= SHARED_LIMIT, row
    assert all(row["wgmma"] for row in made if row["arch"] == 90), "Hopper's kernels do not use its matrix instructions"
