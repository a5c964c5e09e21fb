"""A run keeps the other runs that it was trained with in its own folder, and needs nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch

from latentforge import ExplorerSpec, Forge, MeasureSpec, open_run
from latentforge.errors import ConfigError, MissingError, PluginError, RunFailed, UsageError
from latentforge.findings import Findings
from latentforge.runs.compatibility import build_draft, resolve_resumed_config
from latentforge.runs.roles import find_used_runs
from tests.plugin import plugin_of
from tests.workflows import stage_two

TRAIN = {"epochs": 2, "batch_size": 32, "threads": 1, "device": "cpu", "log_every": 1}


@pytest.fixture(scope="module")
def forge() -> Forge:
    return Forge([stage_two])


@pytest.fixture(scope="module")
def stage1(forge: Forge, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("one") / "vae"
    model = {"encoder": [16], "decoder": [16], "latent_dim": 3}
    return forge.train("vae", data=images(), model=model, train=TRAIN, run=path, quiet=True).path


def images(count: int = 90, seed: int = 0) -> dict:
    noise = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 8, 8, generator=noise) * torch.rand(count, 1, 1, generator=noise)
    return {"train": x, "test": x.flip(0)[:30], "validation": 0.2}


def train_flow(forge: Forge, source: Path, run: Path, **train):
    roles, data = {"autoencoder": source}, images()
    options = {**TRAIN, **train}
    return forge.train("latent-flow", data=data, roles=roles, train=options, run=run, quiet=True)


def weights(run) -> dict[str, torch.Tensor]:
    return run.load_model().state_dict()


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def copy_of(run: Path, target: Path) -> Path:
    shutil.copytree(run, target)
    return target


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"split_seed": 1}, "--set data.split_seed=0"),
        ({"validation": 0.3}, "--set data.validation=0.2"),
    ],
)
def test_a_role_of_another_split_is_announced(forge, stage1, tmp_path, options, hint, caplog):
    train_flow(forge, stage1, tmp_path / "same")
    assert not caplog.records
    roles, data = {"autoencoder": stage1}, {**images(), **options}
    train = {**TRAIN, "epochs": 1}
    forge.train("latent-flow", data=data, roles=roles, train=train, run=tmp_path / "flow")
    [message] = [m for m in caplog.messages if "another split" in m]
    assert f"autoencoder {stage1} was trained on another split of the images" in message
    assert message.endswith(f"try: {hint}")


def test_run_works_after_its_other_run_is_deleted(forge, stage1, tmp_path):
    source = copy_of(stage1, tmp_path / "vae")
    run = train_flow(forge, source, tmp_path / "flow")
    before = forge.evaluate(run, data=images())["metrics"]
    z = torch.randn(5, 3)
    decoded = run.load_model().decode(z)
    shutil.rmtree(source)
    moved = Path(shutil.move(run.path, tmp_path / "moved"))
    again = Forge([stage_two]).open_run(moved)
    assert forge.evaluate(again, data=images())["metrics"] == before
    assert torch.equal(again.load_model().decode(z), decoded)
    found = forge.decode(again, z, tmp_path / "decoded")
    assert found["images"] == 5


def test_export_without_the_other_run_gives_the_same_graph(forge, stage1, tmp_path):
    source = copy_of(stage1, tmp_path / "vae")
    run = train_flow(forge, source, tmp_path / "flow")
    before = forge.export(run, "decoder", out=tmp_path / "before")
    shutil.rmtree(source)
    again = Forge([stage_two]).open_run(run.path)
    after = forge.export(again, "decoder", out=tmp_path / "after")
    assert after["sha256"] == before["sha256"]
    z = torch.randn(7, 3)
    session = onnxruntime.InferenceSession(tmp_path / "after/model.onnx")
    (x,) = session.run(None, {"z": z.numpy()})
    expected = again.load_model().decode(z).detach()
    torch.testing.assert_close(torch.from_numpy(x), expected, rtol=0, atol=1e-5)


def test_resume_without_the_other_run_is_bit_identical(forge, stage1, tmp_path):
    source = copy_of(stage1, tmp_path / "vae")
    whole = train_flow(forge, source, tmp_path / "whole", epochs=4)
    part = train_flow(forge, source, tmp_path / "part", epochs=2)
    shutil.rmtree(source)
    resumed = forge.resume(part, train={"epochs": 4}, data=images(), quiet=True)
    assert same(weights(whole), weights(resumed))
    assert whole.metrics == resumed.metrics
    assert not same(weights(whole), weights(train_flow(forge, stage1, tmp_path / "seed", seed=1)))


def test_frozen_weights_are_in_no_checkpoint_and_no_average(forge, stage1, tmp_path):
    run = train_flow(forge, stage1, tmp_path / "flow", ema=0.9)
    assert all(name.startswith("net.") for name in weights(run))
    copy = open_run(run.path / "roles" / "autoencoder").load_model()
    one = open_run(stage1).load_model()
    assert same(one.state_dict(), copy.state_dict())
    assert not any(parameter.requires_grad for parameter in copy.parameters())


def test_standardized_codes_have_mean_0_and_deviation_1(forge, stage1, tmp_path):
    flow = train_flow(forge, stage1, tmp_path / "flow").load_model()
    role = flow.autoencoder
    role.use(forge.load_data(images()))
    with torch.no_grad():
        samples = torch.cat([role.codes("train", sample=True) for _ in range(40)])
        modes = role.codes("train")
        own = role.model.encode(role.images("train").batch_at(range(20)).x).mode()
    assert samples.mean(0).abs().max() < 0.05
    assert (samples.std(0) - 1).abs().max() < 0.05
    mean, deviation = role.scale
    assert torch.allclose(modes[:20] * deviation + mean, own, atol=1e-5)
    content = json.loads((tmp_path / "flow" / "roles" / "autoencoder" / "codes.json").read_text())
    assert content["mean"] == mean.tolist()


def test_codes_of_a_batch_are_those_of_its_own_split(forge, stage1, tmp_path):
    """Positions in one split must not select the codes of another one."""
    role = train_flow(forge, stage1, tmp_path / "flow").load_model().autoencoder
    splits = forge.load_data(images())
    role.use(splits)
    for name in ("train", "test", "validation"):
        batch = splits.split(name).batch(torch.tensor([3, 1]))
        fresh = batch.select(torch.tensor([0, 1]))
        fresh.images = None  # not a batch of a split: the model encodes it
        assert torch.allclose(role.encode(batch), role.encode(fresh), atol=1e-5)


def test_samples_of_a_stored_posterior_differ_in_each_step(forge, stage1, tmp_path):
    role = train_flow(forge, stage1, tmp_path / "flow").load_model().autoencoder
    splits = forge.load_data(images())
    batch = splits.split("train").batch(torch.arange(4))
    torch.manual_seed(1)
    one = role.encode(batch, sample=True), role.encode(batch, sample=True)
    torch.manual_seed(1)
    assert torch.equal(one[0], role.encode(batch, sample=True))
    assert not torch.equal(*one)
    assert torch.equal(role.encode(batch), role.encode(batch))


def test_three_stages(forge, stage1, tmp_path):
    source = copy_of(stage1, tmp_path / "vae")
    flow = train_flow(forge, source, tmp_path / "flow")
    roles = {"generator": flow}
    run = forge.train(
        "brighter", data=images(), roles=roles, train=TRAIN, run=tmp_path / "last", quiet=True
    )
    before = forge.evaluate(run, data=images())["metrics"]
    shutil.rmtree(source)
    shutil.rmtree(flow.path)
    assert forge.evaluate(run, data=images())["metrics"] == before
    [used] = find_used_runs(run)
    assert used.role == "generator"
    assert used.state == "missing"
    [inner] = used.uses
    assert (inner.role, inner.model) == ("autoencoder", "vae")
    assert "which uses autoencoder: vae (vae, step-" in used.describe()


def test_other_run_that_was_trained_further_is_noticed(forge, stage1, tmp_path):
    source = copy_of(stage1, tmp_path / "vae")
    run = train_flow(forge, source, tmp_path / "flow")
    assert find_used_runs(run)[0].state == "unchanged"
    forge.resume(source, train={"epochs": 3}, data=images(), quiet=True)
    [used] = find_used_runs(run)
    assert used.state == "changed"
    assert "trained further" in used.describe()


def test_submodule_of_a_role_is_refused(forge, stage1, tmp_path):
    with pytest.raises(PluginError, match="contains the model of its role autoencoder") as caught:
        forge.train(
            "latent-flow",
            data=images(),
            roles={"autoencoder": stage1},
            model={"registered": True},
            train=TRAIN,
            run=tmp_path / "bad",
        )
    assert "assign roles['autoencoder']" in caught.value.hint
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({}, "model 'latent-flow' needs a run for role autoencoder"),
        ({"encoder": "vae"}, "no role 'encoder'"),
        ({"autoencoder": "nothing"}, "no run at"),
        ({"autoencoder": "classifier"}, "role 'autoencoder' needs decode, encode"),
        ({"autoencoder": "other"}, "was trained on images unlike those of the new run"),
    ],
)
def test_wrong_roles_are_refused_before_a_folder_exists(forge, stage1, tmp_path, roles, message):
    shutil.copytree(stage1, tmp_path / "vae")
    x, y = torch.rand(40, 8, 8), torch.arange(40) % 2
    small = {"data": (x, y), "train": TRAIN, "quiet": True}
    if "classifier" in roles.values():
        forge.train("mlp-classifier", **small, run=tmp_path / "classifier")
    if "other" in roles.values():
        small["data"] = torch.rand(40, 6, 6)
        forge.train("ae", **small, run=tmp_path / "other")
    folders = {role: tmp_path / name for role, name in roles.items()}
    request = {"data": images(), "train": TRAIN, "run": tmp_path / "flow"}
    with pytest.raises((UsageError, MissingError), match=message):
        forge.train("latent-flow", roles=folders, **request)
    assert not (tmp_path / "flow").exists()


def test_resume_with_another_run_in_the_role_is_refused(forge, stage1, tmp_path):
    run = train_flow(forge, stage1, tmp_path / "flow")
    draft = build_draft(run)
    draft.update("roles", {"autoencoder": tmp_path / "other"}, "roles=")
    with pytest.raises(ConfigError) as caught:
        resolve_resumed_config(forge.registry, run, draft)
    assert "roles.autoencoder" in caught.value.details[0]


@pytest.fixture
def probing():
    """A forge with an explorer and a measure of the role `autoencoder`, which report its weights,
    with another explorer whose role needs more, and with one whose role is optional."""

    def probe(context, config):
        metrics = {name: float(probe_of(role)) for name, role in context.roles.items()}
        return Findings([], metrics, "a weight of each role")

    def probe_of(role):
        return next(role.model.parameters()).sum()

    class Weight:
        def __init__(self, context):
            self.context = context

        def update(self, seen):
            pass

        def compute(self):
            return {"role_weight": float(probe_of(self.context.roles["autoencoder"]))}

    needs = {"autoencoder": {"encode", "decode"}}
    return Forge(
        [
            stage_two,
            plugin_of(
                ExplorerSpec(name="probe", summary="s", explore=probe, roles=needs),
                ExplorerSpec(name="may", summary="s", explore=probe, optional_roles=needs),
                ExplorerSpec(
                    name="more", summary="s", explore=probe, roles={"autoencoder": {"classify"}}
                ),
                MeasureSpec(
                    name="role-weight",
                    summary="s",
                    protocol="a weight",
                    build=lambda config, context: Weight(context),
                    default=False,
                    roles=needs,
                ),
            ),
        ]
    )


def test_a_role_of_the_run_is_used_without_naming_it(probing, stage1, tmp_path):
    run = train_flow(probing, stage1, tmp_path / "flow")
    weight = float(next(probing.open_run(stage1).load_model().parameters()).sum())
    other = {"encoder": [16], "decoder": [16], "latent_dim": 3}
    given = probing.train(
        "vae", data=images(seed=1), model=other, train=TRAIN, run=tmp_path / "given", quiet=True
    )
    options = {"data": images(), "quiet": True}
    note = f"role autoencoder: the copy in the run, {run.path / 'roles' / 'autoencoder'}"
    found = probing.explore("probe", run, **options, out=tmp_path / "a")
    assert (found["metrics"], found["notes"]) == ({"autoencoder": pytest.approx(weight)}, [note])
    roles = {"roles": {"autoencoder": given}}
    found = probing.explore("probe", run, **options, **roles, out=tmp_path / "b")
    assert found["metrics"]["autoencoder"] != pytest.approx(weight)
    assert found["notes"] == []
    found = probing.explore("may", run, **options, out=tmp_path / "c")
    assert (found["metrics"], found["notes"]) == ({}, [])

    measured = probing.evaluate(run, measures=["role-weight"], data=images())
    assert measured["metrics"] == {"role_weight": pytest.approx(weight)}
    assert measured["notes"] == [note]
    with pytest.raises(UsageError, match="explorer 'more' needs a run for role autoencoder"):
        probing.explore("more", run, **options, out=tmp_path / "d")


def test_the_role_of_the_run_is_found_without_torch(forge, stage1, tmp_path):
    run = train_flow(forge, stage1, tmp_path / "flow")
    code = f"""
import sys
from latentforge import ExplorerSpec, Forge
from latentforge.runs.compatibility import open_roles, resolve_stored_config
from tests.plugin import plugin_of
from tests.workflows import stage_two

needs = {{"autoencoder": {{"encode"}}}}
spec = ExplorerSpec(name="p", summary="s", explore=print, roles=needs)
forge = Forge([stage_two, plugin_of(spec)])
run = forge.open_run({str(run.path)!r})
config = resolve_stored_config(forge.registry, run)
[found] = open_roles(forge.registry, None, [forge.registry.get("explorers", "p")], config)
print(found, "torch" in sys.modules)
"""
    root = Path(__file__).parents[2]
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert answer.stdout.split() == ["autoencoder", "False"], answer.stderr


def test_missing_copy_is_reported(forge, stage1, tmp_path):
    run = train_flow(forge, stage1, tmp_path / "flow")
    shutil.rmtree(run.path / "roles")
    with pytest.raises(MissingError, match="does not contain the run of its role autoencoder"):
        forge.open_run(run.path).load_model()


def test_damaged_copy_is_reported(forge, stage1, tmp_path):
    run = train_flow(forge, stage1, tmp_path / "flow")
    [file] = run.path.glob("roles/autoencoder/checkpoints/*/model.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(RunFailed, match="SHA-256"):
        run.load_model()


def test_damaged_scale_is_reported(forge, stage1, tmp_path):
    run = train_flow(forge, stage1, tmp_path / "flow")
    file = run.path / "roles" / "autoencoder" / "codes.json"
    file.write_text('{"mean": [0, 0, 0], "deviation": [1, 0, 1]}')
    with pytest.raises(RunFailed, match=r"codes\.json is damaged"):
        run.load_model()


def test_link_instead_of_a_copy_is_refused(forge, stage1, tmp_path):
    run = train_flow(forge, stage1, tmp_path / "flow")
    shutil.rmtree(run.path / "roles" / "autoencoder")
    (run.path / "roles" / "autoencoder").symlink_to(run.path)  # a cycle
    with pytest.raises(RunFailed, match="is a link"):
        run.load_model()


def test_sweep_over_other_runs(forge, stage1, tmp_path):
    other = copy_of(stage1, tmp_path / "second")
    forge.resume(other, train={"epochs": 3}, data=images(), quiet=True)
    sweep = forge.sweep(
        "latent-flow",
        grid={"roles.autoencoder": [str(stage1), str(other)]},
        data=images(),
        train=TRAIN,
        out=tmp_path / "sweep",
        quiet=True,
    )
    digests = {find_used_runs(run)[0].digest for run in sweep.runs()}
    assert len(digests) == 2


def test_show_and_runs_name_the_runs_that_a_run_uses(forge, stage1, tmp_path, cli):
    run = train_flow(forge, stage1, tmp_path / "flow")
    shown = cli("show", str(run.path)).out
    assert "uses autoencoder: vae (vae, step-" in shown
    assert "[roles]" in shown
    listed = cli("runs", str(tmp_path), "--json").json["runs"]
    assert listed[0]["uses"].startswith("autoencoder: vae (vae, step-")
    assert cli("show", str(run.path), "--json").json["uses"][0]["role"] == "autoencoder"


def test_report_names_the_runs_that_a_run_uses(forge, stage1, tmp_path):
    run = train_flow(forge, stage1, tmp_path / "flow")
    page = Path(forge.report(run)["report"]).read_text("utf-8")
    assert "Uses autoencoder: vae (vae, step-" in page


def test_a_run_is_repeated_with_its_copy_of_a_missing_run(cli, work, forge):
    """The configuration in `show` and in the report works after the first stage was deleted."""
    options = {"data": "digits", "train": {**TRAIN, "epochs": 1}, "quiet": True}
    first = forge.train("vae", model={"encoder": [8], "latent_dim": 3}, run="one", **options)
    run = forge.train("latent-flow", roles={"autoencoder": first}, run="flow", **options)
    copy = Path("flow/roles/autoencoder").resolve()
    shown = cli("show", "flow").out
    assert str(first.path.resolve()) in shown
    assert str(copy) not in shown
    shutil.rmtree("one")
    with pytest.raises(MissingError) as caught:
        forge.train("latent-flow", roles={"autoencoder": "one"}, **options)
    assert caught.value.details == ("another run contains a copy of it",)
    assert caught.value.hint.startswith(f"{copy}, or ")
    shown = cli("show", "flow").out
    forge.report("flow", out="report.html")
    assert str(copy) in Path("report.html").read_text()
    Path("flow.toml").write_text(shown[shown.index("[model]") :])
    again = forge.train(config="flow.toml", run="again", quiet=True)
    assert same(weights(run), weights(again))
    assert again.metrics == run.metrics
