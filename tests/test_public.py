"""The names that README and design promise at the top of the package."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gafcore


def test_every_public_name_resolves():
    assert all(callable(getattr(gafcore, name)) for name in gafcore.__all__)
    from gafcore.fitting import fit

    assert gafcore.fit is fit


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        gafcore.nonsense  # noqa: B018


def test_the_kernels_alone_load_no_video_or_tracking_code():
    code = "import sys, gafcore; print([m for m in ('av', 'mediapipe', 'scipy', 'plyfile') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout.strip() == "[]"
