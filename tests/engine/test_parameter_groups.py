"""Parameter groups that callbacks add to the optimizer are trained, scheduled and resumed."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from torch import nn

from latentforge import CallbackSpec, Forge, ModelSpec
from latentforge.config.schema import ScheduleConfig
from latentforge.engine.lr_schedule import lr_factor
from latentforge.engine.optimizer import restore_optimizer
from latentforge.errors import PluginError, RunFailed, Terminated
from latentforge.runs.checkpoint import CheckpointStore

from ..plugin import plugin_of
from .stop import STOP

EPOCHS, BATCH = 4, 10
STEPS = 4  # per epoch
OWN = 0.02  # the learning rate of the added group
AE = {"hidden": [16], "latent_dim": 3}
COSINE = {"name": "cosine", "warmup_epochs": 0.5}


class Decoder:
    """Trains the decoder in a group of its own, from the start of `epoch` on; 0: from `attach`."""

    stores = True

    def __init__(self, epoch=0):
        self.epoch, self.added, self.rates = epoch, False, []

    def attach(self, engines):
        self.optimizer, self.parameters = engines.optimizer, [*engines.model.decoder.parameters()]
        [group], own = self.optimizer.param_groups, {*map(id, self.parameters)}
        group["params"] = [p for p in group["params"] if id(p) not in own]
        engines.trainer.add_event_handler(Events.EPOCH_STARTED, self.start)
        engines.trainer.add_event_handler(Events.ITERATION_COMPLETED, self.look)
        if not self.epoch:
            self.add()

    def start(self, trainer):
        if self.epoch == trainer.state.epoch and not self.added:
            self.add()

    def add(self):
        self.added = True
        self.optimizer.add_param_group({"params": self.parameters, "lr": OWN})

    def look(self):
        self.rates.append([group["lr"] for group in self.optimizer.param_groups])

    def state_dict(self):
        return {"added": self.added and self.stores}

    def load_state_dict(self, state):
        if state["added"] and self.epoch:
            self.add()


@pytest.fixture(scope="module")
def data():
    draw = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (STEPS * BATCH, 8, 8), generator=draw, dtype=torch.uint8)


def forge_with(build, *specs):
    return Forge([plugin_of(CallbackSpec(name="groups", summary="", build=build), STOP, *specs)])


def train(data, run, callback, *specs, model="ae", stop=None, **options):
    """Train with the callback; `stop` is the step after which the run is terminated."""
    built = []
    forge = forge_with(lambda config: built.append(callback()) or built[-1], *specs)
    settings = {"epochs": EPOCHS, "batch_size": BATCH, "threads": 1, "schedule": COSINE, **options}
    arguments = {
        "data": {"train": data, "test": data[:9], "validation": data[9:20]},
        "callbacks": ["groups", *([{"name": "stop", "step": stop}] if stop else [])],
        "model": AE if model == "ae" else None,
        "train": settings,
    }
    if stop:
        with pytest.raises(Terminated):
            forge.train(model, **arguments, run=run, quiet=True)
        forge.resume(run, data=arguments["data"], quiet=True)
    else:
        forge.train(model, **arguments, run=run, quiet=True)
    return built


def tensors(run):
    saved = CheckpointStore(run / "checkpoints").load()
    groups = {f"{g}/{n}": t for g in saved.groups for n, t in saved.tensors(g).items()}
    return groups, saved.state["optimizer"]


@pytest.mark.parametrize("epoch", [0, 2])
def test_an_added_group_follows_the_schedule_from_its_own_rate(data, tmp_path, epoch):
    [callback] = train(data, tmp_path / "run", lambda: Decoder(epoch), lr=0.01)
    schedule = ScheduleConfig(**COSINE, epochs=EPOCHS)
    factors = [lr_factor(schedule, step, STEPS) for step in range(EPOCHS * STEPS)]
    alone = STEPS * max(epoch - 1, 0)  # steps before the group is added
    expected = [[0.01 * f] if i < alone else [0.01 * f, OWN * f] for i, f in enumerate(factors)]
    assert callback.rates == [pytest.approx(rates) for rates in expected]


@pytest.mark.parametrize("options", [{}, {"accumulate": 3, "clip_grad_norm": 0.1, "ema": 0.9}])
@pytest.mark.parametrize(("epoch", "stop"), [(0, 6), (2, 2), (2, STEPS), (2, 6), (3, 9)])
def test_a_resumed_run_with_an_added_group_equals_an_uninterrupted_one(
    data, tmp_path, epoch, stop, options
):
    train(data, tmp_path / "whole", lambda: Decoder(epoch), **options)
    train(data, tmp_path / "halves", lambda: Decoder(epoch), stop=stop, **options)
    (whole, groups), (halves, other_groups) = (
        tensors(tmp_path / name) for name in ("whole", "halves")
    )
    assert len(groups) == 2
    assert groups == other_groups
    assert whole.keys() == halves.keys()
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


class Frozen(nn.Module):
    """An autoencoder whose decoder is not trained at first."""

    def __init__(self, data, frozen):
        super().__init__()
        from latentforge import LatentSpec

        self.latent, self.shape = LatentSpec((3,)), data.shape
        self.encoder, self.decoder = nn.Linear(data.size, 3), nn.Linear(3, data.size)
        self.decoder.requires_grad_(not frozen)

    def encode(self, x):
        from latentforge.latent import Point

        return Point(self.encoder(x.flatten(1)))

    def decode_logits(self, z):
        return self.decoder(z).unflatten(1, self.shape)

    def decode(self, z):
        return self.decode_logits(z).sigmoid()


def spec_of(frozen):
    return ModelSpec(
        name="frozen",
        summary="",
        build=lambda config, data: Frozen(data, frozen),
        provides={"encode", "decode", "decode_logits"},
        default_loss="reconstruction",
    )


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_gradients_of_an_added_group_do_not_accumulate(data, tmp_path, schedule):
    """Parameters that build has frozen are trained from epoch 2 on, or all from the start, with a
    rate of 0 until then."""

    class Thaw(Decoder):
        def attach(self, engines):
            self.optimizer, self.parameters = (
                engines.optimizer,
                [*engines.model.decoder.parameters()],
            )
            engines.trainer.add_event_handler(Events.EPOCH_STARTED, self.start)

        def add(self):
            for parameter in self.parameters:
                parameter.requires_grad_(True)
            super().add()

    class Still(Decoder):
        """Restores the weights of the decoder after each step of the first epoch."""

        def attach(self, engines):
            super().attach(engines)
            before = [p.detach().clone() for p in self.parameters]

            @engines.trainer.on(Events.ITERATION_COMPLETED)
            def restore(trainer):
                for parameter, value in zip(self.parameters, before, strict=True):
                    if trainer.state.epoch == 1:
                        parameter.data.copy_(value)

    options = {"optimizer": "sgd", "model": "frozen", "schedule": {"name": schedule}, "lr": 0.01}
    train(data, tmp_path / "thawed", lambda: Thaw(2), spec_of(frozen=True), **options)
    train(data, tmp_path / "still", lambda: Still(0), spec_of(frozen=False), **options)
    thawed, still = (tensors(tmp_path / name)[0] for name in ("thawed", "still"))
    weights = [name for name in thawed if name.startswith("model/")]
    assert len(weights) == 4
    for name in weights:
        torch.testing.assert_close(thawed[name], still[name], rtol=1e-6, atol=1e-7)


# ---------------------------------------------------------------- refused


class Odd:
    def __init__(self, change):
        self.change = change

    def attach(self, engines):
        self.change(engines.optimizer)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda optimizer: optimizer.add_param_group({"params": [nn.Parameter(torch.ones(7))]}),
            r"it added a parameter of shape \(7,\) to the optimizer that belongs neither",
        ),
        (lambda optimizer: optimizer.param_groups.pop(), "a parameter group was removed"),
    ],
    ids=["foreign", "removed"],
)
def test_a_change_that_cannot_be_trained_names_the_callback(
    data, tmp_path, schedule, change, message
):
    with pytest.raises(PluginError, match=message) as caught:
        train(data, tmp_path / "run", lambda: Odd(change), schedule={"name": schedule})
    assert caught.value.details[0].startswith("callback 'groups' of plugin Plugin")
    assert "model" not in str(caught.value.details)


def test_a_group_that_a_callback_does_not_add_again_names_the_callback(data, tmp_path):
    class Forgetful(Decoder):
        stores = False

    with pytest.raises(RunFailed) as caught:
        train(data, tmp_path / "run", lambda: Forgetful(2), stop=6)
    assert caught.value.message.startswith("the optimizer has 1 parameter group, in ")
    assert caught.value.message.endswith("it had 2")
    assert caught.value.details[0] == "callback 'groups' of plugin Plugin"
    assert "load_state_dict" in caught.value.hint


def test_a_state_of_another_parameter_is_refused():
    """Groups with the parameters in another order would pair states and parameters silently."""
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(3))])
    states = {"0.exp_avg": torch.zeros(2, 3), "1.exp_avg": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"exp_avg of parameter 1 .* shape \(2,\), its .* \(3,\)"):
        restore_optimizer(optimizer, states, [{}])
