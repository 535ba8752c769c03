"""What a person sees of a running fit: a live line in a terminal, a line every tenth elsewhere, TensorBoard on request."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import TextColumn

from gafcore.errors import MissingError
from gafcore.progress import bar

_SMOOTHING = 0.95  # of the shown loss and PSNR: one frame's values jump too much to read


class Display:
    """Shows smoothed loss, PSNR, Gaussian count, iterations a second and time left."""

    def __init__(self, iterations: int, done: int, enabled: bool = True) -> None:
        self._iterations, self._first, self._enabled = iterations, done, enabled
        self._start = time.perf_counter()
        self._shown: dict[str, float] = {}
        self._live = enabled and sys.stderr.isatty()
        self._bar = bar(TextColumn("{task.fields[status]}")) if self._live else None

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("fit", total=self._iterations, completed=self._first, status="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, iteration: int, n_gaussians: int, **values: float) -> None:
        for name, value in values.items():
            self._shown[name] = _SMOOTHING * self._shown.get(name, value) + (1 - _SMOOTHING) * value
        if self._bar is not None:
            self._bar.update(self._task, completed=iteration, status=self._status(iteration, n_gaussians))
        elif self._enabled and (iteration % max(1, self._iterations // 10) == 0 or iteration == self._iterations):
            print(f"fit {iteration}/{self._iterations}  {self._status(iteration, n_gaussians)}", file=sys.stderr, flush=True)

    def _status(self, iteration: int, n_gaussians: int) -> str:
        rate = (iteration - self._first) / max(time.perf_counter() - self._start, 1e-9)
        return f"loss {self._shown['loss']:.4f}  {self._shown['psnr']:.1f} dB  {n_gaussians} Gaussians  {rate:.1f} it/s"


@contextmanager
def tensorboard(folder: Path | None) -> Iterator[Any]:
    """A TensorBoard writer into `folder`, or None where no folder is given.

    Raises:
        MissingError: The package tensorboard is not installed.
    """
    if folder is None:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingError("TensorBoard is not installed: `pip install gafcore[tensorboard]`, or fit without --tensorboard") from None
    writer = SummaryWriter(str(folder))
    try:
        yield writer
    finally:
        writer.close()
