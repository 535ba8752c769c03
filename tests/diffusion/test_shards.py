"""Shards: what is written is read, also by webdataset itself; resuming; damage is skipped and said."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gafcore.errors import InputError, MissingError
from tests.diffusion import toy

pytest.importorskip("webdataset", reason="the extra `diffusion` is not installed")
pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
import webdataset
from safetensors.torch import load

from gafcore.diffusion.shards import INDEX, ShardSet, write_shards

ABOUT = {"vae": "toy"}


@pytest.fixture
def folder(tmp_path):
    write_shards(toy.ToySamples(10), tmp_path / "s", about=ABOUT, shard_size=4)
    return tmp_path / "s"


def test_read_as_written(folder):
    shards, truth = ShardSet(folder), toy.ToySamples(10)
    assert len(shards) == 10 and not shards.skipped and shards.about == ABOUT
    for i in (7, 0, 9):
        got, want = shards[i], truth[i]
        assert got.key == want.key
        assert {n for n, _ in got.tensors()} == {n for n, _ in want.tensors()}
        for name, value in want.tensors():
            expected = value if name == "viewmats" else value.half().float()
            assert torch.equal(dict(got.tensors())[name], expected), name


def test_webdataset_reads_the_same(folder):
    """The library whose format it is, reading from front to back."""
    ours = ShardSet(folder)
    rows = list(webdataset.WebDataset([str(p) for p in sorted(folder.glob("*.tar"))], shardshuffle=False))
    assert len(rows) == 10
    for i, row in enumerate(rows):
        assert json.loads(row["json"])["key"] == ours[i].key
        assert torch.equal(load(row["safetensors"])["latents"].float(), ours[i].latents)


def test_writing_goes_on_where_it_stopped(folder, tmp_path):
    asked = []

    class Breaks(toy.ToySamples):
        def __getitem__(self, index):
            asked.append(index)
            if index == 6 and len(asked) < 9:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    samples = Breaks(10)
    with pytest.raises(KeyboardInterrupt):
        write_shards(samples, tmp_path / "t", about=ABOUT, shard_size=4)
    assert len(ShardSet(tmp_path / "t")) == 4
    write_shards(samples, tmp_path / "t", about=ABOUT, shard_size=4)
    assert asked == [*range(7), *range(4, 10)]
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == sorted(p.name for p in folder.iterdir())
    for path in folder.iterdir():
        assert (tmp_path / "t" / path.name).read_bytes() == path.read_bytes()


def test_other_settings_are_refused(folder):
    with pytest.raises(InputError, match="about .*toy.*now .*other"):
        write_shards(toy.ToySamples(10), folder, about={"vae": "other"}, shard_size=4)


def test_damaged_shards_are_skipped_and_named(folder):
    data = bytearray((folder / "shard-00001.tar").read_bytes())
    data[2000] ^= 1
    (folder / "shard-00001.tar").write_bytes(data)
    shards = ShardSet(folder)
    assert shards.skipped == {"shard-00001.tar": "its checksum is not the one in the index"}
    assert [shards[i].key for i in range(len(shards))] == ["0", "1", "2", "3", "8", "9"]
    (folder / "shard-00000.tar").write_bytes(b"short")
    (folder / "shard-00002.tar").unlink()
    with pytest.raises(InputError, match=r"no shard can be used .*5 bytes"):
        ShardSet(folder)


def test_index_that_is_none(tmp_path):
    with pytest.raises(MissingError):
        ShardSet(tmp_path)
    for content in ("[]", '{"format": 9}', '{"format": 1, "shards": [3]}', '{"format": 1, "shards": [{"file": "../x"}]}', "{"):
        (tmp_path / INDEX).write_text(content)
        with pytest.raises(InputError):
            ShardSet(tmp_path)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=600))
def test_fuzzed_tars_are_skipped(tmp_path_factory, data):
    from gafcore.diffusion.shards import _sha256

    folder = tmp_path_factory.mktemp("f")
    (folder / "a.tar").write_bytes(data)
    entry = {"file": "a.tar", "samples": 1, "bytes": len(data), "sha256": _sha256(folder / "a.tar")}
    (folder / INDEX).write_text(json.dumps({"format": 1, "shards": [entry]}))
    with pytest.raises(InputError, match="no shard can be used"):
        ShardSet(folder)
