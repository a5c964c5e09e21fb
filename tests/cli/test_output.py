"""The text of results: metrics with their standard errors."""

from __future__ import annotations

import math

import pytest
from torch import nn

from latentforge import Forge, LossSpec
from latentforge.cli.output import format_estimate, format_splits
from latentforge.contracts import Terms

from ..plugin import plugin_of


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (142.07531772, 2.6e-7, "142.075"),  # rounding of an exact metric
        (-142.07531772, 2.6e-7, "-142.075"),
        (142.07531772, 1e-4, "142.07532 ± 0.00010"),
        (104.31, 0.04, "104.310 ± 0.040"),
        (0.0, 2.6e-7, "0.00000000 ± 0.00000026"),
        (1.5, 0.0, "1.5"),
        (1.5, math.nan, "1.5"),
    ],
)
def test_an_error_below_the_shown_digits_is_left_out(value, error, text):
    assert format_estimate(value, error) == text


class Three(nn.Module):
    """`size` is only logged, and `mean` belongs to the loss in the first epoch only."""

    def forward(self, model, batch, step):
        z = model.encode(batch.x).sample()
        values = {"error": (model.decode(z) - batch.x).square().mean()}
        values |= {"size": z.square().mean(), "mean": z.mean().square()}
        return Terms(values, {"size": 0.0, "mean": float(step.epoch < 1)})


def test_the_weight_of_a_term_that_is_only_logged_is_no_row(tmp_path):
    needs = {"encode", "decode"}
    loss = LossSpec(name="three", summary="s", build=lambda c, d: Three(), needs=needs)
    options = {"model": {"hidden": [8]}, "loss": "three", "run": tmp_path / "run", "quiet": True}
    train = {"epochs": 2, "batch_size": 512}
    run = Forge([plugin_of(loss)]).train("ae", data="digits", train=train, **options)
    assert run.metrics["train"]["size_weight"] == run.metrics["train"]["mean_weight"] == 0
    names = [row.split()[0] for row in format_splits(run)]
    assert "size" in names
    assert [name for name in names if name.endswith("_weight")] == ["mean_weight"]
    (run.path / "metrics.jsonl").write_text("damaged\n")
    assert "size_weight" in "".join(format_splits(run))
