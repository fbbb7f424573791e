"""Trainings by several number formats: going on after an interruption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import precision
from benchmarks.precision import main
from tests.benchmarks.test_seeds import ends


def test_finished_trainings_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    file, run = tmp_path / "precision.json", []
    kept = {"fp32": {"0": ends(1.0)[0]}, "bf16": {"0": ends(1.0)[0]}, "fp32, compiled": {}}
    settings = {"network": "resnet8", "iterations": 10, "images": 256, "test_images": 64}
    file.write_text(json.dumps({"settings": settings, "ends": kept}), encoding="utf-8")

    def end_of(spec: object, seed: int, changes: dict[str, object]) -> dict[str, float]:
        run.append((seed, changes["precision"]))
        return ends(2.0)[0]

    monkeypatch.setattr(precision, "end_of", end_of)
    sizes = ["--iterations", "10", "--images", "256", "--test-images", "64"]
    words = ["--network", "resnet8", *sizes, "--ways", "fp32", "bf16", "--seeds", "2"]
    main([*words, "--out", str(file)])
    assert run == [(1, "fp32"), (1, "bf16")]
    assert json.loads(file.read_text())["ends"]["bf16"] == {"0": ends(1.0)[0], "1": ends(2.0)[0]}
    with pytest.raises(ValueError, match="give another --out"):
        main(["--iterations", "20", "--out", str(file)])
    assert "outside" not in capsys.readouterr().out.splitlines()[-1]
