"""The training loss: softmax cross-entropy, with auxiliary heads where a network has them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

AUXILIARY_WEIGHT = 0.3
"""Weight of each auxiliary head's loss (Szegedy et al. 2015, section 5)."""

Outputs = torch.Tensor | tuple[torch.Tensor, ...]


class TrainingLoss(nn.Module):
    """Mean cross-entropy of logits (N, classes), plus 0.3 of each auxiliary head's."""

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
        main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = self._cross_entropy(main, labels)
        for head in auxiliary:
            loss = loss + AUXILIARY_WEIGHT * self._cross_entropy(head, labels)
        return loss

    def _cross_entropy(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)


def main_logits(outputs: Outputs) -> torch.Tensor:
    """The classifier's own logits, (N, classes)."""
    return outputs[0] if isinstance(outputs, tuple) else outputs
