from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu import report

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "gpu-h200"


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return report.made(RESULTS)


def test_called_and_replayed_stand_beside_each_other(lines):
    expected = (
        "| rasterization forward | gaussians 10000, size 512x512, sh 0, batch 1 | 0.3258 +- 0.0403 | 0.0408 +- 0.0007 | 6.1 / 6.1 |  |  |"
    )
    assert expected in lines
    assert not any("replayed" in line and line.startswith("| rasterization") for line in lines)


def test_training_steps_and_frames_a_second(lines):
    (step,) = (line for line in lines if line.startswith("| training step") and "gaussians 100000" in line)
    assert step.endswith("| 2.0207 +- 0.3713 | 0.4307 +- 0.0031 | 167.9 / 157.6 |  | 495 it / 2322 it |")
    (frame,) = (line for line in lines if "gaussians 100000, size 768x768, half False" in line)
    assert frame.endswith("| 1557 +- 42 frames / 6151 +- 42 frames |")


def test_memory_that_was_not_measured_is_no_zero(lines):
    assert not any("/ 0.0 |" in line for line in lines)


def test_every_file_has_its_own_header(lines):
    (ops,) = (line for line in lines if line.startswith("`ops.json`"))
    assert ops.startswith("`ops.json`: commit e50b74d; 2026-11-27T04:18:38+00:00; NVIDIA H200, 580.159.04,")
    assert "copy 4259 GB/s; torch 2.11.0; CUDA 13.0; Intel(R) Xeon(R) Processor" in ops
    (rasterize,) = (line for line in lines if line.startswith("`rasterize.json`"))
    assert "commit 07ab5ecc02e4; 2026-11-27T13:45:57+00:00" in rasterize and "copy 4233 GB/s" in rasterize


@pytest.mark.parametrize(
    "line",
    [
        "| synccheck | exit status 9 |  | f2c0526 |  |",
        "| fit, graphs | 6000 | 3.782 | 1586.5 | 15883 | 0.568 +- 0.201 | 188 | train 44.1, novel_view 26.59 |",
        "| forward | 32x32 | triton | 5 | 0.1352 +- 0.0022 |",
        "| refresh | attention sdpa, graph True, strength 0.5, dtype torch.bfloat16 | 0.896 +- 0.263 | 5.8 |",
        "| peers | cut off | 150 | did not end in 150 s |",
        "| fit | not run |  |  |",
        "`pytest -m gpu`: 685 passed, 4 skipped, 1 warning in 63.21s (0:01:03).",
    ],
)
def test_other_tables(lines, line):
    assert line in lines


def test_profile_and_counters(lines):
    (total,) = (line for line in lines if line.startswith("| animated avatar 100k 768x768 | 141 | 18 | blend_tiles 36, "))
    assert total
    assert any(line.startswith("| animated 100k 768x768: blend_tiles<3> | 129216.0 ns | 19.29 % |") for line in lines)


def test_the_documents_roofline_is_what_the_files_say(lines):
    document = (RESULTS.parents[2] / "docs" / "kernels" / "roofline.md").read_text(encoding="utf-8").splitlines()
    (begin,) = (i for i, line in enumerate(lines) if line.startswith("| case | kernel | measured, us |"))
    table = lines[begin : lines.index("", begin)]
    at = document.index(table[0])
    assert document[at : at + len(table)] == table
    assert "|  | `photometric_bwd_kernel` | 46.2 | 201.33 | 103 % |  |" in table


def test_the_committed_report_is_what_the_files_say(lines):
    assert (RESULTS / "report.md").read_text(encoding="utf-8") == "\n".join(lines)


def test_each_result_names_where_it_comes_from():
    for name in ("ops", "rasterize", "scale", "fit", "profile", "diffusion", "attention"):
        assert json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["commit"], name


# ---- files that are written from now on


def test_errors_absent_peers_and_what_was_cut_off(tmp_path):
    gpu = {"nvidia_smi": "a card, 1 MHz", "copy_gb_per_s": 100.0, "torch_cuda": "13.0"}
    rows = [
        {"name": "a", "size": 3, "median_ms": 1.0, "iqr_ms": 0.5, "peak_mb": 2.0, "gb_per_s": 50.0},
        {"name": "a, replayed", "size": 3, "error": "RuntimeError: not captured"},
        {"name": "peer b", "error": "AssertionError"},
        {"name": "c, replayed", "median_ms": 0.5, "iqr_ms": 0.1, "peak_mb": 1.0, "largest_image_error": 0.00123},
    ]
    file = {"commit": "0123456789abcdef", "dirty": True, "gpu": gpu, "peers": {"gsplat": "absent"}, "complete": False, "results": rows}
    (tmp_path / "ops.json").write_text(json.dumps(file))
    (tmp_path / "peers_left_out.txt").write_text("gsplat: did not build in 240 s\n")
    (tmp_path / "sanitize_memcheck.json").write_text(
        json.dumps({"tool": "memcheck", "exit_status": 0, "summary": "ERROR SUMMARY: 0 errors"})
    )
    found = report.made(tmp_path)
    assert "`ops.json`: commit 0123456789ab, with changes; a card, 1 MHz; copy 100 GB/s; CUDA 13.0." in found
    assert "Peers: gsplat absent." in found and "**Cut off: these are the rows until then.**" in found
    assert "| a | size 3 | 1.0000 +- 0.5000 | failed: RuntimeError: not captured | 2.0 / - | 50 % / - |  |" in found
    assert "| peer b |  | failed: AssertionError |  |  |  |  |" in found
    assert "| c | largest_image_error 0.0012 |  | 0.5000 +- 0.1000 | - / 1.0 |  |  |" in found
    assert "- gsplat: did not build in 240 s" in found
    assert "| memcheck | nothing found | ERROR SUMMARY: 0 errors |  |  |" in found


def test_an_empty_folder_has_an_empty_report(tmp_path):
    assert report.made(tmp_path)[0] == "# Measured on a GPU"
