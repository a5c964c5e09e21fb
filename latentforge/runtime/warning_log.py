"""Shows the log of LatentForge as Python warnings, which can be filtered, where no program has
configured it."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

from latentforge.runtime.python_form import python_form

PACKAGES = (str(Path(__file__).parents[1]), str(Path(logging.__file__).parent))


class LatentForgeWarning(UserWarning):
    """What LatentForge announces about data, settings and runs."""


class WarningHandler(logging.Handler):
    """Emits log records as warnings that name the line of the user's program."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "diagnosis", False):  # of a quiet training; the run stores it
            return
        frame, level = sys._getframe(), 1
        while frame.f_back is not None and is_ours(frame.f_code.co_filename):
            frame, level = frame.f_back, level + 1
        warnings.warn(python_form(self.format(record)), LatentForgeWarning, stacklevel=level)


def is_ours(file: str) -> bool:
    return file.startswith(PACKAGES) or "latentforge_plugins" in file


def use_warnings() -> None:
    """Emit warnings unless the logger has a handler already, as in the command line."""
    logger = logging.getLogger("latentforge")
    if not logger.handlers:
        logger.addHandler(WarningHandler(logging.WARNING))
