"""What fifty installed third-party plugins add to `plugins list` and to `--help`.

Each command is a process of its own, with the plugins and without them in turn.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

import turns

COUNT = 50
COMMANDS = (("plugins", "list"), ("--help",))
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
        name="stranger-{i}",
        summary="A model",
        build=build,
        config=Config,
        provides={{"encode"}},
        default_loss="elbo",
    )
"""


def install(site: Path) -> None:
    """Fifty distributions with a model each, as pip leaves them."""
    for i in range(COUNT):
        (site / f"stranger_{i}.py").write_text(HOOKS.format(i=i))
        info = site / f"stranger_{i}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: stranger-{i}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[latentforge]\nstranger-{i} = stranger_{i}\n")
        (info / "RECORD").write_text("")


def main() -> None:
    options = turns.arguments(__doc__, repeats=15).parse_args()
    on = turns.headline("Plugins", f"{COUNT} of them; medians of {options.repeats} turns, in ms")
    before = os.environ.get("PYTHONPATH", "")
    told = {}
    table = turns.Table("command", "without", "with", "added", first=16)
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder))
        # pip compiles what it installs, so byte code is kept here whatever the environment says
        kept = os.path.join(folder, "compiled")
        compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": kept}
        paths = {"without": before, "with": os.pathsep.join(filter(None, [folder, before]))}
        for command in COMMANDS:
            words = [sys.executable, "-m", "latentforge", *command]
            sides = {
                side: lambda words=words, path=path: (
                    1000 * turns.run(words, PYTHONPATH=path, **compiled).seconds
                )
                for side, path in paths.items()
            }
            for side in sides.values():
                side()
            took = turns.take_turns(sides, options.repeats)
            added = turns.difference(took["with"], took["without"])
            medians = [f"{statistics.median(took[side]):,.0f}" for side in paths]
            table.row(" ".join(command), *medians, f"{added:+,.0f}")
            told[" ".join(command)] = {**took, "added": added}
    turns.finish(options.json, on, {"plugins": COUNT, "commands": told})


if __name__ == "__main__":
    main()
