from __future__ import annotations

import json
import re
import subprocess

import pytest

from benchmarks.gpu import counters, facts, kernels, sanitized


def test_every_kernel_of_the_sources_is_watched():
    written = subprocess.run(
        ["grep", "-rho", "__global__", str(facts.ROOT / "csrc" / "cuda")], capture_output=True, text=True
    ).stdout.split()
    names = kernels.names()
    assert len(names) == len(set(names)) == len(written) > 30
    assert {"photometric_fwd_kernel", "blend_bucket_vjp", "number_kernel", "sort_lists", "adam_update_kernel"} <= set(names)
    assert all(re.search(kernels.pattern(), name) for name in names)
    assert not re.search(kernels.pattern(), "vectorized_elementwise_kernel")


@pytest.mark.parametrize(
    "source",
    [
        "__global__ void draw_kernel(int a) {",
        "template <int C>\n__global__ void __launch_bounds__(128, blocks(C, true)) draw_kernel(Args a,",
        "__global__ void __launch_bounds__(S<k>::a * S<k>::b,\n S<k>::c)\n    draw_kernel(\n Args a",
    ],
)
def test_a_kernels_name_is_found_however_it_is_written(source):
    assert kernels.names_in(source) == ["draw_kernel"]


def test_a_kernel_that_is_written_otherwise_is_an_error():
    with pytest.raises(ValueError, match="no kernel's name"):
        kernels.names_in("__global__ auto draw = 3;")


HEAD = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device","CC","Section Name",'
)
HEAD += '"Metric Name","Metric Unit","Metric Value"'


def line(number: int, kernel: str, grid: str, metric: str, unit: str, value: str) -> str:
    return f'"{number}","1","python","host","{kernel}","1","7","(256, 1, 1)","{grid}","0","9.0","Section","{metric}","{unit}","{value}"'


def test_counters_of_the_last_launch_are_kept():
    blend = "void gaf::cuda::(anonymous namespace)::blend_tiles<(int)3>(BlendPass, bool)"
    lines = ["==PROF== Connected", HEAD]
    lines += [line(0, blend, "(9, 1, 1)", "Duration", "ns", "9,999"), line(0, blend, "(9, 1, 1)", "Registers Per Thread", "", "48")]
    lines += [line(1, blend, "(9, 1, 1)", "Duration", "ns", "1,234.5"), line(2, blend, "(4, 1, 1)", "Duration", "ns", "7")]
    lines += [line(2, blend, "(4, 1, 1)", "L3 Elsewhere", "%", "7"), "==PROF== Disconnected"]
    assert counters.kernels("\n".join(lines)) == {
        "blend_tiles<3> (9, 1, 1) (256, 1, 1)": {"grid": "(9, 1, 1)", "block": "(256, 1, 1)", "Duration": [1234.5, "ns"]},
        "blend_tiles<3> (4, 1, 1) (256, 1, 1)": {"grid": "(4, 1, 1)", "block": "(256, 1, 1)", "Duration": [7.0, "ns"]},
    }


@pytest.mark.parametrize(
    ("signature", "name"),
    [
        ("void gaf::cuda::<unnamed>::blend_bucket_vjp<(int)3, (bool)0>(BlendPass, PairSums)", "blend_bucket_vjp<3, 0>"),
        ("gaf::cuda::(anonymous namespace)::sum_pairs(gaf::cuda::BlendPass)", "sum_pairs"),
        ("sum_pairs", "sum_pairs"),
    ],
)
def test_a_kernels_name_is_short(signature, name):
    assert counters.short(signature) == name


def test_what_ncu_says_instead_of_a_table_is_quoted():
    with pytest.raises(ValueError, match="ERR_NVGPUCTRPERM"):
        counters.kernels("==ERROR== ERR_NVGPUCTRPERM - no permission")


def test_the_sanitizers_last_word():
    assert sanitized.summary("a\n========= ERROR SUMMARY: 4 errors\n") == "ERROR SUMMARY: 4 errors"
    assert sanitized.summary("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n").startswith("RACECHECK SUMMARY: 0")
    assert sanitized.summary("killed") == ""


# ---- facts


def test_the_commit_comes_from_git_a_file_or_the_environment(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    monkeypatch.delenv("GAFCORE_COMMIT", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert facts.commit(tmp_path) == {"commit": None, "dirty": None}
    (tmp_path / "a").write_text("1")
    for command in (["init", "-q"], ["add", "a"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *command], check=True)
    clean = facts.commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", clean["commit"]) and clean["dirty"] is False
    (tmp_path / "b").write_text("a run's own files do not count")
    assert facts.commit(tmp_path) == clean
    (tmp_path / "a").write_text("2")
    assert facts.commit(tmp_path) == clean | {"dirty": True}
    (tmp_path / "COMMIT").write_text("abc\n")
    assert facts.commit(tmp_path) == {"commit": "abc", "dirty": None}
    monkeypatch.setenv("GAFCORE_COMMIT", "def")
    assert facts.commit(tmp_path) == {"commit": "def", "dirty": None}


def test_peers_that_are_absent_or_did_not_build_are_named(tmp_path, monkeypatch):
    listed = tmp_path / "left_out.txt"
    listed.write_text("gsplat: did not compile itself in 260 s\n")
    (tmp_path / "fused_ssim.py").write_text("raise OSError('no such symbol')\n")
    monkeypatch.setenv("GAFCORE_PEERS_LEFT_OUT", str(listed))
    monkeypatch.syspath_prepend(tmp_path)
    for cache in (facts._left_out, facts._peer):
        cache.cache_clear()
    try:
        assert [facts.peer(name) for name in facts.PEERS] == [None] * 3
        assert facts.peers() == {
            "gsplat": "left out: did not compile itself in 260 s",
            "fused_ssim": "left out: its import says OSError: no such symbol",
            "nvdiffrast": "absent",
        }
    finally:
        for cache in (facts._left_out, facts._peer):
            cache.cache_clear()


def test_a_header_says_everything(monkeypatch):
    monkeypatch.setattr(facts.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(facts, "gpu_facts", lambda: {"card": "a card", "copy_gb_per_s": 1.0})
    found = facts.header("ops", with_peers=True)
    assert set(found) == {"suite", "date", "commit", "dirty", "machine", "gpu", "peers", "complete"}
    assert found["complete"] is False and set(found["peers"]) == set(facts.PEERS) and found["machine"]["versions"]["torch"]
    json.dumps(found)


def test_without_a_gpu_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(facts.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU"):
        facts.header("ops")
