"""Which module imports which, read from the source of a tree that has `pipeline` and `stages` in its root."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = ("pipeline", "stages")


@dataclass
class Graph:
    """Modules of the tree by dotted name, with their syntax trees and imports."""

    files: dict[str, Path] = field(default_factory=dict)
    trees: dict[str, ast.Module] = field(default_factory=dict)
    imports: dict[str, set[str]] = field(default_factory=dict)
    """Dotted names, of our own modules (with the packages that hold them) and of others."""

    def closure(self, module: str, without: Collection[str] = ()) -> set[str]:
        """Our modules that `module` imports, directly or not, not going through those under `without`."""
        found: set[str] = set()
        waiting = [module]
        while waiting:
            name = waiting.pop()
            if name in found or name not in self.files or under(name, without):
                continue
            found.add(name)
            waiting += self.imports[name]
        return found - {module}


def under(name: str, rooms: Collection[str]) -> bool:
    """The module is one of the rooms, or lies in one."""
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def read_graph(root: Path) -> Graph:
    """The imports of every module under `root`; those inside functions count, those for type checkers alone don't."""
    graph = Graph()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            graph.files[name] = path
            graph.trees[name] = ast.parse(path.read_text(encoding="utf-8"))
    for name, tree in graph.trees.items():
        base = name if graph.files[name].name == "__init__.py" else name.rpartition(".")[0]
        graph.imports[name] = {part for found in _imported(tree, base, graph) for part in _with_parents(found)}
    return graph


def _imported(node: ast.AST, base: str, graph: Graph) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            origin = _origin(child, base)
            for alias in child.names:
                whole = f"{origin}.{alias.name}"
                yield whole if whole in graph.files else origin
        else:
            yield from _imported(child, base, graph)


def _origin(node: ast.ImportFrom, base: str) -> str:
    if node.level == 0:
        return node.module or ""
    parts = base.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def _with_parents(name: str) -> Iterator[str]:
    """'a.b.c', 'a.b', 'a': importing a module runs the packages that hold it."""
    while name:
        yield name
        name = name.rpartition(".")[0]
