"""The code that goes with a model: whole, and no more."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.tracking.closure import copy_modules, import_closure, requirements

pytestmark = pytest.mark.slow


def test_the_closure_runs_on_its_own(tmp_path: Path) -> None:
    modules = import_closure(["pipeline.tracking.inference"])
    assert {"pipeline", "pipeline.models.cifar", "pipeline.evaluation.predictor", "pipeline.schema"} <= set(modules)
    assert not {"pipeline.cluster", "pipeline.tracking.runs", "pipeline.data.store"} & set(modules)
    copy_modules(modules.values(), tmp_path)
    code = "import pipeline.tracking.inference as m; print(m.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "pipeline/tracking/inference.py")


def test_requirements_are_pinned_to_what_is_installed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, json\nimport torch.nn\nfrom PIL import Image\nimport mlflow\nfrom pipeline import x\n"
    )
    version = importlib.metadata.version
    expected = [f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", "pandas", "pillow", "torch")]
    assert requirements([script], more=["pandas"]) == expected


def test_what_only_type_checkers_read_is_left_out() -> None:
    from pipeline.tracking.closure import _run_nodes

    tree = ast.parse("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\nif True:\n    import b\n")
    names = [alias.name for node in _run_nodes(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert names == ["b"]
