"""A code with groups of dimensions: names in figures and findings, and the KL of each group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from latentforge import Forge, LatentSpec
from latentforge.engine.diagnostics import find_problems
from latentforge.errors import PluginError
from latentforge.latent import DiagonalGaussian, dimension_names, group_slices
from latentforge.rendering.report.curves import plot_per_dimension

from .. import undrawn
from ..plugin import plugin_of

BUILT_IN = Forge().registry.get("models", "vae").spec
GROUPS = {"top": (1,), "bottom": (2, 2)}
NAMES = ["top z0", "bottom z0", "bottom z1", "bottom z2", "bottom z3"]


def build(config, data):
    model = BUILT_IN.build(config, data)
    model.latent = LatentSpec((config.latent_dim,), "normal", GROUPS)
    return model


FORGE = Forge([plugin_of(replace(BUILT_IN, name="ladder", build=build))])
SMALL = {"encoder": [16], "decoder": [16], "latent_dim": 5}


def train(path, name="ladder", **model):
    options = {"epochs": 1, "batch_size": 300, "device": "cpu"}
    data = {"name": "digits", "size": 8}
    model = {**SMALL, **model}
    return FORGE.train(name, data=data, model=model, run=path, train=options, quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("groups") / "run")


def test_names_count_within_each_group_in_the_order_of_the_code():
    latent = LatentSpec((5,), "normal", GROUPS)
    assert dimension_names(latent) == NAMES
    z = torch.arange(5)
    assert {k: z[part].tolist() for k, part in group_slices(latent).items()} == {
        "top": [0],
        "bottom": [1, 2, 3, 4],
    }
    assert dimension_names(LatentSpec((2, 2, 1))) == ["z0", "z1", "z2", "z3"]
    assert group_slices(LatentSpec((2,))) == {}
    assert hash(latent) == hash(LatentSpec((5,), "normal", GROUPS))


@pytest.mark.parametrize(
    ("shape", "groups", "said"),
    [
        ((4,), GROUPS, r"\{'top': 1, 'bottom': 4\} values, and a code has the shape \(4,\)"),
        ((5, 1), GROUPS, "shape"),
        ((2,), {"a b": (2,)}, "'a b' needs a name of letters"),
        ((2,), {"a": (0,), "b": (2,)}, "'a' needs"),
    ],
)
def test_groups_that_do_not_fit_the_code_are_refused(shape, groups, said):
    with pytest.raises(ValueError, match=said):
        LatentSpec(shape, None, groups)


def test_wrong_groups_name_the_plugin_before_training(tmp_path):
    with pytest.raises(PluginError, match="building model 'ladder' failed: ValueError: groups"):
        train(tmp_path / "run", latent_dim=4)
    assert not (tmp_path / "run").exists()


def test_the_kl_of_the_groups_is_that_of_their_dimensions(run):
    answer = FORGE.evaluate(run, measures=["kl"], device="cpu")
    images = FORGE.load_data("digits", {"size": 8}).split("test")
    with torch.no_grad():
        kl = run.load_model().encode(images.x / 255).kl().double().mean(0)
    assert answer["metrics"] == pytest.approx(
        {"kl": float(kl.sum()), "kl_top": float(kl[0]), "kl_bottom": float(kl[1:].sum())}, rel=1e-5
    )
    assert "kl_NAME: over those of a group" in answer["protocol"]["kl_top"]


class Sampled:
    """A Gaussian posterior whose KL has no closed form for other components."""

    def __init__(self, gaussian):
        self.gaussian, self.mode, self.sample = gaussian, gaussian.mode, gaussian.sample
        self.log_prob, self.log_ratio_terms = gaussian.log_prob, gaussian.log_ratio_terms


class OnlyTerms(nn.Module):
    """Decodes each value to a half of the mean of its code, in two groups."""

    latent = LatentSpec((5,), "normal", GROUPS)

    def encode(self, x):
        log_var = torch.tensor([-2.0, 0.5, -1.0, 0.0, -3.0])
        return Sampled(DiagonalGaussian(4 * x - 1, log_var.expand_as(x)))

    def decode(self, z):
        return z / 4


ESTIMATED = {"encode", "decode", "prior", "log_prob", "variational"}


def test_the_kl_of_groups_is_estimated_from_terms_with_standard_errors(evaluate):
    model, x = OnlyTerms(), torch.rand(1100, 5, generator=torch.Generator().manual_seed(0))
    each = model.encode(x).gaussian.kl().mean(0)
    exact = {"kl": each.sum(), "kl_top": each[0], "kl_bottom": each[1:].sum()}
    declared = {*ESTIMATED, "log_ratio_terms"}
    drawn = [evaluate("kl", model, x, provides=declared, seed=seed) for seed in range(60)]
    for name, expected in exact.items():
        values, errors = (
            np.array([metrics[key] for metrics, _ in drawn]) for key in (name, f"{name}_se")
        )
        assert abs(values.mean() - float(expected)) < 4 * errors.mean() / 60**0.5
        assert values.std(ddof=1) == pytest.approx(errors.mean(), rel=0.3)  # 3 standard errors
    metrics, protocol = drawn[0]
    assert metrics["kl_top"] + metrics["kl_bottom"] == pytest.approx(metrics["kl"], rel=1e-5)
    assert "one seeded posterior sample; kl_se" in protocol["kl"]
    assert "kl_NAME: mean of the terms" in protocol["kl_bottom_se"]


def test_a_posterior_without_declared_terms_has_no_kl_of_groups(evaluate):
    model, x = OnlyTerms(), torch.rand(40, 5)
    metrics, protocol = evaluate("kl", model, x, provides=ESTIMATED)
    assert {*metrics} == {"kl", "kl_se"}
    assert "kl_NAME" not in protocol["kl"]


def test_explorers_order_dimensions_by_terms(explore):
    model, x = OnlyTerms(), torch.rand(2000, 5, generator=torch.Generator().manual_seed(7))
    model.provides = {*ESTIMATED, "log_ratio_terms"}
    posterior = model.encode(x)
    each = posterior.gaussian.kl().mean(0)
    error = posterior.log_ratio_terms(posterior.sample()).std(0) / len(x) ** 0.5

    found = explore("traverse", model, x, steps=3)
    [arrays] = [item.arrays for item in found.items if item.name == "codes"]
    order = arrays["dimension"]
    assert (arrays["kl"].diff() < 0).all()
    assert bool(((arrays["kl"] - each[order]).abs() < 4 * error[order]).all())
    assert not torch.allclose(arrays["kl"], each[order], rtol=1e-4)
    assert "in nats (estimated with one sample of z for each image) over" in found.protocol

    plane = explore("manifold", model, x, size=2)
    assert plane.protocol.startswith("bottom z3 from -3 to 3 to the right, top z0 from -3 to 3")
    assert "nats (estimated with one sample of z for each image);" in plane.protocol


def test_a_code_without_groups_has_the_metrics_it_had(tmp_path):
    plain = train(tmp_path / "plain", "vae")
    assert not [name for name in plain.metrics["test"] if name.startswith("kl_")]
    assert "dimension_names" not in plain.manifest


def test_figures_have_the_names_of_groups(run):
    found = findings(run, "traverse")
    assert {row.partition("  KL")[0] for row in found["traversal"].row_titles} == {*NAMES}
    assert {*found["kl"].labels} == {*NAMES}
    described = repr(replace(findings(run, "manifold", dims=[0, 4])["manifold"], rows=[]))
    assert "top z0" in described
    assert "bottom z3" in described


def findings(run, name, **options):
    """The findings of an explorer by name."""
    return {item.name: item for item in undrawn.find(FORGE.registry, name, run, **options).items}


def test_findings_and_the_report_use_the_names(run):
    latent = LatentSpec((5,), "normal", GROUPS)
    [note] = find_problems({"kl": [0.001, 2.0, 0.0, 3.0, 1.0]}, latent=latent)
    assert "(top z0, bottom z1) carry less" in note.saw
    [warning] = find_problems({"kl": [1.0, 2.0, 2000.0, 3.0, 1.0]}, latent=latent)
    assert "in latent dimension bottom z1: its" in warning.saw
    assert run.manifest["dimension_names"] == NAMES
    assert "bottom z3" in "".join(plot_per_dimension([run], ["run"]))
