"""The cards' device files of this node: reads them, sets them, and gives them back.

Who may open which is not decided here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from ..errors import StateError
from ..service.metrics import Metrics
from . import nvidia_files
from .acl import Acl, DeviceFile, NotADevice, read_device, write_device
from .origins import DEV, Origin, Origins, origin_of
from .rules import SetCard, Why, is_card, plan_cards

log = logging.getLogger(__name__)

# A repair is logged anew when there was none of its kind for so long.
LOG_AGAIN_S = 600.0
REPAIRS = (Why.MADE_ANEW, Why.TAMPERED)


class CardFiles:
    """`/dev/nvidia<minor>` and `/dev/davinci<physical id>`, all that there are."""

    def __init__(self, state_dir: Path, metrics: Metrics, dev: Path = DEV) -> None:
        self._dev = dev
        self._metrics = metrics
        # The number (st_rdev) of each card that was ever there: it can be held without a file.
        self.numbers: dict[str, int] = {}
        self._origins = Origins(state_dir)
        self._state_problem = ""
        # How each file was left when it was set last.
        self._left: dict[str, DeviceFile] = {}
        # Those made here, and what they would else be.
        self._made: dict[str, Origin] = {}
        self._refused: frozenset[str] = frozenset()
        self._repaired_at: dict[tuple[str, Why], float] = {}
        try:
            self._origins.load()
        except StateError as error:
            log.error("state not read reason=%s", error)
            self._state_problem = str(error)

    @property
    def is_locked(self) -> bool:
        """Say whether files are changed, by this agent or one before it."""
        return self._origins.was_changed

    def is_set(self, card: str, file: DeviceFile) -> bool:
        """Say whether the agent, or one before it, has set this very file."""
        origin = self._origins.get(card)
        return origin is not None and origin.file == file.file

    def read(self) -> tuple[dict[str, DeviceFile], list[str]]:
        """Return the files by card, and a problem for each that is no device."""
        files: dict[str, DeviceFile] = {}
        refused: dict[str, str] = {}
        for path in self._dev.iterdir():
            if not is_card(path.name):
                continue
            try:
                files[path.name] = read_device(path)
            except FileNotFoundError:  # it was removed just now
                continue
            except NotADevice as error:
                refused[path.name] = f"{path} {error.strerror}: left alone"
            except OSError as error:
                refused[path.name] = f"{path} cannot be read: {error.strerror}"
        for card in sorted(refused.keys() - self._refused):
            self._metrics.card_repairs.inc()
            log.warning("card refused reason=%s", refused[card])
        self._refused = frozenset(refused)
        self.numbers |= {card: file.number for card, file in files.items()}
        return files, [text for _, text in sorted(refused.items())]

    def make_missing(self, *, is_locking: bool) -> list[str]:
        """Make what NVIDIA's driver leaves to others; return the problems."""
        try:
            params = nvidia_files.read_params()
            if params is None:
                return []
            if params.is_modifying:
                # Whoever starts a CUDA program undoes what is set here, until the next round.
                text = (
                    "NVIDIA's tools open the device files again: its driver was loaded without "
                    "NVreg_ModifyDeviceFiles=0"
                )
                return [text] if is_locking else []
            for card, acl in nvidia_files.make_missing(params, self._dev):
                path = self._dev / card
                self._made[card] = Origin(read_device(path).file, params.uid, params.gid, acl)
                if not is_locking:
                    write_device(path, uid=params.uid, gid=params.gid, acl=acl)
        except OSError as error:
            return [f"NVIDIA's device files cannot be made: {error}"]
        return []

    def set(
        self, wanted: Mapping[str, Acl], files: Mapping[str, DeviceFile]
    ) -> tuple[bool, list[str]]:
        """Set these files as wanted, and return the problems.

        The first value says whether one of them let somebody in who was not wanted: such a one
        may have the device open.
        """
        problems = [self._state_problem] if self._state_problem else []
        try:
            self._origins.add(
                {
                    card: self._origin(card, file)
                    for card, file in files.items()
                    if not self.is_set(card, file)
                }
            )
        except StateError as error:
            # To keep cards closed is worth more than to know how they were.
            problems.append(str(error))
        gids = {
            card: origin.gid
            for card in files
            if (origin := self._origins.get(card)) is not None
        }
        actions = plan_cards(wanted, files, self._left, gids)
        was_more_open = False
        for action in actions:
            was_more_open |= action.found.opens_more_than(action.acl)
            try:
                self._apply(action)
            except (FileNotFoundError, NotADevice):
                continue  # it was replaced just now: the next round sees what it is
            except OSError as error:
                path = self._dev / action.card
                problems.append(f"{path} cannot be set to {action.acl}: {error.strerror}")
        done = {action.card for action in actions}
        self._left |= {card: file for card, file in files.items() if card not in done}
        return was_more_open, problems

    def give_back(self) -> list[str]:
        """Make all files what they were before the agent changed them; return the problems."""
        self._left.clear()
        try:
            return self._origins.give_back(self._dev)
        except StateError as error:
            return [str(error)]

    def _origin(self, card: str, file: DeviceFile) -> Origin:
        made = self._made.get(card)
        return made if made is not None and made.file == file.file else origin_of(file)

    def _apply(self, action: SetCard) -> None:
        self._left[action.card] = write_device(
            self._dev / action.card, uid=0, gid=action.gid, acl=action.acl
        )
        if action.why not in REPAIRS:
            log.info(
                "card set card=%s acl=%s why=%s", action.card, action.acl, action.why.value
            )
            return
        self._metrics.card_repairs.inc()
        key, now = (action.card, action.why), time.monotonic()
        if now - self._repaired_at.get(key, -LOG_AGAIN_S) >= LOG_AGAIN_S:
            found = action.found
            log.warning(
                "card repaired card=%s why=%s uid=%d mode=%o acl=%s",
                action.card, action.why.value, found.uid, found.mode, found.acl,
            )  # fmt: skip
        self._repaired_at[key] = now
