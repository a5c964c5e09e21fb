"""The modules that a command may import, which decide its start-up time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "ignite", "numpy", "tensorboard", "matplotlib", "sklearn"}
HEAVY |= {"onnx", "onnxscript", "onnxruntime", "pyarrow", "plotly", "jinja2"}

# Runs command lines one after the other; its last line lists the modules loaded after each.
PROBE = """
import json, sys
from latentforge.__main__ import main
left = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["latentforge", *arguments]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    left.append((code, sorted(sys.modules)))
print()
print(json.dumps(left))
"""


def modules_after(*lines: list[str], cwd=None) -> list[tuple[int, list[str]]]:
    """The exit code of each command line, and the modules loaded in its process at its end."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(lines)],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
    )
    return json.loads(done.stdout.splitlines()[-1])


def top(modules: list[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_help_imports_nothing_heavy_and_no_plugin():
    ((code, modules),) = modules_after(["--help"])
    assert code == 0
    assert not top(modules) & (HEAVY | {"pydantic", "rich", "latentforge_plugins"})
    assert len(modules) <= 250


def test_listing_plugins_imports_them_but_nothing_heavy():
    ((code, modules),) = modules_after(["plugins", "list"])
    assert code == 0
    assert "latentforge_plugins.autoencoder" in modules
    assert not top(modules) & HEAVY
    assert len(modules) <= 450


def test_the_version_imports_few_modules():
    ((code, modules),) = modules_after(["--version"])
    assert code == 0
    assert len(modules) <= 80


def leaves(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        else:
            yield [*path, name]


def test_the_help_of_every_command_imports_nothing_heavy():
    import typer.main

    from latentforge.cli.app import app

    commands = list(leaves(typer.main.get_command(app)))
    assert ["train"] in commands
    assert ["plugins", "show"] in commands
    results = modules_after(*([*command, "--help"] for command in commands))
    assert [code for code, _ in results] == [0] * len(commands)
    assert not top(results[-1][1]) & HEAVY  # of all commands together


@pytest.fixture
def config(work):
    file = work / "run.toml"
    file.write_text('[model]\nname = "ae"\n')
    return file


LIGHT = [
    (0, "list"),
    (0, "list models --json"),
    (0, "show model ae"),
    (0, "show explorer interpolate"),
    (0, "show preset vanilla-ae"),
    (0, "plugins show mnist"),
    (0, "config check run.toml"),
    (0, "runs runs"),
    (2, "train"),
    (2, "train ae --preset vanilla-ae"),
    (2, "train autoencoder"),
    (2, "train ae --lr 0 --epochs 0 --device gpu"),
    (2, "train ae --loss cross-entropy"),
    (2, "train --config none.toml"),
    (2, "train ae --epoch 3"),
    (4, "evaluate runs/none"),
    (2, "evaluate runs/ae --measure accuracy"),
    (2, "evaluate runs/ae --device gpu"),
    (2, "explore interpolate runs/cnn"),
    (2, "explore interpolate runs/ae --set steps=1"),
    (2, "explore latent-map runs/ae --set colour=angle"),
    (2, "explore interpolate runs/ae --with judge=runs/cnn"),
    (2, "explore nothing runs/ae"),
    (2, "data fetch digits"),
    (2, "export runs/ae"),
    (2, "export runs/cnn --part encoder"),
    (2, "export runs/ae --part encoder --format torchscript"),
    (2, "encode runs/cnn --out codes.npz"),
    (2, "encode runs/ae --out codes.csv"),
    (4, "encode runs/none --out codes.parquet"),
    (2, "decode runs/cnn run.toml --out decoded"),
    (4, "decode runs/ae none.npz --out decoded"),
    (4, "report runs/none"),
    (2, "report runs/ae runs/ae"),
    (2, "report runs/ae --out runs"),
]


def test_lists_and_refusals_import_nothing_heavy(runs, config):
    results = modules_after(*(line.split() for _, line in LIGHT), cwd=runs.parent)
    first_heavy: dict[str, str] = {}
    for (_, line), (_, modules) in zip(LIGHT, results, strict=True):
        for name in top(modules) & HEAVY:
            first_heavy.setdefault(name, line)
    assert first_heavy == {}
    assert [(code, line) for (_, line), (code, _) in zip(LIGHT, results, strict=True)] == LIGHT


def test_the_public_names_load_on_first_use_only():
    code = (
        "import sys, latentforge; before = len(sys.modules);"
        "latentforge.ModelSpec, latentforge.hookimpl, latentforge.Size;"
        "print({'torch', 'numpy', 'pydantic'} & set(sys.modules), len(sys.modules) > before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "True"]


@pytest.mark.slow
def test_training_without_compile_does_not_import_the_compiler(tmp_path):
    """Trains, saves and resumes; the second optimizer restores a state."""
    line = ["train", "ae", "--set", "model.hidden=[8]", "--epochs", "1", "--run", "r", "--quiet"]
    resume = ["train", "--resume", "r", "--epochs", "2", "--quiet"]
    for code, modules in modules_after(line, resume, cwd=tmp_path):
        assert code == 0
        assert "torch" in modules
        assert "torch._dynamo" not in modules
