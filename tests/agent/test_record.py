"""The record of an installation, as another version of the agent may have left it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sentinel_agent.errors import StateError
from sentinel_agent.install.record import RECORD, Made, load_record

# As written by an agent that remembered an option of install's, too.
OLDER = {
    "format": 1,
    "agent_version": "0.1.0",
    "breakglass_port": 2222,
    "replace_akc": False,
    "made": [{"kind": "group", "name": "breakglass", "digest": "", "before": None}],
}


def write_record(folder: Path, document: object) -> None:
    (folder / RECORD).write_text(json.dumps(document))


def test_an_older_agents_record_is_read(tmp_path: Path) -> None:
    write_record(tmp_path, OLDER)
    record, is_complete = load_record(tmp_path)
    assert record is not None
    assert is_complete
    assert record.breakglass_port == 2222
    assert record.made == (Made(kind="group", name="breakglass"),)


@pytest.mark.parametrize("change", [{"format": 2}, {"made": [{"kind": "moon", "name": "x"}]}])
def test_what_is_not_understood_is_not_guessed(
    tmp_path: Path, change: dict[str, object]
) -> None:
    write_record(tmp_path, OLDER | change)
    with pytest.raises(StateError, match="is damaged"):
        load_record(tmp_path)
