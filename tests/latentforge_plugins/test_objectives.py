"""The built-in objectives: their scores against closed forms, their metrics against plain loops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from latentforge import ExplorerSpec, Forge, hookimpl
from latentforge.config.resolve import check_options
from latentforge.errors import UsageError
from latentforge.findings import Findings, ImageGrid

HALF = {
    "lower": np.s_[14:, :],
    "upper": np.s_[:14, :],
    "left": np.s_[:, :14],
    "right": np.s_[:, 14:],
}


class ContextRecorder:
    """An explorer that stores the context of its call."""

    def record(self, context, config):
        self.context = context
        return Findings([])

    @hookimpl
    def latentforge_explorers(self):
        yield ExplorerSpec(name="record", summary="Stores its context", explore=self.record)
        yield ExplorerSpec(
            name="record-with",
            summary="Stores its context",
            explore=self.record,
            roles={"classifier": {"classify"}},
        )


def context_of(run, out, data=None, **roles):
    recorder = ContextRecorder()
    name = "record-with" if roles else "record"
    Forge(plugins=[recorder]).explore(name, run, out=out, roles=roles, data=data, device="cpu")
    return recorder.context


@pytest.fixture(scope="module")
def context(trained, tmp_path_factory):
    """The context of the digits autoencoder, with the classifier."""
    out = tmp_path_factory.mktemp("explored") / "out"
    return context_of(trained / "ae", out, classifier=trained / "cnn")


@pytest.fixture(scope="module")
def no_roles(trained, tmp_path_factory):
    """The context of the digits autoencoder, without a classifier."""
    return context_of(trained / "ae", tmp_path_factory.mktemp("explored") / "out")


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    """The context of an autoencoder of 60 unlabelled images of shape 3x5x7."""
    x = np.random.default_rng(3).random((60, 3, 5, 7), dtype=np.float32)
    folder = tmp_path_factory.mktemp("plain")
    small = {"model": {"hidden": [8]}, "train": {"epochs": 1}, "quiet": True}
    run = Forge().train("ae", data=x, run=folder / "run", **small)
    return context_of(run, folder / "out")


@pytest.fixture(scope="module")
def build():
    registry = Forge().registry

    def call(name, context, **options):
        spec = registry.get("objectives", name).spec
        return spec.build(check_options(spec.config, options, name), context)

    return call


# ---------------------------------------------------------------- class


def test_class_scores_the_log_probability_of_the_requested_class(build, context):
    objective = build("class", context, n=23)
    assert objective.requests[:12] == [*(f"a {i}" for i in range(10)), "a 0", "a 1"]
    assert objective.classes.tolist() == [i % 10 for i in range(23)]
    x = context.images("test").batch_at(range(6)).x
    request = torch.tensor([3, 3, 22, 0, 17, 5])
    wanted = torch.tensor([3, 3, 2, 0, 7, 5])
    logits = context.roles["classifier"].model(x)
    expected = -F.cross_entropy(logits, wanted, reduction="none")
    torch.testing.assert_close(objective.score(x, request), expected)


def test_class_is_satisfied_at_or_above_its_threshold(build, context):
    x = context.images("test").batch_at(range(100)).x
    wanted = torch.arange(100) % 10
    log_p = context.roles["classifier"].model(x).log_softmax(1)  # as in the objective
    p = log_p[torch.arange(100), wanted].exp()
    middle = float(p.median())
    objective = build("class", context, n=10, threshold=middle)
    satisfied = objective.satisfied(x, wanted)
    assert satisfied.dtype == torch.bool
    assert 0 < satisfied.sum() < 100
    assert satisfied.tolist() == (p >= middle).tolist()


def test_target_sets_the_class_of_every_request(build, context):
    objective = build("class", context, n=3, target=7)
    assert objective.requests == ["a 7"] * 3
    assert objective.classes.tolist() == [7, 7, 7]


def test_satisfied_reuses_the_logits_of_score_for_the_same_x_only(build, context):
    classifier = context.roles["classifier"].model
    images = context.images("test").batch_at(range(100)).x
    p = classifier(images).softmax(1)[:, 4]
    middle = float(p.amax() + p.amin()) / 2
    objective = build("class", context, n=1, target=4, threshold=middle)
    calls = []
    handle = classifier.register_forward_hook(lambda *_: calls.append(1))
    request = torch.tensor([0])
    try:
        x = images[p.argmax()][None].clone().requires_grad_()
        objective.score(x, request).sum().backward()
        met = objective.satisfied(x, request)
        assert met.tolist() == [True]
        assert not met.requires_grad
        assert len(calls) == 1
        with torch.no_grad():  # like an optimizer step: the same tensor with other values
            x.copy_(images[p.argmin()][None])
        assert objective.satisfied(x, request).tolist() == [False]
        assert len(calls) == 2
    finally:
        handle.remove()


def test_unlabelled_images_use_the_classes_of_the_classifier(build, trained, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    small = {"model": {"hidden": [8]}, "train": {"epochs": 1}, "quiet": True}
    run = Forge().train("ae", data=x, run=tmp_path / "run", **small)
    assert run.manifest["data"]["classes"] == []
    context = context_of(run, tmp_path / "out", classifier=trained / "cnn")
    assert build("class", context, n=2).requests == ["a 0", "a 1"]


# ---------------------------------------------------------------- inpaint


@pytest.mark.parametrize("mask", HALF)
def test_inpaint_scores_the_bernoulli_likelihood_of_the_known_half(build, no_roles, mask):
    objective = build("inpaint", no_roles, mask=mask, images=[17, 4, 90])
    assert objective.requests == [f"complete test image {i}" for i in (17, 4, 90)]
    truth = no_roles.images("test").batch_at([17, 4, 90]).x
    request = torch.tensor([2, 0, 1, 2])
    x = torch.rand(4, 1, 28, 28, dtype=torch.float64)
    known = np.ones((28, 28), dtype=bool)
    known[HALF[mask]] = False
    bernoulli = torch.distributions.Bernoulli(probs=x, validate_args=False)  # allow grey values
    expected = bernoulli.log_prob(truth.double()[request])[:, :, known].flatten(1).sum(1)
    torch.testing.assert_close(objective.score(x, request), expected)
    assert objective.satisfied(x, request).tolist() == [False] * 4


def test_hidden_pixels_do_not_affect_the_score(build, no_roles):
    objective = build("inpaint", no_roles, mask="box", box=[1, 2, 3, 4])
    # no pixel equals a grey level of the targets, where the gradient is 0
    x = (0.3 + 0.001 * torch.rand(10, 1, 28, 28)).requires_grad_()
    request = torch.arange(10)
    (gradient,) = torch.autograd.grad(objective.score(x, request).sum(), x)
    hidden = torch.zeros(28, 28, dtype=torch.bool)
    hidden[1:4, 2:6] = True
    assert (gradient[:, 0, hidden] == 0).all()
    assert (gradient[:, 0, ~hidden] != 0).all()


def test_likelihood_and_gradient_are_finite_at_probabilities_0_and_1(build, no_roles):
    objective = build("inpaint", no_roles, images=[0])
    for value in (0.0, 1.0):
        x = torch.full((1, 1, 28, 28), value, requires_grad=True)
        score = objective.score(x, torch.tensor([0]))
        (gradient,) = torch.autograd.grad(score.sum(), x)
        assert torch.isfinite(score).all()
        assert torch.isfinite(gradient).all()
        assert score < -100


def test_a_random_mask_hides_the_same_share_in_all_channels(build, unlabelled):
    torch.manual_seed(1)
    objective = build("inpaint", unlabelled, mask="random", share=0.3, n=2)
    known = objective.known.reshape(3, 5, 7)
    assert (known == known[0]).all()
    assert int((~known[0]).sum()) == 10  # 0.3 of 35 is 10.5, rounded to even
    assert build("inpaint", unlabelled, mask="random", n=2).known.tolist() != known.tolist()


@pytest.mark.parametrize(("mask", "hidden"), [("lower", 3 * 7), ("upper", 3 * 7), ("left", 5 * 4)])
def test_a_half_mask_on_an_odd_side_hides_the_larger_half(build, unlabelled, mask, hidden):
    assert int((~build("inpaint", unlabelled, mask=mask, n=1).known).sum()) == 3 * hidden


def test_selected_images_are_deterministic_and_span_the_split(build, no_roles):
    first = build("inpaint", no_roles, n=40).batch.index
    torch.manual_seed(9)
    assert build("inpaint", no_roles, n=40).batch.index.tolist() == first.tolist()
    assert len(set(first.tolist())) == 40
    assert first.max() > len(no_roles.images("test")) // 2


@pytest.mark.parametrize("split", ["test", "train"])
def test_baselines_match_a_double_loop(build, no_roles, split):
    indices = [5, 0, 101, 33]
    objective = build("inpaint", no_roles, mask="left", images=indices, split=split)
    found = torch.rand(4, 1, 28, 28)
    findings = objective.findings(found)

    def load_arrays(name):
        images = no_roles.images(name)
        return np.concatenate([b.x.numpy() for b in images.batches(50)])[:, 0], images.y.numpy()

    (train, labels), (split_x, split_y) = load_arrays("train"), load_arrays(split)
    hidden, known = HALF["left"], HALF["right"]
    sums = {"search": [], "mean": [], "nearest": [], "neighbours": [], "known": []}
    nearest = []
    for row, index in enumerate(indices):
        target = split_x[index].astype(np.float64)
        distances = [float(((image - target)[known] ** 2).sum()) for image in train]
        if split == "train":
            distances[index] = np.inf
        order = np.argsort(distances, kind="stable")[:20]
        at = int(order[0])
        nearest.append(at)
        sums["neighbours"].append(((train[order].mean(0) - target)[hidden] ** 2).mean())
        mean = train[labels == split_y[index]].mean(0)
        sums["nearest"].append(((train[at] - target)[hidden] ** 2).mean())
        sums["mean"].append(((mean - target)[hidden] ** 2).mean())
        sums["search"].append(((found[row, 0].numpy() - target)[hidden] ** 2).mean())
        sums["known"].append(((found[row, 0].numpy() - target)[known] ** 2).mean())
    assert findings.items[0].arrays["nearest"].tolist() == nearest
    expected = {
        "hidden_mse_per_pixel": np.mean(sums["search"]),
        "hidden_mse_class_mean": np.mean(sums["mean"]),
        "hidden_mse_nearest": np.mean(sums["nearest"]),
        "hidden_mse_neighbours": np.mean(sums["neighbours"]),
        "known_mse_per_pixel": np.mean(sums["known"]),
    }
    assert findings.metrics == pytest.approx(expected, rel=1e-4)
    assert "left half hidden (50% of each)" in findings.protocol
    assert "true class" in findings.protocol


def test_a_search_worse_than_a_baseline_is_reported(build, no_roles, unlabelled):
    objective = build("inpaint", no_roles, images=[5, 0])
    truth = no_roles.images("test").batch_at([5, 0]).x
    assert objective.findings(truth).notes == []
    worse = objective.findings(1 - truth)
    own, mean, nearest, neighbours = (
        worse.metrics[f"hidden_mse_{name}"]
        for name in ("per_pixel", "class_mean", "nearest", "neighbours")
    )
    assert worse.notes == [
        "the hidden part is further from the truth than the class mean: mean squared difference "
        f"{own:.4f} against {mean:.4f}",
        "the hidden part is further from the truth than the nearest image: mean squared difference "
        f"{own:.4f} against {nearest:.4f}",
        "the hidden part is further from the truth than the mean of the 20 nearest images: mean "
        f"squared difference {own:.4f} against {neighbours:.4f}",
    ]
    at_mean = build("inpaint", unlabelled, n=2).findings(torch.full((2, 3, 5, 7), -1.0))
    assert "than the mean image:" in at_mean.notes[0]


def test_without_labels_the_baseline_is_the_mean_training_image(build, unlabelled):
    objective = build("inpaint", unlabelled, mask="upper", images=[1, 3])
    train = torch.cat([b.x for b in unlabelled.images("train").batches(16)])
    truth = unlabelled.images("test").batch_at([1, 3]).x
    findings = objective.findings(truth)
    expected = (train.mean(0) - truth)[:, :, :3].square().mean()
    assert findings.metrics["hidden_mse_class_mean"] == pytest.approx(float(expected), rel=1e-5)
    assert findings.metrics["hidden_mse_per_pixel"] == findings.metrics["known_mse_per_pixel"] == 0
    assert "class of" not in findings.protocol
    assert "true class" not in findings.protocol


def test_the_inpainting_grid_combines_known_pixels_with_each_completion(build, no_roles):
    objective = build("inpaint", no_roles, n=12)
    found = torch.rand(12, 1, 28, 28)
    grid = objective.findings(found).items[1]
    assert isinstance(grid, ImageGrid)
    assert grid.row_titles == ["original", "given", "search", "class mean", "nearest", "mean of 20"]
    original, given, search, mean, nearest, neighbours = grid.rows
    assert len(original) == 10
    assert (given[:, :, 14:] == 0.5).all()
    assert torch.equal(search[:, :, 14:], found[:10, :, 14:])
    for row in (given, search, mean, nearest, neighbours):
        assert torch.equal(row[:, :, :14], original[:, :, :14])
    for row in (mean, nearest):
        assert not torch.equal(row[:, :, 14:], original[:, :, 14:])


def test_vectors_can_be_completed_from_random_values(build, tmp_path):
    x = np.random.default_rng(3).random((60, 6), dtype=np.float32)
    small = {"model": {"hidden": [8]}, "train": {"epochs": 1}, "quiet": True}
    run = Forge().train("ae", data=x, run=tmp_path / "run", **small)
    context = context_of(run, tmp_path / "out")
    objective = build("inpaint", context, mask="random", n=4)
    assert objective.score(torch.rand(4, 6), torch.arange(4)).shape == (4,)
    findings = objective.findings(torch.rand(4, 6))
    assert len(findings.items) == 1  # no image grid
    assert findings.items[0].arrays["known"].shape == (6,)
    with pytest.raises(UsageError, match="vectors of size 6"):
        build("inpaint", context)


# ---------------------------------------------------------------- match


def test_match_scores_the_gaussian_likelihood_in_pixels(build, no_roles):
    objective = build("match", no_roles, images=[3, 8], tolerance=0.02)
    targets = no_roles.images("test").batch_at([3, 8])
    labels = targets.y.tolist()
    assert objective.requests == [
        f"like test image {i} (class {label})" for i, label in zip([3, 8], labels, strict=True)
    ]
    x = targets.x[[1, 0, 0]] + torch.tensor([0.3, 0.1, 0.0]).reshape(3, 1, 1, 1)
    request = torch.tensor([1, 0, 1])
    normal = torch.distributions.Normal(x.double(), 0.02**0.5)
    at_best = torch.distributions.Normal(0.0, 0.02**0.5).log_prob(torch.zeros(784)).sum()
    expected = normal.log_prob(targets.x[request].double()).flatten(1).sum(1) - at_best
    torch.testing.assert_close(objective.score(x, request).double(), expected, rtol=1e-4, atol=1e-2)
    assert objective.satisfied(x, request).tolist() == [False, True, False]


def test_match_in_features_compares_the_outputs_of_the_layer(build, context):
    model = context.roles["classifier"].model
    layer = model.layers()[4]
    objective = build("match", context, images=[3, 8], features=layer)
    x = torch.rand(3, 1, 28, 28)
    request = torch.tensor([1, 0, 0])
    targets = context.images("test").batch_at([3, 8]).x

    def features(images):
        h = F.pad(images, model.padding)
        return model.features[:5](h).flatten(1)

    squared = F.mse_loss(features(x), features(targets)[request], reduction="none").sum(1)
    expected = -squared / (2 * 0.01)
    torch.testing.assert_close(objective.score(x, request), expected)
    assert not model.get_submodule(layer)._forward_hooks  # it would store each later output
    found = objective.findings(x[:2])
    away = F.mse_loss(features(x[:2]), features(targets))
    assert found.metrics["match_mse_features"] == pytest.approx(float(away), rel=1e-5)
    assert found.metrics["match_mse_per_pixel"] == pytest.approx(
        float((x[:2] - targets).square().mean()), rel=1e-5
    )
    assert torch.equal(found.items[1].rows[0], targets)
    assert torch.equal(found.items[1].rows[1], x[:2])


# ---------------------------------------------------------------- all objectives


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("class", {"n": 10}),
        ("inpaint", {"n": 3}),
        ("match", {"images": [1, 2, 3]}),
        ("match", {"images": [1, 2, 3], "features": "features.3"}),
    ],
)
def test_gradients_match_finite_differences_and_rows_are_independent(build, context, name, options):
    objective = build(name, context, **options)
    classifier = context.roles["classifier"].model
    x = (0.2 + 0.6 * torch.rand(3, 1, 28, 28, dtype=torch.float64)).requires_grad_()
    request = torch.tensor([2, 0, 2])
    classifier.double()
    try:
        assert torch.autograd.gradcheck(
            lambda images: objective.score(images, request), x, fast_mode=True
        )
        together = objective.score(x, request)
        for row in range(3):
            alone = objective.score(x[row : row + 1], request[row : row + 1])
            torch.testing.assert_close(alone[0], together[row])
    finally:
        classifier.float()


# ---------------------------------------------------------------- bad input, at the command line

SEEK = """
from latentforge import ExplorerSpec, hookimpl

def seek(context, config):
    import torch
    objective = context.objective
    request = torch.arange(len(objective.requests))
    z = context.codes("train")[: len(request)].clone().requires_grad_()
    with torch.enable_grad():
        for _ in range(20):
            score = objective.score(context.model.decode(z), request).sum()
            z = (z + 0.05 * torch.autograd.grad(score, z)[0].sign()).detach().requires_grad_()
    return objective.findings(context.model.decode(z.detach()))

@hookimpl
def latentforge_explorers():
    yield ExplorerSpec(name="seek", summary="Plain ascent", explore=seek, searches="inpaint",
                       needs={"encode", "decode"})
"""


@pytest.fixture
def seek(cli, runs):
    Path("seek.py").write_text(SEEK)
    return lambda *arguments: cli("-p", "./seek.py", "explore", "seek", "runs/ae", *arguments)


def test_a_searching_explorer_writes_the_findings_of_the_objective(seek):
    answer = seek("--set", "mask=right", "--set", "n=5", "--json")
    assert answer.code == 0
    metrics = answer.json["metrics"]
    assert set(metrics) >= {"hidden_mse_per_pixel", "hidden_mse_class_mean", "hidden_mse_nearest"}
    out = Path(answer.json["out"])
    assert (out / "inpainting.png").stat().st_size > 1000
    assert json.loads((out / "findings.json").read_text())["options"]["mask"] == "right"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("objective=class target=12", "no class 12"),
        ("objective=class target=-1", "class.target: must be greater than or equal to 0"),
        ("objective=class threshold=1.0", "class.threshold: must be less than 1"),
        ("objective=class n=0", "class.n: must be greater than 0"),
        ("n=0", "inpaint.n: must be greater than 0"),
        ("n=100000", "--set n=359"),
        ("images=[3,400]", "no image 400: this split has 359"),
        ("split=tset", "did you mean 'test'?"),
        ("mask=lowr", "did you mean 'lower'?"),
        ("mask=box", "mask=box and box=[top, left, height, width] require each other"),
        ("box=[0,0,2,2]", "mask=box and box=[top, left, height, width] require each other"),
        ("mask=box box=[26,0,3,2]", "extends beyond the image of 28 rows and 28 columns"),
        ("mask=box box=[0,29,1,1]", "it ends at row 1, column 30"),
        ("mask=box box=[0,0,28,28]", "the mask hides all of the 28x28 pixels"),
        ("mask=random share=0.0005", "the mask hides none of the 28x28 pixels"),
        ("share=0.2", "share needs mask=random"),
        ("images=[1,2] n=5", "n and images exclude each other"),
        ("mask=random share=1.0", "inpaint.share: must be less than 1"),
        ("objective=match images=[]", "match.images: must have at least 1 value,"),
        ("objective=match images=[359]", "no image 359"),
        ("objective=match features=features.99", "is not a layer of classifier"),
        ("objective=match tolerance=0", "match.tolerance: must be greater than 0"),
        ("objective=inpant", "did you mean 'inpaint'?"),
    ],
)
def test_invalid_options_exit_with_code_2_and_a_message(seek, options, message):
    roles = ["--with", "classifier=runs/cnn"] if "class" in options or "features" in options else []
    answer = seek(*roles, *(part for option in options.split() for part in ("--set", option)))
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert "Traceback" not in answer.err


def test_a_layer_without_a_classifier_hints_at_the_option(seek):
    answer = seek("--set", "objective=match", "--set", "features=features.0")
    assert answer.code == 2
    assert "--with classifier=RUN" in answer.err


def test_an_unknown_class_lists_the_existing_classes(build, context):
    with pytest.raises(UsageError) as error:
        build("class", context, target=10)
    assert error.value.details == ("classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",)
    assert "9" in error.value.hint


def test_named_classes_are_listed_with_their_index():
    from latentforge_plugins.class_objective.objective import list_classes

    assert list_classes(["0", "cat", "1"]) == "0, 1 (cat), 2 (1)"
