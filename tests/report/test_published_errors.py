"""What the registry says of the paper's figures."""

from __future__ import annotations

from pipeline.report import Standing, ensemble_standing
from pipeline.tracking.description import About, describe

SIX = ["resnet34b-s0", "resnet34c-s0", "resnet50-s0", "resnet101-s0", "resnet152-s0", "resnet152-s1"]


def test_an_ensemble_on_imagenet_is_shown_beside_table_5_without_a_verdict() -> None:
    standing = ensemble_standing(SIX, comparable=True)
    assert standing.published == {"multi_scale": {"top5_error": 3.57}}
    (says,) = standing.verdicts
    assert says.startswith("Table 5, top-5: not compared (the paper's is of ImageNet's test server")
    about = About("ILSVRC2012", published=standing.published, verdict=says)
    errors = {"multi_scale": {"top1_error": 18.5, "top5_error": 4.1, "n_images": 50_000}}
    text = describe("imagenet-ensemble-paper", "**Ensemble**", errors, about, "#/run")
    assert "| multi_scale | 18.50 | 4.10 | 50000 |  | 3.57 |" in text
    assert f"Verdict: **{says}**." in text


def test_the_paper_has_no_other_ensemble() -> None:
    assert ensemble_standing(["resnet20-s0", "resnet56-s0"], comparable=True) == Standing()
    assert ensemble_standing(SIX, comparable=False) == Standing()
