"""Training options: schedules, gradient accumulation, clipping, EMA, early stopping."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from latentforge import Forge
from latentforge.config.schema import ScheduleConfig, TrainConfig
from latentforge.contracts import Batch, Step, Terms
from latentforge.engine.best_checkpoint import BestCheckpoint
from latentforge.engine.ema import ExponentialMovingAverage
from latentforge.engine.lr_schedule import lr_factor
from latentforge.engine.step import Trainee, split_batch, train_step
from latentforge.errors import ConfigError, UsageError
from latentforge.plugins.registry import Entry, Plugin
from latentforge.runs.checkpoint import CheckpointStore
from latentforge.specs import KINDS, CallbackSpec, LossSpec, MeasureSpec
from latentforge.workflows.session import format_facts

from ..plugin import plugin_of
from .steps import runner_of


def train(forge, run, *, data=None, model=None, **options):
    options = {"epochs": 2, "batch_size": 64, **options}
    small = {"hidden": [16], "latent_dim": 3, **(model or {})}
    return forge.train("ae", data=data or "digits", model=small, train=options, run=run, quiet=True)


# ---------------------------------------------------------------- schedules


def rates(schedule, epoch_length=10, epochs=12):
    return [lr_factor(schedule, index, epoch_length) for index in range(epochs * epoch_length)]


@pytest.mark.parametrize("name", ["linear", "cosine", "exponential"])
def test_a_schedule_begins_at_one_falls_to_its_end_and_stays_there(name):
    values = rates(ScheduleConfig(name=name, epochs=10, end=0.05))
    assert values[0] == 1.0
    assert values[100:] == pytest.approx([0.05] * 20)
    assert all(a > b for a, b in pairwise(values[:101]))


def test_schedules_match_their_formulas_half_way():
    half = {
        name: lr_factor(ScheduleConfig(name=name, epochs=10, end=0.04), 50, 10)
        for name in ("linear", "cosine", "exponential")
    }
    assert half == pytest.approx({"linear": 0.52, "cosine": 0.52, "exponential": 0.2})
    quarter = lr_factor(ScheduleConfig(name="cosine", epochs=10, end=0.04), 25, 10)
    assert quarter == pytest.approx(0.04 + 0.96 * (1 + math.sqrt(0.5)) / 2)


def test_cosine_matches_torch():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100, eta_min=0.01)
    for value in rates(ScheduleConfig(name="cosine", epochs=10), epochs=10):
        assert value == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_a_step_schedule_multiplies_by_its_factor_every_n_epochs():
    values = rates(ScheduleConfig(name="step", epochs=9, every=4, factor=0.5))
    assert [values[epoch * 10] for epoch in range(12)] == [1] * 4 + [0.5] * 4 + [0.25] * 4
    assert values[39:41] == [1, 0.5]


def test_warmup_rises_linearly_to_one_before_the_schedule():
    values = rates(ScheduleConfig(name="linear", epochs=10, warmup_epochs=2, end=0.2))
    assert values[:20] == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert values[60] == pytest.approx(0.6)
    assert values[100] == pytest.approx(0.2)


def test_the_optimizer_uses_the_scheduled_learning_rate(tmp_path):
    seen = []

    class Watch:
        def attach(self, engines):
            from ignite.engine import Events

            engines.trainer.add_event_handler(
                Events.ITERATION_COMPLETED,
                lambda _: seen.append(engines.optimizer.param_groups[0]["lr"]),
            )

    watch = CallbackSpec(name="watch", summary="", build=lambda config: Watch())
    run = Forge([plugin_of(watch)]).train(
        "ae",
        data="digits",
        model={"hidden": [4]},
        train={"epochs": 2, "batch_size": 512, "lr": 0.01, "schedule": {"name": "cosine"}},
        callbacks=["watch"],
        run=tmp_path / "run",
        quiet=True,
    )
    schedule = ScheduleConfig(name="cosine", epochs=2)
    expected = [0.01 * lr_factor(schedule, i, len(seen) // 2) for i in range(len(seen))]
    assert seen == pytest.approx(expected)
    assert run.config["train"]["schedule"]["epochs"] == 2  # the length is stored explicitly


def test_invalid_schedules_are_refused(forge, tmp_path):
    with pytest.raises(ConfigError) as caught:
        train(forge, tmp_path / "a", schedule={"warmup_epochs": 3.0})
    assert (
        "train.schedule (from train=): the warm-up (3 epochs) must be shorter"
        in caught.value.details[0]
    )
    with pytest.raises(ConfigError) as caught:
        train(forge, tmp_path / "b", schedule={"name": "cosin", "end": 0})
    assert [line.split(" ")[0] for line in caught.value.details] == [
        "train.schedule.name",
        "train.schedule.end",
    ]
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- one step


def trainee_and_optimizer(lr=0.1):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

    class Loss(nn.Module):
        def forward(self, model, batch, step):
            y = model.linear(batch.x)
            first = y.square().sum(1).mean()
            per_dim = {"size": y.detach().mean(0)}
            return Terms({"first": first, "second": y.sum(1).mean()}, {"second": 0.5}, per_dim)

    torch.manual_seed(0)
    trainee = Trainee(Model(), Loss())
    return trainee, torch.optim.SGD(trainee.parameters(), lr=lr)


def batch_of(count):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, generator=generator)
    return Batch(x, torch.arange(count), torch.arange(count))


STEP = Step(0, 10, 100, 5)


@pytest.mark.parametrize("parts", [2, 3, 7, 50])
def test_accumulated_parts_give_the_step_of_the_whole_batch(parts):
    whole, optimizer = trainee_and_optimizer()
    batch = batch_of(7)
    terms = train_step(runner_of(whole, batch, optimizer), batch.index, STEP)
    cut_up, optimizer = trainee_and_optimizer()
    runner = runner_of(cut_up, batch, optimizer, accumulate=parts)
    terms_cut = train_step(runner, batch.index, STEP)
    for a, b in zip(whole.parameters(), cut_up.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    for key in ("first", "second"):
        torch.testing.assert_close(terms.values[key].detach(), terms_cut.values[key])
    torch.testing.assert_close(terms.per_dim["size"], terms_cut.per_dim["size"])
    assert terms.weights == terms_cut.weights


def test_parts_contain_every_image_once_and_are_even():
    parts = list(split_batch(batch_of(7), 3))
    assert [len(part.index) for part in parts] == [3, 2, 2]
    assert torch.cat([part.index for part in parts]).tolist() == list(range(7))
    assert all(torch.equal(part.y, part.index) for part in parts)


def test_gradients_are_clipped_to_the_norm():
    free, optimizer = trainee_and_optimizer(lr=1.0)
    before = nn.utils.parameters_to_vector(free.parameters()).clone()
    batch = batch_of(8)
    train_step(runner_of(free, batch, optimizer), batch.index, STEP)
    step = nn.utils.parameters_to_vector(free.parameters()) - before
    clipped, optimizer = trainee_and_optimizer(lr=1.0)
    train_step(runner_of(clipped, batch, optimizer, clip_grad_norm=0.25), batch.index, STEP)
    small = nn.utils.parameters_to_vector(clipped.parameters()) - before
    assert step.norm() > 0.5
    assert small.norm().item() == pytest.approx(0.25, rel=1e-4)
    torch.testing.assert_close(small / small.norm(), step / step.norm())


def test_training_applies_clipping_and_accumulation(forge, tmp_path):
    plain = train(forge, tmp_path / "plain", epochs=1).metrics["train"]["loss"]
    parts = train(forge, tmp_path / "parts", epochs=1, accumulate=4).metrics["train"]["loss"]
    clipped = train(
        forge, tmp_path / "clipped", epochs=1, clip_grad_norm=1e-3, optimizer="sgd"
    ).metrics["train"]["loss"]
    assert parts == pytest.approx(plain, rel=1e-4)
    assert clipped > plain + 10  # 1e-3 * 1e-3 per step: hardly any progress


# ---------------------------------------------------------------- EMA weights


def test_ema_follows_its_formula():
    trainee, _ = trainee_and_optimizer()
    trainee.model.register_buffer("count", torch.tensor(0))
    trainee.model.register_buffer("statistic", torch.tensor(0.0))
    trainee.model.tied = nn.Linear(3, 2)
    trainee.model.tied.weight = trainee.model.linear.weight
    average = ExponentialMovingAverage(trainee, 0.9)
    expected = trainee.model.linear.weight.detach().clone()
    statistic = 0.0
    for index in range(200):
        with torch.no_grad():
            trainee.model.linear.weight.add_(0.01 * (index + 1))
            trainee.model.count += 1
            trainee.model.statistic += 1
        average.update(index)
        decay = min(0.9, (1 + index) / (10 + index))
        expected = decay * expected + (1 - decay) * trainee.model.linear.weight.detach()
        statistic = decay * statistic + (1 - decay) * (index + 1)
    torch.testing.assert_close(average.trainee.model.linear.weight, expected, rtol=1e-4, atol=1e-4)
    assert average.trainee.model.tied.weight is average.trainee.model.linear.weight
    assert average.trainee.model.count == 200
    assert float(average.trainee.model.statistic) == pytest.approx(statistic, rel=1e-5)
    assert not torch.equal(average.trainee.model.linear.weight, trainee.model.linear.weight)


def test_a_run_evaluates_saves_and_loads_ema_weights(forge, tmp_path):
    run = train(forge, tmp_path / "a", ema=0.99, data="digits")
    saved = CheckpointStore(run.path / "checkpoints").load()
    assert {"model", "ema-model"} <= set(saved.groups)
    average, live = saved.tensors("ema-model"), saved.tensors("model")
    loaded = run.load_model().state_dict()
    assert all(torch.equal(loaded[name], average[name]) for name in loaded)
    assert not torch.equal(live["encoder.0.weight"], average["encoder.0.weight"])
    result = forge.evaluate(run)
    assert result["weights"] == "exponential moving average, decay 0.99"
    assert result["metrics"]["recon"] == pytest.approx(run.metrics["test"]["recon"], rel=1e-6)
    assert result["weights"] == run.manifest["weights"]
    plain = train(forge, tmp_path / "b")
    assert plain.manifest["weights"] == "as trained"
    weights = CheckpointStore(plain.path / "checkpoints").load().tensors("model")
    assert all(torch.equal(weights[name], live[name]) for name in live)  # EMA changes nothing else


def reconstruction_pngs(run):
    """The PNG bytes of each epoch's reconstructions in TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path)).Reload()
    return [event.encoded_image_string for event in events.Images("reconstructions")]


def test_logged_reconstructions_use_ema_weights(forge, tmp_path):
    averaged = train(forge, tmp_path / "a", ema=0.999, epochs=1)
    plain = train(forge, tmp_path / "b", epochs=1)
    assert reconstruction_pngs(averaged) != reconstruction_pngs(plain)


def test_ema_averages_batch_norm_statistics(forge, tmp_path):
    run = forge.train(
        "conv-vae",
        data={"name": "digits", "size": 8},
        model={"channels": [4, 4], "hidden": 8, "latent_dim": 2},
        train={"epochs": 1, "ema": 0.99, "batch_size": 256},
        run=tmp_path / "a",
        quiet=True,
    )
    saved = CheckpointStore(run.path / "checkpoints").load()
    average, live = saved.tensors("ema-model"), saved.tensors("model")
    name = "encoder.2.running_mean"
    assert not torch.equal(average[name], live[name])
    counts = [k for k in live if k.endswith("num_batches_tracked")]
    assert counts
    assert all(torch.equal(average[k], live[k]) for k in counts)


# ---------------------------------------------------------------- best and early stopping


def selection(**options):
    better = options.pop("better", "lower")
    train = TrainConfig(**options)
    spec = MeasureSpec(
        name=train.monitor, summary="", build=lambda c, d: None, protocol="", better=better
    )
    return BestCheckpoint(train, Entry(KINDS["measures"], spec, Plugin("p", "", "", "p")))


def test_lower_is_better_and_nan_is_never_best():
    choice = selection(patience=3)
    values = [math.nan, 5.0, math.nan, 4.0, 4.0, math.nan, 6.0]
    judged = [choice.update({"loss": value}, i + 1) for i, value in enumerate(values)]
    assert judged == [False, True, False, True, False, False, False]
    assert (choice.score, choice.epoch, choice.waited) == (4.0, 4, 3)
    assert choice.exhausted


def test_higher_can_be_better_and_min_delta_applies():
    choice = selection(monitor="my-accuracy", min_delta=0.1, better="higher")
    judged = [choice.update({"my_accuracy": v}, i) for i, v in enumerate([0.5, 0.55, 0.7, 0.2])]
    assert judged == [True, False, True, False]
    assert not choice.exhausted  # patience 0 never stops


def test_a_missing_metric_is_named():
    with pytest.raises(UsageError, match="the validation split has no metric 'loss'") as caught:
        selection().update({"recon": 1.0}, 1)
    assert caught.value.details == ("available: recon",)


class Falling:
    """A measure whose validation metric gets worse from the third epoch on."""

    def __init__(self, values):
        self.values = values

    def update(self, seen):
        pass

    def compute(self):
        return {"falling": next(self.values)}


@pytest.fixture
def falling():
    values = iter([1.0, 0.5, 0.6, 0.7, 0.0, 0.0, 0.0])
    spec = {"name": "falling", "summary": "", "protocol": "", "default": False}
    return Forge([plugin_of(MeasureSpec(**spec, build=lambda config, context: Falling(values)))])


def test_early_stopping_leaves_a_complete_run(falling, tmp_path):
    run = train(falling, tmp_path / "a", epochs=9, monitor="falling", patience=2)
    assert (run.status, run.manifest["epochs"]) == ("done", 4)
    assert run.manifest["stopped"] == (
        "validation falling has not improved for 2 epochs (best 0.5 in epoch 2)"
    )
    assert run.manifest["best"] == {"epoch": 2, "validation/falling": 0.5}
    assert [line["epoch"] for line in run.history()] == [1, 2, 3, 4]
    assert ["test" in line for line in run.history()] == [False, False, False, True]
    best = CheckpointStore(run.path / "checkpoints").load("best")
    assert best.state["epoch"] == 2
    assert CheckpointStore(run.path / "checkpoints").load().state["waited"] == 2


def test_patience_without_a_validation_split_is_refused(forge, tmp_path):
    with pytest.raises(UsageError, match="need a validation split"):
        train(forge, tmp_path / "a", data={"name": "digits", "validation": 0.0}, patience=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy", "unknown measure 'acuracy', did you mean 'accuracy'?"),
        ("accuracy", "measure 'accuracy' needs classify"),
        ("fid", "measure 'fid' needs another run (classifier)"),
    ],
)
def test_a_monitor_that_cannot_be_computed_is_a_config_error(forge, tmp_path, name, message):
    with pytest.raises(ConfigError) as caught:
        train(forge, tmp_path / "a", monitor=name, model={"hidden": [0]})
    assert len(caught.value.details) == 1 + 1  # together with the other error
    assert message in caught.value.details[1]


@pytest.mark.parametrize("name", ["latentforge/psnr", "latentforge/recon"])
def test_a_monitor_accepts_a_qualified_name(forge, tmp_path, name):
    run = train(forge, tmp_path / "a", monitor=name, epochs=1)
    metric = name.removeprefix("latentforge/")
    assert run.manifest["best"] == {
        "epoch": 1,
        f"validation/{metric}": run.metrics["validation"][metric],
    }


def test_the_measure_defines_which_direction_is_better(forge, tmp_path):
    run = train(forge, tmp_path / "a", monitor="psnr", epochs=3)
    values = [line["validation"]["psnr"] for line in run.history()]
    assert values == sorted(values)  # training helps
    assert run.manifest["best"]["epoch"] == 3


def test_a_training_that_reaches_its_last_epoch_is_not_stopped(falling, tmp_path):
    run = train(falling, tmp_path / "a", epochs=4, monitor="falling", patience=2)
    assert (run.manifest["epochs"], run.manifest["stopped"]) == (4, "")


# ---------------------------------------------------------------- facts and vectors


def test_facts_with_one_name_and_several_units_share_a_line():
    facts = {"beta (sums)": 4.0, "sigma": None, "beta (mean over pixels)": 4 / 784, "n (of z)": 2}
    assert format_facts(facts) == [
        "beta: 4 (sums), 0.005102 (mean over pixels)",
        "sigma: None",
        "n: 2 (of z)",
    ]
    assert format_facts({}) == []


def test_a_vae_prints_its_beta_in_one_line_if_asked(cli, work):
    assert "beta" not in cli("train", "vae", "--epochs", 1, "--run", "plain").err
    lines = cli("train", "vae", "--epochs", 1, "--run", "vae", "--verbose").err.splitlines()
    assert [line[:5] for line in lines if "beta" in line] == ["beta:"]
    assert lines[0].startswith("beta: 1 (sums over pixels and latents), 0.001276 (mean over pixels")
    assert len(json.loads(Path("vae/run.json").read_text())["facts"]) == 4


def test_facts_are_stored_and_vectors_logged_each_epoch(tmp_path):
    class Loss(nn.Module):
        def forward(self, model, batch, step):
            z = model.encode(batch.x).mode()
            assert step.epoch == step.index / step.epoch_length
            return Terms({"size": z.square().mean()}, {}, {"codes": z.detach().mean(0)})

        def facts(self, model, data):
            return {"beta by pixel": 1 / data.size, "codes": model.latent.shape[0]}

    sized = LossSpec(name="sized", summary="", build=lambda c, d: Loss(), needs={"encode"})
    options = {"epochs": 2, "batch_size": 500}
    run = Forge([plugin_of(sized)]).train(
        "ae",
        data="digits",
        loss="sized",
        model={"latent_dim": 3},
        train=options,
        run=tmp_path / "a",
    )
    assert run.manifest["facts"] == {"beta by pixel": 1 / 784, "codes": 3}
    assert [len(line["per_dim"]["codes"]) for line in run.history()] == [3, 3]
    assert run.manifest["per_dim"] == run.history()[-1]["per_dim"]
