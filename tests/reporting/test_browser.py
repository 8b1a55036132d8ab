"""The page in a real browser, alone in a folder: no errors or requests, tables sort, and it fits every window."""

from __future__ import annotations

import json
import shutil

import pytest
from support.browser import Browser, find
from support.run_folder import FORGETS, KEEPS, make_run

from sdft_cli.commands.report import report

EVIL = "</pre><script>alert(1)</script><img src='https://example.org/x.png' onerror=alert(1)>"
PROGRAM = find()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here (on Debian: apt install chromium)")
SCHEMES = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of two runs, one with completions that a browser might run, in a folder without any other file."""
    root = tmp_path_factory.mktemp("browser")
    folders = [make_run(root / m, m, rates, items=12) for m, rates in (("sdft", KEEPS), ("sft", FORGETS))]
    for path in folders[0].glob("evals/*/*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({**row, "completion": EVIL, "extracted": EVIL}) + "\n" for row in rows))
    report(folders, root / "out")
    (root / "alone").mkdir()
    return shutil.copy(root / "out" / "report.html", root / "alone" / "page.html")


@pytest.fixture(scope="module")
def browser(page):
    assert PROGRAM
    with Browser(PROGRAM) as opened:
        opened.look()
        opened.open(page)
        yield opened


def test_it_opens_without_errors_requests_or_dialogs(browser, page):
    assert [sent["request"]["url"] for sent in browser.of("Network.requestWillBeSent")] == [page.as_uri()]
    for trouble in (
        "Runtime.exceptionThrown",
        "Runtime.consoleAPICalled",
        "Log.entryAdded",
        "Page.javascriptDialogOpening",
    ):
        assert browser.of(trouble) == []
    assert browser.run("document.images.length + document.scripts.length") == 1  # the page's own script
    assert EVIL in browser.run("document.body.textContent")


def test_tables_sort_both_ways_by_value(browser):
    column = '[...document.querySelectorAll("table")].find(t => t.tHead.textContent.includes("since learned"))'
    click = f"{column}.tHead.rows[0].cells[7].querySelector('button').click()"
    read = f"[...{column}.tBodies[0].rows].map(row => row.cells[7].textContent)"
    before = browser.run(read)
    browser.run(click)
    rising = browser.run(read)
    assert browser.run(f"{column}.tHead.rows[0].cells[7].getAttribute('aria-sort')") == "ascending"
    browser.run(click)
    falling = browser.run(read)
    assert sorted(before) == sorted(rising) == sorted(falling)
    values = [int(text) for text in rising if text != "–"]
    assert values == sorted(values) and len(set(values)) > 2
    assert [int(text) for text in falling if text != "–"] == values[::-1]
    gaps = before.count("–")
    assert gaps and set(rising[-gaps:]) == set(falling[-gaps:]) == {"–"}  # undefined values come last


def test_negative_numbers_sort_as_numbers(browser):
    table = "document.querySelector('#results ~ .wide table')"
    browser.run(f"{table}.tHead.rows[0].cells[3].querySelector('button').click()")
    texts = browser.run(f"[...{table}.tBodies[0].rows].map(row => row.cells[3].firstChild.textContent)")
    values = [float(text.replace("−", "-")) for text in texts]
    assert values == sorted(values) and values[0] < 0


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [390, 800, 1280])
def test_it_fits_the_window_light_and_dark(browser, width, scheme):
    browser.look(width, scheme)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run("getComputedStyle(document.body).backgroundColor") == SCHEMES[scheme]
    wide = "[...document.querySelectorAll('figure svg')].map(svg => svg.getBoundingClientRect().width)"
    assert len(drawn := browser.run(wide)) == 5 and min(drawn) > 300


def test_links_lead_somewhere_and_it_prints(browser):
    assert browser.run("[...document.links].every(a => document.querySelector(a.getAttribute('href')))")
    assert browser.pdf().startswith(b"%PDF")
    assert browser.screenshot().startswith(b"\x89PNG")
