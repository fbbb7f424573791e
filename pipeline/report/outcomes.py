"""Per-image outcomes from saved predictions: which images each run got wrong, and how sure it was."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import paths
from pipeline.evaluation.ensembles import average, halves, only
from pipeline.evaluation.metrics import top_k_error
from pipeline.evaluation.predictions import Predictions
from pipeline.report.inputs import Inputs
from pipeline.report.records import Errors


@dataclass(frozen=True)
class Outcome:
    """Of N labelled images: ids str, labels and predicted classes int64, confidence float32 in [0, 1], wrong bool."""

    ids: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    classes: int

    @property
    def wrong(self) -> np.ndarray:
        """True where the likeliest class is not the label's."""
        return self.predicted != self.labels

    def same_images(self, other: Outcome) -> bool:
        """Whether both are of the same images in the same order, as a paired test needs."""
        return np.array_equal(self.ids, other.ids) and np.array_equal(self.labels, other.labels)


def on_common_images(first: Outcome, second: Outcome) -> tuple[Outcome, Outcome]:
    """Both, the first without images that the second lacks: a searched ensemble may report on half of them."""
    kept = np.isin(first.ids, second.ids)
    ids, labels, predicted = first.ids[kept], first.labels[kept], first.predicted[kept]
    return Outcome(ids, labels, predicted, first.confidence[kept], first.classes), second


class Outcomes:
    """Outcomes by run or ensemble and protocol, each file read once; what can't be read is put to the problems."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._known: dict[tuple[str, str], Outcome | None] = {}

    def of(self, name: str, protocol: str) -> Outcome | None:
        """The outcome of a run or ensemble; None where there is none that agrees with its figures."""
        if (name, protocol) not in self._known:
            self._known[name, protocol] = self._find(name, protocol)
        return self._known[name, protocol]

    def _find(self, name: str, protocol: str) -> Outcome | None:
        inputs = self._inputs
        result = inputs.runs.get(name) or inputs.ensembles.get(name)
        if result is None or protocol not in result.errors:
            return None
        members = inputs.ensembles[name].members if name in inputs.ensembles else (name,)
        try:
            predictions = self._reporting(name, self._load(members, protocol))
            _check(predictions, result.errors[protocol])
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            reason = str(error).replace(f"{inputs.root}/", "")
            inputs.problems.append(f"{name}: no per-image outcomes of {protocol}: {reason}")
            return None
        return outcome(predictions)

    def _load(self, members: Sequence[str], protocol: str) -> Predictions:
        found = {}
        for member in members:
            folder = self._inputs.root / paths.predictions_dir(self._inputs.experiment, member)
            found[member] = Predictions.load(folder / f"{protocol}.npz")
        return average(found) if len(found) > 1 else found[members[0]]

    def _reporting(self, name: str, predictions: Predictions) -> Predictions:
        """Without the half of the images on which a searched ensemble's members were chosen."""
        ensemble = self._inputs.ensembles.get(name)
        if ensemble is None or ensemble.search is None or not ensemble.halved:
            return predictions
        return only(predictions, halves(len(predictions.ids), int(ensemble.search["seed"]))[1])


def outcome(predictions: Predictions) -> Outcome:
    """The likeliest class of every labelled image; of equal ones the first."""
    known = predictions.labels >= 0
    probabilities = predictions.probabilities[known]
    return Outcome(
        predictions.ids[known],
        predictions.labels[known],
        probabilities.argmax(axis=1),
        probabilities.max(axis=1),
        probabilities.shape[1],
    )


def _check(predictions: Predictions, errors: Errors) -> None:
    if predictions.probabilities.ndim != 2 or not np.isfinite(predictions.probabilities).all():
        raise ValueError("its probabilities are not a table of finite numbers; evaluate it again")
    known = predictions.labels >= 0
    found = top_k_error(predictions.probabilities[known], predictions.labels[known], 1)
    if int(known.sum()) != errors.n_images or abs(found - errors.top1_error) > 1e-6:
        raise ValueError(
            f"its saved predictions give {found:.2f}% of {int(known.sum())} images,"
            f" its figures {errors.top1_error:.2f}% of {errors.n_images}; evaluate it again"
        )
