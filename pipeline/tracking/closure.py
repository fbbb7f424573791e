"""Which of our modules a model needs, and which packages those need, read from their import statements."""

from __future__ import annotations

import ast
import importlib.metadata
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

PACKAGE = "pipeline"
ROOT = Path(__file__).parents[2]


def import_closure(modules: Iterable[str]) -> dict[str, Path]:
    """Modules of this package, by name, that `modules` import, directly or not, with the packages that hold them."""
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if path is None or name in found:
            continue
        found[name] = path
        waiting += [name.rpartition(".")[0], *_ours(path)]
    return found


def copy_modules(modules: Iterable[Path], target: Path) -> None:
    """Copy modules into `target`, in their places relative to the repository's root."""
    for path in modules:
        destination = target / path.relative_to(ROOT)
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, destination)


def requirements(modules: Iterable[Path], more: Iterable[str] = ()) -> list[str]:
    """The installed packages that modules import, pinned, and `more` by name."""
    providers = importlib.metadata.packages_distributions()
    imported = {name.partition(".")[0] for path in modules for name in _imports(path)}
    third_party = imported - {PACKAGE} - set(sys.stdlib_module_names)
    packages = {_distribution(name, providers[name]) for name in third_party if name in providers} | set(more)
    return sorted(f"{package}=={_version(package)}" for package in packages)


def _distribution(module: str, providers: Sequence[str]) -> str:
    return module if module in providers else providers[0]  # mlflow-skinny and others provide mlflow too


def _version(package: str) -> str:
    return importlib.metadata.version(package).partition("+")[0]  # a local build's label is on no package index


def _ours(path: Path) -> list[str]:
    return [name for name in _imports(path) if name.partition(".")[0] == PACKAGE]


def _imports(path: Path) -> Iterator[str]:
    for node in _run_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes beneath `node`, without what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from _run_nodes(child)


def _file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if module and file.is_file()), None)
