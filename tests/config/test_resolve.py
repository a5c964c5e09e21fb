"""Resolving a configuration: sources of values, their precedence, and refusals."""

from __future__ import annotations

import math
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from latentforge import CallbackSpec, Fraction, Size
from latentforge.config.request import Draft, read_toml, toml_value
from latentforge.config.resolve import resolve
from latentforge.config.schema import RunConfig
from latentforge.errors import ConfigError, PluginError, UsageError
from latentforge.io.toml import format_toml, format_toml_value
from latentforge.plugins.loading import load_plugins

from ..plugin import plugin_of


@dataclass(frozen=True)
class Every:
    every: Size = 1
    share: Fraction = 0.5


CALLBACKS = [
    CallbackSpec(name=name, summary="", build=lambda config: None, config=Every)
    for name in ("swap", "note")
]
REGISTRY = load_plugins([plugin_of(*CALLBACKS)])


def draft(text: str = '[model]\nname = "ae"\n', *assignments: str, folder: Path) -> Draft:
    file = folder / "run.toml"
    file.write_text(text, "utf-8")
    made = Draft()
    made.read_file(file)
    made.assign_all(assignments)
    return made


@pytest.fixture
def config(tmp_path):
    """Resolves the configuration of a file and assignments."""

    def make(text: str = '[model]\nname = "ae"\n', *assignments: str) -> RunConfig:
        return resolve(draft(text, *assignments, folder=tmp_path), REGISTRY)

    return make


@pytest.fixture
def faults(tmp_path):
    """Returns the errors in a file and assignments; the folder is removed from paths."""

    def collect(text: str = '[model]\nname = "ae"\n', *assignments: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            resolve(draft(text, *assignments, folder=tmp_path), REGISTRY)
        assert caught.value.exit_code == 2
        return [line.replace(f"{tmp_path}/", "") for line in caught.value.details]

    return collect


# ---------------------------------------------------------------- precedence


def test_model_name_alone_gives_all_defaults(config):
    made = config()
    assert (made.model.name, made.loss.name, made.data_name) == ("ae", "reconstruction", "digits")
    assert made.model.options.latent_dim == 16
    assert (made.train.epochs, made.train.batch_size, made.train.lr) == (10, 64, 2e-3)
    assert made.callbacks == ()


def test_options_override_the_file_and_set_overrides_both(tmp_path):
    made = draft('[model]\nname = "ae"\n[train]\nepochs = 1\nlr = 0.1\nseed = 5', folder=tmp_path)
    made.put("train", "epochs", 2, "--epochs")
    made.put("train", "lr", 0.2, "--lr")
    made.assign("train.lr=0.3")
    train = resolve(made, REGISTRY).train
    assert (train.epochs, train.lr, train.seed) == (2, 0.3, 5)


def test_a_model_has_defaults_of_train_which_everything_else_overrides(config):
    assert config('[model]\nname="vae"').train.lr == 2e-3
    assert config('[model]\nname="vae"\n[train]\nlr=1e-4').train.lr == 1e-4
    assert config('[model]\nname="vae"', "train.lr=0.5").train.lr == 0.5
    assert config('[model]\nname="mlp-classifier"').train.lr == 1e-3


def test_the_last_of_two_assignments_wins(config):
    assert config('[model]\nname="ae"', "train.epochs=2", "train.epochs=3").train.epochs == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("true", True),
        ("[128, 64]", [128, 64]),
        ("{a = 1}", {"a": 1}),
        ('"3"', "3"),
        ("relu", "relu"),
        ("", ""),
        ("/data/mnist", "/data/mnist"),
        ("a=b", "a=b"),
        ("1\nepochs = 2", "1\nepochs = 2"),  # a line break cannot add another key
        ("1\n[train]\nepochs = 2", "1\n[train]\nepochs = 2"),
        ("# nothing", "# nothing"),
    ],
)
def test_command_line_value_is_toml_or_else_plain_text(text, value):
    assert toml_value(text) == value
    assert type(toml_value(text)) is type(value)


def test_assigned_value_may_contain_an_equals_sign(config):
    made = config('[model]\nname="ae"\n[data]\nname="mnist"', "data.root=/a=b")
    assert made.dataset.options.root == Path("/a=b")


def test_dotted_key_merges_into_the_table_of_the_file(config, faults):
    text = '[model]\nname="ae"\n[train]\noptimizer_options={amsgrad=true}'
    made = config(text, "train.optimizer_options.eps=1e-6")
    assert made.train.optimizer_options == {"amsgrad": True, "eps": 1e-6}
    assert faults(text, "train.epochs=2", "train.epochs.eps=3") == [
        "--set train.epochs.eps=3: train.epochs is not a table"
    ]


def test_component_name_applies_before_its_options(config):
    made = config('[model]\nname="ae"\n[data]\nname="mnist"', "data.size=14", "data.name=digits")
    assert (made.dataset.name, made.dataset.options.size) == ("digits", 14)


def test_relative_paths_are_stored_as_absolute_paths(config):
    made = config('[model]\nname="ae"\n[data]\nname="mnist"', "data.root=here")
    assert made.dataset.options.root == Path.cwd() / "here"


def test_selecting_another_component_drops_the_previous_options(tmp_path):
    text = (
        '[model]\nname = "ae"\nhidden = [8]\n[loss]\nname = "reconstruction"\nsigma = 2.0\n'
        '[data]\nname = "digits"\nsize = 16\nvalidation = 0.3\n'
    )
    made = draft(text, folder=tmp_path)
    made.select("model", "cnn-classifier", "the model's name")
    made.select("loss", "cross-entropy", "--loss")
    made.select("data", "mnist", "--data")
    config = resolve(made, REGISTRY)
    assert config.as_dict()["model"] == {
        "name": "cnn-classifier",
        "channels": [8, 16, 32],
        "dropout": 0.5,
    }
    assert config.as_dict()["loss"] == {"name": "cross-entropy"}
    assert config.dataset.name == "mnist"
    assert config.data.validation == 0.3  # a key of the core applies to every dataset


def test_selecting_the_same_component_keeps_its_options(config):
    made = config('[model]\nname = "ae"\nlatent_dim = 3', "model.name=ae")
    assert made.model.options.latent_dim == 3


def test_qualified_name_selects_the_same_component(config):
    assert config('[model]\nname = "latentforge/ae"').model.name == "ae"


# ---------------------------------------------------------------- callbacks


def test_callbacks_come_from_tables_and_from_the_command_line(tmp_path):
    text = '[model]\nname = "ae"\n[[callbacks]]\nname = "swap"\nevery = 3\n'
    made = draft(text, "callbacks.swap.share=0.25", folder=tmp_path)
    made.enable_callback("note")
    made.enable_callback("swap")  # already enabled: no second instance
    chosen = resolve(made, REGISTRY).callbacks
    assert [(c.name, c.options) for c in chosen] == [
        ("swap", Every(3, 0.25)),
        ("note", Every(1, 0.5)),
    ]


def test_assignment_enables_a_callback(config):
    (chosen,) = config('[model]\nname = "ae"', "callbacks.note.every=7").callbacks
    assert (chosen.name, chosen.options.every) == ("note", 7)


@pytest.mark.parametrize(
    ("name", "assignment", "hint"),
    [
        ("swap", "swap.every=3", "write callbacks.swap.every=3"),
        ("swap", "Swop.every=3", "did you mean 'callbacks.swap.every=3'?"),
        ("Plugin/swap", "swap.every=3", "write callbacks.Plugin/swap.every=3"),
        ("Plugin/swap", "Plugin/swap.every=3", "write callbacks.Plugin/swap.every=3"),
    ],
)
def test_options_of_a_requested_callback_need_their_section(faults, config, name, assignment, hint):
    text = f'[model]\nname = "ae"\n[[callbacks]]\nname = "{name}"\n'
    assert faults(text, assignment) == [f"--set {assignment}: no such section; {hint}"]
    right = hint.removeprefix("write ").removeprefix("did you mean ").strip("'?")
    (chosen,) = config(text, right).callbacks
    assert chosen.options.every == 3


def test_errors_in_callbacks_are_reported_with_their_index(faults):
    lines = faults(
        '[model]\nname = "ae"\n[[callbacks]]\nname = "swop"\n[[callbacks]]\nevery = 2\n'
        '[[callbacks]]\nname = "swap"\nevery = 0\nevry = 1\n',
        "callbacks.note.share=1",
    )
    assert [line.partition(":")[0].partition(" (")[0] for line in lines] == [
        "callbacks[0].name",
        "callbacks[1].name",
        "callbacks[2].every",
        "callbacks[2].evry",
        "callbacks[3].share",
    ]
    assert "did you mean 'swap'?" in lines[0]
    assert "is required" in lines[1]
    assert "did you mean 'every'?" in lines[3]


def test_callbacks_that_are_not_tables_are_refused(faults):
    lines = faults('callbacks = [1, "swap"]\n[model]\nname = "ae"', "callbacks.note.every=2")
    assert [line.partition(":")[0] for line in lines] == ["callbacks[0]", "callbacks[1]"]
    assert all("table" in line for line in lines)


@pytest.mark.parametrize("text", ["callbacks = 3", '[callbacks]\nname = "swap"'])
def test_callbacks_that_are_not_a_list_hint_at_the_syntax(faults, text):
    line = faults(f'{text}\n[model]\nname = "ae"')[0]
    assert line.startswith("callbacks: ")
    assert "[[callbacks]]" in line
    assert "did you mean 'callbacks'" not in line


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("section", "name", "meant", "plural"),
    [
        ("model", "cnn-clasifier", "cnn-classifier", "models"),
        ("model", "AE", "ae", "models"),
        ("loss", "reconstrution", "reconstruction", "losses"),
        ("data", "mnits", "mnist", "datasets"),
    ],
)
def test_misspelt_component_suggests_the_likely_one(faults, section, name, meant, plural):
    (line,) = faults('[model]\nname = "ae"', f"{section}.name={name}")
    assert line.startswith(f"{section}.name (from --set {section}.name={name}): unknown ")
    assert f"did you mean {meant!r}?" in line
    assert f"latentforge list {plural}" in line


@pytest.mark.parametrize(
    ("assignment", "of", "meant"),
    [
        ("model.latentdim=3", " of model 'ae'", "latent_dim"),
        ("loss.sgima=3", " of loss 'reconstruction'", "sigma"),
        ("data.sise=3", "", "size"),
        ("data.validaton=0.1", "", "validation"),  # a key of the core, as is the next
        ("data.splitseed=1", "", "split_seed"),
        ("train.epoch=3", "", "epochs"),
        ("train.learning_rate=3", "", ""),
    ],
)
def test_misspelt_key_suggests_the_likely_one(faults, assignment, of, meant):
    (line,) = faults('[model]\nname = "ae"', assignment)
    key = assignment.partition("=")[0]
    assert line.startswith(f"{key} (from --set {assignment}): no such option{of}; ")
    assert (
        f"did you mean {meant!r}?" if meant else "known options: epochs, batch_size, lr"
    ) in line


def test_unknown_data_key_lists_the_keys_of_core_and_dataset(faults):
    (line,) = faults('[model]\nname = "ae"', "data.zzz=1")
    assert all(key in line for key in ("size", "validation", "test", "split_seed"))


def test_misspelt_section_suggests_the_likely_one(faults):
    (line,) = faults('[model]\nname = "ae"\n[trian]\nepochs = 3')
    assert line == "trian: no such section in run.toml; did you mean 'train'?"


def test_unknown_section_lists_all_sections(faults):
    (line,) = faults('[model]\nname = "ae"\n[zzz]\n')
    sections = "[model] [loss] [data] [train] [roles] [sampler] and [[callbacks]]"
    assert line.endswith(f"sections are {sections}")


@pytest.mark.parametrize("text", ['model = "ae"', '[[model]]\nname = "ae"'])
def test_value_in_place_of_a_section_is_refused(faults, text):
    assert faults(text)[0] == "model: must be a section, [model], in run.toml"


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("epochs=3", "write section.key=VALUE"),
        ("train.epochs", "write section.key=VALUE"),
        ("train.=3", "write section.key=VALUE"),
        ("=3", "write section.key=VALUE"),
        ("", "write section.key=VALUE"),
        ("trian.epochs=3", "did you mean 'train'?"),
        ("zzz.epochs=3", "data, train, roles, sampler and callbacks.NAME"),
        ("calbacks.swap.every=3", "did you mean 'callbacks'?"),
        ("swap.every=3", "sections are model"),  # the request has no callback
        ("callbacks.swap=3", "no such key"),
    ],
)
def test_invalid_assignment_is_quoted_with_a_hint(faults, assignment, hint):
    (line,) = faults('[model]\nname = "ae"', assignment)
    assert line.startswith(f"--set {assignment}: ")
    assert hint in line


@pytest.mark.parametrize("name", ["3", '["ae"]', "true"])
def test_name_that_is_not_a_string_is_refused(faults, name):
    (line,) = faults(f"[model]\nname = {name}")
    assert line.startswith("model.name (from run.toml): must be a string, got")


def test_file_without_a_model_is_refused(faults):
    assert faults("[train]\nepochs = 3") == [
        "model.name: is required; see `latentforge list models`"
    ]


@pytest.mark.parametrize(
    ("assignment", "fault"),
    [
        ("train.lr=nan", "must be a finite number, got NaN"),
        ("train.lr=0", "must be greater than 0, got 0"),
        ("train.lr=", 'must be a valid number, got ""'),
        ("train.epochs=0", "must be greater than 0, got 0"),
        ("train.epochs=true", "must be a valid integer, got true"),
        ("train.epochs=1\nseed=2", 'must be a valid integer, got "1\\nseed=2"'),
        ("train.batch_size=0", "must be greater than 0, got 0"),
        ("train.seed=-1", "must be greater than or equal to 0, got -1"),
        ("train.weight_decay=-1", "must be greater than or equal to 0, got -1"),
        ("train.log_every=0", "must be greater than 0, got 0"),
        ("train.evaluate_every=-1", "must be greater than or equal to 0, got -1"),
        ("train.optimizer=adm", "did you mean 'adam'?"),
        ("train.device=gpu", "auto, cpu, mps, cuda or cuda:N"),
        ("data.validation=1", "must be less than 1, got 1"),
        ("data.size=0", "must be greater than 0, got 0"),
        ("model.latent_dim=0", "must be greater than 0, got 0"),
        ("model.latent_dim=-3", "must be greater than 0, got -3"),
        ("model.latent_dim=abc", 'must be a valid integer, got "abc"'),
        ("model.latent_dim=[2]", "must be a valid integer, got [2]"),
        ("model.hidden=128", "must be a "),
        ("model.activation=rellu", "did you mean 'relu'?"),
        ("loss.sigma=0", "must be greater than 0, got 0"),
        ("loss.likelihood=gausian", "did you mean 'gaussian'?"),
    ],
)
def test_invalid_value_is_reported_with_key_and_origin(faults, assignment, fault):
    (line,) = faults('[model]\nname = "ae"', assignment)
    assert line.startswith(f"{assignment.partition('=')[0]} (from --set {assignment}): ")
    assert fault in line


def test_every_error_of_every_section_is_reported_at_once(faults):
    """Includes errors of the default loss when the model's options are invalid, and of the
    device when another training option is invalid."""
    lines = faults(
        '[model]\nname = "ae"\nlatent_dim = 0\nhiden = [1]\n[loss]\nsigma = 0\n'
        "[data]\nsize = 0\nvalidation = 2\n[train]\nepochs = 0\n[modl]\n",
        "train.device=gpu",
        "train.lr=nan",
        "callbacks.swap.every=0",
        "x=1",
    )
    assert sorted(line.partition(":")[0].partition(" (")[0] for line in lines) == sorted(
        [
            "model.latent_dim",
            "model.hiden",
            "loss.sigma",
            "data.size",
            "data.validation",
            "train.epochs",
            "train.lr",
            "train.device",
            "callbacks[0].every",
            "modl",
            "--set x=1",
        ]
    )


def test_the_message_counts_the_errors(tmp_path):
    for assignments, message in (
        (["train.lr=0"], "the configuration has an error"),
        (["train.lr=0", "train.epochs=0"], "the configuration has 2 errors"),
    ):
        with pytest.raises(ConfigError) as caught:
            resolve(draft('[model]\nname = "ae"', *assignments, folder=tmp_path), REGISTRY)
        assert caught.value.message == message


def test_component_of_a_disabled_plugin_is_a_plugin_error(tmp_path):
    without = load_plugins(off=["reconstruction"])
    with pytest.raises(PluginError) as caught:
        resolve(draft(folder=tmp_path), without)
    assert caught.value.exit_code == 3
    assert "disabled by -p no:reconstruction" in caught.value.details[0]


# ---------------------------------------------------------------- loss and model


def test_incompatible_loss_is_refused_without_importing_torch(tmp_path):
    code = (
        "import sys; from latentforge import Forge; from latentforge.errors import ConfigError\n"
        "try: Forge().train('ae', loss='cross-entropy')\n"
        "except ConfigError as error: print(*error.details, 'torch' in sys.modules, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == [
        "loss.name (from loss=): loss 'cross-entropy' needs classify; "
        "model 'ae' provides decode, decode_logits, encode, generate; leave the loss out for "
        "'reconstruction', or cnn-classifier or mlp-classifier for loss 'cross-entropy'",
        "False",
    ]
    assert list(tmp_path.iterdir()) == []


def test_default_loss_depends_on_the_model(config):
    assert config('[model]\nname = "cnn-classifier"').loss.name == "cross-entropy"


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[model\nname = 1", "line 1"),
        (b'[model]\nname = "ae"\nname = "ae"\n[train]\n', "line 3"),
        (b"[model]\nname = ae", "line 2"),
    ],
)
def test_invalid_toml_is_reported_with_its_line(tmp_path, content, said):
    file = tmp_path / "run.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_toml(file)
    assert caught.value.message == f"{file} is not valid TOML"
    assert said in caught.value.details[0]


def test_unreadable_file_is_named(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    for path in (tmp_path / "none.toml", tmp_path / "latin.toml", tmp_path):
        with pytest.raises(UsageError) as caught:
            read_toml(path)
        assert str(path) in caught.value.message
        assert caught.value.exit_code == 2


FULL = """
[model]
name = "ae"
hidden = [32, 8]
latent_activation = "tanh"
[loss]
likelihood = "gaussian"
sigma = 1e-20
[data]
size = 16
validation = 0.25
[train]
lr = 1e16
optimizer = "sgd"
optimizer_options = {momentum = 0.9, nesterov = true, "odd key" = [1, 2.5]}
[[callbacks]]
name = "swap"
every = 2
[[callbacks]]
name = "note"
"""
ROOTED = '[model]\nname = "ae"\n[data]\nname = "mnist"\nroot = {root}'


@pytest.mark.parametrize(
    "text",
    [
        '[model]\nname = "ae"',
        '[model]\nname = "cnn-classifier"',
        FULL,
        ROOTED.format(root="'C:\\data\\new'"),
        ROOTED.format(root='"line\\nbreak \\"quoted\\" \\u007f é 😀"'),
    ],
)
def test_resolved_config_round_trips_through_toml(config, text):
    resolved = config(text).as_dict()
    written = format_toml(resolved)
    assert config(written).as_dict() == resolved
    assert tomllib.loads(written)["train"] == resolved["train"]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ([3, 8], "[3, 8]"),
        ([[1, 2.5], []], "[[1, 2.5], []]"),
        (["a", 'say "b",\n]', "[\n"], '["a", "say \\"b\\",\\n]", "[\\n"]'),
        ({"odd key": [True], "lr": 1e-20}, '{ "odd key" = [true], lr = 1e-20 }'),
        ([{"every": 2}, {}], "[{ every = 2 }, {}]"),
        ("true", '"true"'),
        (math.inf, "inf"),
    ],
)
def test_toml_value_round_trips_on_one_line(value, written):
    assert format_toml_value(value) == written
    assert toml_value(written) == value


def test_null_in_a_stored_configuration_makes_valid_toml():
    written = format_toml_value([{"size": None, "names": [None]}])
    assert tomllib.loads(f"x = {written}") == {"x": [{"names": ["null"]}]}


def test_presets_are_valid_configurations():
    presets = [
        entry
        for entry in REGISTRY.entries("presets")
        if "[explore]" not in entry.spec.path.read_text()
    ]
    assert len(presets) >= 2
    for preset in presets:
        made = Draft()
        made.read_file(preset.spec.path)
        assert resolve(made, REGISTRY).data_name == "mnist"


@pytest.mark.parametrize(
    ("text", "value"), [(".5", 0.5), ("5.", 5.0), ("-.1e2", -10.0), (".", ".")]
)
def test_numbers_may_begin_or_end_with_a_point(text, value):
    assert toml_value(text) == value


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train ae --set model.name=vae", "the model's name is 'ae'; give only one of them"),
        ("train ae --data digits --set data.name=folder", "--data is 'digits'; give only one"),
        ("data show digits --set name=folder", "'folder', but the command is about 'digits'"),
    ],
)
def test_an_option_given_twice_is_refused(cli, work, line, said):
    answer = cli(*line.split())
    assert answer.code == 2
    assert said in answer.err
