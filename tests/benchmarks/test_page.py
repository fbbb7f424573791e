"""docs/performance.md shows what results/benchmarks.json holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.page import END, PAGE, PRECISION, RESULTS, begin, machines, precision_section, refresh, section
from pipeline.storage import read_json, write_json

ROOT = Path(__file__).parents[2]
FOUND: dict[str, Any] = {
    "benchmarks": [{"name": "loader", "ours": 600.0, "peer": 200.0, "unit": "images/s", "ratio": 3.0}],
    "hardware": {"processor": "Some CPU", "cores": 2, "memory_gib": 7.5, "gpus": []},
    "versions": {"torch": "2.9.0", "torchvision": "0.24.0"},
    "git_commit": "0123456789abcdef",
    "git_dirty": False,
    "measured": "2025-01-02T03:04:05+00:00",
    "load_average": [0.1, 0.2, 0.3],
    "shared_machine": False,
    "quick": False,
    "threads": 2,
}
FOUND["benchmarks"][0] |= {"ratio_min": 2.5, "ratio_max": 3.5}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A machine's figures."""
    write_json(tmp_path / "benchmarks-other.json", FOUND)
    return tmp_path / "benchmarks-other.json"


def test_only_what_is_between_the_files_markers_changes(tmp_path: Path, file: Path) -> None:
    page, first = tmp_path / "page.md", f"{begin(RESULTS)}\nof the first machine\n{END}"
    page.write_text(f"# Before\n\n{first}\n{begin(file)}\nold\n{END}\nAfter\n", encoding="utf-8")
    refresh(page, file)
    once = page.read_text(encoding="utf-8")
    refresh(page, file)
    assert page.read_text(encoding="utf-8") == once
    assert once.startswith(f"# Before\n\n{first}\n<!-- from results/benchmarks-other.json: begin -->\n")
    assert once.endswith("\nAfter\n")
    assert "old" not in once
    assert "Some CPU, 2 cores, 7.5 GiB, no GPU; 2 thread(s). torch 2.9.0" in once
    assert "| loader | images/s | 600 | 200 | 3.00 (2.50–3.50) |  |  |" in once


def test_figures_that_say_little_are_said_to() -> None:
    assert "**" not in section(FOUND)
    assert "other work ran on the same machine** (load average 0.1, 0.2, 0.3)" in section(
        FOUND | {"shared_machine": True}
    )
    assert "Taken with `--quick`" in section(FOUND | {"quick": True})
    assert "Commit 0123456789, 2025-01-02." in section(FOUND)
    assert "Commit 0123456789 and changes, 2025-01-02." in section(FOUND | {"git_dirty": True})


def test_page_without_a_place_is_refused(tmp_path: Path, file: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no place for the table"):
        refresh(page, file)


def test_committed_page_shows_the_committed_figures() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    files = machines(ROOT / RESULTS.parent)
    assert ROOT / RESULTS in files
    for found in files:
        assert begin(found) + "\n" + section(read_json(found)) in text
    assert precision_section(read_json(ROOT / PRECISION)) in text


def test_trainings_are_told_by_where_they_ran() -> None:
    end: dict[str, Any] = {"training_loss": 0.7, "test_error": 25.0, "git_commit": "a" * 40, "processor": "One CPU"}
    found = {"0": end, "1": end, "2": {**end, "git_commit": None}}
    settings = {"network": "resnet20", "iterations": 2000, "images": 50_000, "test_images": 10_000}
    text = precision_section({"settings": settings, "ends": {"fp32": found, "bf16": {}}})
    assert "resnet20, 2,000 iterations, 50,000 training and 10,000 test images." in text
    assert "One CPU, commit aaaaaaaaaa: seed 0, 1; One CPU, commit unknown: seed 2." in text
    assert "| fp32 | 3 | 0.700 (0.700 to 0.700) |" in text
    assert "| bf16" not in text
