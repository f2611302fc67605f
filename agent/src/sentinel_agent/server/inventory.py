"""Asks the inventory command which devices the node has. It sends nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InventoryError


class InventoryDevice(BaseModel):
    """One accelerator, as the exporters print it and booking takes it. Memory in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    vendor: Literal["nvidia", "ascend"]
    uuid: Annotated[str, Field(min_length=1)]
    index: Annotated[int, Field(ge=0)]
    minor: Annotated[int, Field(ge=0)] | None
    model: str
    bus_id: str
    memory_bytes: Annotated[int, Field(ge=0)] | None


class Inventory(BaseModel):
    """What the command printed: the devices found, and what it could not find out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    devices: Annotated[tuple[InventoryDevice, ...], Field(strict=False)]
    problems: Annotated[tuple[str, ...], Field(strict=False)] = ()


def read_inventory(command: Sequence[str], timeout_s: float) -> Inventory:
    """Run the command and return what it found. Raises InventoryError."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise InventoryError(f"{command[0]}: {error.strerror}") from error
    try:
        with process:
            output, complaint = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise InventoryError(f"{command[0]}: no answer in {timeout_s:g} s") from None
    finally:
        _kill_group(process)
    if process.returncode != 0:
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise InventoryError(f"{command[0]}: status {process.returncode}: {last:.160}")
    try:
        return Inventory.model_validate(json.loads(output))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InventoryError(f"{command[0]}: {where}: {first['msg']}") from None
    except (ValueError, RecursionError):
        raise InventoryError(f"{command[0]}: its output is not JSON") from None


def is_shrunken(new: Inventory, known: Sequence[str]) -> bool:
    """Say whether devices are missing that may only have been out of sight.

    The server takes the list as the whole truth, and a driver that hangs for a minute must not
    take a card out of its reservation.
    """
    return bool(new.problems) and not {device.uuid for device in new.devices} >= set(known)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # Vendor tools start children; one that hangs would keep the pipe open.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
