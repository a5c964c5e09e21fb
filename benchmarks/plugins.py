"""Time that fifty installed third-party plugins add to `plugins list` and `--help`, and time of
`plugins check --deep` for each built-in model plugin.

Each command runs in its own process. The first two commands run alternately with and without the
plugins.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import turns

COUNT = 50
COMMANDS = (("plugins", "list"), ("--help",))
CHECKED = ("autoencoder", "vae", "conv_vae", "deconv_vae", "mlp_classifier", "cnn_classifier")
HOOKS = """
from dataclasses import dataclass

from latentforge import ModelSpec, Size, hookimpl


@dataclass(frozen=True)
class Config:
    \"\"\"`hidden` and `latent_dim` are widths.\"\"\"

    hidden: Size = 64
    latent_dim: Size = 8


def build(config, data):
    raise NotImplementedError


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="external-{i}",
        summary="A model",
        build=build,
        config=Config,
        provides={{"encode"}},
        default_loss="elbo",
    )
"""


def install(site: Path) -> None:
    """Write fifty distributions with a model and a command each, as pip installs them."""
    for i in range(COUNT):
        (site / f"external_{i}.py").write_text(HOOKS.format(i=i))
        info = site / f"external_{i}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: external-{i}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[latentforge]\nexternal-{i} = external_{i}\n"
            f"[latentforge.commands]\ncommand-{i} = external_{i}:build\n"
        )
        (info / "RECORD").write_text("")


def measure_loading(repeats: int) -> dict[str, Any]:
    """Time of each command in ms, with and without plugins, and the time that the plugins add."""
    before = os.environ.get("PYTHONPATH", "")
    results = {}
    table = turns.Table("command", "without", "with", "added", first=16)
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder))
        # pip compiles what it installs, so bytecode is cached here in every environment
        bytecode = os.path.join(folder, "compiled")
        compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode}
        paths = {"without": before, "with": os.pathsep.join(filter(None, [folder, before]))}
        for command in COMMANDS:
            arguments = [sys.executable, "-m", "latentforge", *command]
            sides = {
                side: lambda arguments=arguments, path=path: (
                    1000 * turns.run(arguments, PYTHONPATH=path, **compiled).seconds
                )
                for side, path in paths.items()
            }
            for side in sides.values():
                side()
            times = turns.take_turns(sides, repeats)
            added = turns.difference(times["with"], times["without"])
            medians = [f"{statistics.median(times[side]):,.0f}" for side in paths]
            table.row(" ".join(command), *medians, f"{added:+,.0f}")
            results[" ".join(command)] = {**times, "added": added}
    return results


def measure_checks(names: Sequence[str], repeats: int) -> dict[str, list[float]]:
    """Seconds of `plugins check NAME --deep`, including the start of the process."""
    command = [sys.executable, "-m", "latentforge", "plugins", "check"]
    sides = {
        name: lambda name=name: turns.run([*command, name, "--deep"]).seconds for name in names
    }
    times = turns.take_turns(sides, repeats)
    table = turns.Table("plugin", "seconds", first=16)
    for name, seconds in times.items():
        table.row(name, f"{statistics.median(seconds):.1f}")
    return times


def main() -> None:
    parser = turns.make_parser(__doc__, repeats=15)
    parser.add_argument("--check", action="append", choices=CHECKED, help="[default: all]")
    options = parser.parse_args()
    detail = f"{COUNT} plugins; medians of {options.repeats} rounds, in ms"
    info = turns.headline("Plugins", detail)
    commands = measure_loading(options.repeats)
    print("\nTime of plugins check NAME --deep:\n")
    checks = measure_checks(options.check or CHECKED, max(1, options.repeats // 5))
    turns.finish(options.json, info, {"plugins": COUNT, "commands": commands, "checks": checks})


if __name__ == "__main__":
    main()
