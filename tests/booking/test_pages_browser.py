"""The pages in a real browser: what only scripts, styles and the policy against them decide."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect, sync_playwright

from sentinel_booking.models import Role
from tests.booking.page_browser import ZONE, ZONE_OFFSET, contrast, measured, person
from tests.booking.page_lab import fill_lab, lab_config
from tests.booking.people import PASSWORD
from tests.booking.programs import booking_server, migrated_app
from tests.lab.chromium import CHROMIUM, FLAGS
from tests.lab.wait import wait_for

PAGES = {
    Role.ADMIN: [
        "/", "/book", "/book?node=npu-01", "/book?node=cpu-01", "/reservations",
        "/reservations?all=1", "/keys", "/nodes", "/nodes/gpu-01", "/nodes/gpu-02",
        "/nodes/gpu-03", "/nodes/cpu-01", "/nodes/add", "/nodes/gpu-01/edit", "/alerts",
        "/nodes/npu-02", "/runbooks/NodeOffline",
        "/admin/users", "/admin/users/add", "/admin/users/alice", "/admin/audit",
        "/me/password",
    ],
    Role.USER: ["/", "/book?node=gpu-01", "/reservations", "/keys", "/nodes/gpu-01"],
}  # fmt: skip
# Texts that lie over their neighbours; what is cut off with an ellipsis is meant to be.
OVERFLOWING = """
() => [...document.querySelectorAll("td, dd, .button, .badge, .row-name, label, h1, h2, h3")]
  .filter((box) => box.checkVisibility() && box.scrollWidth > box.clientWidth + 1)
  .map((box) => box.textContent.trim())
"""

NAMES = {Role.ADMIN: "admin", Role.USER: "alice"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The lab behind gunicorn, with a Prometheus that has measured gpu-01 for an hour."""
    folder = tmp_path_factory.mktemp("lab")
    config = lab_config(folder)
    fill_lab(migrated_app(config))
    with (
        measured(folder) as prometheus,
        booking_server(
            config, folder, prometheus_url=prometheus, offline_after_s=1800, workers=1
        ) as server,
    ):
        yield server.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


def test_signing_in_by_hand_leads_to_the_page_that_was_asked_for(
    browser: Browser, url: str
) -> None:
    page = browser.new_page(locale="en-GB")
    page.goto(f"{url}/keys")
    expect(page.get_by_label("User name")).to_be_focused()
    page.keyboard.type("zhang-min")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/keys")
    page.get_by_label("Account of zhang-min").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{url}/login")
    page.close()


@pytest.mark.parametrize(
    ("role", "language"),
    [(Role.ADMIN, "en-GB"), (Role.ADMIN, "zh-CN"), (Role.USER, "en-GB")],
)
def test_no_page_scrolls_sideways_or_troubles_the_console(
    browser: Browser, url: str, role: Role, language: str
) -> None:
    with person(browser, url, NAMES[role], language=language) as somebody:
        page = somebody.page
        for path in PAGES[role]:
            page.set_viewport_size({"width": 1280, "height": 800})
            somebody.open(path)
            if re.fullmatch(r"/nodes/gpu-\d+", path):
                # Each chart has got its answer.
                expect(page.get_by_text(re.compile("Loading|正在加载"))).to_have_count(0)
            for width in (1280, 1000, 768, 375):
                page.set_viewport_size({"width": width, "height": 800})
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{path} is {wide} wide on a screen of {width}"
                assert page.evaluate(OVERFLOWING) == [], f"{path} on a screen of {width}"
        assert somebody.troubles == []


def test_opened_panels_stay_on_a_narrow_screen(browser: Browser, url: str) -> None:
    with person(browser, url, "admin", width=375) as admin:
        for path in ("/reservations?all=1", "/nodes/gpu-01", "/admin/users/alice", "/"):
            admin.open(path)
            for summary in admin.page.locator("details[data-popup] > summary:visible").all():
                summary.click()
                panel = admin.page.locator("details[data-popup][open] > :not(summary)")
                # The script moves it after the browser's toggle event.
                wait_for(f"the panel fits on {path}", partial(fits, panel, 375))
                assert admin.page.evaluate("document.documentElement.scrollWidth") <= 375
                admin.page.keyboard.press("Escape")
                expect(panel).to_have_count(0)


def fits(panel: Locator, width: float) -> bool:
    box = panel.bounding_box()
    return box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width


def test_times_are_shown_in_the_browsers_zone(browser: Browser, url: str) -> None:
    with person(browser, url, "alice") as alice:
        alice.open("/reservations")
        found = alice.page.locator("time[data-when=smart]").all()
        assert len(found) > 4
        for element in found:
            utc = dt.datetime.fromisoformat(element.get_attribute("datetime") or "")
            there = utc + ZONE_OFFSET
            assert (element.text_content() or "").endswith(there.strftime("%H:%M"))


def test_book_see_it_blue_extend_and_release(browser: Browser, url: str) -> None:
    with person(browser, url, "alice") as alice:
        page = alice.page
        # From a free cell of the matrix to the form that is filled in for it.
        page.locator("a.cell.free", has_text="npu-02 · Card 7").click()
        page.wait_for_url("**/book?node=npu-02**")
        expect(page.get_by_role("checkbox", name="Card 7")).to_be_checked()
        page.get_by_role("checkbox", name="Card 6").check()
        page.get_by_role("button", name="1 h", exact=True).click()
        # The lanes show what is about to be booked.
        expect(page.locator('.lane-want[visibility="visible"]')).to_have_count(2)
        page.get_by_label("Purpose").fill("by hand")
        page.get_by_role("button", name="Book", exact=True).click()
        page.wait_for_url("**/reservations")
        row = page.get_by_role("row").filter(has_text="by hand")
        expect(row).to_contain_text("Cards 6, 7")
        # An hour from now, to the minute.
        ends = dt.datetime.fromisoformat(
            row.locator("td[data-label=Until] time").first.get_attribute("datetime") or ""
        )
        left = ends - dt.datetime.now(dt.UTC)
        assert dt.timedelta(minutes=57) < left <= dt.timedelta(minutes=60)

        alice.open("/")
        mine = page.locator("a.cell", has_text="npu-02 · Card 6")
        expect(mine).to_have_class(re.compile(r"\bmine\b"))
        assert mine.evaluate("cell => getComputedStyle(cell).backgroundColor") == (
            "rgb(43, 98, 222)"
        )
        mine.hover()
        expect(page.locator("#tip")).to_contain_text("by hand")
        expect(page.locator("#tip")).to_contain_text("until")

        alice.open("/reservations")
        row = page.get_by_role("row").filter(has_text="by hand")
        row.get_by_role("button", name="Extend", exact=True).click()
        row.get_by_role("button", name="+1 h").click()
        expect(page.get_by_role("status")).to_contain_text("npu-02: now until")
        row.get_by_role("button", name="Release", exact=True).click()
        row.get_by_role("button", name="Release now").click()
        expect(page.get_by_role("status")).to_contain_text("Released: npu-02, Cards 6, 7.")
        alice.open("/")
        expect(page.locator("a.cell.free", has_text="npu-02 · Card 6")).to_be_visible()
        assert alice.troubles == []


def test_a_time_typed_in_the_browsers_zone_is_that_moment(browser: Browser, url: str) -> None:
    with person(browser, url, "alice") as alice:
        page = alice.page
        alice.open("/book?node=npu-02")
        expect(page.locator("[data-zone]").first).to_have_text(ZONE)
        starts = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
        starts += dt.timedelta(days=9)
        page.get_by_role("radio", name="Whole machine").check()
        page.get_by_role("radio", name="Later").check()
        there = starts + ZONE_OFFSET
        page.locator("#starts").fill(there.strftime("%Y-%m-%dT%H:%M"))
        page.get_by_role("button", name="4 h", exact=True).click()
        page.get_by_label("Purpose").fill("typed time")
        page.get_by_role("button", name="Book", exact=True).click()
        page.wait_for_url("**/reservations")
        times = page.get_by_role("row").filter(has_text="typed time").locator("time")
        assert times.first.get_attribute("datetime") == starts.strftime("%Y-%m-%dT%H:%M:%SZ")
        ends = starts + dt.timedelta(hours=4)
        assert times.nth(1).get_attribute("datetime") == ends.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_conflict_is_booked_at_another_time_by_one_button(browser: Browser, url: str) -> None:
    with person(browser, url, "alice") as alice:
        page = alice.page
        alice.open("/book?node=gpu-01")
        page.get_by_role("checkbox", name="Card 3").check()
        page.get_by_role("button", name="1 d", exact=True).click()
        # zhang-min is in the way in 7 hours, and the lane says so before it is sent.
        expect(page.locator('.lane-want.clash[visibility="visible"]')).to_have_count(1)
        page.get_by_role("button", name="Book", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("zhang-min")
        page.get_by_role("button", name="Book a shorter time, until").click()
        page.wait_for_url("**/reservations")
        expect(page.get_by_role("status")).to_contain_text("Booked: gpu-01, Card 3,")


def test_the_matrix_renews_itself_and_keeps_the_focus(browser: Browser, url: str) -> None:
    with person(browser, url, "alice") as alice, person(browser, url, "bob") as bob:
        alice.page.clock.install()
        alice.open("/?tag=910b")
        cell = alice.page.locator("a.cell", has_text="npu-02 · Card 5")
        expect(cell).to_have_class(re.compile(r"\bfree\b"))
        cell.focus()
        bob.open("/book?node=npu-02")
        bob.page.get_by_role("checkbox", name="Card 5").check()
        bob.page.get_by_role("button", name="1 h", exact=True).click()
        bob.page.get_by_role("button", name="Book", exact=True).click()
        bob.page.wait_for_url("**/reservations")
        # The page polls every 10 s.
        alice.page.clock.fast_forward(10_000)
        expect(cell).to_have_class(re.compile(r"\bbusy\b"))
        expect(cell).to_be_focused()
        # The filter still holds, and the times of the new rows are local ones.
        expect(alice.page.locator(".row")).to_have_count(2)
        assert "UTC" not in (cell.text_content() or "")
        assert alice.troubles == []


def test_the_lanes_move_without_losing_the_form(browser: Browser, url: str) -> None:
    with person(browser, url, "alice") as alice:
        page = alice.page
        alice.open("/book?node=gpu-01")
        page.get_by_label("Purpose").fill("kept")
        page.get_by_role("checkbox", name="Card 2").check()
        page.get_by_role("button", name="1 h", exact=True).click()
        before = page.locator("#lanes").get_attribute("data-until")
        page.get_by_role("link", name="3 d", exact=True).click()
        expect(page.locator("#lanes")).not_to_have_attribute("data-until", before or "")
        # The new lanes have local hours, and show the wish again.
        expect(page.locator(".lane-axis text").first).to_have_text(
            re.compile(r"[A-Z][a-z]{2} \d+|:00")
        )
        expect(page.locator('.lane-want[visibility="visible"]')).to_have_count(1)
        assert page.get_by_label("Purpose").input_value() == "kept"
        assert alice.troubles == []


def test_charts_are_drawn_from_what_prometheus_has(browser: Browser, url: str) -> None:
    with person(browser, url, "alice") as alice:
        page = alice.page
        alice.open("/nodes/gpu-01")
        chart = page.locator('[data-chart="accelerator-utilization"]')
        expect(chart.locator("canvas")).to_be_visible()
        expect(chart.locator(".u-legend")).to_contain_text("Card 7")
        # The cursor reads the values off.
        chart.locator(".u-over").hover()
        expect(chart.locator(".u-legend")).to_contain_text("50 %")
        expect(page.locator('[data-chart="ssh-sessions"]')).to_have_text(
            "No data for this time."
        )
        page.get_by_role("button", name="6 h", exact=True).click()
        expect(page.get_by_role("button", name="6 h", exact=True)).to_have_attribute(
            "aria-pressed", "true"
        )
        expect(chart.locator("canvas")).to_be_visible()
        assert alice.troubles == []


def test_a_prometheus_that_does_not_answer_is_said_in_words(browser: Browser, url: str) -> None:
    with person(browser, url, "alice") as alice:
        alice.page.route("**/charts/**", lambda route: route.fulfill(status=503, body="{}"))
        alice.open("/nodes/gpu-01")
        expect(
            alice.page.get_by_text("Prometheus cannot be reached at present.")
        ).to_have_count(8)


def test_a_tap_shows_a_cell_and_a_second_one_follows_it(browser: Browser, url: str) -> None:
    with person(browser, url, "alice", width=375) as alice:
        page = alice.page
        cell = page.locator("a.cell", has_text="gpu-01 · Card 4")
        cell.tap()
        expect(page.locator("#tip")).to_contain_text("ablation study")
        assert page.url.endswith("/")
        cell.tap()
        page.wait_for_url("**/nodes/gpu-01")


def test_a_key_is_added_from_a_file_and_a_private_one_never_sent(
    browser: Browser, url: str, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bob@desk", "-f", key],
        check=True,
    )
    with person(browser, url, "bob") as bob:
        page = bob.page
        bob.open("/keys")
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.method))
        page.get_by_label("Public key file").set_input_files(key)
        expect(page.get_by_label("Public key", exact=True)).to_have_value(
            re.compile("PRIVATE KEY")
        )
        page.get_by_role("button", name="Add key").click()
        assert "POST" not in sent
        page.get_by_label("Public key file").set_input_files(key.with_suffix(".pub"))
        expect(page.get_by_label("Public key", exact=True)).to_have_value(
            re.compile("^ssh-ed25519 ")
        )
        page.get_by_role("button", name="Add key").click()
        expect(page.get_by_role("status")).to_contain_text("added")
        row = page.get_by_role("row").filter(has_text="bob@desk")
        row.get_by_role("button", name="Remove", exact=True).click()
        row.get_by_role("button", name="Remove key").click()
        expect(page.get_by_role("status")).to_contain_text("Key removed.")
        assert bob.troubles == []


def test_the_language_is_switched_in_the_header(browser: Browser, url: str) -> None:
    with person(browser, url, "olga") as olga:
        page = olga.page
        olga.open("/nodes")
        page.get_by_label("Language").click()
        page.get_by_role("button", name="中文").click()
        expect(page.get_by_role("heading", name="节点")).to_be_visible()
        assert page.url.endswith("/nodes")
        page.get_by_label("语言").click()
        page.get_by_role("button", name="English").click()
        expect(page.get_by_role("heading", name="Nodes")).to_be_visible()


def test_everything_is_reached_by_keyboard(browser: Browser, url: str) -> None:
    with person(browser, url, "alice") as alice:
        page = alice.page
        alice.open("/")
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        page.locator("a.cell.busy").first.focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        # Focus by keyboard shows the tip as hovering does.
        expect(page.locator("#tip")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#tip")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, url: str, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: a ratio of 4.5 for text; measured for each colour pair in use."""
    pairs = [
        ("--text", "--bg"), ("--text", "--surface"), ("--muted", "--bg"),
        ("--muted", "--surface"), ("--muted", "--sunken"), ("--accent", "--surface"),
        ("--accent-strong", "--accent-soft"), ("--on-accent", "--accent"),
        ("--free-ink", "--free-bg"), ("--busy-ink", "--busy-bg"),
        ("--mine-ink", "--mine-bg"), ("--offline-ink", "--offline-bg"),
        ("--offline-ink", "--offline-hatch"), ("--warn-ink", "--warn-bg"),
        ("--busy-ink", "--surface"), ("--warn-ink", "--surface"),
    ]  # fmt: skip
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    page = context.new_page()
    page.goto(f"{url}/login")
    names = sorted({name for pair in pairs for name in pair})
    colours: dict[str, str] = page.evaluate(
        "names => Object.fromEntries(names.map(name => [name,"
        " getComputedStyle(document.documentElement).getPropertyValue(name).trim()]))",
        names,
    )
    context.close()
    low = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}
