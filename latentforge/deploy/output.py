"""Files and folders that appear whole or not at all, and what stands beside them: their origin."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentforge import __version__
from latentforge.run import numbered_folder, unwritable
from latentforge.settings import weights_of

if TYPE_CHECKING:
    from latentforge.config import RunConfig
    from latentforge.loading import Loaded


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to; renamed to `path` once all is written, removed on any error.

    Raises RunFailed when the disk fails.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def new_folder(wanted: Path | None, default: Path) -> Iterator[Path]:
    """An empty folder to fill: `wanted`, else `default`, and `<default>-2` when that is taken.

    On any error what was written is removed. Raises RunFailed when the disk fails.
    """
    folder = wanted or default
    try:
        if wanted is None and default.exists():
            folder = numbered_folder(default.parent, f"{default.name}-", 2)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)  # it was empty
        with suppress(OSError):
            default.parent.rmdir()  # if this was all in it
        if isinstance(error, OSError):
            raise unwritable(folder, error) from None
        raise


def origin(loaded: Loaded, config: RunConfig) -> dict[str, Any]:
    """Which weights, of which model, trained on what: everything that a reader elsewhere needs."""

    run = loaded.run
    latent = getattr(loaded.model, "latent", None)
    return {
        "latentforge": __version__,
        "run": str(run.path),
        "checkpoint": loaded.checkpoint,
        "weights": weights_of(config.train),
        "data": {**run.manifest["data"], "range": list(loaded.data.range)},
        "latent": latent and {"shape": list(latent.shape), "prior": latent.prior},
        "config": run.config,
        "plugins": run.manifest["plugins"],
    }
