"""What the measuring programs write, with the GPU left out."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks.gpu import attention, counters, fit, profile, report, sanitized, suites
from benchmarks.gpu.cases import Case


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Calls a program's main with arguments and --out; returns what it wrote."""

    def call(module, *arguments: str, name: str = "out.json"):
        path = tmp_path / name
        fixed = {"commit": "abc", "gpu": {"copy_gb_per_s": 1.0, "nvidia_smi": "a card", "card": "a card"}, "complete": False}
        monkeypatch.setattr(module, "header", lambda suite, with_peers=False: {"suite": suite} | fixed)
        monkeypatch.setattr(sys, "argv", ["program", *arguments, "--out", str(path)])
        module.main()
        return json.loads(path.read_text())

    return call


def test_a_suite_writes_its_rows_and_that_it_came_to_its_end(run, on_cpu, tmp_path):
    found = run(suites, "ops", "--only", "skinning", name="ops.json")
    assert found["suite"] == "ops" and found["commit"] == "abc" and found["complete"] is True
    assert [r["batch"] for r in found["results"] if r["name"] == "linear_blend_skinning"] == [1, 1, 2, 3]
    assert any(line.startswith("| linear_blend_skinning | vertices 50, batch 1 |") for line in report.made(tmp_path))


def test_a_suite_that_is_cut_off_leaves_what_it_has(run, on_cpu, monkeypatch, tmp_path):
    def broken() -> list:
        raise KeyboardInterrupt

    monkeypatch.setitem(suites.SUITES, "ops", lambda: [lambda: [{"name": "a", "error": "b"}], broken])
    with pytest.raises(KeyboardInterrupt):
        run(suites, "ops")
    left = json.loads((tmp_path / "out.json").read_text())
    assert left["complete"] is False and left["results"] == [{"name": "a", "error": "b"}]


def test_a_profile_has_its_sizes_and_a_case_that_fails_says_so(run, monkeypatch, tmp_path):
    def lacking() -> Case:
        raise ModuleNotFoundError("No module named 'plyfile'")

    good = Case(lambda: None, lambda: {"numbers": 64})
    rows = [{"kernel": "void gaf::cuda::(anonymous namespace)::photometric_bwd_kernel<4>(x)", "us": 2.0, "launches": 1.0}]
    monkeypatch.setattr(profile, "CASES", {"lacking": lacking, "good": lambda: good})
    monkeypatch.setattr(profile, "kernel_times", lambda step: rows)
    found = run(profile, name="profile.json")
    assert found["cases"] == {"good": rows} and found["sizes"] == {"good": {"numbers": 64}} and found["complete"] is True
    assert found["errors"] == {"lacking": "ModuleNotFoundError: No module named 'plyfile'"}
    lines = report.made(tmp_path)
    assert "| lacking |  |  | failed: ModuleNotFoundError: No module named 'plyfile' |" in lines
    assert "| good | `photometric_bwd_kernel` | 2.0 | 0.00 | 51 % |  |" in lines


def test_a_fit_that_fails_is_a_row_and_the_next_still_runs(run, monkeypatch, tmp_path):
    def measured(capture, config, prior, graph, quality):
        if not graph:
            raise RuntimeError("out of luck")
        return {"name": fit.name_of(graph, prior), "iterations": config.iterations, "error": "none"}

    class Person:
        splits = {"train": (0,)}  # noqa: RUF012

    monkeypatch.setattr(fit, "person", lambda size, timesteps: Person())
    monkeypatch.setattr(fit, "measured", measured)
    found = run(fit)
    assert [(r["name"], r["iterations"]) for r in found["results"]] == [
        ("fit, kernels launched one by one", 1200),
        ("fit, graphs", 1200),
        ("fit, graphs", 6000),
        ("fit with the small prior, graphs", 1200),
        ("fit with the small prior, kernels launched one by one", 1200),
    ]
    assert found["results"][0]["error"] == "RuntimeError: out of luck" and found["complete"] is True


def test_a_sanitizers_file(run, tmp_path):
    (tmp_path / "log").write_text("========= ERROR SUMMARY: 3 errors\n")
    found = run(sanitized, "memcheck", "9", str(tmp_path / "log"))
    assert (found["tool"], found["exit_status"], found["summary"]) == ("memcheck", 9, "ERROR SUMMARY: 3 errors")


def test_counters_file(run, tmp_path):
    columns = '"ID","Kernel Name","Block Size","Grid Size","Metric Name","Metric Unit","Metric Value"'
    (tmp_path / "ncu.csv").write_text(columns + '\n"0","draw(int)","(1, 1, 1)","(2, 1, 1)","Duration","ns","10"\n')
    found = run(counters, str(tmp_path / "ncu.csv"), name="ncu.json")
    assert found["kernels"] == {"draw (2, 1, 1) (1, 1, 1)": {"grid": "(2, 1, 1)", "block": "(1, 1, 1)", "Duration": [10.0, "ns"]}}
    assert any(line.startswith("| draw (2, 1, 1) (1, 1, 1) | 10.0 ns |") for line in report.made(tmp_path))


def test_attention_rows_are_those_of_the_benchmark(run, monkeypatch):
    stats = {"median": 0.002, "iqr": 0.0001, "min": 0.001, "rounds": 30}
    one = {"name": "test_forward_backward[cudnn-32x32]", "param": "cudnn-32x32", "stats": stats, "extra_info": {"layers": 5}}
    monkeypatch.setattr(attention, "measure", lambda: {"benchmarks": [one], "status": 0})
    (row,) = run(attention)["results"]
    times = {"median_ms": 2.0, "iqr_ms": 0.1, "min_ms": 1.0, "rounds": 30}
    assert row == {"pass": "forward+backward", "level": "32x32", "path": "cudnn", "layers": 5} | times
    monkeypatch.setattr(attention, "measure", lambda: {"benchmarks": [one], "status": 1})
    with pytest.raises(SystemExit, match="pytest failed"):
        run(attention)
