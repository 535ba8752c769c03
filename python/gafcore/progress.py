"""Progress bars on long work: a live bar in a terminal, two plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


def bar(*extra: TextColumn, console: Console | None = None) -> Progress:
    """A progress display with ETA; `extra` columns may show `{task.fields[name]}`. Progress goes to stderr, results to stdout."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), *extra)
    return Progress(*columns, console=console or Console(stderr=True))


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar. Where stderr is no terminal, say when it starts and when it is done instead."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    console = Console(stderr=True)
    if not console.is_terminal:
        start = time.perf_counter()
        yield from items
        console.print(f"{description}: {'' if total is None else f'{total} in '}{time.perf_counter() - start:.1f} s", highlight=False)
        return
    with bar(console=console) as progress:
        yield from progress.track(items, total=total, description=description)
