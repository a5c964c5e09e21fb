"""Guided generation with analytic models and objectives: starts, search, titles and pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from latentforge_plugins.guided.baselines import count_groups, measure_baselines
from latentforge_plugins.guided.config import GuidedConfig
from latentforge_plugins.guided.pictures import (
    Map,
    draw_film,
    draw_map,
    draw_results,
    film_title,
    path_names,
)
from latentforge_plugins.guided.sampling import Density, average_samples, sample_results
from latentforge_plugins.guided.starts import code_deviation, sample_data_starts, sample_starts
from latentforge_plugins.walks import title_role

from latentforge import search
from latentforge.contracts import Arrays, ExploreContext
from latentforge.data.preparation import prepare_whole
from latentforge.engine.latent_search import Found
from latentforge.errors import UsageError
from latentforge.rendering.scatter import compute_limits

from .guided_parts import IdentityModel, NearGoal, context_of, run_guide


def test_starts_cover_all_other_classes_and_never_the_requested_one():
    y = np.arange(300) % 3
    context = context_of(y, ["a", "b", "c"], [0, 1, 2, 0] * 50)
    codes = torch.arange(300.0)[:, None]
    wanted = context.objective.classes
    starts = sample_data_starts(context, codes, 8, wanted).squeeze(2).long() % 3  # (8, 200) classes
    assert starts.shape == (8, 200)
    assert not (starts == wanted).any()
    for label in range(3):
        others = starts[:, wanted == label].unique().tolist()
        assert others == [other for other in range(3) if other != label]
    anywhere = sample_data_starts(context, codes, 8, None).squeeze(2).long() % 3
    assert (anywhere == wanted).float().mean() == pytest.approx(1 / 3, abs=0.06)


def test_training_images_of_one_class_are_refused():
    context = context_of(np.zeros(9, int), ["a"], [0, 0])
    with pytest.raises(UsageError, match="all training images are of class 0") as caught:
        sample_data_starts(context, torch.zeros(9, 1), 2, context.objective.classes)
    assert "any_class=true" in str(caught.value.hint)


def test_starts_of_a_chosen_class_are_all_images_of_that_class():
    y = np.arange(300) % 3
    context = context_of(y, ["a", "b", "c"], [0, 1, 2, 0] * 50)
    codes = torch.arange(300.0)[:, None]
    starts = sample_starts(context, GuidedConfig(start_class=1, restarts=8), codes)
    assert starts.shape == (8, 200, 1)
    assert starts.unique().tolist() == codes[1::3, 0].tolist()


def test_chosen_class_without_training_images_is_refused():
    context = context_of(np.arange(9) % 2, ["a", "b", "c"], [0, 0])
    with pytest.raises(UsageError, match="class c has no training images") as refused:
        sample_starts(context, GuidedConfig(start_class=2), torch.zeros(9, 1))
    assert refused.value.hint == "--set start_class=0"


def test_training_codes_of_other_classes_are_no_baseline_if_there_are_none():
    context = context_of(np.zeros(9, int), ["a", "b"], [0, 0])
    at = torch.zeros(2)
    found = Found(torch.randn(2, 1), torch.rand(2, 1, 2, 2), *[at] * 5, {})
    metrics = measure_baselines(context, found, torch.randn(9, 1), None).metrics
    assert {*metrics} == {
        *("result_groups", "deviation_ratio", "deviation_ratio_min", "deviation_ratio_max")
    }


def test_starts_from_a_prior_have_its_mean_and_deviation():
    codes = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0)) * 3.0 + 7.0
    for prior, start, mean, std in (
        ("normal", "prior", 0.0, 1.0),
        (None, "prior", 7.0, 3.0),
        (None, "wide", 0.0, 10.0),
    ):
        context = context_of(np.arange(10) % 2, ["a", "b"], [0] * 100, z=prior)
        torch.manual_seed(0)
        drawn = sample_starts(context, GuidedConfig(start=start, restarts=50), codes)
        assert drawn.shape == (50, 100, 2)
        assert float(drawn.mean()) == pytest.approx(mean, abs=5 * std / 100)
        assert float(drawn.std()) == pytest.approx(std, rel=0.03)


def test_code_deviation_is_the_standard_deviation_and_ignores_outliers():
    codes = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0)) * 2.0
    assert float(code_deviation(codes)) == pytest.approx(2.0, rel=0.03)
    codes[:200] = 1000.0
    assert float(code_deviation(codes)) == pytest.approx(2.0, rel=0.05)
    mostly_off = torch.zeros(100, 1)
    mostly_off[:5] = 3.0  # like the output of a ReLU
    assert float(code_deviation(mostly_off)) == pytest.approx(float(mostly_off.std()))


QUIET = {"noise": 0.0, "settle": 0, "restarts": 1, "solutions": 1, "optimizer": "sgd"}


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
def test_prior_weight_scales_the_prior(weight):
    # the mode of N(z; a, I) N(z; 0, I)^w is a / (1 + w)
    found, *_ = run_guide(
        NearGoal([2.0, -1.0]), prior_weight=weight, prior="gaussian", unit="one", steps=200, **QUIET
    )
    expected = torch.tensor([2.0, -1.0]) / (1.0 + weight)
    torch.testing.assert_close(found["z"], expected.expand(3, 2), atol=1e-3, rtol=0)


def test_step_size_is_scaled_by_the_code_deviation_or_one():
    moved = {}
    for unit in ("codes", "one"):
        found, _, _, x = run_guide(
            NearGoal([2.0, -1.0]), prior="none", unit=unit, steps=1, lr=0.1, **QUIET
        )
        moved[unit] = (found["z"] - found["start"]) / (torch.tensor([2.0, -1.0]) - found["start"])
    torch.testing.assert_close(moved["one"], torch.full((3, 2), 0.1))
    sizes = np.diff(np.quantile(x, [0.16, 0.84], axis=0), axis=0)[0] / 2
    expected = torch.tensor(0.1 * sizes**2, dtype=torch.float32).expand(3, 2)
    torch.testing.assert_close(moved["codes"], expected, rtol=1e-3, atol=0)


def test_settling_and_a_second_solution_raise_the_score():
    options = {"prior": "none", "unit": "one", "start": "wide", "noise": 0.0, "steps": 200}
    options |= {"lr": 0.1, "optimizer": "sgd", "jitter": 0.0}
    scores = {}
    for settle in (0, 30):
        found, *_ = run_guide(NearGoal([0.0, 0.0], reach=0.5), settle=settle, **options)
        assert found["satisfied"].all()
        scores[settle] = found["score"]
    assert (scores[0] < -0.3).all()
    assert (scores[30] > -0.01).all()
    one, *_ = run_guide(NearGoal([0.0, 0.0], 0.5, 50), settle=0, solutions=1, **options)
    two, *_ = run_guide(NearGoal([0.0, 0.0], 0.5, 50), settle=0, solutions=2, **options)
    assert (two["score"] >= one["score"]).all()
    assert (two["score"] > one["score"]).float().mean() > 0.2
    assert set(two["round"].tolist()) == {0, 1}
    assert two["first_round"].tolist() == [0] * 50


def test_the_progress_curve_is_a_step_function_up_to_the_last_step():
    _, items, findings, _ = run_guide(
        NearGoal([0.9, 0.9], reach=0.0005, count=40), steps=10, restarts=3, noise=2.0, settle=0
    )
    curve = items["progress"]
    share = curve.series["share"]
    assert (curve.x[0], share[0]) == (0, 0)
    assert share[-1] == pytest.approx(findings.metrics["success_share"])
    assert 0 < share[-1] < 1
    assert curve.x[-1] == 30
    assert (curve.x.diff() >= 0).all()
    assert (share.diff() >= 0).all()
    found = items["found"].arrays
    for step in range(0, 30, 5):
        met = (found["satisfied"] & (found["steps"] <= step)).float().mean()
        at_step = share[curve.x <= step][-1]
        assert at_step == pytest.approx(float(met))


def test_each_path_runs_from_the_stored_start_to_the_result():
    _, items, *_ = run_guide(NearGoal([0.5, 0.5], 0.004, 8), steps=10, restarts=6, settle=3)
    walks = items["walks"].paths
    for request, path in enumerate(walks.values()):
        torch.testing.assert_close(path[0], items["found"].arrays["start"][request])
        torch.testing.assert_close(path[-1], items["found"].arrays["z"][request])


def test_log_prior_is_the_density_of_the_posteriors_not_of_their_means():
    # codes have std 0.1 and 0.05, each posterior 0.5: the total variance is about 0.26 each
    _, _, findings, _ = run_guide(NearGoal([0.5, 0.5]), components=1, steps=100, **QUIET)
    variances = torch.tensor([0.1**2, 0.05**2]) + 0.25
    expected = -0.5 * (2 * math.pi * variances).log().sum()
    assert findings.metrics["log_prior"] == pytest.approx(float(expected), abs=0.1)


def test_the_map_projects_on_the_two_principal_directions():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(3000, 5, generator=generator) * torch.tensor([0.1, -3.0, 0.2, -1.0, 0.05])
    project = Map(codes)
    assert project(codes).var(0).tolist() == pytest.approx([9.0, 1.0], rel=0.1)
    assert (project.directions.max(1).values == project.directions.abs().max(1).values).all()
    torch.testing.assert_close(project(codes.mean(0)), torch.zeros(2), atol=1e-5, rtol=0)


class NormModel(IdentityModel):
    """Decodes a code to a constant image whose value is the norm of the code."""

    def decode(self, z):
        return z.norm(dim=1)[:, None, None, None].expand(-1, 1, 4, 4)


def test_the_film_follows_the_path_from_start_to_end():
    path = torch.linspace(0.0, 1.0, 75)[:, None] * torch.tensor([0.6, 0.8])
    found = Found(
        *(torch.zeros(3) for _ in range(7)),  # the film reads `satisfied` only
        paths={1: path},
    )
    x = np.random.default_rng(0).random((50, 4, 4)).astype("float32")
    data = prepare_whole({"train": Arrays(x)}, "arrays")
    images = data.split("train")
    context = ExploreContext(
        NormModel("normal"),
        data.spec,
        lambda split: images,
        torch.device("cpu"),
        0,
        objective=NearGoal([1.0, 1.0]),
    )

    film = draw_film(context, found, torch.rand(50, 2), 1)
    assert len(film.frames) == 30
    drawn = [frame[0].paths["walk"] for frame in film.frames]
    assert [len(part) for part in drawn] == sorted({len(part) for part in drawn})
    assert (len(drawn[0]), len(drawn[-1])) == (1, 75)
    for (_, image), part, title in zip(film.frames, drawn, film.frame_titles, strict=True):
        torch.testing.assert_close(part, path[: len(part)])
        assert float(image.rows[0].mean()) == pytest.approx(float(part[-1].norm()), abs=1e-5)
        assert title == f"step {len(part) - 1}"


@pytest.mark.parametrize(
    ("options", "starts"),
    [
        (
            {"restarts": 3, "steps": 7, "components": 4},
            "starts: codes of random training images; each request uses up to 3 of them until it "
            "has 2 solutions, with 7 steps per start; the search maximises the score + 0.1 x the "
            "log density of a mixture of 4 Gaussians fitted to the training images' posteriors;",
        ),
        (
            {"start": "wide", "restarts": 1, "solutions": 1, "prior": "none", "steps": 4},
            "starts: samples of a normal distribution with standard deviation 10; each request "
            "uses 1 of them, with 4 steps per start; the search maximises only the score;",
        ),
        (
            {"start": "prior", "restarts": 2, "solutions": 1, "prior": "gaussian", "steps": 3},
            "starts: N(0, I), the model's prior; each request uses up to 2 of them until it has 1 "
            "solution, with 3 steps per start; the search maximises the score + 0.1 x the log "
            "density of N(0, I), the model's prior;",
        ),
    ],
)
def test_the_protocol_names_the_starts_and_the_maximised_score(options, starts):
    _, _, findings, _ = run_guide(NearGoal([0.5, 0.5], 1.0), settle=0, **options)
    assert starts in findings.protocol
    guides = options.get("prior") is None
    under = "that mixture" if guides else "a mixture of 10 Gaussians fitted to the training images'"
    assert f"log_prior: mean log density of the results under {under}" in findings.protocol


def test_groups_are_of_results_near_their_first_one():
    rows = torch.tensor([[0.0, 0.0], [0.05, 0.05], [1.0, 1.0], [0.12, 0.12], [1.02, 0.98]])
    assert count_groups(rows) == 3
    assert count_groups(rows[:0]) == 0


@pytest.mark.parametrize("deviation", [0.1, 1.0])
def test_averaged_samples_are_the_mean_of_the_posterior(deviation):
    goal = torch.tensor([2.0, -1.0])
    objective = SimpleNamespace(
        score=lambda x, request: -0.5 * ((x - goal) / deviation).square().sum(1)
    )
    at = torch.zeros(40, 2)
    found = Found(at, at, *[torch.zeros(40)] * 5, {})
    expected = goal / (1 + deviation**2)  # with the prior N(0, I)
    density = Density(
        torch.Tensor.clone, objective, lambda z: -0.5 * z.square().sum(1), unit=1.0, seed=0
    )
    after = average_samples(found, density, 300)
    error = (after.x - expected).mean(0)  # of 40 requests
    torch.testing.assert_close(error, torch.zeros(2), atol=0.05 * deviation, rtol=0)
    assert torch.equal(after.z, found.z)


def test_paths_end_at_the_sampled_codes():
    objective = NearGoal([0.0, 0.0], reach=0.5)
    found = search(torch.Tensor.clone, objective, torch.ones(1, 3, 2), watch=[0, 2])
    density = Density(torch.Tensor.clone, objective, lambda z: 0.0 * z.sum(1), unit=1.0, seed=0)
    after = sample_results(found, density, 20)
    assert bool(objective.satisfied(after.x, torch.arange(3)).all())
    assert not torch.equal(after.z, found.z)
    assert {*after.paths} == {0, 2}
    for request, path in after.paths.items():
        assert torch.equal(path[-1], after.z[request])
        assert torch.equal(path[:-1], found.paths[request])


def test_the_protocol_names_only_metrics_that_exist():
    _, _, findings, _ = run_guide(NearGoal([9.0, 9.0], 1e-6), steps=2, restarts=1, settle=0)
    assert findings.metrics["success_share"] == 0
    assert "median_steps" not in {*findings.metrics, *findings.protocol.replace(":", " ").split()}
    assert all(f"{name}:" in findings.protocol for name in findings.metrics)


def test_starts_without_labels_are_reported_as_any_class():
    class Classed(NearGoal):
        classes = torch.tensor([0, 1, 2])

    _, _, findings, _ = run_guide(Classed([0.5, 0.5], 1.0), steps=2, settle=0)
    assert "starts: codes of random training images of any class;" in findings.protocol
    assert "the training images have no labels, so starts can be of any class" in findings.notes
    _, _, allowed, _ = run_guide(Classed([0.5, 0.5], 1.0), steps=2, settle=0, any_class=True)
    assert "of any class;" in allowed.protocol
    assert not any("labels" in note for note in allowed.notes)


def request_context(requests, classes=None, names=(), **more):
    """Return a context whose objective has these requests, on data with classes `names`."""
    wanted = SimpleNamespace(requests=requests, **more)
    if classes is not None:
        wanted.classes = torch.tensor(classes)
    context = context_of(np.arange(4) % 2, ["a", "b"], [0])
    return replace(context, objective=wanted, data=replace(context.data, classes=tuple(names)))


DIGITS = "0123456789"


@pytest.mark.parametrize(
    ("requests", "classes", "names"),
    [
        (["a 3", "a 5"], [3, 5], ["3", "5"]),
        (["a 3", "a 5", "a 3"], [3, 5, 3], ["3", "5", "3 (#2)"]),
        (["a 5"] * 3, [5, 5, 5], ["#0", "#1", "#2"]),
        (["a 5"], [5], ["5"]),
        ([f"complete test image {i}" for i in (4, 17)], None, ["image 4", "image 17"]),
        (
            ["like test image 4 (class 5)", "like test image 7 (class 1)"],
            None,
            ["image 4 (class 5)", "image 7 (class 1)"],
        ),
        (["a horse that looks to the left", "a very long cat"], None, ["#0", "#1"]),
        (["be there", "be there"], None, ["#0", "#1"]),
    ],
)
def test_paths_have_short_unique_names(requests, classes, names):
    assert path_names(request_context(requests, classes, DIGITS), 20) == names
    assert path_names(request_context(requests, classes, DIGITS), 1) == path_names(
        request_context(requests[:1], classes and classes[:1], DIGITS), 20
    )


def test_a_number_on_the_map_labels_its_result():
    x, path = torch.rand(3, 1, 4, 4), torch.rand(5, 2)
    met = torch.tensor([1, 0, 1]).bool()
    found = Found(path[:3], x, *(met for _ in range(5)), paths={0: path, 1: path, 2: path})
    context = request_context(["a 5"] * 3, [5, 5, 5], DIGITS)
    walks = draw_map(context, found, torch.rand(4, 2), 2)
    assert list(walks.paths) == ["#0", "#1"]
    assert (
        walks.title == "Search paths over the codes of training images: a 5, one colour per request"
    )
    grid = draw_results(context, found, x[:2], 2)
    assert list(grid.column_titles) == ["#0 a 5", "#1 a 5"]
    assert [len(row) for row in grid.rows] == [2, 2]
    named = request_context(["a 3", "a 5"], [3, 5], DIGITS)
    assert list(draw_results(named, found, x[:2], 2).column_titles) == ["a 3", "a 5"]
    assert draw_map(named, found, torch.rand(4, 2), 2).title.endswith("training images")


def test_many_results_are_in_several_rows_with_their_requests():
    x, flags = torch.rand(12, 1, 4, 4), torch.ones(12).bool()
    found = Found(torch.rand(12, 2), x.flip(0), *(flags for _ in range(5)), paths={})
    found = replace(found, steps=torch.arange(12))
    labels = [i % 10 for i in range(12)]
    context = request_context([f"a {label}" for label in labels], labels, DIGITS)
    grid = draw_results(context, found, x, 12)
    assert grid.column_titles == ()
    assert grid.row_titles == ["start", "found"] * 2
    assert [len(row) for row in grid.rows] == [len(row) for row in grid.captions] == [10, 10, 2, 2]
    assert torch.equal(torch.cat([grid.rows[0], grid.rows[2]]), x)
    assert torch.equal(torch.cat([grid.rows[1], grid.rows[3]]), x.flip(0))
    assert grid.captions[2] == ["a 0", "a 1"]
    assert grid.captions[3] == ["satisfied after 10 steps", "satisfied after 11 steps"]


def test_the_film_title_names_the_outcome_and_the_start():
    met = Found(*(torch.tensor([1, 0]).bool() for _ in range(7)), paths={})
    context = request_context(["a 3", "a 5"])
    title = "Path of request 0 (satisfied, start number 2): a 3"
    assert film_title(context, met, 0) == title
    assert film_title(context, met, 1) == "Best path of request 1 (not satisfied): a 5"
    endless = request_context(["complete test image 4"], open_ended=True)
    title = "Path of request 0 (start number 2): complete test image 4"
    assert film_title(endless, met, 0) == title


def test_a_role_whose_run_has_its_name_is_named_once():
    judge, other = SimpleNamespace(name="judge"), SimpleNamespace(name="mlp")
    assert title_role("judge", judge) == "judge"
    assert title_role("judge", other) == "judge mlp"


@pytest.mark.parametrize("dimensions", [2, 5])
def test_the_film_shows_the_path_and_most_codes_but_no_outliers(dimensions):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(4000, dimensions, generator=generator)
    codes[:8, 0] = 900.0  # outliers: 8 of 4,000
    path = torch.randn(20, dimensions, generator=generator).cumsum(0)
    met = torch.zeros(1, dtype=torch.bool)
    context = request_context(["be there"])
    context = replace(
        context, model=NormModel("normal"), images=lambda split: SimpleNamespace(y=None), roles={}
    )
    film = draw_film(context, Found(*(met for _ in range(7)), paths={0: path}), codes, 0)
    limits = torch.tensor(compute_limits([frame[0] for frame in film.frames]))  # (2, 2)
    project = Map(codes)
    seen, drawn = project(codes), project(path)
    assert ((drawn > limits[:, 0]) & (drawn < limits[:, 1])).all()
    middle = seen.quantile(torch.tensor([0.05, 0.95]), 0).T  # (2, 2)
    assert (limits[:, 0] < middle[:, 0]).all()
    assert (limits[:, 1] > middle[:, 1]).all()
    assert (limits.diff(dim=1) < 60).all()
