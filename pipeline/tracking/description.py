"""What a registered model says of itself: Markdown for people who browse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BEST_RULE = (
    "`@best` is the version of lowest top-1 error on held-out *training* images, among versions made from the same"
    " data and holdout as the newest; of equals, the newer. Without a holdout it is the newest. The test set selects"
    " nothing. `@latest` is the newest version; `@paper` the one that the report shows, by the same rule where it shows"
    " several. A promotion by hand stays until it is rolled back."
)


@dataclass(frozen=True)
class About:
    """What a description draws on besides the errors."""

    title: str
    """The data set in words."""
    data_digest: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """The training section of the parameters."""
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The paper's errors by protocol, where the data are the paper's."""
    verdict: str | None = None
    note: str | None = None
    """A caveat that belongs beside every figure."""
    licence: str = "MIT"
    links: Mapping[str, str] = field(default_factory=dict)
    """Further addresses by what they show: report, deviations."""


def describe(name: str, what: str, metrics: Mapping[str, Mapping[str, float]], about: About, run_url: str) -> str:
    """A registered model's description, by the version that stands for it."""
    parts = [
        f"{what} on {about.title}, after *Deep Residual Learning for Image Recognition* (He et al., 2015).",
        error_table(metrics, about.published),
        *([f"Verdict: **{about.verdict}**."] if about.verdict else []),
        *([about.note] if about.note else []),
        _recipe(about),
        _how_to_load(name),
        BEST_RULE,
        _links({"the run": run_url, **about.links}, about.licence),
    ]
    return "\n\n".join(part for part in parts if part)


def error_table(metrics: Mapping[str, Mapping[str, float]], published: Mapping[str, Mapping[str, float]]) -> str:
    """Errors by protocol as a Markdown table, in percent, beside the paper's where there are any."""
    if not metrics:
        return ""
    header = ["protocol", "top-1 error %", "top-5 error %", "images"]
    header += ["paper top-1 %", "paper top-5 %"] if published else []
    rows = [_row(protocol, figures, published) for protocol, figures in metrics.items()]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])


def _row(protocol: str, figures: Mapping[str, float], published: Mapping[str, Mapping[str, float]]) -> list[str]:
    name = "held-out training images" if protocol == "holdout" else protocol
    cells = [name, *(_figure(figures.get(key)) for key in ("top1_error", "top5_error"))]
    cells.append(str(int(figures["n_images"])) if "n_images" in figures else "")
    if published:
        cells += [_figure(published.get(protocol, {}).get(key)) for key in ("top1_error", "top5_error")]
    return cells


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _recipe(about: About) -> str:
    lines = [f"- {key}: `{value}`" for key, value in about.recipe.items() if not isinstance(value, Mapping)]
    nested = {key: value for key, value in about.recipe.items() if isinstance(value, Mapping) and value}
    lines += [f"- {key}: " + ", ".join(f"{k} `{v}`" for k, v in value.items()) for key, value in nested.items()]
    data = [f"**Data**: {about.title}" + (f", manifest SHA-256 `{about.data_digest}`." if about.data_digest else ".")]
    return "\n\n".join(data + (["**Recipe**\n\n" + "\n".join(lines)] if lines else []))


def _how_to_load(name: str) -> str:
    return (
        "**How to load**\n\n```python\n"
        f'model = mlflow.pyfunc.load_model("models:/{name}@best")\n'
        "model.predict(images)  # uint8 (N, H, W, 3), RGB, any size\n"
        'model.predict(images, params={"protocol": "ten_crop", "top_k": 5})\n```\n\n'
        "Encoded images work too: a table of one column `images` of JPEG or PNG bytes or of base64 text."
    )


def _links(links: Mapping[str, str], licence: str) -> str:
    shown: Sequence[str] = [f"[{text}]({address})" for text, address in links.items() if address]
    return " · ".join([*shown, f"Licence: {licence}"])
