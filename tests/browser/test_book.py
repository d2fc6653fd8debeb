"""The book that `scripts/book` builds, read from its files in a real browser that has no connection."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag

import click
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from dtq.lab.book import build
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


class Visit(NamedTuple):
    """What a page showed on a wide screen and on a phone, what it asked for, what the browser said of it."""

    seen: dict[str, Any]
    on_a_phone: dict[str, Any]
    requests: list[str]
    failed: list[str]
    complaints: list[str]


@pytest.fixture(scope="module")
def book(executed: Execute, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book, as `scripts/book` makes it."""
    results, book = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("book") / "html"
    for path in NOTEBOOKS:
        (results / path.name).symlink_to(executed(path, True).result)
    build(results, book)
    return book


@pytest.fixture(scope="module")
def visits(book: Path, browser: Browser) -> dict[Path, Visit]:
    """Every page of the book, visited. `index.html` leads on to another one, and has a test of its own."""
    pages = [file for file in sorted(book.rglob("*.html")) if "_static" not in file.parts]
    return {file: visit(browser, file) for file in pages if file != book / "index.html"}


def visit(browser: Browser, file: Path) -> Visit:
    requests: list[str] = []
    failed: list[str] = []
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    with browser.new_context(viewport=WIDE) as context:
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("requestfailed", lambda request: failed.append(request.url))
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(file.as_uri(), wait_until="networkidle")
        seen = page.evaluate(SEEN)
        page.set_viewport_size(PHONE)
        return Visit(seen, page.evaluate(SEEN), requests, failed, complaints)


def page_of(notebook: Path, book: Path) -> Path:
    return book / "notebooks" / f"{notebook.stem}.html"


def test_it_begins_with_the_start_of_the_course(book: Path, page: Page) -> None:
    page.goto((book / "index.html").as_uri())
    expect(page).to_have_title(re.compile("Week 0: Start here"))


def test_each_notebook_and_each_source_has_a_page(book: Path, visits: dict[Path, Visit]) -> None:
    sources = [path for kind in ("py", "lua") for path in (ROOT / "dtq").rglob(f"*.{kind}")]
    wanted = {book / f"{path.relative_to(ROOT)}.html" for path in sources}
    assert {page_of(path, book) for path in NOTEBOOKS} | wanted <= visits.keys()


def test_pages_ask_for_nothing_but_their_own_files(book: Path, visits: dict[Path, Visit]) -> None:
    own = (book.as_uri(), "data:")
    assert [url for each in visits.values() for url in each.requests if not url.startswith(own)] == []
    assert [url for each in visits.values() for url in each.failed] == []


def test_the_browser_has_no_complaint(visits: dict[Path, Visit]) -> None:
    assert {page.name: each.complaints for page, each in visits.items() if each.complaints} == {}


def test_links_lead_to_pages_and_to_places_on_them(book: Path, visits: dict[Path, Visit]) -> None:
    places = {page.as_uri(): {"", *each.seen["places"]} for page, each in visits.items()}
    places[(book / "index.html").as_uri()] = {""}
    links = {(page.name, *urldefrag(link)) for page, each in visits.items() for link in each.seen["links"]}
    inside = {(page, url, unquote(place)) for page, url, place in links if url.startswith("file:")}
    assert len(inside) > len(visits)
    assert [link for link in sorted(inside) if link[2] not in places.get(link[1], ())] == []


def test_a_link_to_a_function_leads_to_its_line(book: Path, page: Page) -> None:
    page.goto(page_of(ROOT / "notebooks/week1_1_first_tasks.ipynb", book).as_uri())
    page.get_by_role("link", name="dtq.broker.Broker.submit").first.click()
    line = page.url.partition("#line-")[2]
    source = (ROOT / "dtq/broker.py").read_text(encoding="utf-8").splitlines()
    assert source[int(line) - 1].startswith("    def submit(")
    expect(page.locator(f"#line-{line}")).to_be_in_viewport()


@each_notebook
def test_all_charts_are_shown(
    notebook: Path, book: Path, visits: dict[Path, Visit], executed: Execute
) -> None:
    cells = Notebook(executed(notebook, True).result).code
    outputs = [output for cell in cells for output in cell.outputs]
    drawn = [output for output in outputs if "image/png" in output.get("data", {})]
    visit = visits[page_of(notebook, book)]
    for seen in (visit.seen, visit.on_a_phone):
        assert len(seen["charts"]) == len(drawn)
        for natural_width, natural_height, width, height in seen["charts"]:
            assert natural_width > 0
            assert width / height == pytest.approx(natural_width / natural_height, rel=0.02)


@each_notebook
def test_solutions_are_shut(notebook: Path, book: Path, visits: dict[Path, Visit]) -> None:
    solutions = visits[page_of(notebook, book)].seen["solutions"]
    assert [is_open for is_open, _ in solutions] == [False] * len(Notebook(notebook).checks)
    assert [text for _, text in solutions if "# Solution" not in text] == []


def test_formulas_are_set(book: Path, visits: dict[Path, Visit]) -> None:
    assert visits[page_of(ROOT / "notebooks/week2_5_load.ipynb", book)].seen["formulas"] > 3
    assert [page.name for page, each in visits.items() if each.seen["bare_formulas"]] == []


def test_no_page_is_wider_than_the_screen(visits: dict[Path, Visit]) -> None:
    assert [page.name for page, each in visits.items() if each.on_a_phone["width"] > PHONE["width"]] == []
    assert [page.name for page, each in visits.items() if each.seen["width"] > WIDE["width"]] == []


def test_charts_have_no_background_in_the_dark(book: Path, browser: Browser) -> None:
    with browser.new_context(color_scheme="dark") as context:
        page = context.new_page()
        page.goto(page_of(ROOT / "notebooks/week0_start_here.ipynb", book).as_uri())
        chart = page.locator(".cell_output img").first
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        expect(chart).to_have_css("background-color", "rgba(0, 0, 0, 0)")
        expect(chart).to_have_css("filter", "none")


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
