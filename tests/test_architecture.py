"""The design's rules: who imports whom, nothing at import, and dependencies in dvc.yaml that tell the truth."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.import_graph import Graph, read_graph, under

ROOT = Path(__file__).parents[1]
NUMERIC = ("pipeline.data", "pipeline.models", "pipeline.training", "pipeline.evaluation")
PLAIN_TORCH = ("pipeline.models", "pipeline.training")
PLAIN_TORCH_PACKAGES = {"torch", "torchvision", "numpy", "safetensors"}
ONLY_IN = {"ray": ("pipeline.cluster",), "mlflow": ("pipeline.tracking",), "dvc": ()}
ABOVE = ("pipeline.cluster", "pipeline.tracking", "pipeline.report", "pipeline.config", "pipeline.stage")
ALLOWED_AT_IMPORT = {
    # MLflow reads it as it is imported, which the modules of this package do next.
    "pipeline.tracking": "os.environ.setdefault('MLFLOW_DISABLE_TELEMETRY', 'true')",
    # MLflow runs this file to get the model: that is how a model made of code is loaded.
    "pipeline.tracking.served_model": "mlflow.models.set_model(ServedModel())",
    # Where a stage is being run, until `stage.main` is called.
    "stages": "gc.disable()",
}
ACTS = ast.For | ast.While | ast.With | ast.Assert | ast.Delete | ast.Raise | ast.Expr
READERS = ("pipeline.config", "pipeline.stage", "stages")
NO_NUMBERS = ("pipeline.tracking", "pipeline.report", "pipeline.config", "pipeline.stage", "pipeline.cluster")
"""What changes no number of a stage (the report's own numbers apart), and so is no stage's dependency."""
FOLLOWED = {"train": ["pipeline.cluster"], "report": ["pipeline.report"], "register": ["pipeline.report"]}
"""Those whose own imports a stage's numbers do depend on: train's loop runs in Ray's workers. The other stages hand the
cluster what it runs, and the check of parameters, for one, knows every network whatever the stage uses."""
REPORTING = ("report", "register")


def import_problems(graph: Graph) -> list[str]:
    """Each import that the design forbids: 'pipeline.models.zoo imports ray'."""
    return [
        f"{module} imports {name}"
        for module, names in graph.imports.items()
        for name in sorted(names)
        if _forbidden(module, name, set(graph.files))
    ]


def _forbidden(module: str, name: str, ours: set[str]) -> bool:
    if name in ours:
        return _forbidden_within(module, name)
    top = name.partition(".")[0]
    if name == top and top in ONLY_IN:
        return not under(module, ONLY_IN[top])
    outside = top not in sys.stdlib_module_names and top not in PLAIN_TORCH_PACKAGES | {"pipeline", "stages"}
    # A command line that prints a table (python -m pipeline.models) is not the library.
    return under(module, PLAIN_TORCH) and outside and not module.endswith(".__main__")


def _forbidden_within(module: str, name: str) -> bool:
    if name != "stages" and under(name, ["stages"]):
        return name != module
    if name == "stages":
        return not under(module, ["stages"])
    return under(module, NUMERIC) and under(name, ABOVE)


def parameter_problems(graph: Graph) -> list[str]:
    """Modules besides config.py that name params.yaml as a file, and those that load it though it isn't theirs to."""
    problems = []
    for module, tree in graph.trees.items():
        for node in ast.walk(tree):
            names_file = isinstance(node, ast.Constant) and node.value == "params.yaml"
            if names_file and module != "pipeline.config":
                problems.append(f"{module}:{node.lineno} names params.yaml")
            loads = isinstance(node, ast.alias) and node.name in {"load_params", "PARAMS_FILE"}
            if loads and not under(module, READERS):
                problems.append(f"{module}:{node.lineno} imports {node.name}")
    return problems


def import_time_problems(graph: Graph) -> list[str]:
    """Statements that do something as a module is imported: calls for their effect, loops, `with`, assertions."""
    return [
        f"{module}:{node.lineno} {type(node).__name__}"
        for module, tree in graph.trees.items()
        for node in _top_level(tree.body)
        if not module.endswith(".__main__") and ALLOWED_AT_IMPORT.get(module) != ast.unparse(node)
    ]


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.If | ast.Try):
            yield from _top_level([*node.body, *node.orelse])
        elif isinstance(node, ACTS) and not _is_docstring(node):
            yield node


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def dependency_problems(graph: Graph, root: Path) -> list[str]:
    """Where the `deps` of dvc.yaml leave out a module that changes a stage's numbers, or name one that doesn't."""
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return [problem for name, stage in stages.items() for problem in _stage_problems(graph, root, name, stage)]


def _stage_problems(graph: Graph, root: Path, name: str, stage: dict[str, Any]) -> Iterator[str]:
    module = f"stages.{name}"
    if module not in graph.files:
        yield f"{name}: there is no {module}"
        return
    deps = [_path_of(dep) for dep in stage.get("deps", [])]
    code = [dep for dep in deps if dep.startswith(("pipeline", "stages"))]
    for dep in code:
        yield from _dependency_problems(root, name, dep)
    unfollowed = [room for room in NO_NUMBERS if room not in FOLLOWED.get(name, [])]
    for needed in sorted(graph.closure(module, without=unfollowed)):
        path = graph.files[needed].relative_to(root).as_posix()
        if under(needed, NUMERIC) and not any(path == dep or path.startswith(f"{dep}/") for dep in code):
            yield f"{name}: {path} changes its numbers but is not among its deps"


def _dependency_problems(root: Path, name: str, dep: str) -> Iterator[str]:
    dotted = dep.removesuffix(".py").replace("/", ".")
    free = [room for room in NO_NUMBERS if not (room == "pipeline.report" and name in REPORTING)]
    if dotted == "pipeline":
        yield f"{name}: {dep} as a whole would run it again at any edit"
    if under(dotted, free):
        yield f"{name}: {dep} changes none of its numbers but is among its deps"
    if not (root / dep).exists():
        yield f"{name}: there is no {dep}"


def _path_of(dep: str | dict[str, Any]) -> str:
    return (dep if isinstance(dep, str) else next(iter(dep))).rstrip("/")


@pytest.fixture(scope="module")
def graph() -> Graph:
    return read_graph(ROOT)


def test_imports_keep_to_the_design(graph: Graph) -> None:
    assert len(graph.files) > 20
    assert import_problems(graph) == []


def test_only_config_reads_the_parameters(graph: Graph) -> None:
    assert parameter_problems(graph) == []


def test_no_statement_acts_at_import(graph: Graph) -> None:
    assert import_time_problems(graph) == []


def test_dependencies_tell_the_truth(graph: Graph) -> None:
    problems = dependency_problems(graph, ROOT)
    assert not problems, "\n".join(problems)


OBSERVE = """
import importlib, json, sys, threading
import psutil
before = set(threading.enumerate())
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps({
    "threads": [thread.name for thread in set(threading.enumerate()) - before],
    "children": [child.name() for child in psutil.Process().children(recursive=True)],
}))
"""


@pytest.mark.slow
def test_importing_starts_nothing_and_writes_nothing(graph: Graph, tmp_path: Path) -> None:
    modules = sorted(name for name in graph.files if not name.endswith("__main__"))
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{OBSERVE}"
    command = [sys.executable, "-B", "-c", code, *modules]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == {"threads": [], "children": []}
    assert list(tmp_path.iterdir()) == []


PLANTED = {
    "pipeline/__init__.py": "",
    "pipeline/config.py": "from pathlib import Path\nPARAMS_FILE = Path('params.yaml')\ndef load_params(): ...\n",
    "pipeline/models/__init__.py": "",
    "pipeline/models/zoo.py": "def f():\n    import ray.train\n",
    "pipeline/models/blocks.py": "import torch\nfrom .zoo import f\n",
    "pipeline/training/__init__.py": "import pandas\n",
    "pipeline/data/__init__.py": "from pipeline import config\n",
    "pipeline/report/__init__.py": "import mlflow.tracking\nfrom pipeline.config import load_params\n",
    "pipeline/tracking/__init__.py": "import mlflow\nmlflow.set_tracking_uri('x')\n",
    "pipeline/cluster/__init__.py": "import ray\nfrom pipeline.models import blocks\n",
    "stages/__init__.py": "",
    "stages/train.py": "from pipeline import cluster\nopen('params.yaml')\n",
    "stages/ensemble.py": "from stages.train import x\n",
    "stages/report.py": "from pipeline import report\n",
    "dvc.yaml": "stages:\n  train: {deps: [pipeline/models/zoo.py, pipeline/tracking]}\n"
    "  report: {deps: [pipeline/report, pipeline/nothing.py]}\n  gone: {deps: []}\n",
}


UNTOLD = {"register": {"data"}}
"""Sections a stage reads without depending on them: of data, register names what changes the models already."""


def test_each_stage_depends_on_the_parameters_it_reads() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name, stage in stages.items():
        text = (ROOT / f"stages/{name}.py").read_text(encoding="utf-8")
        read = set(re.findall(r"\bparams\.(\w+)", text)) - {"model_copy", "cluster"} - UNTOLD.get(name, set())
        read = {"training" if section == "training_of" else section for section in read}
        assert read
        assert read <= {str(parameter).partition(".")[0] for parameter in stage["params"]}, name


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planted")
    for name, text in PLANTED.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_forbidden_imports_are_found(planted: Path) -> None:
    assert sorted(import_problems(read_graph(planted))) == [
        "pipeline.data imports pipeline.config",
        "pipeline.models.zoo imports ray",
        "pipeline.models.zoo imports ray.train",
        "pipeline.report imports mlflow",
        "pipeline.training imports pandas",
        "stages.ensemble imports stages.train",
    ]


def test_other_readers_of_the_parameters_are_found(planted: Path) -> None:
    assert parameter_problems(read_graph(planted)) == [
        "pipeline.report:2 imports load_params",
        "stages.train:2 names params.yaml",
    ]


def test_statements_that_act_are_found(planted: Path) -> None:
    assert import_time_problems(read_graph(planted)) == ["pipeline.tracking:2 Expr", "stages.train:2 Expr"]


def test_untrue_dependencies_are_found(planted: Path) -> None:
    assert dependency_problems(read_graph(planted), planted) == [
        "train: pipeline/tracking changes none of its numbers but is among its deps",
        "train: pipeline/models/__init__.py changes its numbers but is not among its deps",
        "train: pipeline/models/blocks.py changes its numbers but is not among its deps",
        "report: there is no pipeline/nothing.py",
        "gone: there is no stages.gone",
    ]
