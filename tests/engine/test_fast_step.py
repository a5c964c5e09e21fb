"""The fast paths of a step change its implementation, not its result."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo
from torch import nn

from latentforge import Forge, open_run
from latentforge.config.request import draft_request
from latentforge.config.resolve import resolve
from latentforge.config.schema import TrainConfig
from latentforge.contracts import Batch, Step
from latentforge.engine.build import build_modules, build_trainee
from latentforge.engine.compiled import NumberlessStep, NumberRead
from latentforge.engine.cuda_graph import distance, restore_tensors, written_tensors
from latentforge.engine.memory_format import is_channels_last, set_memory_format
from latentforge.engine.step import StepRunner, Trainee, train_step
from latentforge.errors import UsageError

from .steps import runner_of

STEP = Step(index=3, total=10, images=64, epoch_length=5)


@pytest.fixture(scope="module")
def digits():
    return Forge().load_data("digits")


def train(tmp_path, name, **train):
    folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
    settings = {"epochs": 2, "batch_size": 128, **train}
    return Forge().train(name, data="digits", train=settings, run=folder, quiet=True)


@pytest.mark.parametrize(
    "name", ["cnn-classifier", pytest.param("conv-vae", marks=pytest.mark.slow)]
)
def test_channels_last_convolutions_train_to_the_same_metrics(tmp_path, name):
    plain = train(tmp_path, name, channels_last="off")
    fast = train(tmp_path, name)
    assert fast.manifest["steps_made"]["channels_last"] is True
    assert plain.manifest["steps_made"]["channels_last"] is False
    assert is_channels_last(fast.load_model())
    for split, metrics in plain.metrics.items():
        assert fast.metrics[split]["loss"] == pytest.approx(metrics["loss"], rel=1e-2)
    # evaluated from the checkpoint in the memory format of the training: bit-identical
    assert open_run(fast.path).evaluate()["loss"] == fast.metrics["test"]["loss"]


def test_only_convolutions_become_channels_last():
    def becomes_channels_last(module, **config):
        set_memory_format(module, TrainConfig(**config))
        return is_channels_last(module)

    assert not becomes_channels_last(nn.Linear(4, 3))
    assert becomes_channels_last(nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert not becomes_channels_last(nn.Conv2d(3, 4, 3), channels_last="off")


@pytest.mark.parametrize(
    "name",
    ["vae", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ae", "cnn-classifier"))],
)
def test_bf16_trains_to_float32_metrics_with_float32_weights(tmp_path, name):
    full, half = train(tmp_path, name), train(tmp_path, name, precision="bf16")
    assert half.manifest["steps_made"]["precision"] == "bf16"
    assert {p.dtype for p in half.load_model().parameters()} == {torch.float32}
    assert half.metrics["test"]["loss"] == pytest.approx(full.metrics["test"]["loss"], rel=0.03)


def test_bf16_multiplies_in_bfloat16_and_sums_the_loss_in_float32(digits):
    seen = []
    net = nn.Linear(64, 64)
    net.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def decode_logits(self, z):
            return self.net(z)

    from latentforge.contracts import Terms
    from latentforge.latent import Bernoulli

    class Loss(nn.Module):
        def forward(self, model, batch, step):
            return Terms({"recon": Bernoulli().mean_nll(model, batch.x, batch.x)})

    trainee = Trainee(Model(), Loss(), "bf16")
    x = torch.rand(8, 64)
    batch = Batch(x, None, torch.arange(8))
    terms = train_step(runner_of(trainee, batch), batch.index, STEP)
    assert seen == [torch.bfloat16]
    assert terms.values["recon"].dtype == torch.float32


def test_a_step_leaves_no_autograd_graph(digits):
    trainee = trainee_of("vae", digits)
    batch = digits.split("train").batch(torch.arange(8))
    terms = train_step(runner_of(trainee, batch), batch.index, STEP)
    assert all(value.grad_fn is None for value in terms.values.values())


def trainee_of(name, digits, **loss) -> Trainee:
    from latentforge.config.request import Draft

    forge, draft = Forge(), Draft()
    draft.select("model", name, "the test")
    draft.update("loss", loss, "the test")
    return Trainee(*build_modules(resolve(draft, forge.registry), digits.spec))


@pytest.mark.parametrize(
    ("name", "loss", "reads"),
    [
        ("ae", {}, None),
        ("vae", {}, None),
        ("beta-vae", {}, None),
        ("cnn-classifier", {}, None),
        ("beta-vae", {"schedule": "linear"}, "epoch"),
        ("beta-vae", {"capacity": 5.0}, "epoch"),
    ],
)
def test_only_losses_with_a_schedule_read_the_step(digits, name, loss, reads):
    trainee = trainee_of(name, digits, **loss)
    batch = digits.split("train").batch(torch.arange(8))
    step = NumberlessStep(-1, 10, 100, 5)
    if reads is None:
        assert torch.isfinite(trainee(batch, step).total())
    else:
        with pytest.raises(NumberRead, match=rf"step\.{reads}"):
            trainee(batch, step)


def test_restored_tensors_are_bit_identical(digits):
    """As the self-test of the CUDA graph does, here on the CPU."""
    forge = Forge()
    draft, _ = draft_request(forge.registry, "conv-vae", train={"batch_size": 16})
    config = resolve(draft, forge.registry)
    trainee = build_trainee(config, digits).train()
    runner = StepRunner(trainee, digits.split("train"), config, torch.device("cpu"))
    runner.start_epoch(0)
    runner.run(0)
    stored = [(tensor, tensor.clone()) for tensor in written_tensors(runner)]
    before = [value for _, value in stored]
    runner.run(1)
    assert distance(written_tensors(runner), before) > 0
    restore_tensors(stored)
    assert all(torch.equal(a, b) for a, b in zip(written_tensors(runner), before, strict=True))


def test_a_cuda_graph_is_refused_without_cuda(tmp_path):
    with pytest.raises(UsageError, match="no CUDA graphs"):
        train(tmp_path, "ae", cuda_graph="on", device="cpu")
    assert not list(tmp_path.iterdir())
    run = train(tmp_path, "ae", device="cpu")
    assert run.manifest["steps_made"]["cuda_graph"] == "no: device type cpu has no CUDA graphs"


def test_compile_is_ignored_for_a_loss_that_reads_the_step(tmp_path, caplog):
    run = Forge().train(
        "vae",
        data="digits",
        loss={"name": "beta-elbo", "schedule": "linear"},
        train={"epochs": 1, "batch_size": 500, "compile": True},
        run=tmp_path / "run",
        quiet=True,
    )
    assert run.manifest["steps_made"]["compile"] is False
    assert "train.compile is ignored: the loss reads step.epoch" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vae", "cvae"])
def test_compiled_training_matches_eager_metrics(tmp_path, model):
    plain = train(tmp_path, model)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = train(tmp_path, model, compile=True)
    assert compiled.manifest["steps_made"]["compile"] is True
    # one for whole batches and one for the last, none for each step number
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    # compiled kernels draw different noise, which is a function of the step too
    assert compiled.metrics["test"]["loss"] == pytest.approx(
        plain.metrics["test"]["loss"], rel=0.01
    )
    again = train(tmp_path, model, compile=True)
    assert again.metrics["test"]["loss"] == compiled.metrics["test"]["loss"]
