"""A thousand faults of BMCs and their network: nothing wrong is shown, and nothing leaks."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.exporters.bmc_faults import FAULTS
from tests.exporters.ipmi_peers import count_sessions
from tests.exporters.soak import Pace, Soak, watching
from tests.lab.wait import wait_for

CYCLES = 1000
PATIENT = Pace(limit_s=20.0, dead_limit_s=10.0, back_s=15.0)
# Short limits, so that many scrapes are cut off in the middle: that is where things leak. Those
# of dead BMCs are long enough to find that they are.
HASTY = Pace(limit_s=1.3, dead_limit_s=2.0, back_s=15.0, is_patient=False)
# If each session that was opened stayed, it would be half as much again.
MAX_GROWTH_KIB = 1024


def test_each_fault_shows_right_series_or_none_and_a_reason(tmp_path: Path) -> None:
    with watching(tmp_path, len(FAULTS)) as (exporter, sites):
        soak = Soak(exporter, sites, PATIENT, seed=0)
        soak.read_all()
        with ThreadPoolExecutor(len(FAULTS)) as threads:
            for site, fault in zip(sites, FAULTS, strict=True):
                threads.submit(soak.cycle, site, fault, random.Random(fault.name))

        assert not soak.record.problems
        assert soak.record.cycles == {fault.name: 1 for fault in FAULTS}


def test_a_thousand_faults_show_nothing_wrong_and_leave_nothing_behind(tmp_path: Path) -> None:
    with watching(tmp_path, 32) as (exporter, sites):
        soak = Soak(exporter, sites, HASTY, seed=4)
        soak.read_all()
        # One descriptor for each session; no thread for any.
        before = wait_for("one thread for all", lambda: soak.look_if(threads=3))

        soak.run(lambda record: record.cycles.total() >= CYCLES, look_every_s=0.1)
        soak.read_all()

        assert not soak.record.problems
        assert all(soak.record.cycles[fault.name] > CYCLES / 50 for fault in FAULTS)
        wait_for("all is as before", lambda: soak.look_if(before.threads, before.files))
        assert soak.record.growth_kib < MAX_GROWTH_KIB
        exporter.process.terminate()
        exporter.process.wait(20)

        def are_closed() -> bool:
            # Of those whose end was lost on the way a BMC cannot know.
            return all(
                count_sessions(site.bmc) <= soak.record.lost[site.target] for site in sites
            )

        wait_for("the sessions are closed", are_closed, 10)
