"""`python -m scripts.publish.book`: builds the book, to be read in a browser, from the notebooks in `build`.

The notebooks are laid out in a folder of their own, beside a page for each source file; jupyter-book makes
HTML of it, as `scripts/book_config` says. The book needs no connection.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from scripts.publish import source_pages
from scripts.publish.run_notebooks import NOTEBOOKS, RESULTS
from scripts.publish.source_pages import ROOT

BOOK = RESULTS / "book"
CONFIG = ROOT / "scripts/book_config"
# A link out of the notebooks' folder, and the number of a line that may follow it.
SOURCE = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\(\.\./(?P<path>[\w./-]+)\)(?=, line (?P<line>\d+)|)")


def build(results: Path, book: Path) -> None:
    """Builds the book from executed notebooks.

    Args:
        results: the folder with the executed notebooks: all of those in `notebooks`.
        book: the folder that becomes the book; its first page is `index.html`. What was there is replaced.

    Raises:
        click.ClickException: a notebook was not executed, or jupyter-book reports a problem.
    """
    with tempfile.TemporaryDirectory(prefix="dtq-book-") as folder:
        lay_out(results, Path(folder, "pages"))
        command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "pages"]
        options = ["--config", str(CONFIG / "_config.yml"), "--path-output", ".", "-W", "--keep-going", "-q"]
        made = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True)
        if made.returncode:
            raise click.ClickException(f"jupyter-book makes no book of it:\n{made.stdout}{made.stderr}")
        shutil.rmtree(book, ignore_errors=True)
        shutil.copytree(Path(folder, "_build/html"), book)


def lay_out(results: Path, pages: Path) -> None:
    """Fills a folder with what jupyter-book takes: notebooks, sources, pictures, style and the contents."""
    names = sorted(path.name for path in (ROOT / NOTEBOOKS).glob("*.ipynb"))
    if missing := [results / name for name in names if not (results / name).exists()]:
        raise click.ClickException(f"{missing[0]} is not there: scripts/book without --no-run executes it.")
    shutil.copytree(CONFIG / "_static", pages / "_static")
    shutil.copytree(ROOT / NOTEBOOKS / "images", pages / NOTEBOOKS / "images")
    linked: set[Path] = set()
    for name in names:
        notebook = json.loads((results / name).read_text(encoding="utf-8"))
        linked |= {ROOT / path for path in adapt(notebook)}
        (pages / NOTEBOOKS / name).write_text(json.dumps(notebook), encoding="utf-8")
    others = sorted(path for path in linked if ROOT / "dtq" not in path.parents)
    code = [source_pages.write(path, pages) for path in (ROOT / "dtq", *others)]
    start, *weeks = [{"file": f"{NOTEBOOKS}/{name}"} for name in names]
    parts = [{"caption": "The weeks", "chapters": weeks}, {"caption": "The code", "chapters": code}]
    contents = {"format": "jb-book", "root": start["file"], "parts": parts}
    (pages / "_toc.yml").write_text(json.dumps(contents))  # JSON is YAML as well


def adapt(notebook: dict[str, Any]) -> set[str]:
    """Changes an executed notebook for the book: links to sources lead to their pages, solutions are
    collapsed, and papermill's own cell is removed.

    Returns:
        The sources that it links to, as paths in the project.
    """
    linked: set[str] = set()

    def to_page(link: re.Match[str]) -> str:
        linked.add(link["path"])
        address = source_pages.address(**link.groupdict())
        return f'<a class="reference internal" href="../{address}">{link["text"]}</a>'

    notebook["cells"] = [cell for cell in notebook["cells"] if "injected-parameters" not in tags(cell)]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = SOURCE.sub(to_page, "".join(cell["source"]))
        elif cell["metadata"].get("jupyter", {}).get("source_hidden"):
            cell["metadata"]["tags"] = [*tags(cell), "hide-input"]
        for shown in (output.get("data", {}) for output in cell.get("outputs", [])):
            if "text/markdown" in shown:
                shown["text/markdown"] = SOURCE.sub(to_page, "".join(shown["text/markdown"]))
    return linked


def tags(cell: dict[str, Any]) -> list[str]:
    """A cell's tags."""
    return list(cell["metadata"].get("tags", []))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make a book of the executed notebooks in ./build."""
    build(RESULTS, BOOK)
    click.echo(f"the book is in {BOOK}: open {BOOK / 'index.html'}")


if __name__ == "__main__":
    main(prog_name="python -m scripts.publish.book")
