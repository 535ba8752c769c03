from __future__ import annotations

import pytest

from benchmarks.gpu import cases, counts, kernels, ops, roofline

# 512 Gaussians with harmonics of one degree, two cameras of 64 x 32 pixels: 4 x 2 = 8 tiles each, 4,096 pixels in all, and 16 groups of 32
# splats, so one block of pairs a camera. 5,000 pairs of which 4,352 = 17 x 256 were walked, by 9,000 warps.
SIZES = dict(gaussians=512, cameras=2, width=64, height=32, sh=1, visible=900, pairs=5000, walked=4352, walks=9000, backward=1)
GAUSSIAN = 4 * (3 + 4 + 3 + 1 + 4 * 3)


@pytest.mark.parametrize(
    ("kernel", "n_bytes"),
    [
        ("project_gaussians", 1024 * (GAUSSIAN + 64 + 36)),
        ("count_pairs", 1024 * 32 + 2 * 8 * 4),
        ("sum_counts", 16 * 16 + 32 * 8),
        ("emit_pairs", 1024 * 36 + 5000 * 12 + 2 * 8 * 12),
        ("sort_lists", 5000 * 20),
        ("blend_tiles", 4352 * 44 + 4096 * 16 + (4352 - 16 * 256) * 16),
        ("blend_bucket_vjp", 4352 * (97 + 32) + (4352 - 16 * 256) * 16),
        ("clear_sums", 5000),
        ("sum_pairs", 5000 + 4352 * 48 + 1024 * 136),
        ("project_gaussians_vjp", 512 * 2 * GAUSSIAN + 1024 * 80),
    ],
)
def test_bytes_of_a_case_by_hand(kernel, n_bytes):
    assert counts.count(kernel, SIZES)[1].n_bytes == n_bytes


def test_instructions_of_a_case_by_hand():
    assert counts.count("blend_tiles", SIZES)[1].instructions == 19 * 9000
    assert counts.count("blend_bucket_vjp", SIZES)[1].instructions == 56 * 9000
    assert counts.count("project_gaussians", SIZES)[1].instructions is None


def test_without_gradients_nothing_is_kept():
    sizes = SIZES | {"backward": 0}
    assert counts.count("emit_pairs", sizes)[1].n_bytes == 1024 * 36 + 5000 * 8 + 2 * 8 * 12
    assert counts.count("sort_lists", sizes)[1].n_bytes == 5000 * 12
    assert counts.count("blend_tiles", sizes)[1].n_bytes == 4352 * 44 + 4096 * 16


def test_bytes_of_the_other_ops_by_hand():
    sizes = dict(numbers=300, parameters=1000, gaussians=10, poses=2, vertices=256, joints=5)
    expected = {"photometric_fwd_kernel": 3600, "photometric_bwd_kernel": 4800, "adam_update_kernel": 28_000}
    expected |= {"bind_fwd_kernel": 10 * (48 + 80), "bind_local_kernel": 10 * (48 + 80 + 40)}
    expected |= {"skin_fwd_kernel": 256 * 4 * (12 + 5), "skin_vertices_kernel": 256 * 4 * (18 + 5) + 4 * 63 * 4}
    assert {k: counts.count(k, sizes)[1].n_bytes for k in expected} == expected


def test_blocks_of_pairs_are_cut_as_in_the_source():
    assert counts.pair_blocks(SIZES) == 2
    assert counts.pair_blocks(SIZES | {"gaussians": 100_000, "cameras": 1}) == 196
    assert counts.pair_blocks(SIZES | {"gaussians": 300_000, "cameras": 1}) == 196  # three groups of 32 a warp


def test_unknown_kernels_and_sizes_count_as_nothing():
    assert counts.count("sum_cameras", SIZES) is None
    assert counts.count("adam_update_kernel", SIZES) is None


def test_every_counted_kernel_exists():
    former = {"sort_short_lists"}  # committed profiles have it
    assert set(counts.COUNTS) - former <= set(kernels.names())


def test_every_case_runs_and_knows_its_sizes(on_cpu, monkeypatch):
    monkeypatch.setattr(cases, "ImageCase", lambda name, shape: ops.ImageCase(name, (24, 16, 3)))
    small = [
        cases.rasterizer_case(40, "256x256", 3, 2),
        cases.step_case(40),
        cases.animation_case(100, 64),
        cases.loss_case(),
        cases.skinning_case(),
    ]
    found = []
    for case in small:
        case.step()
        found.append(case.sizes())
    assert found[0]["cameras"] == 2 and found[0]["pairs"] >= found[0]["visible"] > 0 and found[0]["walks"] >= found[0]["visible"]
    assert found[1]["parameters"] == 40 * 14 and found[1]["numbers"] == 3 * 256 * 256
    for kernel in ("blend_tiles", "bind_fwd_kernel", "skin_fwd_kernel"):
        assert counts.count(kernel, found[2]) is not None
    assert counts.count("photometric_fwd_kernel", found[3]) is not None and counts.count("skin_vertices_kernel", found[4]) is not None


def test_shares_of_bandwidth_and_of_issue_slots():
    report = {"gpu": {"card": "NVIDIA H200", "nvidia_smi": "x, 1980 MHz, 3201 MHz", "copy_gb_per_s": 4000.0}}
    assert roofline.slots_per_us(report["gpu"]) == 4 * 132 * 1980
    assert roofline.slots_per_us({"card": "?", "nvidia_smi": "failed", "copy_gb_per_s": 1.0}) is None
    assert roofline.slots_per_us({"card": "?", "nvidia_smi": "300 MHz", "multiprocessors": 10, "clocks_max": "1000 MHz, 2 MHz"}) == 40_000
    ours = "void gaf::cuda::(anonymous namespace)::"
    report["cases"] = {
        "a": [
            {"kernel": f"{ours}blend_tiles<3>(gaf::cuda::BlendPass, bool)", "us": 8.0},
            {"kernel": f"{ours}blend_pieces<3>(gaf::cuda::BlendPass, bool)", "us": 2.0},
            {"kernel": "gaf::cuda::(anonymous namespace)::sort_short_lists(gaf::RasterizationBlendArgs<float>)", "us": 3.0},
            {"kernel": "gaf::cuda::(anonymous namespace)::sort_long_lists(gaf::RasterizationBlendArgs<float>)", "us": 2.0},
            {"kernel": f"{ours}sum_cameras(x)", "us": 1.0},
            {"kernel": "void at::native::reduce_kernel<512>(x)", "us": 4.0},
        ]
    }
    lines = roofline.table(report, {"a": SIZES})
    n_bytes, issued = 4352 * 44 + 4096 * 16 + 256 * 16, 19 * 9000 / (4 * 132 * 1980) / 10
    shares = f"{100 * n_bytes / 10e3 / 4000:.0f} % | {100 * issued:.0f} %"
    assert lines[2] == f"| a | `blend_tiles` | 10.0 | {n_bytes / 1e6:.2f} | {shares} |"
    assert lines[3].startswith("|  | `sort_lists, sort_long_lists` | 5.0 | 0.10 |")
    assert lines[4] == "| | not counted: torch's, CUB's, fills and 1 of ours | 5.0 | | | |"
