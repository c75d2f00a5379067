"""What people give us is checked line by line before anything is published."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.local import json_lines, loading
from deploy.local.cli import app
from deploy.local.errors import UserError
from shared.contracts.commerce import OrderCancelRequested, OrderPlaced
from shared.contracts.suppliers import OfferChanged
from shared.contracts.warehouse import SkuDefined, StockCounted

NOW = datetime(2025, 1, 2, tzinfo=UTC)
SKUS = 'sku,description,on_hand,backorder\n17,Tofu,5,allow\n18,"Chai, green",0,deny\n'
OFFERS = "supplier,sku,price,currency,pack,minimum,lead_days\nacme,17,2.50,EUR,10,1,7\n"
ORDER: dict[str, Any] = {
    "order": "A-1",
    "placed_at": "2025-01-02T10:00:00Z",
    "customer": {"id": "C-1", "name": "Ann", "email": "ann@example.com"},
    "currency": "EUR",
    "lines": [{"line": 1, "sku": "17", "quantity": 3, "unit_price": "2.50"}],
}
CANCEL = {"request": "R-1", "order": "A-1", "requested_at": "2025-01-02T10:00:00Z"}


def folder(path: Path, skus: str = SKUS, offers: str = OFFERS) -> Path:
    (path / "skus.csv").write_text(skus, encoding="utf-8")
    (path / "offers.csv").write_text(offers, encoding="utf-8")
    return path


def lines(*data: Any) -> list[bytes]:
    return [item if isinstance(item, bytes) else json.dumps(item).encode() for item in data]


def test_a_catalogue_becomes_messages(tmp_path: Path) -> None:
    publications, problems = loading.read(folder(tmp_path), NOW)
    assert problems == []
    assert [type(said.message) for said in publications] == [SkuDefined, StockCounted, SkuDefined, StockCounted, OfferChanged]
    offer = publications[-1].message
    assert isinstance(offer, OfferChanged)
    assert (offer.sku, str(offer.price), offer.pack, offer.lead_days) == ("17", "2.50", 10, 7)


def test_a_catalogue_loaded_again_says_the_same_under_the_same_ids(tmp_path: Path) -> None:
    first, _ = loading.read(folder(tmp_path), NOW)
    again, _ = loading.read(folder(tmp_path), datetime.now(UTC))
    assert [(said.id, said.source, said.message) for said in again] == [(said.id, said.source, said.message) for said in first]
    assert len({said.id for said in first}) == len(first)


def test_changed_terms_are_a_new_message_and_the_opening_count_is_not(tmp_path: Path) -> None:
    first, _ = loading.read(folder(tmp_path), NOW)
    other, _ = loading.read(folder(tmp_path, SKUS.replace("Tofu,5", "Tofu,9"), OFFERS.replace("2.50", "2.60")), NOW)
    changed = [type(new.message) for old, new in zip(first, other, strict=True) if old.id != new.id]
    assert changed == [OfferChanged]


@pytest.mark.parametrize(
    ("skus", "offers", "expected"),
    [
        (SKUS.replace("Tofu,5", "Tofu,five"), OFFERS, ("skus.csv", 2, "on_hand")),
        (SKUS.replace("Tofu,5", "Tofu,-5"), OFFERS, ("skus.csv", 2, "on_hand")),
        (SKUS.replace("deny", "perhaps"), OFFERS, ("skus.csv", 3, "backorder")),
        (SKUS.replace("\n18", "\n17"), OFFERS, ("skus.csv", 3, "sku")),
        (SKUS.replace("\n18", "\n"), OFFERS, ("skus.csv", 3, "sku")),
        (SKUS.replace("on_hand", "stock"), OFFERS, ("skus.csv", 1, "on_hand")),
        (SKUS + "19,Konbu\n", OFFERS, ("skus.csv", 4, "(whole line)")),
        (SKUS + "19,Konbu,1,allow,more\n", OFFERS, ("skus.csv", 4, "(whole line)")),
        (SKUS, OFFERS.replace("EUR", "XXY"), ("offers.csv", 2, "currency")),
        (SKUS, OFFERS.replace("2.50", "cheap"), ("offers.csv", 2, "price")),
        (SKUS, OFFERS.replace("10,1,7", "0,1,7"), ("offers.csv", 2, "pack")),
        (SKUS, OFFERS.replace("10,1,7", "10,1,900"), ("offers.csv", 2, "lead_days")),
        (SKUS, OFFERS + "acme,17,9,EUR,1,1,1\n", ("offers.csv", 3, "supplier and sku")),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_column(tmp_path: Path, skus: str, offers: str, expected: tuple[str, int, str]) -> None:
    _, problems = loading.read(folder(tmp_path, skus, offers), NOW)
    assert [(problem.file, problem.line, problem.field) for problem in problems] == [expected]
    assert problems[0].error


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "skus.csv").write_bytes(SKUS.replace("Tofu", "Chä").encode("latin-1"))
    [problem] = loading.read(tmp_path, NOW)[1]
    assert (problem.file, problem.field) == ("skus.csv", "(whole file)")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"skus\.csv"):
        loading.read(tmp_path, NOW)


def test_a_catalogue_with_a_bad_row_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")  # nobody listens: publishing would say so
    folder(tmp_path, SKUS.replace("deny", "perhaps"))
    result = CliRunner().invoke(app, ["load", str(tmp_path), "--home", str(tmp_path / "home"), "--json"])
    assert isinstance(result.exception, UserError)
    assert json.loads(result.stdout)["problems"] == [
        {"file": "skus.csv", "line": 3, "field": "backorder", "error": "Input should be 'allow' or 'deny' (found 'perhaps')"}
    ]


def test_nobody_listening_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    result = CliRunner().invoke(app, ["load", str(folder(tmp_path)), "--home", str(tmp_path / "home")])
    assert isinstance(result.exception, UserError)
    assert "127.0.0.1:1" in str(result.exception)


def test_orders_are_published_under_their_own_ids() -> None:
    [said], problems = json_lines.read("orders", "-", [b"", *lines(ORDER), b"  "], NOW)
    assert problems == []
    assert isinstance(said.message, OrderPlaced)
    assert (said.id, said.source, said.time) == ("A-1", "/clients/cli", NOW)


def test_messages_name_their_type_and_may_name_id_and_source() -> None:
    event = {"type": OrderCancelRequested.TYPE, "data": CANCEL}
    publications, problems = json_lines.read("messages", "-", lines(event, {**event, "id": "x", "source": "/shop"}), NOW)
    assert problems == []
    assert [(said.id, said.source) for said in publications] == [("A-1/R-1", "/clients/cli"), ("x", "/shop")]


def test_a_message_without_an_id_of_its_own_is_new_each_time() -> None:
    event = {"type": SkuDefined.TYPE, "data": {"sku": "17", "backorder": "allow"}}
    publications, _ = json_lines.read("messages", "-", lines(event, event), NOW)
    assert len({said.id for said in publications}) == 2


@pytest.mark.parametrize(
    ("kind", "line", "field"),
    [
        ("orders", b"hello", "(whole line)"),
        ("orders", {**ORDER, "lines": [{**ORDER["lines"][0], "quantity": 0}]}, "lines.0.quantity"),
        ("orders", {**ORDER, "currency": "XXY"}, "currency"),
        ("receipts", {"receipt": "W-1"}, "purchase_order"),
        ("messages", b"hello", "(whole line)"),
        ("messages", {"data": CANCEL}, "(whole line)"),
        ("messages", {"type": "backorder.commerce.OrderPlaced.v9", "data": ORDER}, "(whole line)"),
        ("messages", {"type": "backorder.orders.DemandSet.v1", "data": {}}, "(whole line)"),  # nobody but orders may say this
        ("messages", {"type": OrderCancelRequested.TYPE, "data": {**CANCEL, "quantity": 2}}, "(whole message)"),
    ],
)
def test_a_bad_line_is_named_by_number_and_field(kind: str, line: Any, field: str) -> None:
    _, problems = json_lines.read(kind, "some.jsonl", [b"", *lines(line)], NOW)
    assert (problems[0].file, problems[0].line, problems[0].field) == ("some.jsonl", 2, field)


def test_unchecked_lines_go_out_as_they_stand() -> None:
    bad = {**ORDER, "currency": "XXY"}
    nonsense, order = json_lines.read_unchecked("orders", "-", lines(b"hello", bad))[0]
    assert (nonsense.value, nonsense.key, nonsense.topic) == (b"hello", "", "commerce.orders")
    assert nonsense.id
    assert (json.loads(order.value), order.key, order.id) == (bad, "A-1", "A-1")


def test_unchecked_messages_need_a_topic_that_is_known_or_named() -> None:
    said = [
        {"type": "backorder.commerce.OrderPlaced.v9", "data": 1},
        {"type": "nobody.knows", "data": 1},
        {"type": "nobody.knows", "data": 1, "topic": "commerce.orders"},
    ]
    records, problems = json_lines.read_unchecked("messages", "-", lines(*said))
    assert [record.topic for record in records] == ["commerce.orders", "commerce.orders"]
    assert [(problem.line, problem.field) for problem in problems] == [(2, "topic")]
