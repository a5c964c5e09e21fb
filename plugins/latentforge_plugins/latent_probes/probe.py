"""A linear classifier that probes how well codes predict labels (Alain and Bengio 2017)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from latentforge.contracts import EvaluateContext, Seen
from latentforge.errors import UsageError
from latentforge_plugins.measures import codes_of

STEPS = 1000


class ProbeAccuracy:
    """Fits logistic regression to the standardised training codes and applies it to a split."""

    def __init__(self, context: EvaluateContext) -> None:
        train = context.images("train")
        if len(train.y.unique()) < 2:
            raise UsageError("probe_accuracy needs training images of two classes or more")
        self.codes, self.labels = codes_of(context, train), train.y.cpu()
        relation = "the same" if context.images(context.split).same_as(train) else "other"
        self.protocol = (
            "share of images, from 0 to 1, that logistic regression (L2, C=1) of the standardised "
            f"posterior means gets right, fitted to {len(train)} images of the train split and "
            f"shown {relation} images"
        )
        self.split_codes: list[Tensor] = []
        self.split_labels: list[Tensor] = []

    def update(self, seen: Seen) -> None:
        self.split_codes.append(seen.z.flatten(1).cpu())
        self.split_labels.append(seen.batch.y.cpu())

    def compute(self) -> Mapping[str, float]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=STEPS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.fit(self.codes.double().numpy(), self.labels.numpy())
        if probe[-1].n_iter_.max() >= STEPS:
            self.protocol += f"; not converged after {STEPS} steps"
        predicted = torch.from_numpy(probe.predict(torch.cat(self.split_codes).double().numpy()))
        correct = predicted == torch.cat(self.split_labels)
        return {"probe_accuracy": float(correct.double().mean())}
