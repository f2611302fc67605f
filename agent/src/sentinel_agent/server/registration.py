"""What the agent keeps of itself: its node's name and its token.

It talks to nobody.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import NotRegistered, StateError
from ..files import read_file, replace_file
from ..policy.model import Time, format_time

STATE_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True)
class Registration:
    """What the booking server answered to the invite code, and the token exchanged since.

    `token_since` None: the token is the one of the registration. `previous_token`: the one
    before, which is good until the server has seen the new one.
    """

    node: str
    token: str
    server: str
    registered_at: datetime
    token_since: datetime | None = None
    previous_token: str = ""


class _RegistrationFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    node: str
    token: str
    server: str
    registered_at: Time
    token_since: Time | None = None
    previous_token: str = ""


def registration_path(state_dir: Path) -> Path:
    """Return where the token is."""
    return state_dir / "registration.json"


def store_registration(state_dir: Path, registration: Registration) -> None:
    """Write the token, readable to root only. Raises StateError."""
    document = {
        "node": registration.node,
        "token": registration.token,
        "server": registration.server,
        "registered_at": format_time(registration.registered_at),
    }
    if registration.token_since is not None:
        document["token_since"] = format_time(registration.token_since)
        document["previous_token"] = registration.previous_token
    replace_file(registration_path(state_dir), json.dumps(document).encode(), mode=0o600)


def load_registration(state_dir: Path) -> Registration:
    """Return the token and what belongs to it. Raises NotRegistered, StateError."""
    path = registration_path(state_dir)
    text = read_file(path, bytes_max=STATE_BYTES_MAX)
    if text is None:
        raise NotRegistered(
            f"{path}: not found; run `sentinel-agent register` with the node's invite code"
        )
    try:
        document = _RegistrationFile.model_validate_json(text)
    except ValidationError:
        raise StateError(f"{path} is damaged; register the node again") from None
    return Registration(**dict(document))
