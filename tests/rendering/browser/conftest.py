"""Fixtures: a headless Chromium, a small run with a 2-D latent space, and a map of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CLASSES = (*"01234567", "<script>window.pwned=1</script>", "<b>9</b> & more")


def skip_or_fail(what: str) -> None:
    """Skips the test on a developer's machine, but fails it in continuous integration."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"no {what}: the pages must be tested in a browser here", pytrace=False)
    pytest.skip(f"no {what}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        skip_or_fail("playwright")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        skip_or_fail("Chromium")
    arguments = ["--no-sandbox", "--disable-gpu"]
    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=path, args=arguments)
        yield launched
        launched.close()


@dataclass
class Opened:
    """A page loaded from disk, with its console messages and its requests."""

    page: Any
    complaints: list[str]
    requests: list[str]


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="session")
def visit(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Opens a file and waits until all its charts are drawn. Pages are cached across tests, as
    plotly takes a second to load, so a test must restore the state of the page."""
    contexts, pages = [], {}

    def call(file: Path, phone: bool = False) -> Opened:
        if (file, phone) not in pages:
            pages[file, phone] = load(file, phone)
        opened = pages[file, phone]
        opened.page.mouse.move(0, 0)
        return opened

    def load(file: Path, phone: bool) -> Opened:
        options = PHONE if phone else {"viewport": {"width": 1200, "height": 900}}
        contexts.append(browser.new_context(**options))
        opened = Opened(contexts[-1].new_page(), [], [])
        opened.page.set_default_timeout(20_000)
        opened.page.on("console", lambda m: opened.complaints.append(f"{m.type}: {m.text}"))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("dialog", lambda dialog: opened.complaints.append(dialog.message))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto(file.as_uri())
        opened.page.wait_for_selector("html.lf-done", state="attached")
        return opened

    yield call
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An autoencoder with two latent dimensions, trained on digits and evaluated once."""
    from latentforge import Forge

    made = Forge().train(
        "ae",
        data="digits",
        model={"hidden": [64], "latent_dim": 2},
        train={"epochs": 12, "batch_size": 128, "lr": 3e-3},
        run=tmp_path_factory.mktemp("browser") / "ae",
        quiet=True,
    )
    made.evaluate()
    return made


@pytest.fixture(scope="session")
def a_map(run: Any) -> Any:
    """A Scatter of 200 test digits with their images, the decoded plane and a path. The class names
    contain HTML, which a page must escape."""
    import torch

    from latentforge import Forge
    from latentforge.findings import Plane, Scatter

    model, images = run.load_model(), Forge().load_data("digits").split("test")
    batch = images.batch_at(list(range(200)))
    with torch.no_grad():
        z = model.encode(batch.x).mode()
        x, y = torch.linspace(*_inner_range(z[:, 0]), 9), torch.linspace(*_inner_range(z[:, 1]), 7)
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)  # (7, 9, 2)
        decoded = model.decode(grid.flatten(0, 1)).unflatten(0, (7, 9))
    plane = Plane(decoded, (float(x[0]), float(x[-1])), (float(y[0]), float(y[-1])))
    walk = torch.lerp(z[0], z[1], torch.linspace(0, 1, 12)[:, None])
    title = "Codes of <i>200</i> digits"
    paths = {"from 0 to 1": walk}
    return Scatter("map", title, z, batch.y, CLASSES, batch.x, plane, paths)


def _inner_range(values: Any) -> tuple[float, float]:
    """The 10 % to 90 % quantile range, so that some points are outside the plane."""
    low, high = float(values.quantile(0.1)), float(values.quantile(0.9))
    return low, high
