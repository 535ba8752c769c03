"""The GPU rasterizer in the emulator against the CPU's: every case, all gradients, long lists, no room for pairs, several orders."""

from __future__ import annotations

import math

import pytest
import torch

from gafcore import rasterization
from gafcore.ops import pair_room
from tests.cases import rasterization as cases
from tests.simt.emulator import KIND, ORDERS, emulated
from tests.simt.parity import assert_parity

SMALL = KIND == "tsan"  # the race detector is some twenty times slower
FLIPS = 0.005  # share of pixels that may differ: rounding moves an alpha over 1/255, or light was cut off at another splat
RACE_SCENES = ("colors", "five_channels", "sh3_depth", "per_camera", "one_pixel")
LONG = [  # lists of more than 256 splats a tile: several stages forward, several buckets backward
    cases.scene("long", n=500, scale=0.1, cameras=1, opacity=0.15, width=37, height=21, sh_degree=1),
    cases.scene("long_opaque", n=900, scale=0.1, cameras=1, opacity=0.88, width=37, height=29, channels=4),
    cases.scene("long_six_channels", n=500, scale=0.1, cameras=2, opacity=0.2, width=35, height=19, channels=6),
]
if SMALL:  # one tile, two buckets
    LONG = [cases.scene("long_small", n=330, scale=0.1, cameras=1, opacity=0.1, width=16, height=7)]

CUT = [  # more than 768 splats in each of their tiles, seen beyond the 512 that the tile's own block walks
    cases.faint(cases.scene("cut", n=1400, scale=1.0, cameras=1, width=21, height=19, sh_degree=1)),
    cases.faint_in_front(cases.scene("cut_opaque", n=2100, scale=1.0, cameras=1, width=15, height=9, channels=4), 1100),
    cases.scene("cut_two_channels", n=1500, scale=0.1, cameras=2, opacity=0.1, width=15, height=13, channels=2),
    cases.scene("cut_depth", n=1300, scale=0.1, cameras=1, opacity=0.05, width=16, height=16, render_mode="D"),
    cases.faint(cases.scene("cut_six_channels", n=1400, scale=1.0, cameras=1, width=18, height=7, channels=6)),
]
if SMALL:  # two pieces
    CUT = [cases.faint(cases.scene("cut_small", n=900, scale=1.0, cameras=1, width=16, height=7))]
large = pytest.mark.skipif(SMALL, reason="too large for the race detector's build, which has the same kernels in other tests")


@pytest.fixture(autouse=True)
def no_rooms():
    pair_room.forget()
    yield
    pair_room.forget()


def outputs_of(scene, **more):
    """A function of the scene's tensors for `assert_parity`, and those tensors."""
    names = list(scene.inputs)

    def call(*values):
        image, alpha, meta = scene.call(lambda *a, **k: rasterization(*a, **k, **more), dict(zip(names, values, strict=True)))
        return image, alpha, meta["means2d"], meta["depths"]

    return call, [scene.inputs[k].float() for k in names]


def close(got, want):
    """Images within the boundary band, everything else by its norm; a pixel's light below 1e-4 is cut off at another splat."""
    dark = 1e-4 * got[0][..., 0].numel() ** 0.5
    for a, b in zip(got[:2], want[:2], strict=True):
        assert ((a - b).abs() > 4e-4 * (1 + b.abs())).any(-1).double().mean() <= FLIPS
        assert (a - b).abs().mean() < 1e-4
    for i, (a, b) in enumerate(zip(got[2:], want[2:], strict=True)):
        assert (a - b).norm() < 0.005 * b.norm() + dark, f"tensor {i + 2}: error {(a - b).norm():.2e} of {b.norm():.2e}"


def differentiable(scene) -> list[int]:
    mode = scene.options.get("render_mode", "RGB")
    return [i for i, k in enumerate(scene.inputs) if "RGB" in mode or k not in ("colors", "backgrounds")]


@pytest.mark.parametrize("scene", [s for s in cases.scenes() if not SMALL or s.name in RACE_SCENES], ids=str)
def test_image_and_gradients(scene):
    call, inputs = outputs_of(scene)
    orders = ORDERS if scene.name in RACE_SCENES and not SMALL else ("random",)
    assert_parity(call, inputs, differentiable(scene), orders=orders, compare=close)


@pytest.mark.parametrize("scene", LONG, ids=str)
def test_long_lists(scene):
    call, inputs = outputs_of(scene)
    assert_parity(call, inputs, differentiable(scene), orders=("lifo",) if SMALL else ("lifo", "random"), compare=close)
    with emulated():
        meta = scene.call(rasterization, scene.tensors(torch.float32))[2]
    n_tiles = len(scene.inputs["viewmats"]) * meta["tile_width"] * meta["tile_height"]
    assert meta["n_pairs"] > 256 * n_tiles
    if scene.name == "long_opaque":
        assert meta["n_pairs_blended"] < 0.7 * meta["n_pairs"]


@pytest.mark.parametrize("scene", CUT, ids=str)
def test_lists_that_are_cut(scene):
    call, inputs = outputs_of(scene)
    assert_parity(call, inputs, differentiable(scene), orders=("lifo",) if SMALL else ORDERS, compare=close)
    with emulated():
        image, _, meta = scene.call(rasterization, scene.tensors(torch.float32))
        kept = scene.call(rasterization, scene.tensors(torch.float32, grad=True))[0]
    assert torch.equal(image, kept)  # whether something is left for backward or not
    n_tiles = len(scene.inputs["viewmats"]) * meta["tile_width"] * meta["tile_height"]
    assert meta["n_pairs"] > 768 * n_tiles
    if scene.name == "cut_opaque":  # 1,100 are seen through, and the fifth bucket becomes opaque
        assert meta["n_pairs_blended"] == 5 * 256 * n_tiles
    elif scene.name != "cut_two_channels":
        assert meta["n_pairs_blended"] == meta["n_pairs"]


@large
def test_what_a_cut_list_shows_depends_on_the_list_alone():
    """Not on the frame's other lists, on the room for pairs, or on how many blocks there are: three tiles and 36, of at least three
    pieces each, for which the emulated card has 16 blocks."""
    scene = cases.faint(cases.scene(n=1400, scale=1.0, cameras=1, width=35, height=9))
    tensors = scene.tensors(torch.float32)

    def images(cameras):
        more = dict(backgrounds=tensors["backgrounds"].expand(cameras, -1))
        views, Ks = tensors["viewmats"].expand(cameras, 4, 4), scene.Ks.float().expand(cameras, 3, 3)
        with emulated("random", cameras):
            image, alpha, meta = rasterization(*(tensors[k] for k in cases.NAMES[:5]), views, Ks, scene.width, scene.height, **more)
        assert meta["n_pairs"] > 1024 * cameras * 3
        return torch.cat([image, alpha], -1)

    one, many = images(1), images(12)
    assert all(torch.equal(x, one[0]) for x in many)


@large
@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_absolute_gradients(channels, rasterize_mode):
    scene = cases.scene(n=80, scale=0.05, cameras=2, channels=channels, rasterize_mode=rasterize_mode, absgrad=True, width=27, height=21)
    found = []
    for emulate in (False, True):
        tensors = scene.tensors(torch.float32, grad=True)
        with emulated() if emulate else torch.enable_grad():
            image, _, meta = scene.call(rasterization, tensors)
            meta["means2d"].retain_grad()
            (image**2).sum().backward()
        found.append((meta["means2d"].absgrad, meta["means2d"].grad))
    for got, want in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4 * float(want.abs().max()))


@pytest.mark.parametrize("scene", LONG[:1] + [cases.scene("cameras", cameras=3, n=40, channels=5)] * (not SMALL), ids=str)
def test_atomic_gradients(scene):
    call, inputs = outputs_of(scene, atomic_gradients=True)
    assert_parity(call, inputs, differentiable(scene), orders=("fifo",), compare=close)


class NoRoom(pair_room.PairRoom):
    """Never has room for more than CAPACITY pairs, and does not grow."""

    CAPACITY = 64

    def __init__(self, n_splats):
        super().__init__(n_splats)
        self.capacity = self.CAPACITY

    def fit(self, n_pairs):
        self.n_pairs = n_pairs
        return False


@pytest.mark.parametrize("scene", [cases.scene("cameras", cameras=3, n=40, sh_degree=1, width=33, height=18), LONG[-1]][SMALL:], ids=str)
def test_more_pairs_than_room_give_the_same_image_and_gradients(scene, monkeypatch):
    monkeypatch.setattr(pair_room, "PairRoom", NoRoom)
    monkeypatch.setattr(pair_room, "STEP", 64)
    call, inputs = outputs_of(scene)
    wrt = differentiable(scene)
    # Gradients are atomic then, so the bits may depend on the order; the images' may not.
    assert_parity(call, inputs, wrt, orders=("fifo",), compare=close)
    assert_parity(call, inputs, (), orders=("lifo", "random"), compare=close)
    (kind,) = pair_room.report()
    assert kind["n_pairs"] > kind["capacity"] == 64


def assert_ranks(n: int, cameras: int, order: str, depths: str = "ulps", hidden: int = 0) -> None:
    column = cases.column(n, cameras, depths, hidden)
    colors = column.tensors["colors"].requires_grad_()
    with emulated(order, n):
        image, _, meta = column.draw(rasterization)
        image.sum().backward()
    assert meta["n_pairs"] == meta["n_visible"] == cameras * n
    cases.assert_column_order(column, colors.grad)


# Up to 64 keys need no bins. Small blocks hold 2048 keys, large ones 8192. Of depths in "ulps", "equal" and in long lists a "crowd" a bin
# has more than 128 keys: then runs are merged, in shared memory up to 512 and 1024 keys in two ways, up to 2048 and 4096 in a large block.
LENGTHS = {
    "ulps": [1, 2, 31, 33, 64, 65, 128, 200, 511, 513, 700, 1024, 1025, 2048, 2049, 4096, 4097, 8200],
    "spread": [2, 33, 64, 65, 128, 129, 256, 257, 700, 1024, 1025, 2048, 2049, 4096, 4097, 8192, 8193],
    "clusters": [65, 300, 1024, 1025, 2048, 4096, 4097, 8193],
    "crowd": [128, 300, 1000, 2048, 4097, 8193],
    "equal": [64, 65, 128, 129, 1025, 2049],
}
if SMALL:
    LENGTHS = {"ulps": [1, 2, 33, 65, 1030], "spread": [65, 300, 1030, 2050], "clusters": [300], "equal": [100, 130]}


@pytest.mark.parametrize(("depths", "n"), [(depths, n) for depths, lengths in LENGTHS.items() for n in lengths])
def test_lists_of_any_length_are_sorted_by_depth_then_row(depths, n):
    assert_ranks(n, cameras=2 if n < 1024 else 1, order="random", depths=depths)


@pytest.mark.parametrize("depths", ["spread", "ulps"][SMALL:])
def test_more_long_lists_than_large_blocks_run_at_once_stay_with_small_ones(depths):
    """The emulated card has four multiprocessors; 5,000 are three pieces with bins, and five without: two or three rounds."""
    assert_ranks(2100 if SMALL else 5000, cameras=5, order="random", depths=depths)


@pytest.mark.parametrize("hidden", [0, 500])
@pytest.mark.parametrize("n", [40, 1030] if SMALL else [16, 40, 2200, 9000])
def test_without_room_each_camera_has_its_splats_by_depth_then_row(n, hidden, monkeypatch):
    monkeypatch.setattr(pair_room, "PairRoom", NoRoom)
    monkeypatch.setattr(pair_room, "STEP", 16)
    monkeypatch.setattr(NoRoom, "CAPACITY", 16)
    assert_ranks(n, cameras=3 if n < 1024 else 2, order="lifo", depths="spread", hidden=hidden)


@large
def test_more_tiles_and_groups_than_one_block_sums():
    """1,300 cameras of one pixel: 1,300 tiles and as many groups of splats, in three blocks."""
    scene = cases.scene(n=5, cameras=1300, width=1, height=1, channels=1, scale=0.4)
    call, inputs = outputs_of(scene)
    assert_parity(call, inputs, (4,), orders=("random",), compare=close)
    (kind,) = pair_room.report()
    assert kind["n_pairs"] > 2000


@large
def test_warps_that_take_several_groups_of_splats():
    """125 cameras with 34 groups each are more groups than 256 blocks have warps: two blocks a camera, the first with two groups a warp."""
    scene = cases.scene(n=1070, cameras=125, width=1, height=1, channels=1, scale=0.01)
    call, inputs = outputs_of(scene)
    assert_parity(call, inputs, (4,), orders=("random",), compare=close)
    (kind,) = pair_room.report()
    assert kind["n_pairs"] > 2000


@large
def test_more_tiles_than_a_block_counts():
    """8,200 tiles side by side: two blocks for the same splats, one of which has pairs of both."""
    scene = cases.scene(n=8, cameras=1, width=16 * 8200, height=2, channels=1, scale=0.005)
    scene.inputs["viewmats"][0, :3] = torch.eye(4, dtype=torch.float64)[:3]
    scene.inputs["viewmats"][0, 2, 3] = 1
    right = (8192 * 16 - scene.Ks[0, 0, 2]) / scene.Ks[0, 0, 0]  # where the second block's tiles begin, a metre away
    scene.inputs["means"][:] = 0
    scene.inputs["means"][:, 0] = torch.linspace(-0.4, float(right), 8)
    call, inputs = outputs_of(scene)
    assert_parity(call, inputs, differentiable(scene), orders=("random",), compare=close)
    (kind,) = pair_room.report()
    assert kind["n_pairs"] > 2000


@large
def test_tiles_without_splats_are_background():
    scene = cases.scene(n=3, cameras=2, scale=0.004, spread=0.05, width=75, height=51)
    call, inputs = outputs_of(scene)
    assert_parity(call, inputs, differentiable(scene), compare=close)
    with emulated():
        image, alpha, meta = scene.call(rasterization, scene.tensors(torch.float32))
    assert 0 < meta["n_pairs"] < 2 * meta["tile_width"] * meta["tile_height"] // 2
    empty = alpha[..., 0] == 0
    backgrounds = scene.inputs["backgrounds"].float()[:, None, None].expand_as(image)
    assert empty.double().mean() > 0.9 and torch.equal(image[empty], backgrounds[empty])


@large
def test_the_first_frame_is_drawn_again_with_room(monkeypatch):
    monkeypatch.setattr(pair_room, "STEP", 64)
    monkeypatch.setattr(pair_room, "_FIRST_GUESS", 0)
    scene = cases.scene(n=60, cameras=2)
    call, inputs = outputs_of(scene)
    assert_parity(call, inputs, differentiable(scene), orders=("fifo",), compare=close)
    (kind,) = pair_room.report()
    assert kind["n_pairs"] * 1.3 <= kind["capacity"] < kind["n_pairs"] * 1.3 + 64


def touched_tiles(meta, tile: int) -> int:
    """Pairs of splats and tiles that share a pixel centre with alpha >= 1/255, pixel by pixel in float64."""
    ys, xs = torch.meshgrid(torch.arange(meta["height"]) + 0.5, torch.arange(meta["width"]) + 0.5, indexing="ij")
    count = 0
    for c, i in (meta["radii"][..., 0] > 0).nonzero().tolist():
        x, y = meta["means2d"][c, i].double().tolist()
        xx, xy, yy = meta["conics"][c, i].double().tolist()
        dx, dy = xs.double() - x, ys.double() - y
        alpha = meta["opacities"][c, i].double() * torch.exp(-0.5 * (xx * dx * dx + yy * dy * dy) - xy * dx * dy)
        ys_hit, xs_hit = (alpha >= 1 / 255).nonzero().T
        count += len(torch.unique(ys_hit // tile * 10000 + xs_hit // tile))
    return count


@large
@pytest.mark.parametrize(
    "scene",
    [
        cases.scene("mixed", n=60, cameras=2, width=75, height=51),
        cases.scene("needles", scale=0.02, stretch=2.5, n=40, width=150, height=120, opacity=0.3, cameras=1),
        cases.scene("huge", scale=1.0, n=12, width=130, height=99, opacity=0.3, cameras=1),
    ],
    ids=str,
)
def test_pairs_are_the_tiles_that_splats_touch(scene):
    with emulated():
        meta = scene.call(rasterization, scene.tensors(torch.float32))[2]
    touched = touched_tiles(meta, meta["tile_size"])
    # An ellipse may pass between the pixel centres of a tile that its slab meets.
    assert touched <= meta["n_pairs"] <= 1.05 * touched + 2


@large
def test_radii_and_counts_equal_the_cpu():
    scene = cases.scene(n=200, cameras=2, scale=0.03, spread=0.5, sh_degree=1)
    tensors = scene.tensors(torch.float32)
    tensors["means"][3], tensors["scales"][5], tensors["quats"][7] = math.nan, math.inf, 0
    want = scene.call(rasterization, tensors)[2]
    with emulated():
        got = scene.call(rasterization, tensors)[2]
    for name in ("radii", "n_visible", "n_nonfinite"):
        assert torch.equal(got[name], want[name]), name
    for name in ("conics", "opacities"):
        torch.testing.assert_close(got[name], want[name])
    assert want["n_nonfinite"] == 6


@large
@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors"])
@pytest.mark.parametrize("options", [dict(sh_degree=2), dict(channels=5)], ids=str)
def test_a_bad_gaussian_does_no_harm(name, options):
    scene = cases.scene(n=20, cameras=1, **options)
    tensors = scene.tensors(torch.float32)
    tensors[name].reshape(20, -1)[4, 0] = math.nan
    for v in tensors.values():
        v.requires_grad_()
    with emulated("random", 1):
        image, _, meta = scene.call(rasterization, tensors)
        image.square().mean().backward()
    assert meta["n_nonfinite"] == 1
    assert image.isfinite().all()
    assert all(v.grad.isfinite().all() for v in tensors.values())


@large
@pytest.mark.parametrize("degree", [0, 1, 3])
def test_half_precision_harmonics_change_less_than_an_8_bit_image_shows(degree):
    scene = cases.scene(n=200, cameras=2, sh_degree=degree, per_camera=degree == 1, scale=0.03)
    tensors = scene.tensors(torch.float32)
    half = {**tensors, "colors": tensors["colors"].half()}
    with torch.no_grad(), emulated():
        want, got = scene.call(rasterization, tensors)[0], scene.call(rasterization, half)[0]
    with torch.no_grad():
        on_cpu = scene.call(rasterization, half)[0]
    assert 0 < (got - want).abs().max() < 1 / 255
    torch.testing.assert_close(got, on_cpu, rtol=1e-4, atol=1e-5)


def test_nothing_to_draw():
    for scene in (cases.scene("none", n=0, cameras=2), cases.scene("behind", n=20, cameras=1)):
        tensors = scene.tensors(torch.float32, grad=True)
        with emulated():
            with torch.no_grad():
                tensors["means"].add_(torch.tensor([0, 0, -50.0]))
            image, alpha, meta = scene.call(rasterization, tensors)
            (image.sum() + alpha.sum()).backward()
        assert torch.equal(image, tensors["backgrounds"][:, None, None].expand_as(image))
        assert (alpha == 0).all() and meta["n_pairs"] == 0
        torch.testing.assert_close(tensors["backgrounds"].grad, torch.full_like(tensors["backgrounds"], scene.width * scene.height))
        assert all((tensors[k].grad == 0).all() for k in cases.NAMES)


def test_no_cameras():
    scene = cases.scene(n=20, cameras=1)
    tensors = scene.tensors(torch.float32, grad=True)
    with emulated():
        image, alpha, _ = rasterization(
            *(tensors[k] for k in cases.NAMES[:5]), tensors["viewmats"][:0], scene.Ks[:0].float(), scene.width, scene.height
        )
        (image.sum() + alpha.sum()).backward()
    assert image.shape == (0, scene.height, scene.width, 3)
    assert all((tensors[k].grad == 0).all() for k in cases.NAMES)
