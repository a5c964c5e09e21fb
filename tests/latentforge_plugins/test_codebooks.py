"""The models vq-vae and fsq: their codes, the moving codebook, their measures and their faults."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from latentforge_plugins.grids import nearest
from latentforge_plugins.vq_vae.model import proposal_weight

from latentforge import DataSpec, Forge
from latentforge.contracts import RANGES, Batch, Step
from latentforge.engine.step import Trainee, accumulate, split_batch
from latentforge.engine.vectorized.equivalence import check_modules
from latentforge.engine.vectorized.noise import NotStackable
from latentforge.errors import ConfigError, UsageError
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.seeding import Shard, sharding

FORGE = Forge()
SHAPES = [(1, 28, 28), (3, 17, 30), (1, 1, 1)]


def build(name, shape=(1, 28, 28), **options):
    spec = FORGE.registry.get("models", name).spec
    torch.manual_seed(0)
    return spec.build(spec.config(**options), DataSpec(shape))


def vq(**options):
    return build("vq-vae", (1, 8, 8), **{"entries": 12, "dim": 3, "width": 4, **options})


def images(count=6, side=8):
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------- codes


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "dim"), [("vq-vae", 16), ("fsq", 4)])
def test_codes_are_entries_on_a_grid_a_quarter_of_the_image(name, dim, shape):
    model, x = build(name, shape).eval(), torch.rand(3, *shape)
    grid = math.ceil(shape[1] / 4), math.ceil(shape[2] / 4)
    assert model.latent.shape == (dim, *grid)
    assert model.latent.prior is None
    posterior = model.encode(x)
    assert posterior.entry.shape == (3, *grid)
    assert len(model.codebook) == 256
    entries = model.codebook[posterior.entry].movedim(-1, 1)
    torch.testing.assert_close(posterior.mode(), entries)
    torch.testing.assert_close(posterior.sample(), entries)
    assert model.decode(posterior.mode()).shape == x.shape


def test_vectors_are_refused_with_another_model():
    for name in ("vq-vae", "fsq"):
        spec = FORGE.registry.get("models", name).spec
        with pytest.raises(UsageError, match="supports images, not vectors of size 30") as error:
            spec.build(spec.config(), DataSpec((30,), "vector"))
        assert error.value.hint.startswith("the model ae")


def test_the_nearest_entry_has_the_smallest_distance():
    vectors, codebook = torch.randn(5, 7, 3), torch.randn(20, 3)
    assert torch.equal(nearest(vectors, codebook), torch.cdist(vectors, codebook).argmin(-1))


@pytest.mark.parametrize("name", ["vq-vae", "fsq"])
def test_gradients_pass_straight_through_to_the_encoder(name):
    model = build(name)
    model.encode(torch.rand(2, 1, 28, 28)).sample().sum().backward()
    assert all(bool(p.grad.any()) for p in model.encoder.parameters())


def test_commitment_moves_the_encoder_towards_its_entries():
    model = vq()
    posterior = model.encode(images())
    distance = (posterior.continuous - posterior.mode()).square().flatten(1).sum(1)
    torch.testing.assert_close(posterior.commitment(), distance)
    [gradient] = torch.autograd.grad(posterior.commitment().sum(), posterior.continuous)
    torch.testing.assert_close(gradient, 2 * (posterior.continuous - posterior.mode()))


@pytest.mark.parametrize("levels", [(2,), (3, 2), (5, 4, 3)])
def test_fsq_rounds_each_dimension_to_its_levels(levels):
    model = build("fsq", (1, 8, 8), levels=levels)
    wide = torch.randn(500, len(levels), 2, 2, generator=torch.Generator().manual_seed(2))
    model.encoder = torch.nn.Identity()
    found = model.encode(wide)
    for i, count in enumerate(levels):
        values = found.mode()[:, i].unique()
        assert len(values) == count  # each level is reached
        assert values.min() == -1
        torch.testing.assert_close(values.diff(), torch.full((count - 1,), 1 / (count // 2)))
    assert (found.sample() - found.mode()).abs().max() < 1e-6
    # the index is the row of the codebook, and rows are distinct
    torch.testing.assert_close(model.codebook[found.entry].movedim(-1, 1), found.mode())
    assert len(model.codebook.unique(dim=0)) == math.prod(levels)
    assert (found.continuous - found.mode()).abs().max() <= 0.51 / min(c // 2 for c in levels)


def test_training_of_fsq_saturates_no_dimension(work):
    run = FORGE.train("fsq", data="digits", train={"epochs": 2, "seed": 0}, quiet=True)
    model: Any = FORGE.load_model(run)
    [batch] = FORGE.load_data("digits").split("validation").batches(10_000)
    with torch.no_grad():
        codes = model.encode(batch.x).mode()
    shares = [codes[:, i].unique(return_counts=True)[1] / codes[:, i].numel() for i in range(4)]
    assert all(len(each) == 4 and each.max() < 0.8 for each in shares)


def test_levels_whose_product_is_too_large_are_refused_before_torch(work):
    with pytest.raises(ConfigError, match="an error") as error:
        FORGE.train("fsq", model={"levels": [1024, 1025]})
    assert "product is at most 1048576" in error.value.details[0]


# ---------------------------------------------------------------- the moving codebook


def test_the_codebook_moves_by_averages_of_its_codes():
    """Against a computation entry by entry: van den Oord et al. 2017, appendix A.1, where the
    numbers and the sums of codes are averaged, here with the shares of a step in place of them."""
    model = vq(restart=0.0, decay=0.9)
    share = np.zeros(12)
    entries = model.codebook.double().numpy().copy()
    sums = share[:, None] * entries
    for _ in range(3):
        posterior = model.encode(images())
        model.after_step()
        vectors = posterior.continuous.detach().movedim(1, -1).reshape(-1, 3).double().numpy()
        used = posterior.entry.flatten().numpy()
        for k in range(12):
            share[k] = 0.9 * share[k] + 0.1 * (used == k).mean()
            sums[k] = 0.9 * sums[k] + 0.1 * (vectors * (used == k)[:, None]).mean(0)
            if share[k]:
                entries[k] = sums[k] / share[k]
        np.testing.assert_allclose(model.share, share, rtol=1e-5)
        np.testing.assert_allclose(model.codebook, entries, rtol=1e-4, atol=1e-6)
    assert 0 < (share > 0).sum() < 12  # some entries are unused and stay


def test_unused_entries_restart_at_a_code_of_the_batch():
    model = vq()
    torch.manual_seed(2)
    posterior = model.encode(images())
    model.after_step()
    codes = posterior.continuous.detach().movedim(1, -1).flatten(1, 2)  # (6, 4, 3)
    dead = torch.ones(12, dtype=torch.bool)
    dead[posterior.entry.flatten().unique()] = False
    assert 0 < dead.sum() < 12
    torch.manual_seed(2)
    chosen = (20 * torch.randn(6, 12)).softmax(0)  # almost one image for each entry
    assert chosen.max(0).values.mean() > 0.8
    expected = torch.einsum("bk,bkd->kd", chosen, codes[:, torch.arange(12) % 4])
    torch.testing.assert_close(model.codebook[dead], expected[dead], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.share[dead], torch.full((int(dead.sum()),), 1 / 12))
    assert not model.seen.any()


def test_the_largest_normal_noise_gives_a_finite_weight():
    """Box and Muller's method with 32 random bits, as on a GPU, gives at most 6.66."""
    weights = proposal_weight(torch.tensor([-6.66, 2.0, 5.77, 6.66]))
    assert weights.isfinite().all()
    assert weights[1] == 1
    assert weights[3] * 1000 < torch.finfo(torch.float32).max  # they are summed over a batch
    assert weights[2] == (20 * (torch.tensor(5.77) - 2)).exp()  # the largest on a CPU


def test_the_dispersion_of_each_value_is_logged():
    """As for `reconstruction`, from which the loss inherits its likelihoods."""
    spec = FORGE.registry.get("losses", "commitment").spec
    config = spec.config(likelihood="negative-binomial", dispersion_of="value")
    data = DataSpec((1, 8, 8), range=RANGES["counts"])
    torch.manual_seed(0)
    model_spec = FORGE.registry.get("models", "vq-vae").spec
    model = model_spec.build(model_spec.config(entries=12, dim=3, width=4), data)
    x = (9 * images()).round()
    terms = spec.build(config, data)(model, Batch(x, None, torch.arange(6)), Step(1, 9, 6, 1))
    assert terms.per_dim["dispersion"].shape == (64,)
    assert set(terms.values) == {"recon", "dispersion", "commitment"}
    assert dict(terms.weights) == {"dispersion": 0.0, "commitment": 0.25}


def test_evaluation_leaves_the_codebook_unchanged():
    model = vq().eval()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.encode(images())
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def trained_in(parts):
    """The buffers of a model after a step whose batch of 7 is divided into parts."""
    model = vq(restart=0.0)
    spec = FORGE.registry.get("losses", "commitment").spec
    trainee = Trainee(model, spec.build(spec.config(), DataSpec((1, 8, 8)))).train()
    batch = Batch(images(7), None, torch.arange(7))
    torch.manual_seed(1)
    pieces = ((p, len(p.index) / 7, nullcontext()) for p in split_batch(batch, parts))
    accumulate(trainee, pieces, Step(0, 9, 7, 1))
    model.after_step()
    return {name: value for name, value in model.named_buffers() if name != "seen"}


def test_parts_of_a_batch_move_the_codebook_like_the_whole_batch():
    whole, parts = trained_in(1), trained_in(3)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-6)


def test_shards_of_a_batch_add_up_to_the_whole_batch():
    """Also the proposals for restarts, because each process draws the noise of all images."""
    x, draw = images(7), torch.Generator()
    whole, summed = vq(), vq()
    start = 0
    for stop in (4, 7):
        draw.manual_seed(5)
        with sharding(Shard(draw, start, stop, 7)):
            summed.encode(x[start:stop])
        start = stop
    draw.manual_seed(5)
    with sharding(Shard(draw, 0, 7, 7)):
        whole.encode(x)
    torch.testing.assert_close(summed.seen, whole.seen, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- runs

SMALL = {"model": {"entries": 16, "dim": 4, "width": 4}, "quiet": True}


def train(path, **train):
    data = {"name": "digits", "size": 8}
    options = {"epochs": 2, "batch_size": 200, "device": "cpu", "threads": 1, **train}
    return FORGE.train("vq-vae", data=data, run=path, train=options, **SMALL)


def test_measures_equal_an_independent_count(tmp_path):
    run = train(tmp_path / "run")
    found = run.evaluate(measures=["perplexity", "codebook_usage"], device="cpu")
    x = FORGE.load_data("digits", {"size": 8}).split("test").x / 255
    entries = run.load_model().encode(x).entry.flatten().tolist()
    shares = [entries.count(k) / len(entries) for k in range(16)]
    entropy = -sum(p * math.log(p) for p in shares if p)
    assert found["perplexity"] == pytest.approx(math.exp(entropy), rel=1e-9)
    assert found["codebook_usage"] == sum(p > 0 for p in shares) / 16
    metrics = json.loads((run.path / "metrics.jsonl").read_text().splitlines()[-1])["test"]
    assert metrics["perplexity"] == pytest.approx(found["perplexity"])


def test_doctor_finds_a_collapsed_codebook(tmp_path):
    """Without restarts, the entries that are far from the first codes are never used."""
    collapsed = FORGE.train(
        "vq-vae",
        data={"name": "digits", "size": 8},
        model={"width": 4, "restart": 0.0, "decay": 0.0},
        run=tmp_path / "collapsed",
        train={"epochs": 2, "device": "cpu", "lr": 1e-2},
        quiet=True,
    )
    [finding] = [f for f in FORGE.diagnose(collapsed) if f.check == "codebook collapse"]
    assert finding.severity == "warning"
    metrics = collapsed.evaluate("train", measures=["perplexity", "codebook_usage"], device="cpu")
    used = round(256 * metrics["codebook_usage"])
    assert finding.saw.startswith(f"{used} of 256 entries of the codebook occur")
    assert f"perplexity of {metrics['perplexity']:.3g}" in finding.saw
    assert metrics["perplexity"] < 25.6


def test_doctor_reports_nothing_for_a_codebook_in_use(tmp_path):
    run = train(tmp_path / "run", batch_size=64, epochs=3)
    checks = [finding.check for finding in FORGE.diagnose(run)]
    assert not {"codebook collapse", "dead latents"} & {*checks}


def test_a_model_with_after_step_is_not_stacked():
    class Follows(torch.nn.Linear):
        def after_step(self):
            pass

    with pytest.raises(NotStackable, match="has after_step"):
        check_modules(Trainee(Follows(1, 1), torch.nn.Identity()))


def test_weights_are_the_only_state_of_a_checkpoint(tmp_path):
    run = train(tmp_path / "run")
    saved = CheckpointStore(run.path / "checkpoints").load()
    buffers = {n for n in saved.tensors("model") if not n.startswith(("encoder", "decoder"))}
    assert buffers == {"codebook", "share"}


# ---------------------------------------------------------------- explorers

OFF = "need not be entries of the codebook"
SHAPE = (1, 2, 3)


@pytest.fixture
def x():
    return torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_entries_have_no_density_but_a_prior_of_them_has(explore, affine, x):
    model = affine.Affine(SHAPE, (3,))
    usual = explore("sample", model, x, sources=["gaussian", "mixture"], n=20)
    assert {"code_log_density_gaussian", "code_log_density_mixture"} <= usual.metrics.keys()
    assert not any(OFF in note or "density" in note for note in usual.notes)
    provides = {"encode", "decode", "codebook"}
    found = explore("sample", model, x, sources=["prior", "mixture"], n=20, provides=provides)
    assert not any("log_density" in text for text in [found.protocol, *found.metrics])
    assert any(OFF in note for note in found.notes)
    assert any("a prior over the entries is a second model" in note for note in found.notes)
    model = affine.Affine(SHAPE, (3,), log_var=[0.0] * 3)
    found = explore("sample", model, x, sources=["prior", "mixture"], n=20, provides=provides)
    assert "code_log_density_prior" in found.metrics
    assert "code_log_density_mixture" not in found.metrics
    assert not any("a prior over" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("interpolate", {}),
        ("traverse", {}),
        ("manifold", {"size": 3}),
        ("arithmetic", {"minus": 0, "plus": 1}),
    ],
)
def test_explorers_that_make_codes_say_that_they_need_not_be_entries(
    explore, affine, x, name, options
):
    y, model = torch.arange(40) % 2, affine.Affine(SHAPE, (3,))
    provides = {"encode", "decode", "codebook"}
    found = explore(name, model, x, y, provides=provides, **options)
    assert sum(OFF in note for note in found.notes) == 1
    assert not any(OFF in note for note in explore(name, model, x, y, **options).notes)


def test_guided_moves_codes_off_the_codebook_and_has_no_density(tmp_path):
    data = {"data": "digits", "train": {"epochs": 1, "batch_size": 2000}, "quiet": True}
    codebook = FORGE.train("vq-vae", run=tmp_path / "vq", **data)
    classifier = FORGE.train("mlp-classifier", run=tmp_path / "mlp", **data)
    options = {"restarts": 1, "steps": 1, "settle": 0, "sample": 0, "quiet": True}
    codebook.explore("guided", roles={"classifier": classifier}, out=tmp_path / "out", **options)
    found = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert not any("log_prior" in text for text in [found["protocol"], *found["metrics"]])
    assert sum(OFF in note for note in found["notes"]) == 1
