"""The documents in the repository are those of the code."""

from deploy import contracts


def test_generated_documents_are_up_to_date() -> None:
    assert contracts.drifted(contracts.FOLDER, contracts.documents()) == [], "run 'python -m deploy.contracts'"
