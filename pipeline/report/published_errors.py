"""The paper's figures and the verdicts on ours, of networks and ensembles, as the model registry shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import split_run
from pipeline.report import names
from pipeline.report.paper_tables import paper_tables, verdict_text
from pipeline.report.published import load_published
from pipeline.report.reading import read_inputs


@dataclass
class Standing:
    """What the paper has for a network or an ensemble, and how ours stands to it."""

    published: dict[str, dict[str, float]] = field(default_factory=dict)
    """Errors in percent by protocol and metric."""
    verdicts: list[str] = field(default_factory=list)
    """One for each published figure: 'Table 3, top-1: reproduced'."""


def standings(
    experiment: str,
    runs: Iterable[str],
    ensembles: Mapping[str, Sequence[str]],
    comparable: bool,
    root: Path = Path("."),
) -> dict[str, Standing]:
    """The standing of each network that the paper's tables hold; none where the data aren't the paper's own."""
    found: dict[str, Standing] = {}
    if not comparable:
        return found
    for table in paper_tables(read_inputs(experiment, runs, ensembles, root), comparable):
        for comparison in table.comparisons:
            if comparison.network is None:
                continue
            standing = found.setdefault(comparison.network, Standing())
            protocol = getattr(load_published(), comparison.table).protocols[0]
            standing.published.setdefault(protocol, {})[comparison.metric] = comparison.published
            metric = comparison.metric.removesuffix("_error").replace("top", "top-")
            number = comparison.table.removeprefix("table")
            standing.verdicts.append(f"Table {number}, {metric}: {verdict_text(comparison.verdict)}")
    return found


def ensemble_standing(members: Iterable[str], comparable: bool) -> Standing:
    """What the paper has for an ensemble of these runs: Table 5's figure on ImageNet, else nothing.

    It is of the test server, whose labels nobody else has, so it is shown and gets no verdict.
    """
    families = {names.family(split_run(run)[0]) for run in members}
    if not comparable or families != {"imagenet"}:
        return Standing()
    table = load_published().table5
    (row,) = [row for row in table.rows if not row.other]
    assert row.top5 is not None
    says = "Table 5, top-5: not compared (the paper's is of ImageNet's test server, ours of labelled images)"
    return Standing({table.protocols[0]: {"top5_error": row.top5}}, [says])
