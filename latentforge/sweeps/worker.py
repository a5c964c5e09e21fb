"""The worker process of a sweep: `python -m latentforge.sweeps.worker`.

It reads jobs from stdin, one JSON line each, and answers on stdout. The end of stdin stops
training, because the system closes stdin whenever the parent process ends.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import Queue
from typing import Any

from latentforge.runtime.shell import in_shell


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives it and sends SIGTERM
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of plugins must not mix with the answers
    warnings = logging.StreamHandler()
    warnings.setFormatter(logging.Formatter("warning: %(message)s"))
    logging.getLogger("latentforge").handlers = [warnings]

    lines: Queue[str | None] = Queue()
    threading.Thread(target=read_requests, args=(lines,), daemon=True).start()

    def send(**message: Any) -> None:
        with suppress(OSError):  # the parent process is gone
            stream.write(json.dumps(message) + "\n")
            stream.flush()

    with in_shell():  # the parent process writes hints in the form that its user needs
        while (line := lines.get()) is not None:
            handle_request(json.loads(line), send)


def read_requests(lines: Queue[str | None]) -> None:
    for line in sys.stdin:
        lines.put(line)
    lines.put(None)
    os.kill(os.getpid(), signal.SIGTERM)  # training ends at a checkpoint; an idle worker ends


@cache
def load_registry(plugins: tuple[str, ...], off: tuple[str, ...], discover: bool) -> Any:
    from latentforge.plugins.discovery import from_environment
    from latentforge.plugins.loading import load_plugins

    return load_plugins(plugins, off=off, only=from_environment(), discover=discover)


def handle_request(request: dict[str, Any], send: Callable[..., None]) -> None:
    """Run one job: answer with the status of each member, then with the end of the job."""
    from latentforge.errors import Interrupted, LatentForgeError
    from latentforge.plugins.running import running
    from latentforge.sweeps.folder import open_sweep
    from latentforge.sweeps.grid import Member, resolve_all
    from latentforge.sweeps.job import Job, run_job

    def report(name: str, status: str, error: str) -> None:
        send(name=name, status=status, error=error)

    folder = Path(request["sweep"])
    job = Job(tuple(Member(name, values) for name, values in request["members"]))
    try:
        plugins, off = tuple(request["plugins"]), tuple(request["off"])
        registry = load_registry(plugins, off, request["discover"])
        with running(lambda: registry):
            draft = open_sweep(registry, folder).draft()
            configs = resolve_all(draft, job.members, registry, in_memory=False)
            reason = run_job(registry, folder, job, configs, report, quiet=True, data=None)
    except Interrupted:
        reason = ""
    except LatentForgeError as error:  # an error of the whole job, such as a missing plugin
        for member in job.members:
            report(member.name, "failed", str(error))
        reason = ""
    send(ended=True, reason=reason)


if __name__ == "__main__":
    main()
