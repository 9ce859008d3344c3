"""The layout table of CONTRIBUTING.md names every module, and imports follow it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "foveate"


def rows() -> list[list[str]]:
    """Modules and packages of foveate by row of the table, without their endings."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text.split("| modules | content |")[1].split("\n\n")[0]
    cells = [line.split("|")[1] for line in table.split("\n")[2:]]
    return [
        [n.removesuffix("/").removesuffix(".py") for n in re.findall("`(.*?)`", c)] for c in cells
    ]


def imported(path: Path) -> set[str]:
    """Modules and packages of foveate that a file imports at its top level."""
    parts = ["foveate", *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level + 1] if node.level else []
            module = [*base, *(node.module or "").split(".")]
            names = [[*module, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == "foveate" and len(name) > 1}
    return found


def test_the_table_names_every_module():
    present = {p.stem for p in PACKAGE.glob("*.py")} | {
        p.parent.name for p in PACKAGE.glob("*/*.py")
    }
    assert sorted(sum(rows(), [])) == sorted(present - {"__init__", "assets"})


def test_modules_import_only_from_their_own_row_and_the_rows_above():
    rank = {name: i for i, row in enumerate(rows()) for name in row}
    for name, own in rank.items():
        path = PACKAGE / name
        for file in path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
            below = {other for other in imported(file) if rank.get(other, -1) > own}
            assert not below, f"{file.relative_to(ROOT)} imports {', '.join(sorted(below))}"
