"""What the pages show: both languages, safe text, filters and paging, and no script inside."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.domain.charts import CHARTS
from sentinel_booking.models import Alert, Node, Reservation, User, utc_now, write
from sentinel_booking.services.audit import SYSTEM, record
from sentinel_booking.services.matrix import UNFIT
from sentinel_booking.web import nodes as node_pages
from tests.booking.page_lab import make_lab
from tests.booking.page_visitor import Visitor, tags, visible_text

PAGES = {
    "/": ("Resource matrix", "资源矩阵"),
    "/book?node=gpu-01": ("While the booking runs", "在预约期间"),
    "/reservations": ("Running", "进行中"),
    "/reservations?all=1": ("Everybody's", "所有人"),
    "/keys": ("What is a public key?", "什么是公钥？"),
    "/nodes": ("Held by", "使用人"),
    "/nodes/gpu-01": ("Last heartbeat", "最近心跳"),
    "/nodes/gpu-03": ("Offline", "离线"),
    "/nodes/cpu-01": ("booked as a whole", "只能整机预约"),
    "/nodes/add": ("Add a node", "添加节点"),
    "/nodes/gpu-01/edit": ("Settings of gpu-01", "gpu-01 的设置"),
    "/alerts": ("Firing now", "正在告警"),
    "/runbooks/NodeOffline": ("What to do", "告警"),
    "/admin/users": ("Add a user", "添加用户"),
    "/admin/users/add": ("Full name", "姓名"),
    "/admin/users/alice": ("Active", "启用"),
    "/admin/audit": ("Every change", "每一次更改"),
    "/me/password": ("Present password", "当前密码"),
    "/no/such/page": ("not found on the server", "服务器上没有这个地址"),
}

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> APIFlask:
    return make_lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def english(lab: APIFlask) -> Visitor:
    visitor = Visitor(lab, "en")
    visitor.sign_in("admin")
    return visitor


@pytest.fixture(scope="module")
def chinese(lab: APIFlask) -> Visitor:
    visitor = Visitor(lab, "zh-CN,zh;q=0.9")
    visitor.sign_in("admin")
    return visitor


@pytest.mark.parametrize("page", PAGES)
def test_a_page_speaks_the_language_that_the_browser_asks_for(
    english: Visitor, chinese: Visitor, page: str
) -> None:
    in_english, in_chinese = PAGES[page]
    answer = english.get(page).text
    assert '<html lang="en-GB">' in answer
    assert in_english in visible_text(answer)
    answer = chinese.get(page).text
    assert '<html lang="zh-CN">' in answer
    assert in_chinese in visible_text(answer)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_holds_no_inline_script_or_style(english: Visitor, page: str) -> None:
    answer = english.get(page)
    for tag, attributes in tags(answer.text):
        assert tag != "style"
        assert tag != "script" or attributes.get("src"), page
        assert "style" not in attributes, (page, tag)
        assert not [name for name in attributes if name.startswith("on")], (page, tag)
        assert not (attributes.get("href") or "").lower().startswith("javascript:")
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_nothing_from_elsewhere(english: Visitor, page: str) -> None:
    for tag, attributes in tags(english.get(page).text):
        if tag in ("script", "link", "img"):
            address = attributes.get("src") or attributes.get("href") or ""
            assert address.startswith("/static/"), (page, address)


@pytest.mark.parametrize("page", PAGES)
def test_every_input_has_a_label_and_every_id_is_unique(english: Visitor, page: str) -> None:
    html = english.get(page).text
    found = tags(html)
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert sorted(ids, key=str) == sorted(set(ids), key=str)
    labelled = {attributes.get("for") for tag, attributes in found if tag == "label"}
    inside = "".join(re.findall(r"<label[ >].*?</label>", html, re.DOTALL))
    for tag, attributes in found:
        if tag not in ("input", "select", "textarea") or attributes.get("type") == "hidden":
            continue
        if "hidden" in attributes:
            continue
        name = attributes.get("name") or ""
        assert (
            attributes.get("id") in labelled
            or attributes.get("aria-label")
            or f'name="{name}"' in inside
        ), (page, attributes)


def test_static_files_are_named_by_their_content_and_cached(english: Visitor) -> None:
    addresses = re.findall(r'(?:href|src)="(/static/[^"]+)"', english.get("/nodes/gpu-01").text)
    assert len(addresses) >= 5
    for address in addresses:
        answer = english.get(address)
        assert answer.status_code == 200, f"{address}: run script/front-end"
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert "immutable" not in english.get("/static/app.css").headers["Cache-Control"]


def test_text_from_people_and_programs_is_never_markup(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    with lab.app_context(), write() as session:
        for user in session.scalars(select(User)):
            user.display_name = EVIL
            user.email = EVIL
        for node in session.scalars(select(Node)):
            node.cluster = EVIL
            node.tags = [EVIL]
            node.address = EVIL
            node.agent_version = EVIL[:32]
            node.agent_report = {
                "problems": [EVIL],
                "mode": EVIL,
                "sessions": {EVIL: 1},
                "clock_skew_s": 9,
            }
            for device in node.devices:
                device.model = EVIL
                device.bus_id = EVIL[:32]
        for reservation in session.scalars(select(Reservation)):
            reservation.purpose = EVIL
        for alert in session.scalars(select(Alert)):
            alert.name = alert.severity = EVIL[:32]
            alert.holders = [EVIL]
            alert.annotations = {"summary": EVIL, "runbook_url": "javascript:alert(1)"}
        record(session, SYSTEM, EVIL, EVIL[:32], EVIL, before={EVIL: 1}, after={EVIL: EVIL})
    visitor = Visitor(lab)
    visitor.sign_in("admin")
    pages = [*PAGES, f"/book?node={EVIL}", f"/alerts?node={EVIL}", f"/?tag={EVIL}"]
    pages += [f"/reservations?all=1&node={EVIL}&holder={EVIL}", f"/admin/audit?actor={EVIL}"]
    seen = 0
    for page in pages:
        html = visitor.get(page).text
        seen += html.count("&lt;script&gt;")
        for tag, attributes in tags(html):
            assert tag != "img", page
            assert tag != "script" or (attributes.get("src") or "").startswith("/static/"), page
            assert not [name for name in attributes if name.startswith("on")], page
            address = attributes.get("href") or ""
            assert not address.startswith("javascript:"), page
    # The text is there, harmless: the pages do show what was planted.
    assert seen > 100
    login = Visitor(lab).get(f"/login?next=/{EVIL}").text
    assert "<img" not in login


def test_the_matrix_says_the_state_of_a_cell_in_words(lab: APIFlask) -> None:
    alice = Visitor(lab)
    alice.sign_in("alice")
    text = visible_text(alice.get("/").text)
    assert "gpu-01 · Card 4: bob" in text
    assert "gpu-01 · Card 0: Yours" in text
    assert "gpu-02 · Card 0: li-wei · whole machine" in text
    assert "gpu-03 · Card 0: offline" in text
    assert "npu-01 · Card 15: free" in text
    assert "cpu-01 · Machine: bob · whole machine" in text
    # The next booking of a card that is taken now.
    assert "next: zhang-min" in text


def test_the_matrix_does_not_offer_a_faulty_card_as_a_good_one(
    lab: APIFlask, english: Visitor, chinese: Visitor
) -> None:
    html = english.get("/").text
    found = re.finditer(r'<a class="cell.*?id="cell-(\d+-\d+)".*?</a>', html, re.DOTALL)
    cells = {match[1]: match[0] for match in found}
    with lab.app_context(), write() as session:
        node_id = session.scalars(select(Node.id).where(Node.name == "gpu-01")).one()
    faulty, busy, good = (cells[f"{node_id}-{slot}"] for slot in (3, 4, 2))
    assert 'class="cell has-tip free sick"' in faulty
    assert "faulty" in visible_text(faulty)
    assert "Accelerator 3 of gpu-01 is unhealthy" in visible_text(faulty)
    # Who has one that fails sees it too; it stays theirs.
    assert 'class="cell has-tip busy"' in busy
    assert "Card 4 of gpu-01 has memory errors" in visible_text(busy)
    assert 'class="cell has-tip free"' in good
    assert "⚠" not in good
    assert "故障" in visible_text(chinese.get("/").text)
    rules = Path(__file__).parents[2] / "alert_rules/accelerators.yml"
    assert set(re.findall(r"alert: (\w+)", rules.read_text())) >= UNFIT


def test_the_matrix_sends_its_rows_again_only_when_they_changed(lab: APIFlask) -> None:
    alice = Visitor(lab)
    alice.sign_in("alice")
    html = alice.get("/").text
    state = re.search(r"&#34;state&#34;: &#34;(\w+)&#34;|\"state\": \"(\w+)\"", html)
    assert state is not None
    known = state.group(1) or state.group(2)
    poll = {"HX-Request": "true"}
    assert alice.get(f"/?state={known}", poll).status_code == 204
    fresh = alice.get("/?state=other", poll)
    assert fresh.status_code == 200
    assert fresh.text.lstrip().startswith('<div id="matrix"')
    assert "<html" not in fresh.text
    # Another filter shows other rows, so it is another state.
    assert alice.get(f"/?state={known}&tag=a100", poll).status_code == 200


def test_the_matrix_filters_by_cluster_tag_and_what_is_free(english: Visitor) -> None:
    def nodes(path: str) -> set[str]:
        return set(re.findall(r'href="/nodes/([\w-]+)">\1<', english.get(path).text))

    assert nodes("/") == {"gpu-01", "gpu-02", "gpu-03", "npu-01", "npu-02", "cpu-01"}
    assert nodes("/?cluster=ascend") == {"npu-01", "npu-02"}
    assert nodes("/?tag=nvlink") == {"gpu-01", "gpu-02"}
    assert nodes("/?free=1&cluster=training") == {"gpu-01"}
    assert "No node fits" in english.get("/?tag=a100&free=1").text


def test_times_are_in_utc_for_programs_and_without_scripts(english: Visitor) -> None:
    html = english.get("/reservations?all=1").text
    found = re.findall(r'<time datetime="([^"]+)" data-when="\w+">([^<]+)</time>', html)
    assert len(found) > 10
    for machine, shown in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", machine)
        assert shown == machine[:16].replace("T", " ") + " UTC"


def test_the_past_is_paged_without_losing_or_repeating(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    now = utc_now()
    with lab.app_context(), write() as session:
        bob = session.scalars(select(User).where(User.name == "bob")).one()
        node = session.scalars(select(Node).where(Node.name == "npu-02")).one()
        for hours in range(60):
            starts = now - dt.timedelta(hours=100 + hours)
            session.add(
                Reservation(
                    user=bob,
                    node=node,
                    whole_node=True,
                    starts=starts,
                    ends=starts + dt.timedelta(minutes=30),
                    purpose=f"run-{hours:02}.",
                )
            )
    visitor = Visitor(lab)
    visitor.sign_in("bob")
    path, seen = "/reservations", []
    while path:
        html = visitor.get(path).text
        seen += re.findall(r"run-\d\d\.", html)
        older = re.search(r'href="([^"]+)" rel="next"', html)
        path = older.group(1).replace("&amp;", "&") if older else ""
    assert seen == [f"run-{hours:02}." for hours in range(60)]


def test_the_audit_is_paged_and_filtered(english: Visitor, lab: APIFlask) -> None:
    with lab.app_context(), write() as session:
        for number in range(120):
            record(session, SYSTEM, "test.entry", "node", f"n{number:03}!")
    path, seen = "/admin/audit?actor=system", []
    while path:
        html = english.get(path).text
        seen += re.findall(r"n\d{3}!", html)
        older = re.search(r'href="([^"]+)" rel="next"', html)
        path = older.group(1).replace("&amp;", "&") if older else ""
    assert seen == [f"n{number:03}!" for number in reversed(range(120))]


def test_alerts_show_who_held_the_node_and_link_the_runbook(english: Visitor) -> None:
    html = english.get("/alerts").text
    text = visible_text(html)
    assert "AcceleratorHot" in text
    assert "alice, bob" in text
    assert 'href="https://docs.example/runbooks/NodeOffline"' in html
    assert "AcceleratorHot" not in english.get("/alerts?node=gpu-03").text


def test_the_charts_of_the_node_page_exist(lab: APIFlask) -> None:
    drawn = {name for name, _label in (*node_pages.CARD_CHARTS, *node_pages.HOST_CHARTS)}
    assert drawn <= set(CHARTS)


def test_a_device_that_is_gone_is_shown_as_missing_and_cannot_be_booked(
    tmp_path: Path,
) -> None:
    lab = make_lab(tmp_path)
    with lab.app_context(), write() as session:
        node = session.scalars(select(Node).where(Node.name == "npu-02")).one()
        node.devices[3].is_present = False
        gone = node.devices[3].uuid
    visitor = Visitor(lab)
    visitor.sign_in("alice")
    assert "missing" in visible_text(visitor.get("/nodes/npu-02").text)
    assert gone not in visitor.get("/book?node=npu-02").text
    assert "npu-02 · Card 3" not in visible_text(visitor.get("/").text)


def test_an_empty_system_says_what_to_do(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    with lab.app_context(), write() as session:
        for node in session.scalars(select(Node)):
            node.removed_at = utc_now()
            node.name = f"{node.name}~{node.id}"
    visitor = Visitor(lab)
    visitor.sign_in("admin")
    assert "There are no nodes yet" in visible_text(visitor.get("/").text)
    assert "There are no nodes yet" in visible_text(visitor.get("/nodes").text)
    assert "no nodes to book" in visible_text(visitor.get("/book").text)


@pytest.mark.parametrize(
    "query",
    ["cursor=x", "before=x", "before=99999999999999", "after=%00", "span=9y&from=nonsense",
     "from=0001-01-01T00:00:00Z", "from=9999-12-31T23:59:59-23:59", "from=2026-01-01T00:00:00"],
)  # fmt: skip
@pytest.mark.parametrize("page", ["/", "/book", "/reservations", "/nodes/gpu-01", "/alerts",
                                  "/admin/audit", "/admin/users"])  # fmt: skip
def test_no_query_breaks_a_page(english: Visitor, page: str, query: str) -> None:
    assert english.get(f"{page}?{query}").status_code in (200, 400, 422)
