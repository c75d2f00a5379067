"""A run as people see it: a live view in a terminal, plain lines elsewhere; and its result."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.local.headlines import headlines
from deploy.local.story import Run
from deploy.local.summary import Tally
from shared.contracts.base import Message

_LAST = 12
_COLOURS = {"pending": "white", "backordered": "yellow", "allocated": "cyan", "shipped": "green", "cancelled": "red"}


class View:
    """What the live view shows: days, counters, the last events."""

    def __init__(self, title: str, start: datetime, end: datetime, tally: Tally) -> None:
        self._title = title
        self._start, self._end = start, end
        self._tally = tally
        self._last: deque[Text] = deque(maxlen=_LAST)
        self.business = start

    def hear(self, message: Message) -> None:
        """Remembers the news."""
        for at, text in headlines(message):
            self._last.append(Text.assemble((f"{at:%d %b %H:%M}  ", "dim"), text, no_wrap=True, overflow="ellipsis"))

    def __rich__(self) -> RenderableType:
        day, days = (self.business - self._start) / timedelta(days=1), (self._end - self._start) / timedelta(days=1)
        header = Table.grid(padding=(0, 1))
        after = f", {day - days:.0f} days after the last order" if day > days else ""
        header.add_row(
            Text(self._title, style="bold"),
            ProgressBar(total=days, completed=min(day, days), width=40),
            f"{self.business:%a %d %b %Y}{after}",
        )
        counters = Table.grid(padding=(0, 3))
        states = [Text(f"{count} {state}", style=_COLOURS[state]) for state, count in self._tally.states().items()]
        tally = self._tally
        counters.add_row("lines", *states)
        counters.add_row(
            "", f"{len(tally.orders)} orders", f"{len(tally.purchase_orders)} purchase orders", f"{len(tally.receipts)} receipts", f"{len(tally.mails)} mails"
        )  # fmt: skip
        return Group(header, "", counters, "", *self._last)


@contextmanager
def watching(
    console: Console, title: str, start: datetime, end: datetime, tally: Tally
) -> Iterator[tuple[Callable[[Message], None], Callable[[datetime], None]]]:
    """Gives two functions, to hear messages and to hear the business time, and shows what they hear."""
    if not console.is_terminal:
        yield lambda message: _print(console, message), lambda _: None
        return
    view = View(title, start, end, tally)

    def moved(business: datetime) -> None:
        view.business = business

    with Live(view, console=console, refresh_per_second=8, transient=True):
        yield view.hear, moved


@contextmanager
def doing(console: Console, what: str) -> Iterator[None]:
    """Says what is being done while one has to wait."""
    if console.is_terminal:
        with console.status(f"{what} …"):
            yield
    else:
        console.print(f"{what} …", markup=False, highlight=False)
        yield


@contextmanager
def progress(console: Console, start: datetime, end: datetime, lines: int, tally: Tally) -> Iterator[Callable[[datetime], None]]:
    """A progress bar over the lines decided; elsewhere a plain line for every business week. Gives what hears the business time."""
    if not console.is_terminal:
        yield _weekly(console, start, tally)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[waiting]} waiting"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("lines decided", total=lines, waiting=0)

        def moved(business: datetime) -> None:
            settling = "" if business <= end else ", settling"
            waiting = len(tally.backordered) - len(tally.filled)
            bar.update(task, completed=len(tally.decided), description=f"{business:%d %b %Y}{settling}", waiting=waiting)

        yield moved


def _weekly(console: Console, start: datetime, tally: Tally) -> Callable[[datetime], None]:
    following = start

    def moved(business: datetime) -> None:
        nonlocal following
        if business >= following:
            following = business + timedelta(days=7)
            figures = f"{len(tally.decided)} lines decided, {len(tally.backordered)} backordered, {len(tally.filled)} of them filled"
            console.print(f"{business:%Y-%m-%d}  {figures}", markup=False, highlight=False)

    return moved


def _print(console: Console, message: Message) -> None:
    for at, text in headlines(message):
        console.print(f"{at:%Y-%m-%d %H:%M}  {text}", markup=False, highlight=False, soft_wrap=True)


def show_result(console: Console, run: Run) -> None:
    """Prints the figures and what the audit found."""
    figures = Table(box=None, show_header=False, pad_edge=False)
    for name, value in run.summary.model_dump(exclude={"skipped", "audit"}).items():
        figures.add_row(name.replace("_", " "), f"{value:,}")
    for reason, count in run.summary.skipped.items():
        figures.add_row(f"skipped, {reason.replace('_', ' ')}", f"{count:,}")
    console.print(figures)
    checked = sum(check.checked for check in run.audit.checks.values())
    if run.audit.ok:
        console.print(f"[green]The audit is clean:[/] {len(run.audit.checks)} checks over {checked:,} things found nothing wrong.")
        return
    console.print(f"[red]The audit found {len(run.summary.audit.violations)} violations:[/]")
    for violation in run.summary.audit.violations[:50]:
        console.print(violation, soft_wrap=True)
