"""Imports inside foveate form no cycle, and keep methods, families and the engine apart.

`test_contributing.py` checks imports at the top of a file against the layout table. This file also
looks at imports inside functions, and at those for type checkers.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "foveate").rglob("*.py")
}


def imported(path: Path) -> set[str]:
    """Modules of foveate that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = path.relative_to(ROOT).parts
            folders = parts[: len(parts) - node.level] if node.level else ()
            source = ".".join([*folders, *([node.module] if node.module else [])])
            names = {f"{source}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else source for name in names}
    return {name for name in found if name.split(".")[0] == "foveate"}


GRAPH = {name: imported(path) for name, path in FILES.items()}


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """Modules of a cycle in the order of their imports, the first one again at the end."""
    done, path = set(), []

    def visit(name: str) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        found = next(filter(None, map(visit, sorted(graph.get(name, ())))), [])
        path.pop()
        done.add(name)
        return found

    return next(filter(None, map(visit, sorted(graph))), [])


def imports_of(folder: str) -> list[tuple[str, str]]:
    """Each module of a folder of foveate with each module that it imports."""
    inside = f"foveate.{folder}."
    return [(name, other) for name in GRAPH if name.startswith(inside) for other in GRAPH[name]]


def test_no_module_imports_itself_through_others():
    found = cycle_in(GRAPH)
    assert not found, " imports ".join(found)


def test_a_cycle_is_found():
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert not cycle_in({"a": {"b", "c"}, "b": {"c"}})


def test_methods_import_neither_the_engine_nor_families():
    found = imports_of("methods")
    assert len(found) > 100
    for name, other in found:
        assert not other.startswith(("foveate.engine", "foveate.families")), (name, other)


def test_the_engine_imports_no_method_and_no_single_family():
    found = imports_of("engine")
    assert len(found) > 100
    for name, other in found:
        assert not other.startswith("foveate.methods"), (name, other)
        assert not other.startswith("foveate.families") or other.endswith(".base"), (name, other)


def test_tensor_functions_import_tensors_and_budgets_only():
    shared = {"foveate.budget", "foveate.errors", "foveate.tokens"}
    found = imports_of("ops")
    assert len(found) > 10
    for name, other in found:
        assert other in shared or other.startswith("foveate.ops."), (name, other)
