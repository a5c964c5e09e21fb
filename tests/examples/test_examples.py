"""The programs and packages in examples/ work as described."""

from __future__ import annotations

import importlib
import math
import re
import runpy
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from latentforge import Forge
from latentforge.config.resolve import check_options
from latentforge.errors import UsageError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PACKAGE = "latentforge_text_objective"


# ---------------------------------------------------------------- a search without a run


def flight(velocity, drag, seconds=1.0, steps=20000):
    """The final position of a ball with quadratic drag, by many small Euler steps in floats."""
    x = y = 0.0
    vx, vy = velocity
    dt = seconds / steps
    for _ in range(steps):
        speed = math.hypot(vx, vy)
        x, y = x + dt * vx, y + dt * vy
        vx, vy = vx - dt * drag * speed * vx, vy - dt * (9.81 + drag * speed * vy)
    return x, y


@pytest.mark.slow
def test_ball_reaches_every_target(capsys):
    program = runpy.run_path(str(EXAMPLES / "search_without_a_run.py"), run_name="example")
    program["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "4 of 4 within a centimetre"
    number = r"\s*(-?[\d.]+)"
    pattern = rf"be at \({number} m,{number} m\)\s+throw with \({number},{number}\)"
    for line in lines[:-1]:
        x, y, *velocity = map(float, re.match(pattern, line).groups())
        # velocities are printed to 1 cm/s, and both integrations have a finite step
        assert math.dist(flight(velocity, program["DRAG"]), (x, y)) < 0.03


# ---------------------------------------------------------------- texts


@pytest.fixture
def package(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES / "text_objective")
    yield lambda name: importlib.import_module(f"{PACKAGE}.{name}")
    for name in [n for n in sys.modules if n.split(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def moments(package):
    return package("scorer").moments


def picture(pixels, side=28):
    x = torch.zeros(1, 1, side, side)
    for row, column in pixels:
        x[0, 0, row, column] = 1.0
    return x


@pytest.mark.parametrize("lean", [-2, -1, 0, 1])
def test_slant_of_a_line_is_its_shift_to_the_right_per_row(moments, lean):
    line = [(14 - up, 14 + lean * up) for up in range(-5, 6)]
    assert float(moments(picture(line))[0, 2]) == pytest.approx(lean, abs=1e-4)


@pytest.mark.parametrize("width", [1, 2, 4, 6])
def test_the_thickness_of_a_bar_is_its_area_over_its_outline(moments, width):
    bar = [(row, 10 + i) for row in range(4, 24) for i in range(width)]
    expected = 20 * width / (2 * (20 + width))
    assert float(moments(picture(bar))[0, 1]) == pytest.approx(expected, rel=0.1)


def test_brightness_and_share_of_the_upper_half(moments):
    x = picture([(0, 0), (5, 3), (20, 9), (13, 27)])
    ink, _, _, upper = moments(0.5 * x)[0].tolist()
    assert ink == pytest.approx(0.5 * 4 / 784, rel=1e-5)
    assert upper == pytest.approx(3 / 4, rel=1e-5)
    assert torch.isfinite(moments(torch.zeros(1, 1, 28, 28))).all()


def test_gradient_of_the_score_equals_finite_differences(package):
    scorer = package("scorer").MomentScorer(
        torch.tensor([0.4, 0.5, 0.1, 0.5]), torch.tensor([0.1, 0.2, 0.3, 0.1])
    )
    read = torch.stack([scorer.read("very thick, bright"), scorer.read("leaning left")]).double()
    x = (0.2 + 0.6 * torch.rand(2, 1, 9, 8, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda images: scorer.score(images, read), x, fast_mode=True)


def test_text_requests_only_the_quantities_that_it_names(package):
    scorer = package("scorer").MomentScorer(torch.zeros(4), torch.ones(4))
    read = scorer.read("A thick digit, leaning right and with a very bright lower half.")
    assert read[0].isnan()
    assert read[1:].tolist() == pytest.approx([1.5, 1.5, -2.5])


@pytest.mark.parametrize("text", ["a purple digit", "", "thick and thin", "thickset", "very"])
def test_invalid_text_is_refused(package, text):
    scorer = package("scorer").MomentScorer(torch.zeros(4), torch.ones(4))
    with pytest.raises(UsageError):
        scorer.read(text)


@pytest.mark.slow  # 10 s
def test_search_finds_images_for_texts_in_a_trained_run(package, cli, tmp_path):
    run = tmp_path / "ae"  # a run whose decoder can draw the requested images
    fit = {"epochs": 30, "batch_size": 128, "lr": 3e-3}
    Forge().train("ae", data="digits", model={"latent_dim": 8}, train=fit, run=run, quiet=True)
    ask = ("-p", PACKAGE, "explore", "guided", run, "--json", "--set", "objective=text")
    ask = (*ask, "--set", "restarts=4")
    texts = '["thick, leaning right", "thin", "bright upper half"]'
    answer = cli(*ask, "--set", f"texts={texts}")
    assert answer.code == 0, answer.err
    assert answer.json["metrics"]["success_share"] == 1
    assert answer.json["metrics"]["text_score"] >= -1
    assert (Path(answer.json["out"]) / "texts.png").exists()
    x = np.load(Path(answer.json["out"]) / "found.npz")["x"]
    upper = x[:, 0, :14].sum((1, 2)) / x.sum((1, 2, 3))
    assert upper.argmax() == 2
    ink = (x > 0.5).sum((1, 2, 3))
    assert ink[0] > ink[1]

    refused = cli(*ask, "--set", 'texts=["purple"]')
    assert refused.code == 2
    assert "leaning left" in refused.json["remedy"]


def test_another_scorer_can_replace_the_toy(package):
    """As the README shows for CLIP: read a text once, score by the cosine to it."""

    class Cosine:
        def read(self, text):
            return torch.nn.functional.normalize(torch.tensor([1.0, float(len(text))]), dim=0)

        def score(self, x, read):
            image = torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3))], dim=1)
            return (torch.nn.functional.normalize(image, dim=1) * read).sum(1)

    spec = Forge(plugins=[PACKAGE]).registry.get("objectives", "text").spec
    config = replace(check_options(spec.config, {"texts": ["a", "abc"]}, "text"), enough=0.9)
    objective = package("objective").TextObjective(config, Cosine())
    x = torch.ones(2, 1, 4, 4)
    expected = [4 / math.sqrt(2 * 10), 2 / math.sqrt(2 * 2)]
    assert objective.score(x, torch.tensor([1, 0])).tolist() == pytest.approx(expected)
    assert objective.satisfied(x, torch.tensor([1, 0])).tolist() == [False, True]
    with pytest.raises(UsageError, match="needs a run"):
        spec.build(config, None)


@pytest.mark.slow
def test_the_package_can_be_installed_and_is_found(tmp_path):
    call = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path)]
    done = subprocess.run(
        [*call, str(EXAMPLES / "text_objective")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})"
    code += "; from latentforge import Forge; e = Forge().registry.get('objectives', 'text')"
    code += "; print(e.plugin.distribution, e.plugin.version)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "latentforge-text-objective 0.1.0\n", done.stderr
