"""A thousand faults of BMCs and their network: nothing wrong is shown, and nothing leaks."""

from __future__ import annotations

from pathlib import Path

from tests.exporters.bmc_faults import FAULTS
from tests.exporters.bmc_site import COLLECTORS, Site
from tests.exporters.ipmi_lab import exporting
from tests.exporters.ipmi_peers import count_sessions
from tests.exporters.links import Links
from tests.exporters.soak import Pace, Soak, ended
from tests.lab.wait import wait_for

CYCLES = 1000
# Short limits, so that many scrapes are cut off in the middle: that is where things leak. Those
# of dead BMCs are long enough to find that they are.
PACE = Pace(limit_s=1.3, dead_limit_s=2.0, back_s=15.0, is_patient=False)
# A session that stays has some 20 KiB, a thread some 50, and Python gives nothing back at once.
MAX_GROWTH_KIB = 1024


def test_a_thousand_faults_show_nothing_wrong_and_leave_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("not-the-password\n")
    modules: dict[str, dict[str, object]] = {
        "default": {"collectors": COLLECTORS},
        "wrong": {"collectors": COLLECTORS, "password_file": str(tmp_path / "wrong")},
    }
    with Links() as links, exporting(tmp_path, modules) as exporter:
        sites: list[Site] = []
        with ended(sites):
            sites += [Site(tmp_path, links, number) for number in range(32)]
            soak = Soak(exporter, sites, PACE, seed=4)
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
            # Of those whose end was lost on the way a BMC cannot know.
            for site in sites:
                assert count_sessions(site.bmc) <= soak.record.lost[site.target]
