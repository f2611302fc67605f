"""How a node's lock stands, as its page and the list say it, and the switch of its mode."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import Alert, AuditEntry, Node, utc_now, write
from sentinel_booking.web.runbooks import code_spans, read_sections
from tests.booking.page_forms import lab
from tests.booking.page_visitor import Visitor, visible_text

__all__ = ["lab"]  # a fixture

RUNBOOKS = Path(__file__).parents[2] / "docs/runbooks"


def visit(lab: APIFlask, path: str, name: str = "olga", language: str = "en") -> str:
    """The text of a page as this person sees it."""
    visitor = Visitor(lab, language)
    visitor.sign_in(name)
    answer = visitor.get(path)
    assert answer.status_code == 200
    return visible_text(answer.text)


def report(lab: APIFlask, node: str, **changes: object) -> None:
    """Change what the node's agent last said."""
    with lab.app_context(), write() as session:
        found = session.scalars(select(Node).where(Node.name == node)).one()
        found.agent_report = {**found.agent_report, **changes}


@pytest.mark.parametrize(
    ("lock", "english", "chinese"),
    [
        ("open", "sshd is as it was", "未上锁"),
        ("partial", "one of the two gates is missing", "不完整"),
        (None, "does not say how the lock stands", "代理程序没有上报"),
    ],
)
def test_a_node_that_is_to_enforce_and_is_not_locked_is_warned_of(
    lab: APIFlask, lock: str | None, english: str, chinese: str
) -> None:
    warning = "This node is to enforce bookings, and its lock is not in place."
    assert warning not in visit(lab, "/nodes/gpu-01")
    assert "not locked" not in visit(lab, "/nodes").partition("gpu-02")[0]
    report(lab, "gpu-01", lock=lock)
    for person in ("olga", "visitor"):
        text = visit(lab, "/nodes/gpu-01", person)
        assert warning in text
        assert english in text
    assert "not locked" in visit(lab, "/nodes").partition("gpu-02")[0]
    text = visit(lab, "/nodes/gpu-01", language="zh-CN")
    assert "此节点应当强制执行预约" in text
    assert chinese in text


def test_a_node_that_observes_may_be_open(lab: APIFlask) -> None:
    text = visit(lab, "/nodes/cpu-01")
    assert "sshd and PAM are as the site left them" in text
    assert "its lock is not in place" not in text


def test_the_mode_in_force_is_shown_where_it_is_another_one(lab: APIFlask) -> None:
    report(lab, "gpu-01", mode="observe")
    assert "Mode in force observe" in visit(lab, "/nodes/gpu-01")
    assert "in force: observe" in visit(lab, "/nodes")


@pytest.mark.parametrize(
    ("skew_s", "said", "then"),
    [
        (12.0, "It is 12 s behind the server's.", "begin and end too late here."),
        (-12.0, "It is 12 s ahead of the server's.", "begin and end too early here."),
        (7200.0, "It is 2 h behind the server's.", "begin and end too late here."),
    ],
)
def test_a_clock_that_is_off_is_told_with_what_may_come_of_it(
    lab: APIFlask, skew_s: float, said: str, then: str
) -> None:
    report(lab, "gpu-01", clock_skew_s=skew_s)
    text = visit(lab, "/nodes/gpu-01")
    allowed = "The agent allows for it while it runs and reaches the server; whenever it"
    told = f"The node's clock is wrong. {said} {allowed} does not, bookings may {then}"
    assert told in text


def test_a_clock_that_is_off_by_little_is_only_a_number(lab: APIFlask) -> None:
    report(lab, "gpu-01", clock_skew_s=9.0)
    text = visit(lab, "/nodes/gpu-01")
    assert "9 s behind the server" in text
    assert "The node's clock is wrong." not in text


def test_a_copied_disk_and_a_handover_that_is_not_clean_are_told(lab: APIFlask) -> None:
    text = visit(lab, "/nodes/npu-02", "alice")
    assert "Two machines say that they are this node." in text
    assert "could not be ended in time: bob." in text
    text = visit(lab, "/nodes/npu-02", language="zh-CN")
    assert "有两台机器自称是此节点。" in text
    assert "未能按时结束前一位使用人的进程：bob" in text
    text = visit(lab, "/nodes/gpu-01")
    assert "Two machines" not in text
    assert "handover" not in text


def test_before_enforcing_it_says_who_would_be_refused_and_ended(lab: APIFlask) -> None:
    text = visit(lab, "/nodes/cpu-01")
    assert "Start enforcing From then on only those whose booking runs" in text
    assert "Now that is: bob." in text
    assert "Logged in without a booking: alice (2). They are warned" in text
    assert "would end alice: no running reservation, 2 SSH connections" in text
    assert "takes it back if a break-glass login fails" in text
    # Not for those who may not do it.
    assert "Start enforcing" not in visit(lab, "/nodes/cpu-01", "alice")
    report(lab, "cpu-01", sessions={"bob": 1}, problems=[])
    assert "Nobody is logged in without a booking." in visit(lab, "/nodes/cpu-01")


def test_one_click_switches_the_mode_and_is_written_down(lab: APIFlask) -> None:
    olga = Visitor(lab)
    olga.sign_in("olga")
    for mode, before in (("enforce", "observe"), ("observe", "enforce")):
        with lab.app_context(), write() as session:
            read_version = select(Node.policy_version).where(Node.name == "cpu-01")
            version = session.scalars(read_version).one()
        answer = olga.post("/nodes/cpu-01/mode", {"mode": mode})
        assert (answer.status_code, answer.location) == (303, "/nodes/cpu-01")
        assert f"Asked for: {mode}." in visible_text(olga.get("/nodes/cpu-01").text)
        with lab.app_context(), write() as session:
            assert session.scalars(read_version).one() == version + 1
            newest = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(1)
            entry = session.scalars(newest).one()
            assert (entry.actor, entry.action, entry.object_id) == (
                "olga", "node.change", "cpu-01",
            )  # fmt: skip
            assert entry.before is not None
            assert entry.after is not None
            assert (entry.before["mode"], entry.after["mode"]) == (before, mode)
            # Nothing else was touched.
            assert entry.before | {"mode": mode} == entry.after
    assert olga.post("/nodes/cpu-01/mode", {"mode": "off"}).status_code == 422


def test_the_settings_form_does_not_switch_the_mode_in_passing(lab: APIFlask) -> None:
    olga = Visitor(lab)
    olga.sign_in("olga")
    assert 'name="mode"' not in olga.get("/nodes/gpu-01/edit").text
    assert olga.post("/nodes/gpu-01/edit", {"is_monitored": "1"}).status_code == 422
    form = {"is_monitored": "1", "address": "10.0.8.1", "tags": "new"}
    assert olga.post("/nodes/gpu-01/edit", form).status_code == 303
    with lab.app_context(), write() as session:
        node = session.scalars(select(Node).where(Node.name == "gpu-01")).one()
        assert (node.mode, node.tags) == ("enforce", ["new"])


def test_a_node_whose_agent_was_never_heard_says_so(lab: APIFlask) -> None:
    with lab.app_context(), write() as session:
        session.scalars(select(Node).where(Node.name == "gpu-03")).one().heartbeat_at = None
    text = visit(lab, "/nodes/gpu-03")
    assert "nothing was heard of it since: is it running?" in text
    assert "The last heartbeat came" not in text


def test_what_a_silent_node_said_is_not_given_for_the_present(lab: APIFlask) -> None:
    silent, heard = visit(lab, "/nodes/gpu-03"), visit(lab, "/nodes/gpu-01")
    for said in (
        "Mode in force enforce",
        "sshd and PAM ask for a booking",
        "up to date (version 12)",
        "in step with the server",
        "bob (1)",
    ):
        assert f"{said} (last said" in silent
        assert said in heard
    assert "last said" not in heard
    assert visit(lab, "/nodes").count("last said") == 1
    assert "最后上报于" in visit(lab, "/nodes/gpu-03", language="zh-CN")
    # As after uninstall: the agent's last word was that the node is open.
    report(lab, "gpu-03", lock="open")
    text = visit(lab, "/nodes/gpu-03")
    assert "as the site left them (last said" in text
    assert "Logins without a booking may not be refused. (last said" in text


def test_of_a_node_that_never_reported_nothing_is_claimed(lab: APIFlask) -> None:
    for registered_at in (utc_now(), None):
        with lab.app_context(), write() as session:
            node = session.scalars(select(Node).where(Node.name == "cpu-01")).one()
            node.heartbeat_at, node.agent_report = None, {}
            node.registered_at = registered_at
        text = visit(lab, "/nodes/cpu-01")
        assert "the agent has not reported yet" in text
        assert "Nobody is logged in" not in text
        assert "Mode in force not heard yet" in text
        assert "On the node not heard yet" in text
        assert "Open SSH sessions not heard yet" in text
        assert "last said" not in text


def test_a_nodes_page_lists_what_fires_for_it_with_the_runbook(lab: APIFlask) -> None:
    with lab.app_context(), write() as session:
        alert = session.scalars(select(Alert).where(Alert.node == "gpu-03")).one()
        alert.annotations = {"summary": "it is gone", "runbook_url": "docs/runbooks/X.md"}
    visitor = Visitor(lab)
    visitor.sign_in("alice")
    for page in ("/nodes/gpu-03", "/alerts"):
        html = visitor.get(page).text
        assert "it is gone" in visible_text(html)
        # Nothing serves a path of the repository; our own copy of the runbook does.
        assert 'href="/runbooks/NodeOffline"' in html
        assert "docs/runbooks" not in html
    assert "fires for this node" not in visible_text(visitor.get("/nodes/gpu-02").text)


def test_every_runbook_can_be_read_whole(lab: APIFlask) -> None:
    visitor = Visitor(lab)
    visitor.sign_in("visitor")
    for path in RUNBOOKS.glob("*.md"):
        answer = visitor.get(f"/runbooks/{path.stem}")
        assert answer.status_code == 200
        shown = visible_text(answer.text)
        for section in read_sections(path.read_text()):
            assert section.paragraphs or section.steps
            for text in (section.title, *section.paragraphs, *section.steps):
                plain = visible_text(str(code_spans(text)))
                assert plain in shown, path.name
        # No word of the file is lost on the way.
        for word in re.findall(r"[A-Za-z]+", path.read_text()):
            assert word in shown, (path.name, word)
    assert visitor.get("/runbooks/None").status_code == 404
    assert visitor.get("/runbooks/..%2Fconfig").status_code == 404
