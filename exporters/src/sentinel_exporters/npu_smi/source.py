"""Ask npu-smi for all that it tells of the chips. Decodes nothing itself.

npu-smi takes from tenths of a second to seconds for an answer. The table of all chips is read
each time; what needs a run for each card is asked by and by, see interview.py.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..npu.reading import Details, Reading
from ..npu.seen import find_same, look_at
from ..owners import PROC, find_owners
from .assemble import assemble
from .command import is_installed, run_tool
from .details import ByChip
from .errors import NpuSmiError
from .identity import Card, find_shared, name_chips
from .info import Info, parse_info
from .interview import Interview, Place
from .mapping import parse_mapping, parse_physical_ids
from .questions import NETWORK, PROCESSES, STATIC_S, Question, list_questions

# Shares of the time limit: until when cards are asked, and how long one answer may take.
_ASKING = 0.9
_ANSWER = 1 / 3

DEV = Path("/dev")
_NODE = re.compile(r"davinci(\d{1,9})", re.ASCII)


class NpuSmi:
    """A Source. Not safe to use from several threads."""

    def __init__(
        self,
        command: str,
        *,
        timeout_s: float,
        detail_interval_s: float = 0.0,
        hccn_tool: str = "",
        mapping_s: float = STATIC_S,
        dev: Path = DEV,
        proc: Path = PROC,
    ) -> None:
        """`detail_interval_s` 0: only the table of all chips is read.

        `mapping_s`: how long the logic ids stand, which change with a new card or driver only.
        `dev`: where the chips' files davinciN are; `proc`: where the processes are.
        """
        self._command = command
        self._timeout_s = timeout_s
        self._detail_interval_s = detail_interval_s
        self._hccn_tool = hccn_tool
        self._mapping_s = mapping_s
        self._dev, self._proc = dev, proc
        self._versions: tuple[str, str] | None = None
        self._places: Mapping[Place, tuple[int | None, str | None]] = {}
        self._mapping: Mapping[Place, int] | None = None
        self._listed_physical_ids: Mapping[Place, int] | None = None
        self._mapped_at: float | None = None
        self._physical_ids: dict[Place, int | None] = {}
        # Not forgotten with a new driver: it says what the cards are.
        self._shared: dict[Card, bool] = {}
        self._details: Mapping[Place, Details] = {}
        self._interview = Interview(self._ask)

    def read(self, *, with_details: bool) -> Reading:
        """Return the chips, see Source; raises NpuSmiError when there is no table."""
        started = time.monotonic()
        info = parse_info(self._run("info", timeout_s=self._timeout_s))
        self._forget_other_machine(info)
        problems = [
            f"npu-smi {info.tool_version}: {problem}"
            for problem in self._read_mapping(started + self._timeout_s)
        ]
        self._shared.update(find_shared(info.chips, self._mapping, self._shared))
        named, naming_problems = name_chips(
            info.chips,
            self._mapping,
            physical_ids=self._listed_physical_ids,
            nodes=_list_nodes(self._dev),
            shared=self._shared,
        )
        problems = [*info.problems, *problems, *naming_problems]
        self._physical_ids = {
            (one.chip.npu_id, one.chip.chip_id): one.physical_id for one in named
        }
        if with_details and self._detail_interval_s > 0:
            problems += self._read_details(info, started + _ASKING * self._timeout_s)
        details = self._leave_out_ended() if with_details else {}
        chips = assemble(info, named, details)
        return Reading(
            tool="npu-smi",
            tool_version=info.tool_version,
            driver_version=info.driver_version,
            chips=chips,
            owners=self._find_owners(info, details),
            has_logic_ids=self._mapped_at is not None
            and (self._mapping is None or set(self._physical_ids) <= set(self._mapping)),
            problems=tuple(problems),
        )

    def _forget_other_machine(self, info: Info) -> None:
        """Keep nothing from before a change of the driver or of the cards that it is about.

        One that is missing, or damaged in the table, may change the others' logic ids, and
        what was told of them stays true.
        """
        versions = (info.tool_version, info.driver_version)
        places = {(one.npu_id, one.chip_id): (one.device_id, one.bus_id) for one in info.chips}
        is_other = versions != self._versions
        if is_other or places != self._places:
            self._mapping, self._listed_physical_ids, self._mapped_at = None, None, None
        if is_other or any(
            self._places.get(place, who) != who for place, who in places.items()
        ):
            self._details = {}
            self._interview.forget()
        self._versions, self._places = versions, places

    def _read_mapping(self, deadline: float) -> list[str]:
        """Read the logic ids anew when they are old, and return what went wrong.

        Those that were told of the same cards stay until others are: ids that change because
        the tool fails once would make other series, and on some boards other devices.
        """
        now = time.monotonic()
        if self._mapped_at is not None and now - self._mapped_at < self._mapping_s:
            return []
        try:
            text = self._run("info", "-m", timeout_s=max(0.1, deadline - now))
            self._mapping, self._listed_physical_ids = (
                parse_mapping(text),
                parse_physical_ids(text),
            )
        except NpuSmiError as error:
            return [str(error)]
        self._mapped_at = now
        return []

    def _read_details(self, info: Info, deadline: float) -> list[str]:
        """Ask what is due of single cards, and return what went wrong."""
        questions = [
            self._look_at_processes(question)
            for question in list_questions(
                info,
                self._details,
                detail_interval_s=self._detail_interval_s,
                has_network_tool=bool(self._hccn_tool) and is_installed(self._hccn_tool),
            )
            if question.kind not in NETWORK or self._find_physical_id(question) is not None
        ]
        self._interview.put(questions, deadline, _ANSWER * self._timeout_s)
        self._details = self._interview.details(questions, info.chips)
        problems = self._interview.problems(questions)
        return [f"npu-smi {info.tool_version}: {problem}" for problem in problems]

    def _look_at_processes(self, question: Question) -> Question:
        """Return the question; an answer that tells processes says whose they are then.

        It stands for a while, and a process's number may be another's by the next read.
        """

        def read(text: str) -> ByChip:
            return {
                chip_id: replace(
                    told, seen=look_at((one.pid for one in told.processes or ()), self._proc)
                )
                for chip_id, told in question.read(text).items()
            }

        return replace(question, read=read) if question.kind == PROCESSES else question

    def _leave_out_ended(self) -> dict[Place, Details]:
        """Return the details without processes that are not those that were told."""
        return {place: self._of_those_now(told) for place, told in self._details.items()}

    def _of_those_now(self, told: Details) -> Details:
        if told.processes is None or told.seen is None:
            return told
        same = find_same(told.seen, self._proc)
        return replace(
            told,
            processes=tuple(one for one in told.processes if one.pid in same),
            seen={pid: one for pid, one in told.seen.items() if pid in same},
        )

    def _find_owners(self, info: Info, details: Mapping[Place, Details]) -> dict[int, str]:
        """Return the owners: those of now for the table, and of the answers those of then."""
        owners = {
            pid: one.owner
            for told in details.values()
            for pid, one in (told.seen or {}).items()
            if one.owner is not None
        }
        now = (one.pid for one in info.processes if one.pid is not None)
        return {**owners, **find_owners(now, self._proc)}

    def _run(self, *arguments: str, timeout_s: float) -> str:
        try:
            return run_tool(self._command, arguments, timeout_s)
        except NpuSmiError as error:
            raise type(error)(f"{' '.join([self._command, *arguments])}: {error}") from error

    def _ask(self, question: Question, timeout_s: float) -> str:
        if question.kind in NETWORK:
            number = str(self._find_physical_id(question))
            arguments = ["-i", number, *NETWORK[question.kind]]
            return run_tool(self._hccn_tool, arguments, timeout_s)
        return run_tool(self._command, question.arguments, timeout_s)

    def _find_physical_id(self, question: Question) -> int | None:
        return self._physical_ids.get((question.npu_id, question.chip_id or 0))


def _list_nodes(dev: Path) -> frozenset[int]:
    """Return the N of the files davinciN; one that cannot be listed has none."""
    try:
        names = [path.name for path in dev.iterdir()]
    except OSError:
        return frozenset()
    return frozenset(int(found[1]) for name in names if (found := _NODE.fullmatch(name)))
