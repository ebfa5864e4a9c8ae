"""Progress bars where there is a terminal; plain lines where output goes to a file."""

import contextlib
import sys
from collections.abc import Callable, Iterator

import rich.console
import rich.progress

# Files and pipes have no width of their own; tables should not be broken for it.
console = rich.console.Console(
    soft_wrap=True,
    highlight=False,
    markup=False,
    emoji=False,
    width=None if sys.stdout.isatty() else 160,
)


@contextlib.contextmanager
def bar(description: str, *, total: int | None, unit: str) -> Iterator[Callable[..., None]]:
    """Shows a bar with a rate and the time left.

    Yields:
        `advance(count, description=None, total=None)`.
    """
    progress = rich.progress.Progress(
        rich.progress.TextColumn('{task.description}', markup=False),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn(unit),
        _Rate(unit),
        rich.progress.TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with progress:
        task = progress.add_task(description, total=total)

        def advance(count: int, *, description: str | None = None, total: int | None = None):
            progress.update(task, advance=count, description=description, total=total)

        yield advance


class _Rate(rich.progress.ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: rich.progress.Task) -> str:
        speed = task.finished_speed or task.speed
        return f'{speed:,.0f} {self.unit}/s' if speed else ''
