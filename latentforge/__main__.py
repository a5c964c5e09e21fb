"""The command `latentforge`, also `python -m latentforge`."""

from __future__ import annotations

import sys


def main() -> None:
    if sys.argv[1:] == ["--version"]:  # answered before Typer's hundred modules load
        from latentforge import __version__

        sys.stdout.write(f"latentforge {__version__}\n")
        return
    try:
        import signal

        from latentforge.cli import run

        code = run(sys.argv[1:])
        # All is said: a Ctrl-C while the modules unload must not turn the exit code into a signal.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:  # while the modules load; later it is an answer of the command
        sys.stderr.write("error: interrupted\n")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
