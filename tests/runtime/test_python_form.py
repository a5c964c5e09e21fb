"""Hints for the Python API: options of the command line as arguments that can be evaluated."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from latentforge.errors import UsageError
from latentforge.runtime.python_form import Call, _call, python_api, python_form
from latentforge.runtime.shell import in_shell
from latentforge.workflows.run import Run

ROOT = Path(__file__).parents[2]
X = np.zeros((3, 4, 4))
FLAG = re.compile(
    r"(?<![\w-])--(?:set|data|loss|epochs|batch-size|lr|seed|device|callback|config|preset|run|out|"
    r"checkpoint|from|with|measure|split|protocol|part|format|grid|space|search|objective|storage|"
    r"jobs|retry|quiet|resume|together|no-together|condition)\b"
)


def rewritten(text: str, method: str = "train", **arguments: object) -> str:
    token = _call.set(Call(method, arguments))
    try:
        return python_form(text)
    finally:
        _call.reset(token)


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("--set data.layout=NHWC", "data={'layout': 'NHWC'}"),
        ("--set data.black=-1 --set data.white=1", "data={'black': -1, 'white': 1}"),
        ("--set 'data.size=[64,48]', to resize", "data={'size': [64, 48]}, to resize"),
        ("--data folder --set data.root='a b'", "data={'name': 'folder', 'root': 'a b'}"),
        ("--set train.schedule.name=cosine", "train={'schedule': {'name': 'cosine'}}"),
        ("--loss beta-elbo --set loss.beta=2", "loss={'name': 'beta-elbo', 'beta': 2}"),
        ("--epochs 20, or --lr 1e-3", "train={'epochs': 20}, or train={'lr': 0.001}"),
        ("a smaller --lr", "a smaller train={'lr': ...}"),
        ("choose another --out", "choose another out"),
        ("--callback note", "callbacks=['note']"),
        ("--callback note --callback 7", "callbacks=['note', '7']"),
        ("--run 5, or --run 2024-01-01", "run='5', or run='2024-01-01'"),
        ("--no-together", "together=False"),
        ("--grid 'train.seed=[0, 1]'", "grid={'train.seed': [0, 1]}"),
        (
            "--space 'train.lr=log(1, 2)' instead of --grid",
            "space={'train.lr': 'log(1, 2)'} instead of grid",
        ),
        ("--set data.root=FOLDER with images", "data={'root': FOLDER} with images"),
        ("-p no:ae: there is no plugin", "off=['ae']: there is no plugin"),
        ("leave out -p ./my.py", "leave out plugins=['./my.py']"),
        ("`latentforge doctor RUN`", "forge.diagnose(RUN)"),
        ("latentforge train --resume 'a b' --epochs 3", "forge.resume('a b', train={'epochs': 3})"),
        ("latentforge sweep --resume s --retry", "forge.resume_sweep('s', retry=True)"),
        ("latentforge data fetch mnist", "forge.fetch_data('mnist')"),
        ("`latentforge data show`", "forge.describe_data(data)"),
        ("latentforge list models, or wait", "`latentforge list models` in a shell, or wait"),
        ("latentforge -p a.py show x", "`latentforge -p a.py show x` in a shell"),
        (
            "`latentforge config check x --set a.b=1`, or --lr 1",
            "`latentforge config check x --set a.b=1` in a shell, or train={'lr': 1}",
        ),
        ("`latentforge -p FILE ...`", "Forge([FILE])"),
        ("pip install --upgrade latentforge", "pip install --upgrade latentforge"),
        ("torchrun -- latentforge train --epochs 3", "torchrun -- latentforge train --epochs 3"),
        ("--run torchrun/a", "run='torchrun/a'"),
        ("a -- b, it's --set", "a -- b, it's --set"),
    ],
)
def test_options_become_arguments(text, python):
    assert rewritten(text) == python


@pytest.mark.parametrize(
    ("method", "text", "python"),
    [
        ("evaluate", "--set nll.samples=9", "options={'nll': {'samples': 9}}"),
        ("evaluate", "--with classifier=RUN", "roles={'classifier': RUN}"),
        ("evaluate", "--measure recon", "measures=['recon']"),
        ("evaluate", "--device cpu", "device='cpu'"),
        ("explore", "--set 'classes=[3, 8]'", "classes=[3, 8]"),
        ("explore", "--set 'interpolate.classes=[3, 8]'", "classes=[3, 8]"),
        ("explore", "--set data.root=x", "assignments=['data.root=x']"),
        ("diagnose", "--set data.root=x", "options={'root': 'x'}"),
        (
            "diagnose",
            "--loss beta-elbo --set loss.beta=1",
            "loss={'name': 'beta-elbo', 'beta': 1}",
        ),
        ("diagnose", "--epochs 9 --set train.lr=0.1", "train={'epochs': 9, 'lr': 0.1}"),
        ("load_data", "--set data.layout=NCHW", "options={'layout': 'NCHW'}"),
        ("load_data", "--data folder --set data.root=x", "data='folder', options={'root': 'x'}"),
        ("export", "--part decoder", "part='decoder'"),
        (
            "decode",
            "--condition 0, the number of a class, 0 (a)",
            "condition=0, the number of a class, 0 (a)",
        ),
        ("decode", "remove --condition", "remove condition"),
        ("resume", "--from step-1", "checkpoint='step-1'"),
    ],
)
def test_arguments_are_those_of_the_method_that_was_called(method, text, python):
    assert rewritten(text, method) == python


@pytest.mark.parametrize(
    ("method", "given", "text", "python"),
    [
        ("train", {"data": "mnist"}, "data.white=1", "{'name': 'mnist', 'white': 1}"),
        ("train", {"data": {"path": "a"}}, "data.white=1", "{'path': 'a', 'white': 1}"),
        ("train", {"data": (X, X)}, "data.white=1", "{'train': (x, y), 'white': 1}"),
        ("train", {"data": {"train": X, "test": 0.1}}, "data.test=1", "{'train': x, 'test': 1}"),
        ("train", {"train": {"epochs": 3}}, "train.lr=1", "{'epochs': 3, 'lr': 1}"),
        ("train", {"loss": "elbo"}, "loss.sigma=2", "{'name': 'elbo', 'sigma': 2}"),
        ("evaluate", {"options": ["nll.k=3"]}, "nll.n=2", "{'nll': {'k': 3, 'n': 2}}"),
        ("load_data", {"options": {"path": "a"}}, "data.white=1", "{'path': 'a', 'white': 1}"),
    ],
)
def test_tables_contain_what_the_call_gives(method, given, text, python):
    assert rewritten(f"--set {text}", method, **given).partition("=")[2] == python


def test_a_role_that_was_given_as_a_run_object_becomes_its_path():
    run = Run(Path("runs/a"), {"status": "done"}, registry=None)  # type: ignore[arg-type]
    for guide in (run, run.path, "runs/a"):
        text = rewritten("--with judge=RUN", "explore", roles={"classifier": guide})
        assert text == "roles={'classifier': 'runs/a', 'judge': RUN}"


def test_hints_for_a_shell_are_unchanged():
    text = "--set data.layout=NHWC, or `latentforge doctor RUN`"
    with in_shell():
        assert python_form(text) == text
    assert python_form(text) != text


@python_api
class Api:
    def train(self, data: object = None, **keywords: object) -> None:
        raise UsageError("--epochs 3 is wrong", details=["as in --set a.b=1"], hint="--lr 1")

    def evaluate(self, run: str) -> None:
        Api().train()


def test_all_texts_of_an_error_that_leaves_the_api_are_rewritten_once():
    with pytest.raises(UsageError) as caught:
        Api().train("mnist", train={"seed": 1})
    error = caught.value
    assert error.args == (error.message,) == ("train={'seed': 1, 'epochs': 3} is wrong",)
    assert error.details == ("as in a={'b': 1}",)
    assert error.hint == error.remedy == "train={'seed': 1, 'lr': 1}"
    with pytest.raises(UsageError, match=r"^train={.epochs.: 3} is wrong"):
        Api().evaluate("run")
    with in_shell(), pytest.raises(UsageError, match="--epochs 3 is wrong"):
        Api().train()


# ---------------------------------------------------------------- all hints


def texts() -> Iterator[tuple[str, str]]:
    """(file, text) of all string literals outside the command line; values become VALUE."""
    for path in sorted([*(ROOT / "latentforge").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]):
        if "cli" in path.parts or path.name == "python_form.py":
            continue
        tree = ast.parse(path.read_text("utf-8"))
        skipped = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                skipped |= {id(inner) for inner in ast.walk(node) if inner is not node}
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                skipped.add(id(node.value))  # a docstring
        for node in ast.walk(tree):
            if id(node) not in skipped and isinstance(node, ast.Constant | ast.JoinedStr):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                text = "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in parts
                )
                yield path.name, text.replace("{}", "VALUE")  # a field of str.format


@pytest.mark.parametrize("method", ["train", "evaluate", "explore", "load_data", "sweep"])
def test_no_hint_in_the_sources_keeps_an_option_of_the_command_line(method):
    found = 0
    for file, text in texts():
        if " " not in text.strip():
            continue  # an option that the code compares or adds to a command
        if FLAG.search(text) or "`latentforge " in text:
            found += 1
            python = rewritten(text, method)
            assert not FLAG.search(python), (file, text, python)
            for command in re.findall("`latentforge[^`]*`(.{11})?", python):
                assert command == " in a shell", (file, text, python)
            for call in re.findall(r"\b(?:data|train|loss|options|roles)=\{.*?\}+", python):
                assert isinstance(ast.parse(f"f({call})", mode="eval"), ast.Expression), text
    assert found > 80


WORDS = (
    *("--set", "--data", "--lr", "--grid", "--out=", "--set=a", "-p", "no:", "data.x=1", "=1", "."),
    *("'", '"', "`", "`latentforge", "latentforge", "train", "...", ",", ";", "RUN", "--resume"),
    *("x=[1]", "..", "\\", "\0", "{}", "%s", "\ud800", "=", "--no-together", "data show"),
)


def test_any_text_can_be_rewritten():
    """An error in a hint would hide the error that the hint is about."""
    draw = random.Random(0)
    methods = ("train", "evaluate", "explore", "load_data", "resume", "__init__")
    given = (None, "x", 3, ["a=1", "b"], {"a": {}}, {"train": 1}, X)
    for _ in range(5000):
        text = " ".join(draw.choices(WORDS, k=draw.randint(1, 9)))
        names = ("data", "options", "train")
        arguments = {name: draw.choice(given) for name in names}
        assert isinstance(rewritten(text, draw.choice(methods), **arguments), str)
