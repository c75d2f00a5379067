"""Commands that put something in: a catalogue, orders, receipts, any public message."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from aiokafka.errors import KafkaError

from deploy.local import json_lines, loading
from deploy.local.cli.output import answer, say
from deploy.local.cli.running import HERE, HomeOption, JsonOption, settings_of
from deploy.local.errors import UserError
from deploy.local.home import Home
from deploy.local.publisher import Publication, Publisher
from deploy.local.settled import business_clock
from deploy.local.sync import wait_for
from shared.relay import producer
from shared.settings import Settings


class Kind(StrEnum):
    """What the lines of a file are."""

    ORDERS = "orders"
    RECEIPTS = "receipts"
    MESSAGES = "messages"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(load)
    app.command()(publish)


def load(
    folder: Annotated[Path, typer.Argument(help="Where skus.csv and offers.csv are.", exists=True, file_okay=False)],
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """Load a catalogue with its opening stock (skus.csv) and suppliers' offers (offers.csv).

    skus.csv has the columns sku, description, on_hand, backorder (allow or deny); offers.csv has supplier, sku, price,
    currency, pack, minimum, lead_days. Nothing is published if any row is wrong. A row that was loaded before has no
    effect, also when others were loaded in between: to go back to former terms, publish them as messages.
    """
    wait_for(_load(settings_of(Home(home)), folder, json=json))


def publish(
    kind: Annotated[Kind, typer.Argument(help="What each line is.")],
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="A file of JSON lines, or - for standard input.")],
    no_check: Annotated[bool, typer.Option("--no-check", help="Send lines as they are, to see how the services answer nonsense.")] = False,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """Publish orders (the data of OrderPlaced), receipts (of GoodsReceived) or messages, one JSON object a line.

    A message is {"type": "backorder.commerce.OrderCancelRequested.v1", "data": {…}, "id": "…", "source": "…"}; id and
    source may be left out: an order's, receipt's, shipment's or request's own id is the message's id, so that saying it
    again has no effect. Nothing is published if any line is wrong.
    """
    wait_for(_publish(settings_of(Home(home)), kind, file.name, file.read().splitlines(), check=not no_check, json=json))


async def _load(settings: Settings, folder: Path, *, json: bool) -> None:
    async with business_clock(settings) as now:
        publications, problems = loading.read(folder, now())
    _refuse(problems, json=json)
    await _send(settings, publications)
    _done(len(publications), str(folder), json=json)


async def _publish(settings: Settings, kind: Kind, file: str, lines: Sequence[bytes], *, check: bool, json: bool) -> None:
    async with business_clock(settings) as clock:
        now = clock()
    if check:
        publications, problems = json_lines.read(kind, file, lines, now)
        _refuse(problems, json=json)
        await _send(settings, publications)
        _done(len(publications), file, json=json)
    else:
        records, problems = json_lines.read_unchecked(kind, file, lines)
        _refuse(problems, json=json)
        await _send_unchecked(settings, records, now)
        _done(len(records), file, json=json)


async def _send(settings: Settings, publications: Sequence[Publication]) -> None:
    try:
        async with Publisher(settings) as publisher:
            for said in publications:
                await publisher.send(said)
    except KafkaError as error:
        raise _unreachable(settings, error) from error


async def _send_unchecked(settings: Settings, records: Sequence[json_lines.Raw], now: datetime) -> None:
    kafka = producer(settings)
    try:
        await kafka.start()
        await json_lines.send_unchecked(settings, kafka, records, now)
    except KafkaError as error:
        raise _unreachable(settings, error) from error
    finally:
        await kafka.stop()


def _unreachable(settings: Settings, error: KafkaError) -> UserError:
    return UserError(f"the broker at {settings.kafka_bootstrap_servers} did not take it ({error}): is the system up?")


def _refuse(problems: Sequence[loading.Problem], *, json: bool) -> None:
    """Names everything that is wrong and ends with exit code 2."""
    if not problems:
        return
    if json:
        answer({"published": 0, "problems": [asdict(problem) for problem in problems]})
    for problem in () if json else problems:
        print(problem, file=sys.stderr)
    raise UserError(f"nothing was published: {len(problems)} problem{'s' if len(problems) > 1 else ''} in the input")


def _done(count: int, source: str, *, json: bool) -> None:
    if json:
        answer({"published": count, "problems": []})
    else:
        say(f"Published {count} messages from {source}.")
