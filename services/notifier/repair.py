"""What waits to be told of a broken order, put right: once, newest only, with its timer. What was told stays as it was told."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from services.notifier.domain import LEVELS, Notice, ToldOfLine, about, next_due
from services.notifier.handlers import DigestDue, State
from shared.service import Context, Corrected, Effect, IrreparableError, Repair, Schedule, Unschedule


def repair(state: State, message: Repair, context: Context) -> Iterator[Effect]:
    """Raises IrreparableError when nobody knows whom to write."""
    order, known = message.key, state.orders.get(message.key)
    if known is None:
        raise IrreparableError("it is not known whom to write about it: orders told that once, when it accepted the order")
    waiting = {}
    for line, notices in known.waiting.items():
        waiting[line] = tuple(_due(notice, context) for notice in _once(notices, state.told_of(order, line)))
        if dropped := len(notices) - len(waiting[line]):
            yield Corrected(f"line {line}: {dropped} notice(s) that were told, or are obsolete, wait no longer")
    state.put(order, replace(known, waiting=waiting))
    due = next_due(waiting)
    yield Unschedule(DigestDue(key=order)) if due is None else Schedule(DigestDue(key=order), due)


def _once(notices: Iterable[Notice], told: ToldOfLine) -> list[Notice]:
    """Without what was told; of a level the newest word, of a fact one."""
    kept: dict[tuple[object, ...], Notice] = {}
    for notice in sorted(notices, key=lambda notice: (notice.version, notice.total)):
        last = told.get(about(notice.kind))
        if last is None or (notice.version, notice.total) > (last.version, last.total):
            kept[(about(notice.kind),) if notice.kind in LEVELS else (notice.kind, notice.version, notice.total)] = notice
    return list(kept.values())


def _due(notice: Notice, context: Context) -> Notice:
    """What should have been in an earlier mail goes into the next one."""
    return notice._replace(due_at=max(notice.due_at, context.now))
