"""When a stage collects garbage: not while it is imported, and not when all ends anyway."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AT_THE_END = """
import atexit, gc
calls, freeze = [], gc.freeze
gc.freeze = lambda: (calls.append(gc.isenabled()), freeze())
atexit.register(lambda: print(gc.isenabled(), *calls))
"""


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["-m", "stages.prepare", "digits"], "True False True"),  # frozen once before collecting, once at the end
        (["-c", "import stages.prepare"], "True"),
        (["-c", "import sys; sys.argv = ['-m']; import stages.prepare"], "False"),
    ],
    ids=["a stage's command", "an import", "as a stage's command begins"],
)
def test_garbage_is_collected_in_a_stage_but_not_before_it_or_after_it(
    tmp_path: Path, words: list[str], found: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(AT_THE_END, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == [found], done.stderr
