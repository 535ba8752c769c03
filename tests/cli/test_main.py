from __future__ import annotations

import json
import re

import pytest

from gafcore.cli.bench import print_table, rows
from gafcore.cli.main import main, report
from gafcore.errors import GafError, InputError


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch):
    """`gafcore bench` runs pytest of its own, which would measure nothing as a worker of pytest-xdist."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("demo", "synth", "track", "fit", "eval", "render", "bench", "doctor"))


def test_unknown_flag_exits_with_2():
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--nonsense"])
    assert stop.value.code == 2


def test_doctor_names_what_was_compiled(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("GAFCORE_MODELS", str(tmp_path))
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "instruction set" in text and "CUDA kernels" in text and "torch 2" in text
    assert "tracking models: missing" in text and "face_landmarker.task" in text


@pytest.mark.parametrize("command", ["demo", "synth", "track", "fit", "eval", "render", "ablate", "bench", "doctor"])
def test_every_flag_is_explained(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    starts = [i for i, line in enumerate(lines) if re.match(r"--\w", line)]
    for i in starts:
        beside = re.split(r"  +", lines[i], maxsplit=1)[1:]  # a long flag has its explanation below it
        said = (beside or [lines[i + 1]])[0]
        assert said and not said.startswith(("(", "-")), lines[i]
    assert len(starts) > (1 if command != "doctor" else -1)


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("bad\nfile"), 2), (GafError("x"), 1), (KeyboardInterrupt(), 130), (OSError("disk"), 1), (ValueError("v"), 1)],
)
def test_failures_print_one_line(capsys, error, code):
    assert report(error, debug=False) == code
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and text.startswith("gafcore: ")


def test_bench_without_suites_is_wrong_input(tmp_path, capsys):
    assert main(["bench", "--benchmarks", str(tmp_path)]) == 2
    assert "source checkout" in capsys.readouterr().err


def test_bench_rejects_an_unknown_suite(tmp_path, capsys):
    (tmp_path / "bench_x.py").touch()
    assert main(["bench", "y", "--benchmarks", str(tmp_path)]) == 2
    assert "all, x" in capsys.readouterr().err


def test_bench_measures_and_writes(tmp_path, capsys):
    (tmp_path / "bench_x.py").write_text("def test_sum(benchmark):\n    benchmark.extra_info['n'] = 10\n    benchmark(sum, range(10))\n")
    assert main(["bench", "x", "--benchmarks", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    saved = json.loads((tmp_path / "out" / "x.json").read_text())
    (row,) = saved["results"]
    assert row["name"] == "sum" and row["extra"] == {"n": 10} and 0 < row["min_ms"] <= row["median_ms"]
    assert saved["machine"]["threads"] >= 1 and saved["machine"]["versions"]["torch"]
    assert "sum" in capsys.readouterr().out


def test_names_in_brackets_are_printed_whole(capsys):
    figures = {"median_ms": 1.0, "iqr_ms": 0.0, "min_ms": 1.0, "rounds": 3, "extra": {"peer": "[red]"}}
    print_table("loss", [{"name": "forward[gafcore-256x256]", **figures}])
    text = capsys.readouterr().out
    assert "forward[gafcore-256x256]" in text and "peer [red]" in text


def test_bench_goes_on_after_a_failure_and_says_what_was_left_out(tmp_path, capsys):
    (tmp_path / "bench_a.py").write_text("def test_broken(benchmark):\n    raise OSError('no such thing')\n")
    skip = "import pytest\ndef test_sum(benchmark):\n    benchmark(sum, [1])\ndef test_peer(benchmark):\n    pytest.skip('no peer here')\n"
    (tmp_path / "bench_b.py").write_text(skip)
    assert main(["bench", "--benchmarks", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    text = capsys.readouterr()
    assert "no such thing" in text.err and text.err.strip().endswith("gafcore: not measured: a")
    assert "left out:" in text.out and "no peer here" in text.out
    saved = json.loads((tmp_path / "out" / "b.json").read_text())
    assert len(saved["results"]) == 1 and "no peer here" in saved["left_out"][0]
    assert not (tmp_path / "out" / "a.json").exists()


def test_bench_runs_where_it_is_told(tmp_path, capsys, monkeypatch):
    body = "import os\ndef test_one(benchmark):\n    benchmark(sum, [1])\n"
    body += "    benchmark.extra_info['asked'] = os.environ['GAFCORE_BENCH_DEVICE']\n"
    (tmp_path / "bench_x.py").write_text(body)
    assert main(["bench", "x", "--benchmarks", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert json.loads((tmp_path / "out" / "x.json").read_text())["results"][0]["extra"] == {"asked": "cpu"}
    monkeypatch.setattr("gafcore.devices.cuda_missing", lambda: "nothing is there")
    assert main(["bench", "x", "--benchmarks", str(tmp_path), "--device", "cuda"]) == 2
    assert "nothing is there" in capsys.readouterr().err


def test_rows_convert_seconds_to_milliseconds():
    stats = {"rounds": 3, "median": 0.002, "iqr": 0.0005, "min": 0.001}
    (row,) = rows({"benchmarks": [{"name": "bench_a[1]", "group": None, "stats": stats, "extra_info": {}}]})
    assert row == {"name": "a[1]", "group": "", "rounds": 3, "median_ms": 2.0, "iqr_ms": 0.5, "min_ms": 1.0, "extra": {}}
