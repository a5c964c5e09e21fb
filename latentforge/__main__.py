"""The command `latentforge`, also `python -m latentforge`."""

from __future__ import annotations

import sys
from types import FrameType


def interrupted(_number: int, frame: FrameType | None) -> None:
    """Ctrl-C. Inside an import, which has nothing to clean up, an exception would be swallowed by a
    module written in C, or leave half of it behind: the process ends right there."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            import os

            sys.stderr.write("error: interrupted\n")
            sys.stderr.flush()
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def main() -> None:
    if sys.argv[1:] == ["--version"]:  # answered before Typer's hundred modules load
        from latentforge._version import __version__

        sys.stdout.write(f"latentforge {__version__}\n")
        return
    try:
        import gc
        import signal

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupted)
        from latentforge.cli.app import run

        code = run(sys.argv[1:])
        # All is said: a Ctrl-C while the modules unload must not turn the exit code into a signal.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # The interpreter collects garbage while it ends, which takes 0.5 s once torch has loaded,
        # and frees only what the system frees anyway.
        gc.freeze()
    except KeyboardInterrupt:  # while the modules load; later it is an answer of the command
        sys.stderr.write("error: interrupted\n")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
