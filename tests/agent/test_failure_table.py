"""docs/failures.md promises operators what the tests of failures go by."""

from __future__ import annotations

import pytest

from tests.agent.failure_table import TABLES
from tests.lab.node import REPOSITORY

SECTIONS = (REPOSITORY / "docs" / "failures.md").read_text().split("\n## ")[1:]


def test_the_document_has_these_tables() -> None:
    assert [section.partition("\n")[0] for section in SECTIONS] == list(TABLES)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition("\n")[0])
def test_each_row_of_the_document_is_tested_and_each_test_is_in_it(section: str) -> None:
    heading, _, text = section.partition("\n")
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows == [
        f"| {promise.failure} | {promise.booked} | {promise.why} |"
        for promise in TABLES[heading]
    ]
