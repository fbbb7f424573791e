"""The paper's claims in words: on errors by paired tests on the same images, on responses by tests over layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pipeline.evaluation.statistics import mcnemar
from pipeline.report import names
from pipeline.report.inputs import EnsembleResult, Inputs, RunResult
from pipeline.report.outcomes import Outcomes, on_common_images
from pipeline.report.responses import response_links

Standing = Literal["holds", "holds so far", "does not hold", "undecided", "not run"]
SIGNIFICANCE = 0.05
CIFAR_DEPTHS = (20, 32, 44, 56, 110)
PROTOCOLS = ("center_crop", "ten_crop", "multi_scale")


@dataclass(frozen=True)
class Link:
    """One comparison: `better` is claimed to err less than `worse` (or, for responses, to respond less)."""

    worse: str
    better: str
    worse_value: float
    better_value: float
    p_value: float | None
    """Two-sided; None where no test could be made."""
    unit: str = "%"
    ranks: float | None = None
    """Of a test of ranks, which way these go: above 0 as claimed. Values may go the other way."""

    @property
    def torn(self) -> bool:
        """Whether the test's ranks differ beyond chance, and the values the other way."""
        if self.ranks is None or self.p_value is None or self.p_value >= SIGNIFICANCE:
            return False
        return self.ranks * (self.worse_value - self.better_value) < 0

    @property
    def standing(self) -> Standing:
        """Holds or doesn't beyond chance (p < 0.05), else undecided, as where ranks and values go different ways."""
        if self.p_value is None or self.p_value >= SIGNIFICANCE or self.worse_value == self.better_value or self.torn:
            return "undecided"
        return "holds" if self.better_value < self.worse_value else "does not hold"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, the comparisons that bear on it, and what could not be compared."""

    name: str
    statement: str
    where: str
    """Where the paper makes it."""
    links: tuple[Link, ...]
    missing: tuple[str, ...] = ()
    """What would have to be run to check all of it."""

    @property
    def standing(self) -> Standing:
        """Holds when every comparison does, so far where others could not be made.

        Doesn't when one is the other way round beyond chance, given as many chances as there are comparisons: its
        p-value times their number (Bonferroni) is less than 0.05.
        """
        if not self.links:
            return "not run"
        if self._against is not None and self._against < SIGNIFICANCE:
            return "does not hold"
        if any(link.standing != "holds" for link in self.links):
            return "undecided"
        return "holds so far" if self.missing else "holds"

    @property
    def p_value(self) -> float | None:
        """Of the comparison that decides: the clearest one against the claim where it doesn't hold, times the number of
        comparisons; else the weakest.

        None where no test could be made of a comparison that decides.
        """
        if self.standing == "does not hold":
            return self._against
        deciding = "undecided" if self.standing == "undecided" else "holds"
        found = [link.p_value for link in self.links if link.standing == deciding]
        return max((p for p in found if p is not None), default=None) if found else self._against

    @property
    def _against(self) -> float | None:
        """The least p-value of a comparison that goes the other way, times the number of comparisons."""
        others = [link.p_value for link in self.links if link.standing == "does not hold"]
        return min((min(1.0, p * len(self.links)) for p in others if p is not None), default=None)


def check_claims(inputs: Inputs, outcomes: Outcomes) -> list[Claim]:
    """The claims that the experiment's networks and protocols could bear out, in the paper's order."""
    families = {names.family(run.network) for run in inputs.runs.values()}
    checker = _Checker(inputs, outcomes)
    claims: list[Claim] = []
    if "imagenet" in families:
        claims += _imagenet_claims(checker)
    if "cifar" in families:
        claims += _cifar_claims(checker)
    if "imagenet" in families or len(_crops(inputs)) > 1:
        claims.append(_protocol_claim(checker))
    if "imagenet" in families or inputs.ensembles:
        claims.append(_ensemble_claim(checker))
    claims.append(
        Claim(
            "responses",
            "Residual nets respond less than plain nets, and deeper ones less than shallower ones",
            "Figure 7",
            *_responses(inputs),
        )
    )
    return claims


def _imagenet_claims(checker: _Checker) -> list[Claim]:
    chain = checker.chain
    return [
        chain("degradation", "Plain-34 is worse than plain-18", "Table 2, Figure 4", ["plain34", "plain18"]),
        chain("depth", "ResNet-34 is better than ResNet-18", "Table 2, Figure 4", ["resnet18a", "resnet34a"]),
        chain(
            "shortcuts",
            "Shortcuts B are slightly better than A, and C slightly better than B",
            "Table 3",
            ["resnet34a", "resnet34b", "resnet34c"],
        ),
        chain(
            "deeper",
            "The error falls from 34 to 50, 101 and 152 layers",
            "Table 3",
            ["resnet34b", "resnet50", "resnet101", "resnet152"],
        ),
    ]


def _cifar_claims(checker: _Checker) -> list[Claim]:
    chain = checker.chain
    residual = [f"resnet{depth}" for depth in CIFAR_DEPTHS]
    return [
        chain(
            "degradation",
            "Plain nets get worse with depth",
            "Figure 6, left",
            [f"plain{depth}" for depth in reversed(CIFAR_DEPTHS)],
        ),
        chain("depth", "Residual nets get better with depth, to 110 layers", "Table 6, Figure 6", residual),
        checker.pairs(
            "residual",
            "A residual net is better than the plain net of its depth",
            "Figure 6",
            [(f"plain{depth}", f"resnet{depth}") for depth in CIFAR_DEPTHS],
        ),
        chain("1202 layers", "ResNet-1202 is worse than ResNet-110", "Table 6", ["resnet1202", "resnet110"]),
    ]


def _crops(inputs: Inputs) -> list[str]:
    """The protocols of the claim that were evaluated, from the worst to the best as claimed."""
    return [protocol for protocol in PROTOCOLS if protocol in inputs.protocols]


def _protocol_claim(checker: _Checker) -> Claim:
    """Over every network that was tested by at least two of the protocols."""
    tested = _crops(checker.inputs)
    links = [
        link
        for run in checker.first_seeds()
        for worse, better in pairwise(tested)
        if (link := checker.link((run.name, worse), (run.name, better), by_protocol=True))
    ]
    words = " beats ".join(map(names.protocol_label, reversed(PROTOCOLS)))
    absent = [names.protocol_label(protocol) for protocol in PROTOCOLS if protocol not in tested]
    return Claim(
        "protocols",
        f"For each network, {words} testing",
        "Tables 3 and 4",
        tuple(links),
        (*absent, *_without_figures(checker.inputs)),
    )


def _without_figures(inputs: Inputs) -> list[str]:
    """The experiment's networks of which no run has any."""
    return [n for n in dict.fromkeys(run.network for run in inputs.runs.values()) if not inputs.of_network(n)]


def _ensemble_claim(checker: _Checker) -> Claim:
    found = {name: checker.against_best_member(ensemble) for name, ensemble in checker.inputs.ensembles.items()}
    links = [link for link in found.values() if link]
    absent = tuple(name for name, link in found.items() if not link) if links else ("an ensemble and its members",)
    return Claim(
        "ensemble",
        "An ensemble beats its best member",
        "Table 5, there by top-5 errors, here by top-1",
        tuple(links),
        absent,
    )


def _responses(inputs: Inputs) -> tuple[tuple[Link, ...], tuple[str, ...]]:
    twins, deeper = response_links(inputs)
    links = tuple(
        Link(each.larger, each.smaller, each.larger_mean, each.smaller_mean, each.p_value, unit="", ranks=each.ranks)
        for each in [*twins, *deeper]
    )
    wanted = (
        (twins, "layer responses of a plain net and its residual twin"),
        (deeper, "those of residual nets of two depths"),
    )
    absent = [network for network in _without_figures(inputs) if names.kind(network) != "other"]
    return links, (*(what for found, what in wanted if not found), *absent)


class _Checker:
    """Makes links between runs that have figures; the first seed stands for a network."""

    def __init__(self, inputs: Inputs, outcomes: Outcomes) -> None:
        self.inputs = inputs
        self.outcomes = outcomes

    def first_seeds(self) -> list[RunResult]:
        """The first seed of every network that has figures."""
        first: dict[str, RunResult] = {}
        for run in self.inputs.shown:
            first.setdefault(run.network, run)
        return list(first.values())

    def chain(self, name: str, statement: str, where: str, networks: Sequence[str]) -> Claim:
        """Each network at hand against the next: from the worst to the best, as claimed."""
        present = [network for network in networks if self.inputs.of_network(network)]
        absent = tuple(network for network in networks if network not in present)
        return Claim(name, statement, where, self._links(list(pairwise(present))), absent)

    def pairs(self, name: str, statement: str, where: str, pairs: Sequence[tuple[str, str]]) -> Claim:
        """Pairs of networks, the worse first, as claimed; those not at hand are left out."""
        present = [pair for pair in pairs if all(self.inputs.of_network(network) for network in pair)]
        absent = dict.fromkeys(n for pair in pairs for n in pair if not self.inputs.of_network(n))
        return Claim(name, statement, where, self._links(present), tuple(absent))

    def _links(self, pairs: Sequence[tuple[str, str]]) -> tuple[Link, ...]:
        links = []
        for worse, better in pairs:
            first, second = self.inputs.of_network(worse)[0], self.inputs.of_network(better)[0]
            protocol = self._common_protocol(first, second)
            if protocol and (link := self.link((first.name, protocol), (second.name, protocol))):
                links.append(link)
        return tuple(links)

    def _common_protocol(self, first: RunResult | EnsembleResult, second: RunResult | EnsembleResult) -> str | None:
        """The paper's: the single view, else 10-crop (of ensembles multi-scale), else what both have."""
        common = first.errors.keys() & second.errors.keys() - {names.HOLDOUT, *names.WAYS}
        own = ("multi_scale", "ten_crop") if isinstance(first, EnsembleResult) else ("ten_crop",)
        preferred = [protocol for protocol in ("single_view", *own, *sorted(common)) if protocol in common]
        return preferred[0] if preferred else None

    def link(self, worse: tuple[str, str], better: tuple[str, str], by_protocol: bool = False) -> Link | None:
        """Compare two (run or ensemble, protocol) pairs by McNemar's mid-p on their images."""
        values = [self._error(name, protocol) for name, protocol in (worse, better)]
        if values[0] is None or values[1] is None:
            return None
        first, second = self.outcomes.of(*worse), self.outcomes.of(*better)
        if first is not None and second is not None and len(second.ids) < len(first.ids):
            first, second = on_common_images(first, second)
            values[0] = 100 * float(first.wrong.mean())
        paired = first is not None and second is not None and first.same_images(second)
        p_value = mcnemar(first.wrong, second.wrong).p_mid if paired and first and second else None
        labels = [_link_label(name, protocol, by_protocol) for name, protocol in (worse, better)]
        return Link(labels[0], labels[1], values[0], values[1], p_value)

    def _error(self, name: str, protocol: str) -> float | None:
        result = self.inputs.runs.get(name) or self.inputs.ensembles.get(name)
        errors = result.errors.get(protocol) if result else None
        return errors.top1_error if errors else None

    def against_best_member(self, ensemble: EnsembleResult) -> Link | None:
        """The member of the lowest error on the same images, which favours the member."""
        members = [self.inputs.runs[member] for member in ensemble.members if member in self.inputs.runs]
        protocols = [self._common_protocol(ensemble, member) for member in members]
        if not members or protocols[0] is None or any(protocol != protocols[0] for protocol in protocols):
            return None
        protocol = protocols[0]
        best = min(members, key=lambda member: self._error_beside(member, ensemble, protocol))
        return self.link((best.name, protocol), (ensemble.name, protocol))

    def _error_beside(self, member: RunResult, ensemble: EnsembleResult, protocol: str) -> float:
        """A member's error on the images on which the ensemble reports."""
        first, second = self.outcomes.of(member.name, protocol), self.outcomes.of(ensemble.name, protocol)
        if first is None or second is None:
            return member.errors[protocol].top1_error
        return 100 * float(on_common_images(first, second)[0].wrong.mean())


def _link_label(name: str, protocol: str, by_protocol: bool) -> str:
    return f"{name}, {names.protocol_label(protocol)}" if by_protocol else f"{name} ({names.protocol_label(protocol)})"
