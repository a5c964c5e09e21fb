"""The entry point of the command `latentforge`, also `python -m latentforge`."""

from __future__ import annotations

import sys
import time
from types import FrameType


def handle_interrupt(_number: int, frame: FrameType | None) -> None:
    """Handle Ctrl-C. During an import, the process exits at once: a C extension could swallow an
    exception or be left half imported, and an import has nothing to clean up."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            import os

            sys.stderr.write("error: interrupted\n")
            sys.stderr.flush()
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def main() -> None:
    started = time.monotonic()
    if sys.argv[1:] == ["--version"]:  # handled before Typer's hundred modules load
        from latentforge._version import __version__

        sys.stdout.write(f"latentforge {__version__}\n")
        return
    try:
        import gc
        import signal

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, handle_interrupt)
        from latentforge.cli.app import run

        code = run(sys.argv[1:], started)
        # The command is complete: a Ctrl-C during shutdown must not replace its exit code.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # The interpreter collects garbage at exit. With torch loaded this takes 0.5 s and frees
        # only memory that the operating system frees anyway.
        gc.freeze()
    except KeyboardInterrupt:  # while modules load; a running command handles it itself
        sys.stderr.write("error: interrupted\n")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
