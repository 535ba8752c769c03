"""Damage for files: hypothesis strategies that turn a valid document into a broken or hostile one."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

# Values that readers trip over: other types, limits of number formats, paths that lead out, text that no file system takes.
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "x", "0", "\0", "\ud800", "é" * 300, "..",
    "../../outside", "/etc/passwd", "//", ".", "a/../../b", "~", "C:\\x", [], [0], [[]], [None], {}, {"name": 3}, [[1, 0, 0, 0]] * 4,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything inside a JSON value, the value itself excluded."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in ((*path, key), *places(inner, (*path, key)))]


def changed(value: Any, place: tuple[Any, ...], change: Any) -> Any:
    """A copy with `change` at `place`; a `change` of `...` takes the entry away."""
    value = copy.deepcopy(value)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    if change is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = change
    return value


@st.composite
def broken_json(draw: st.DrawFn, document: Any) -> bytes:
    """The document with one to three of its values replaced or removed."""
    for _ in range(draw(st.integers(1, 3))):
        found = places(document)
        if found:
            document = changed(document, draw(st.sampled_from(found)), draw(st.sampled_from((*ODD_VALUES, ...))))
    return json.dumps(document).encode("utf-8", "surrogatepass")


@st.composite
def broken_bytes(draw: st.DrawFn, data: bytes, *, head: int = 400) -> bytes:
    """The data cut off, with bytes flipped, a stretch overwritten, doubled or left out; half of the damage is in the first `head` bytes."""
    raw = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        if not raw:
            break
        reach = min(head, len(raw)) if draw(st.booleans()) else len(raw)
        at = draw(st.integers(0, reach - 1))
        size = draw(st.integers(1, 16))
        kind = draw(st.sampled_from(("flip", "write", "cut", "drop", "double", "digits")))
        if kind == "flip":
            raw[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "write":
            raw[at : at + size] = draw(st.binary(min_size=size, max_size=size))
        elif kind == "cut":
            del raw[at:]
        elif kind == "drop":
            del raw[at : at + size]
        elif kind == "double":
            raw[at:at] = raw[at : at + size]
        else:  # larger numbers in headers made of text
            raw[at:at] = b"9" * size
    return bytes(raw)
