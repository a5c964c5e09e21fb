"""Training: its result, its reproducibility and its end."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from ignite.engine import Events

from latentforge import CallbackSpec, Forge, LossSpec, MeasureSpec, ModelSpec
from latentforge.contracts import Terms
from latentforge.errors import ConfigError, PluginError
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.seeding import permutation

from ..plugin import plugin_of

SMALL = {"hidden": [32], "latent_dim": 4}


def weights(run, checkpoint="last"):
    return CheckpointStore(run.path / "checkpoints").load(checkpoint).tensors("model")


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def train(forge, folder, model="ae", *, callbacks=(), loss=None, **train):
    options = {"callbacks": callbacks, "loss": loss, "run": folder, "quiet": True}
    options["model"] = SMALL if model == "ae" else None
    return forge.train(model, train={"epochs": 2, **train}, **options)


@pytest.mark.parametrize("model", ["ae", "cnn-classifier"])
def test_a_seed_gives_bit_identical_weights(forge, tmp_path, model):
    first = weights(train(forge, tmp_path / "a", model))
    torch.rand(7)  # earlier draws do not matter
    assert same(first, weights(train(forge, tmp_path / "b", model)))
    assert not same(first, weights(train(forge, tmp_path / "c", model, seed=1)))


def test_logging_and_evaluating_do_not_change_the_training(forge, tmp_path):
    plain = train(forge, tmp_path / "a", "cnn-classifier")  # dropout draws noise in every step
    watched = train(forge, tmp_path / "b", "cnn-classifier", evaluate_every=1, log_every=1)
    assert same(weights(plain), weights(watched))
    assert "test" not in plain.history()[0]
    assert 0 <= watched.history()[0]["test"]["accuracy"] <= 1


def test_the_random_state_of_the_caller_is_unchanged(forge, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run = train(forge, tmp_path / "a")
    run.evaluate()
    run.explore("interpolate")
    assert torch.equal(torch.rand(3), expected)


def test_training_matches_a_plain_loop(forge, tmp_path):
    """An independent loop from the same weights, in the same order, gives the same weights."""
    run = train(forge, tmp_path / "a", epochs=1, lr=1e-9)  # practically the initial weights
    model = run.load_model()
    model.requires_grad_(True)
    images = forge.load_data("digits").split("train")
    x = images.x.float().flatten(1) / 255
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, foreach=False, fused=False)
    losses = []
    for epoch in range(2):
        total = 0.0
        for index in permutation(len(x), 0, epoch).split(64):
            recon = model.decoder(model.encoder(x[index])).sigmoid()
            loss = F.binary_cross_entropy(recon, x[index], reduction="sum") / len(index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)
        losses.append(total / len(x))
    trained = train(forge, tmp_path / "b")
    for name, value in weights(trained).items():
        torch.testing.assert_close(value, model.state_dict()[name], atol=2e-4, rtol=0)
    history = [line["train"]["recon"] for line in trained.history()]
    assert history == pytest.approx(losses, rel=1e-4)


def test_the_checkpoint_contains_model_and_optimizer(forge, tmp_path):
    run = train(forge, tmp_path / "a")
    saved = CheckpointStore(run.path / "checkpoints").load()
    assert (saved.state["epoch"], saved.state["step"]) == (2, run.manifest["steps"])
    model, optimizer = saved.tensors("model"), saved.tensors("optimizer")
    assert {k.split(".")[0] for k in optimizer} == {str(i) for i in range(len(model))}
    for i, (name, value) in enumerate(run.load_model().named_parameters()):
        assert torch.equal(model[name], value)
        assert optimizer[f"{i}.exp_avg"].shape == value.shape
        assert optimizer[f"{i}.step"] == run.manifest["steps"]


def test_best_is_the_epoch_with_the_lowest_validation_loss(forge, tmp_path):
    # a step size at which the loss soon rises again
    run = train(forge, tmp_path / "a", epochs=6, lr=0.2)
    scores = [line["validation"]["loss"] for line in run.history()]
    store = CheckpointStore(run.path / "checkpoints")
    best = store.load("best").state["epoch"]
    assert best == 1 + scores.index(min(scores)) < 6
    metrics = run.evaluate("validation", checkpoint="best")
    assert metrics["loss"] == pytest.approx(min(scores), rel=1e-5)


@pytest.mark.parametrize(
    "name", ["adam", "adamw", "sgd", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam"]
)
def test_every_optimizer_lowers_the_loss(forge, tmp_path, name):
    lr = {"sgd": 1e-2, "radam": 1e-2, "adadelta": 1.0}.get(name, 1e-3)
    run = train(forge, tmp_path / name, epochs=2, optimizer=name, lr=lr)
    first, last = (line["train"]["loss"] for line in run.history())
    assert last < 0.98 * first


def test_optimizer_options_are_applied_and_unknown_ones_named(forge, tmp_path):
    options = {"optimizer": "sgd", "lr": 1e-4}
    plain = train(forge, tmp_path / "a", **options)
    momentum = train(forge, tmp_path / "b", optimizer_options={"momentum": 0.9}, **options)
    assert momentum.metrics["train"]["loss"] < plain.metrics["train"]["loss"] - 5
    with pytest.raises(ConfigError) as caught:
        train(forge, tmp_path / "c", optimizer_options={"momentun": 0.9}, **options)
    assert "momentun" in caught.value.details[0]


class Watch:
    """Records each step and the metrics of each evaluation; stops the training at step `stop`."""

    def __init__(self, stop=0):
        self.stop, self.steps, self.seen = stop, [], []

    def attach(self, engines):
        from ignite.engine import Events

        @engines.trainer.on(Events.ITERATION_COMPLETED)
        def handle():
            step = engines.trainer.state.iteration
            self.steps.append(step)
            engines.log("seen", step)
            if step == self.stop:
                engines.trainer.terminate()

        @engines.evaluator.on(Events.COMPLETED)
        def look():
            state = engines.evaluator.state
            self.seen.append((state.split, dict(state.metrics)))


def train_watched(watch, folder, **options):
    spec = CallbackSpec(name="watch", summary="x", build=lambda config: watch)
    return train(Forge([plugin_of(spec)]), folder, callbacks=["watch"], **options)


def test_a_callback_sees_every_step_and_the_metrics_of_each_evaluation(tmp_path):
    watch = Watch()
    run = train_watched(watch, tmp_path / "a")
    assert watch.steps == list(range(1, run.manifest["steps"] + 1))
    assert [split for split, _ in watch.seen] == ["validation", "validation", "test"]
    assert watch.seen[-1][1] == run.metrics["test"]


def test_a_callback_that_stops_the_trainer_leaves_a_complete_run(tmp_path):
    run = train_watched(Watch(stop=30), tmp_path / "a", epochs=4)
    assert (run.status, run.manifest["steps"], run.manifest["epochs"]) == ("done", 30, 1)
    assert CheckpointStore(run.path / "checkpoints").load().state["step"] == 30
    assert run.evaluate() == pytest.approx(run.metrics["test"], rel=1e-6)
    last = run.history()[-1]
    assert (last["epoch"], last["step"]) == (2, 30)
    assert last["test"] == run.metrics["test"]
    assert last["validation"] == run.metrics["validation"]


class Broken(torch.nn.Module):
    """A loss that breaks the contract in one way."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.calls = 0

    def forward(self, model, batch, step):
        self.calls += 1
        value = batch.x.mean() * sum(p.sum() for p in model.parameters())
        return {
            "dict": {"a": value},
            "float": Terms({"a": 1.0}),
            "vector": Terms({"a": value.expand(3)}),
            "loss": Terms({"loss": value}),
            "weight": Terms({"a": value}, {"b": 1.0}),
            "zero": Terms({"a": value}, {"a": 0.0}),
            "changing": Terms({"a" if self.calls == 1 else "b": value}),
        }[self.how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("dict", "returned dict, not Terms"),
        ("float", "'a' must be a 0-d tensor"),
        ("vector", "'a' must be a 0-d tensor"),
        ("loss", "cannot be called 'loss'"),
        ("weight", "'b', which is not a term"),
        ("zero", "nothing to train on"),
        ("changing", "terms changed"),
    ],
)
def test_a_loss_that_breaks_the_contract_is_named(tmp_path, how, message):
    broken = LossSpec(name="broken", summary="x", build=lambda config, data: Broken(how))
    with pytest.raises(PluginError, match=message) as caught:
        train(Forge([plugin_of(broken)]), tmp_path / "a", loss="broken")
    assert "loss 'broken' of plugin Plugin" in " ".join(caught.value.details)


def test_a_model_that_is_not_a_module_is_named(tmp_path):
    nothing = ModelSpec(
        name="nothing",
        summary="x",
        build=lambda config, data: None,
        provides={"encode", "decode", "decode_logits"},
        default_loss="reconstruction",
    )
    with pytest.raises(PluginError, match=r"build returned NoneType, not an nn\.Module"):
        train(Forge([plugin_of(nothing)]), tmp_path / "a", "nothing")
    assert not (tmp_path / "a").exists()


def test_train_threads_applies_only_during_training(forge, tmp_path):
    before = torch.get_num_threads()
    run = train(forge, tmp_path / "a", epochs=1, threads=before + 1)
    assert run.manifest["environment"]["threads"] == before + 1
    assert torch.get_num_threads() == before


class Warming(torch.nn.Module):
    """A loss with a constant second term whose weight grows from 0."""

    def forward(self, model, batch, step):
        recon = model.decode(model.encode(batch.x).sample())
        error = (recon - batch.x).square().flatten(1).sum(1).mean()
        return Terms(
            {"recon": error, "flat": error.detach() * 0 + 100}, {"flat": step.index / step.total}
        )


def test_a_warm_up_does_not_make_early_weights_the_best(tmp_path):
    warming = LossSpec(name="warming", summary="x", build=lambda config, data: Warming())
    run = train(Forge([plugin_of(warming)]), tmp_path / "a", loss="warming", epochs=4)
    recon = [line["validation"]["mse_per_pixel"] for line in run.history()]
    assert recon[-1] < recon[0]
    assert CheckpointStore(run.path / "checkpoints").load("best").state["epoch"] == 4


class Drawing:
    """A measure that draws noise when it is built and when it is computed."""

    def __init__(self):
        self.built = torch.rand(()).item()

    def update(self, seen):
        torch.rand(5)

    def compute(self):
        return {"built": self.built, "asked": torch.rand(()).item(), "nothing": float("nan")}


def test_a_measure_has_its_own_noise_and_nan_ends_no_run(tmp_path):
    drawing = MeasureSpec(
        name="drawing", summary="x", protocol="x", build=lambda config, context: Drawing()
    )
    run = train(Forge([plugin_of(drawing)]), tmp_path / "a", epochs=1)
    torch.rand(3)
    alone = run.evaluate(measures=["drawing"])
    all_metrics = run.evaluate()
    for name in ("built", "asked"):
        assert alone[name] == all_metrics[name] == run.metrics["test"][name]


def test_images_of_two_channels_train_without_pictures(forge, tmp_path):
    run = forge.train(
        "ae", data=torch.rand(60, 2, 8, 8), train={"epochs": 1}, run=tmp_path / "a", quiet=True
    )
    assert run.status == "done"
    assert not any(file.endswith(".png") for file in run.explore("interpolate")["files"])


def test_the_speed_of_an_epoch_is_that_of_its_own_steps(tmp_path, monkeypatch):
    clock = 0.0
    fake = SimpleNamespace(perf_counter=lambda: clock, monotonic=time.monotonic)
    monkeypatch.setattr("latentforge.engine.trainer.time", fake)

    class Slow:
        def attach(self, engines):
            @engines.trainer.on(Events.ITERATION_COMPLETED)
            def each_step(engine):
                nonlocal clock
                clock += 4.0 if engine.state.epoch == 1 else 1.0

    spec = CallbackSpec(
        name="slow", summary="A clock that is slow at first", build=lambda _: Slow()
    )
    run = train(Forge([plugin_of(spec)]), tmp_path / "run", callbacks=["slow"], epochs=3)
    steps, images = run.manifest["steps"] / 3, 1294  # of the digits
    speeds = [line["images_per_second"] for line in run.history()]
    assert speeds == pytest.approx([images / (4 * steps), images / steps, images / steps])
