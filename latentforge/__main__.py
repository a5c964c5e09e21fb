"""The command `latentforge`, also `python -m latentforge`."""

from __future__ import annotations

import sys


def main() -> None:
    if sys.argv[1:] == ["--version"]:  # answered before Typer's hundred modules load
        from latentforge import __version__

        sys.stdout.write(f"latentforge {__version__}\n")
        return
    from latentforge.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
