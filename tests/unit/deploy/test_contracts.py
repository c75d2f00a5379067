"""The generator of the contracts' documents: it writes what is missing, and names what has drifted."""

from pathlib import Path

import pytest

from deploy import contracts

WANTED = {"README.md": "index\n", "schemas/a.json": "{}\n"}


def test_what_was_written_has_not_drifted(tmp_path: Path) -> None:
    assert contracts.write(tmp_path, WANTED) == sorted(WANTED)
    assert contracts.drifted(tmp_path, WANTED) == []
    assert contracts.write(tmp_path, WANTED) == []


def test_edited_missing_and_left_over_files_have_drifted(tmp_path: Path) -> None:
    contracts.write(tmp_path, {**WANTED, "schemas/old.json": "{}\n"})
    (tmp_path / "schemas/a.json").write_text("{ }\n")
    (tmp_path / "README.md").unlink()
    assert contracts.drifted(tmp_path, WANTED) == ["README.md", "schemas/a.json", "schemas/old.json"]
    contracts.write(tmp_path, WANTED)
    assert contracts.drifted(tmp_path, WANTED) == []


def test_check_changes_nothing_and_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(contracts, "FOLDER", tmp_path)
    monkeypatch.setattr(contracts, "documents", lambda: WANTED)
    monkeypatch.setattr("sys.argv", ["contracts", "--check"])
    assert contracts.main() == 1
    assert "docs/contracts/schemas/a.json" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("sys.argv", ["contracts"])
    assert contracts.main() == 0
    monkeypatch.setattr("sys.argv", ["contracts", "--check"])
    assert contracts.main() == 0


def test_documents_do_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    here = contracts.documents()
    monkeypatch.setenv("BACKORDER_API_SECRET", "a secret of somebody")
    monkeypatch.setenv("BACKORDER_NAMESPACE", "elsewhere")
    assert contracts.documents() == here
    assert not any("a secret of somebody" in text for text in here.values())
