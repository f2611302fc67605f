"""Whose a uid is that was lent for containers, by subuid(5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinel_agent.subuids import LentUids

TEXT = """\
alice:100000:65536
1001:165536:10

bob:300000:10
carol:300005:10
odd
odd:x:10
odd:400000:
"""


@pytest.mark.parametrize(
    ("uid", "lender"),
    [(99999, None), (100000, "alice"), (165535, "alice"), (165536, "1001"), (165546, None),
     (300004, "bob"), (300005, None), (300012, "carol"), (400000, None)],
)  # fmt: skip
def test_a_uid_is_the_one_accounts_that_it_was_lent_to(
    tmp_path: Path, uid: int, lender: str | None
) -> None:
    path = tmp_path / "subuid"
    path.write_text(TEXT)
    assert LentUids(path).lender_of(uid) == lender


def test_the_file_is_read_again_when_it_changed_and_missed_when_it_is_away(
    tmp_path: Path,
) -> None:
    path = tmp_path / "subuid"
    lent = LentUids(path)
    assert lent.lender_of(100000) is None
    path.write_text("alice:100000:10\n")
    assert lent.lender_of(100000) == "alice"
    path.write_text("carol:100000:100\n")
    assert lent.lender_of(100000) == "carol"
    path.unlink()
    assert lent.lender_of(100000) == "carol"
