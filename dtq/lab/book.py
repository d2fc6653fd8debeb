"""`python -m dtq.lab.book`: builds the book, to be read in a browser, from the executed notebooks in `build`.

The notebooks are laid out in a folder of their own, with a page for each source file that they may link to;
jupyter-book makes HTML of it, as `scripts/book_config` says. The book needs no connection.
"""

import ast
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from dtq.lab.run import NOTEBOOKS, RESULTS

BOOK = RESULTS / "book"
ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "scripts/book_config"
LANGUAGES = {".py": "python", ".lua": "lua", ".md": "md", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./([\w./-]+)\)")
START = "week0_start_here"


def build(results: Path, book: Path) -> None:
    """Builds the book from executed notebooks.

    Args:
        results: the folder they are in, all of those in `notebooks`.
        book: the folder that becomes the book; its first page is `index.html`. What was there is replaced.

    Raises:
        click.ClickException: a notebook was not executed, or jupyter-book has a complaint.
    """
    with tempfile.TemporaryDirectory(prefix="dtq-book-") as folder:
        pages = Path(folder, "pages")
        lay_out(results, pages)
        command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "pages"]
        options = ["--config", str(CONFIG / "_config.yml"), "--path-output", ".", "--keep-going", "-q"]
        made = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True)
        if made.returncode:
            raise click.ClickException(
                f"jupyter-book does not make a book of it:\n{made.stdout}{made.stderr}"
            )
        shutil.rmtree(book, ignore_errors=True)
        shutil.copytree(Path(folder, "_build/html"), book)


def lay_out(results: Path, pages: Path) -> None:
    """Fills a folder with what jupyter-book takes: notebooks, sources, pictures, style, and the contents."""
    shutil.copytree(CONFIG / "_static", pages / "_static")
    shutil.copytree(ROOT / NOTEBOOKS / "images", pages / NOTEBOOKS / "images")
    notebooks = sorted(path.name for path in (ROOT / NOTEBOOKS).glob("*.ipynb"))
    if missing := [name for name in notebooks if not (results / name).exists()]:
        raise click.ClickException(
            f"{results / missing[0]} is not there: scripts/book executes the notebooks"
        )
    linked: set[Path] = set()
    for name in notebooks:
        notebook = json.loads((results / name).read_text(encoding="utf-8"))
        linked |= {ROOT / path for path in adapt(notebook)}
        (pages / NOTEBOOKS / name).write_text(json.dumps(notebook), encoding="utf-8")
    code = write_folder(ROOT / "dtq", pages)
    others = [write_source(path, pages) for path in sorted(linked) if ROOT / "dtq" not in path.parents]
    parts = [
        {"caption": "The weeks", "chapters": [{"file": f"{NOTEBOOKS}/{name}"} for name in notebooks[1:]]}
    ]
    parts.append({"caption": "The code", "chapters": [code, *others]})
    contents = {"format": "jb-book", "root": f"{NOTEBOOKS}/{START}", "parts": parts}
    (pages / "_toc.yml").write_text(json.dumps(contents))  # JSON is YAML as well


def adapt(notebook: dict[str, Any]) -> set[str]:
    """Changes an executed notebook into what the book shows: links into the source lead to its pages, solutions
    are shut, and papermill's own cell is left out.

    Returns:
        The files that it links to, as paths in the project.
    """
    linked: set[str] = set()

    def to_page(link: re.Match[str]) -> str:
        linked.add(link[2])
        return f'<a class="reference internal" href="../{address(link[2], link[1])}">{link[1]}</a>'

    notebook["cells"] = [cell for cell in notebook["cells"] if "injected-parameters" not in tags(cell)]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = LINK.sub(to_page, "".join(cell["source"]))
        elif cell["metadata"].get("jupyter", {}).get("source_hidden"):
            cell["metadata"]["tags"] = [*tags(cell), "hide-input"]
    return linked


def tags(cell: dict[str, Any]) -> list[str]:
    """A cell's tags."""
    return list(cell["metadata"].get("tags", []))


def address(path: str, text: str) -> str:
    """Where in the book the page of a file or folder is; with the line, if the link's text names a thing in it."""
    if (ROOT / path).is_dir():
        return f"{path}/index.html"
    line = line_of(text.strip("`"), path) if path.endswith(".py") else None
    return f"{path}.html#line-{line}" if line else f"{path}.html"


def line_of(name: str, path: str) -> int | None:
    """The line on which `dtq.module.Class.method` is defined; None where the name means the file as a whole."""
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if not name.startswith(f"{module}."):
        return None
    scope, line = ast.parse((ROOT / path).read_text(encoding="utf-8")).body, None
    for part in name.removeprefix(f"{module}.").split("."):
        found = next(node for node in scope if part in defined(node))
        scope, line = getattr(found, "body", []), found.lineno
    return line


def defined(node: ast.stmt) -> set[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {
        name.id for target in targets if target for name in ast.walk(target) if isinstance(name, ast.Name)
    }


def write_source(path: Path, pages: Path) -> dict[str, Any]:
    """Writes the page of a source file, or of a folder of them. Returns its entry in the contents."""
    if path.is_dir():
        return write_folder(path, pages)
    name = path.relative_to(ROOT)
    (pages / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, pages / name)
    language = LANGUAGES.get(path.suffix, "text")
    text = f"# {title(name)}\n\n```{{source}} {name.name}\n:language: {language}\n```\n"
    (pages / f"{name}.md").write_text(text, encoding="utf-8")
    return {"file": str(name), "title": name.name}


def write_folder(folder: Path, pages: Path) -> dict[str, Any]:
    """Writes the pages of a folder's sources, and one that says what each is."""
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() or path.suffix in LANGUAGES]
    inside = [path for path in inside if not path.name.startswith((".", "__pycache__"))]
    entries = [write_source(path, pages) for path in inside]
    name = folder.relative_to(ROOT)
    rows = [f"| [{title(path.name)}]({link(path)}) | {about(path)} |" for path in inside]
    text = "\n".join([f"# {title(name)}", "", "| file | what it is |", "|---|---|", *rows, ""])
    (pages / name / "index.md").write_text(text, encoding="utf-8")
    return {"file": f"{name}/index", "title": f"{name.name}/", "sections": entries}


def title(name: Path | str) -> str:
    """A file's name as Markdown that shows it as it is."""
    return str(name).replace("_", "\\_")


def link(path: Path) -> str:
    """A page's address, seen from its folder's page."""
    return f"{path.name}/index.md" if path.is_dir() else f"{path.name}.md"


def about(path: Path) -> str:
    """The first sentence that a source says of itself."""
    source = path / "__init__.py" if path.is_dir() else path
    if not source.exists():
        return ""
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".py":
        says = ast.get_docstring(ast.parse(text)) or ""
    else:
        says = " ".join(
            line[3:] for line in itertools.takewhile(lambda line: line.startswith("-- "), text.splitlines())
        )
    return re.split(r"(?<=[.;])\s", " ".join(says.split()).replace("|", "\\|"))[0]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make a book of the executed notebooks in ./build."""
    build(RESULTS, BOOK)
    click.echo(f"the book is in {BOOK}: open {BOOK / 'index.html'}")


if __name__ == "__main__":
    main(prog_name="python -m dtq.lab.book")
