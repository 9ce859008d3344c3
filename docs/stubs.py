"""`foveate/__init__.pyi`: what editors and type checkers see of a package that imports lazily."""

from __future__ import annotations

import ast
import builtins
import inspect
import subprocess
import sys
import textwrap
from dataclasses import MISSING, Field, fields

import foveate
from foveate.catalogue import describe
from foveate.method import Method, class_names
from foveate.trained import TrainedMethod

HEAD = '''"""foveate: fewer visual tokens for any vision-language model.

Written by `make docs`; do not edit.
"""
'''

# A module that can be called; type checkers know no such thing.
MINI = '''
class _Mini:
    world: Any
    def __call__(self, name: str = "image", dtype: Any = None) -> tuple[Any, Any]:
        """An embedded model in eval mode and its processor, without a download.

        Args:
            name: "nano", "image" (the default) or "clip".
            dtype: torch dtype of the weights, float32 by default.
        """
    def available(self) -> list[str]:
        """Names of the embedded models."""
    def model_card(self, name: str) -> dict[str, Any]:
        """The model card of an embedded model; empty for other names."""

mini: _Mini
'''


def stub() -> str:
    """Text of the stub: every public name, and each method with its parameters spelled out."""
    classes = sorted(class_names())
    imports = {f"from {home} import {name} as {name}" for name, home in foveate._HOMES.items()}
    imports.discard("from foveate.mini import mini as mini")
    imports |= {"from dataclasses import dataclass", "from typing import Any"}
    for _, cls in classes:
        for field in fields(cls):
            imports |= _imports(cls, field)
    bodies = [_class(cls) for name, cls in classes if name not in foveate._HOMES]
    body = "\n".join([HEAD, *sorted(imports), "", "__version__: str", "", MINI, *bodies])
    return _formatted(body)


def _class(cls: type[Method]) -> str:
    told = describe(cls.slug)
    base = TrainedMethod if issubclass(cls, TrainedMethod) else Method
    docs = {row["name"]: row["doc"] for row in told["parameters"]}
    lines = [
        "@dataclass(frozen=True, kw_only=True, repr=False)",
        f"class {cls.__name__}({base.__name__}):",
        *_docstring(told["about"], docs),
    ]
    lines += [f"    {field.name}: {field.type}" for field in fields(cls)]
    arguments = ", ".join(_argument(field) for field in fields(cls))
    lines += ["    def __init__(self, *, " + arguments + ") -> None: ...", ""]
    return "\n".join(lines)


def _argument(field: Field) -> str:
    default = "" if field.default is MISSING else f" = {field.default!r}"
    return f"{field.name}: {field.type}{default}"


def _docstring(about: str, docs: dict[str, str]) -> list[str]:
    title = textwrap.wrap('"""' + about.split("\n")[0], 96)
    lines = [*title, "", "Args:"]
    for name, text in docs.items():
        entry = f"{name}: {text}"
        lines += textwrap.wrap(entry, 84, initial_indent="    ", subsequent_indent="        ")
    return textwrap.indent("\n".join([*lines, '"""']), "    ").split("\n")


def _imports(cls: type, field: Field) -> set[str]:
    """Import lines for the names in the annotation of a field."""
    owner = next(base for base in cls.__mro__ if field.name in inspect.get_annotations(base))
    found = set()
    for node in ast.walk(ast.parse(str(field.type), mode="eval")):
        if isinstance(node, ast.Name) and not hasattr(builtins, node.id):
            found.add(f"from {_home(node.id, owner.__module__)} import {node.id}")
    return found


def _home(name: str, module: str) -> str:
    """Where `module` has a name from: an alias of types does not know it by itself."""
    source = inspect.getsource(sys.modules[module])
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and any(a.name == name for a in node.names):
            return str(node.module)
    return module


def _formatted(text: str) -> str:
    command = [sys.executable, "-m", "ruff"]
    name = ["--stdin-filename", "__init__.pyi", "-"]
    for step in (["check", "--select", "I", "--fix", "--quiet"], ["format", "--quiet"]):
        done = subprocess.run(
            [*command, *step, *name], input=text, capture_output=True, text=True, check=True
        )
        text = done.stdout
    return text
