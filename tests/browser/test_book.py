"""The book that `scripts/book` builds, read from its files in a real browser that has no connection."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urlsplit

import click
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from scripts.publish import source_pages
from scripts.publish.book import build
from tests.helpers import PATIENCE
from tests.notebooks.execution import Execution
from tests.notebooks.workbook import NOTEBOOKS, ROOT, Notebook

pytestmark = pytest.mark.timeout(3600)  # the first one to ask for the book may have to execute all notebooks
each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SEEN = """() => ({
    links: Array.from(document.querySelectorAll("a[href]"), a => a.href),
    places: Array.from(document.querySelectorAll("[id], a[name]"), e => e.id || e.name),
    charts: Array.from(
        document.querySelectorAll(".cell_output img"),
        i => [i.naturalWidth, i.naturalHeight, i.clientWidth, i.clientHeight]),
    solutions: Array.from(document.querySelectorAll(".cell details"), d => [d.open, d.textContent]),
    formulas: document.querySelectorAll("math").length,
    bare_formulas: document.querySelectorAll(".math").length,
    width: document.documentElement.scrollWidth,
})"""
Execute = Callable[[Path, bool], Execution]


class Reading(NamedTuple):
    """What pages showed on a wide screen and on a phone, what they asked for, what the browser disliked."""

    wide: dict[Path, dict[str, Any]]
    phone: dict[Path, dict[str, Any]]
    requests: list[str]
    failed: list[str]
    complaints: list[tuple[str, str]]


@pytest.fixture(scope="module")
def book(executed: Execute, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book, as `scripts/book` makes it."""
    results, book = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("book") / "html"
    for path in NOTEBOOKS:
        (results / path.name).symlink_to(executed(path, True).result)
    build(results, book)
    return book


@pytest.fixture(scope="module")
def reading(book: Path, browser: Browser) -> Reading:
    """Every page of the book is opened. `index.html` leads on to another one, and has a test of its own."""
    read = Reading({}, {}, [], [], [])

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            read.complaints.append((page.url, message.text))

    files = [file for file in sorted(book.rglob("*.html")) if "_static" not in file.parts]
    with browser.new_context() as context, context.new_page() as page:
        page.set_default_timeout(PATIENCE * 1000)
        page.on("request", lambda request: read.requests.append(request.url))
        page.on("requestfailed", lambda request: read.failed.append(request.url))
        page.on("pageerror", lambda error: read.complaints.append((page.url, str(error))))
        page.on("console", hear)
        for file in files:
            if file != book / "index.html":
                page.set_viewport_size(WIDE)
                page.goto(file.as_uri())
                read.wide[file] = page.evaluate(SEEN)
                page.set_viewport_size(PHONE)
                read.phone[file] = page.evaluate(SEEN)
    return read


def page_of(notebook: Path, book: Path) -> Path:
    return book / "notebooks" / f"{notebook.stem}.html"


def test_it_begins_with_the_start_of_the_course(book: Path, page: Page) -> None:
    page.goto((book / "index.html").as_uri())
    expect(page).to_have_title(re.compile("Week 0: Start here"))


def test_each_notebook_and_each_source_has_a_page(book: Path, reading: Reading) -> None:
    sources = [path for kind in ("py", "lua") for path in (ROOT / "dtq").rglob(f"*.{kind}")]
    wanted = {book / f"{path.relative_to(ROOT)}.html" for path in sources}
    assert {page_of(path, book) for path in NOTEBOOKS} | wanted <= reading.wide.keys()


def test_pages_ask_for_nothing_but_their_own_files(book: Path, reading: Reading) -> None:
    assert [url for url in reading.requests if not url.startswith((book.as_uri(), "data:"))] == []
    assert reading.failed == []


def test_the_browser_has_no_complaint(reading: Reading) -> None:
    assert reading.complaints == []


def test_links_lead_to_what_is_there(reading: Reading) -> None:
    places = {page.as_uri(): {"", *seen["places"]} for page, seen in reading.wide.items()}
    links = {(page.name, *urldefrag(link)) for page, seen in reading.wide.items() for link in seen["links"]}
    inside = sorted(link for link in links if link[1].startswith("file:"))
    assert len(inside) > len(places)
    files = {url for _, url, place in inside if url not in places and not place}  # such as a chart on its own
    assert [url for url in files if not Path(unquote(urlsplit(url).path)).is_file()] == []
    to_pages = [link for link in inside if link[1] not in files]
    assert [link for link in to_pages if unquote(link[2]) not in places.get(link[1], ())] == []


def test_a_link_to_a_method_leads_to_where_it_is_defined(book: Path, page: Page) -> None:
    address = source_pages.address("dtq/queue/broker.py", "dtq.queue.broker.Broker.submit")
    number = int(address.partition("#line-")[2])
    lines = (ROOT / "dtq/queue/broker.py").read_text(encoding="utf-8").splitlines()
    assert lines[number - 1].startswith("    def submit(")
    page.goto(f"{book.as_uri()}/{address}")
    expect(page.locator(f"#line-{number}")).to_be_in_viewport()


@each_notebook
def test_all_charts_are_shown(notebook: Path, book: Path, reading: Reading, executed: Execute) -> None:
    cells = Notebook(executed(notebook, True).result).code
    outputs = [output for cell in cells for output in cell.outputs]
    drawn = [output for output in outputs if "image/png" in output.get("data", {})]
    for pages in (reading.wide, reading.phone):
        charts = pages[page_of(notebook, book)]["charts"]
        assert len(charts) == len(drawn)
        for natural_width, natural_height, width, height in charts:
            assert natural_width > 0
            assert width / height == pytest.approx(natural_width / natural_height, rel=0.02)


@each_notebook
def test_solutions_are_shut(notebook: Path, book: Path, reading: Reading) -> None:
    solutions = reading.wide[page_of(notebook, book)]["solutions"]
    assert [is_open for is_open, _ in solutions] == [False] * len(Notebook(notebook).checks)
    assert [text for _, text in solutions if "# Solution" not in text] == []


def test_formulas_are_set(book: Path, reading: Reading) -> None:
    assert reading.wide[page_of(ROOT / "notebooks/week2_5_load.ipynb", book)]["formulas"] > 3
    assert [page.name for page, seen in reading.wide.items() if seen["bare_formulas"]] == []


def test_no_page_is_wider_than_the_screen(reading: Reading) -> None:
    assert [page.name for page, seen in reading.wide.items() if seen["width"] > WIDE["width"]] == []
    assert [page.name for page, seen in reading.phone.items() if seen["width"] > PHONE["width"]] == []


def test_charts_have_no_background_in_the_dark(book: Path, browser: Browser) -> None:
    with browser.new_context(color_scheme="dark") as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(page_of(ROOT / "notebooks/week0_start_here.ipynb", book).as_uri())
        chart = page.locator(".cell_output img").first
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        expect(chart).to_have_css("background-color", "rgba(0, 0, 0, 0)")
        expect(chart).to_have_css("filter", "none")


def test_its_contents_open_on_a_phone(book: Path, page: Page) -> None:
    page.set_viewport_size(PHONE)
    page.goto((book / "search.html").as_uri())
    page.locator(".primary-toggle").click()
    page.get_by_role("link", name="Week 1.1: First tasks").click()
    expect(page.get_by_role("heading", name="Week 1.1: First tasks")).to_be_visible()


def test_its_words_can_be_searched(book: Path, page: Page) -> None:
    page.goto(f"{(book / 'search.html').as_uri()}?q=starvation")
    expect(page.locator("#search-results li a").first).to_contain_text("Week 2.3: Priorities")


def test_without_executed_notebooks_there_is_no_book(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=r"week0_start_here\.ipynb is not there: scripts/book"):
        build(tmp_path, tmp_path / "html")
    assert not (tmp_path / "html").exists()


def test_the_script_takes_one_option_alone() -> None:
    done = subprocess.run([ROOT / "scripts/book", "--norun"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "scripts/book: takes no argument but --no-run\n")
