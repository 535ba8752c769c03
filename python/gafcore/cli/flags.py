"""Types that the commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")

Flat = Annotated[T, tyro.conf.arg(name="")]
"""A config dataclass whose fields become flags without a prefix."""

PathArgument = Annotated[Path, tyro.conf.Positional]
