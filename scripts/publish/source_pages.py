"""The book's pages of source code: one for each file, whose lines can be linked to, and one for each folder,
which says what its files are.
"""

import ast
import re
import shutil
from itertools import takewhile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LANGUAGES = {".py": "python", ".lua": "lua", ".md": "md", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}


def address(path: str, text: str, line: str | int | None = None) -> str:
    """The address of the book's page that shows a file or folder of the project.

    Args:
        path: the file, as seen from the project's folder.
        text: the text of the link.
        line: the line to link to; by default the line that defines what the text names, if it names anything.
    """
    if (ROOT / path).is_dir():
        return f"{path}/index.html"
    if not line and path.endswith(".py"):
        line = line_of(text.strip("`"), path)
    return f"{path}.html#line-{line}" if line else f"{path}.html"


def line_of(name: str, path: str) -> int | None:
    """The line on which `dtq.module.Class.method` is defined; None where no more than the module is named."""
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if not name.startswith(f"{module}."):
        return None
    scope, line = ast.parse((ROOT / path).read_text(encoding="utf-8")).body, None
    for part in name.removeprefix(f"{module}.").split("."):
        if found := next((node for node in scope if part in names(node)), None):
            scope, line = getattr(found, "body", []), found.lineno
    return line


def names(node: ast.stmt) -> set[str]:
    """What a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", ast.Pass())]
    return {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}


def write(path: Path, pages: Path) -> dict[str, Any]:
    """Writes the page of a file, or of a folder and all that is in it.

    Args:
        path: the file or folder, somewhere in the project.
        pages: the folder of the book's pages.

    Returns:
        Its entry in the book's contents.
    """
    name = path.relative_to(ROOT)
    if path.is_dir():
        files = [each for each in sorted(path.iterdir()) if each.suffix in LANGUAGES or is_package(each)]
        entries = [write(each, pages) for each in files]
        rows = [f"| {link(each)} | {first_sentence(about(each))} |" for each in files]
        text = "\n".join([about(path), "", "| file | what it is |", "|---|---|", *rows])
        write_page(pages / name / "index.md", name, text)
        return {"file": f"{name}/index", "title": f"{name.name}/", "sections": entries}
    language = LANGUAGES.get(path.suffix, "text")
    write_page(pages / f"{name}.md", name, f"```{{source}} {name.name}\n:language: {language}\n```")
    shutil.copyfile(path, pages / name)
    return {"file": str(name), "title": name.name}


def is_package(path: Path) -> bool:
    """Whether it is a folder of sources, and not one of Python's caches."""
    return path.is_dir() and any(each.suffix in LANGUAGES for each in path.iterdir())


def write_page(page: Path, name: Path, text: str) -> None:
    """Writes Markdown under the file's name as its title."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"# {plain(str(name))}\n\n{text}\n", encoding="utf-8")


def link(path: Path) -> str:
    """A link to a page, from the page of its folder."""
    page = f"{path.name}/index.md" if path.is_dir() else f"{path.name}.md"
    return f"[{plain(path.name)}]({page})"


def plain(text: str) -> str:
    """Text as Markdown that shows it as it is."""
    return re.sub(r"([_*|<])", r"\\\1", text)


def about(path: Path) -> str:
    """A source's description of itself: a module's docstring, or the comment that a script begins with; for a
    folder that is no package, the names of its files.
    """
    source = path / "__init__.py" if path.is_dir() else path
    if not source.exists():
        return ", ".join(each.stem for each in sorted(path.iterdir()))
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    comment = takewhile(lambda line: line.startswith("-- "), text.splitlines())
    return "\n".join(line.removeprefix("-- ") for line in comment)


def first_sentence(text: str) -> str:
    """The first sentence of a text, on one line, fit for a table."""
    return re.split(r"(?<=[.;])\s", " ".join(text.split()))[0].rstrip(";").replace("|", "\\|")
