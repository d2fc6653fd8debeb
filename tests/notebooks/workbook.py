"""The notebooks as tests read them: plain JSON."""

import json
import re
from pathlib import Path
from typing import Any

from dtq.lab.course.exercises import checks_of
from tests.helpers import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
TABLE = re.compile(r"^\|.*$", re.MULTILINE)


class Cell:
    """One cell: kind (`code` or `markdown`), text, tags and whatever else its metadata says."""

    def __init__(self, cell: dict[str, Any]) -> None:
        self.kind: str = cell["cell_type"]
        self.text = "".join(cell["source"])
        self.metadata: dict[str, Any] = cell["metadata"]
        self.tags: list[str] = cell["metadata"].get("tags", [])
        self.outputs: list[dict[str, Any]] = cell.get("outputs", [])
        self.execution_count: int | None = cell.get("execution_count")

    @property
    def words(self) -> int:
        """Words of prose; what stands in a fence or in a table is not."""
        prose = TABLE.sub("", FENCED.sub("", self.text))
        return len(prose.split()) if self.kind == "markdown" else 0


class Notebook:
    """A notebook's file."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem
        self.cells = [Cell(cell) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
        self.code = [cell for cell in self.cells if cell.kind == "code"]
        self.prose = [cell for cell in self.cells if cell.kind == "markdown"]
        self.checks = checks_of(path)

    def tagged(self, tag: str) -> list[Cell]:
        return [cell for cell in self.cells if tag in cell.tags]

    def said_on_stderr(self) -> list[str]:
        outputs = [output for cell in self.code for output in cell.outputs if output.get("name") == "stderr"]
        return ["".join(output["text"]) for output in outputs]
