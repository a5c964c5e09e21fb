"""The Optuna study of a search, in the sweep's folder or in a storage that several sweeps share.
Optuna is an optional dependency, and only this module imports it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latentforge.errors import LatentForgeError, MissingError, RunFailed, UsageError, one_line
from latentforge.io.redact import MASK, mask_passwords, remove_secrets
from latentforge.seeding import mix
from latentforge.sweeps.record import objective_value, resume_command
from latentforge.sweeps.search_space import from_stored, read_space

FILE = "search.db"  # the study of a search without a shared storage
FOLDER = "latentforge:folder"  # trial attribute: the id of the sweep folder that requested it
POSITION = "latentforge:place"  # trial attribute: the number of counted trials before it
RETRY_OF = "latentforge:again"  # trial attribute: the number of the failed trial that it repeats

RETRY_DELAYS = (0.2, 0.5, 1.0, 2.0)  # seconds between attempts to create the tables of a storage


def check_optuna() -> None:
    """Raise MissingError if Optuna is not installed."""
    if find_spec("optuna") is None:
        raise MissingError(
            "a search needs optuna, which is not installed", hint="pip install 'latentforge[sweep]'"
        )


class Study:
    """The trials of one search; other sweeps may have requested some of them.

    Running, finished and failed trials count towards the search's number of trials, but not trials
    that were discarded before they received values. `search` is the section of sweep.json about the
    search.
    """

    def __init__(self, search: dict[str, Any], folder: Path, url: str | None, *, new: bool) -> None:
        """Create or join the search's study, which must exist unless `new`. `url` is that of the
        storage. Raises UsageError for an invalid URL and MissingError for an unusable storage."""
        check_optuna()
        from sqlalchemy import URL

        self.search, self.space, self.folder = search, read_space(search["space"]), folder
        self.own = not search["storage"]
        self.hint = "" if self.own else "pass its current location as --storage URL"
        if url is None and MASK in search["storage"]:
            raise UsageError(
                f"{folder} does not store the password of its storage {search['storage']}",
                hint=resume_command(folder, search),
            )
        self.url = url or str(search["storage"])
        if self.own:
            database = str(folder.absolute() / FILE)
            self.url = URL.create("sqlite", database=database).render_as_string()
        if not new and (file := sqlite_file(self.url)) and not file.exists():
            raise MissingError(
                f"the file with the trials of the search is missing: {file.absolute()}",
                hint=self.hint,
            )
        with translate_url_errors(self.url), translate_errors(self.url):
            self.storage = open_storage(self.url)
            self._open(new)

    def _open(self, new: bool) -> None:
        import optuna

        name = self.search["study"]
        if not new and name not in optuna.get_all_study_names(self.storage):
            self.close()
            raise MissingError(
                f"the storage {mask_passwords(self.url)} contains no search {name}",
                hint=self.hint,
            )
        self.study = optuna.create_study(
            storage=self.storage,
            study_name=name,
            direction="minimize" if self.search["better"] == "lower" else "maximize",
            load_if_exists=True,
        )
        self.states = optuna.trial.TrialState

    def close(self) -> None:
        """Close the connections to the storage."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    @contextmanager
    def translate_run_errors(self) -> Iterator[None]:
        """Turn storage errors into RunFailed. A later --resume reports the trained members."""
        try:
            with translate_errors(self.url):
                yield
        except LatentForgeError as error:
            raise RunFailed(
                error.message, details=error.details, hint=resume_command(self.folder, self.search)
            ) from None

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """Request a new trial. Returns its number and values, or None if there are enough
        trials."""
        with self.translate_run_errors():
            if self.count_remaining() <= 0:
                return None
            trial = self.study.ask()
            trial.set_user_attr(FOLDER, self.search["folder"])
            # Of two simultaneous trials, only the one with the higher number counts the other.
            position = self._count_trials(before=trial.number)
            if position >= self.search["trials"]:
                self.study.tell(trial, state=self.states.FAIL)
                return None
            self._seed(position)
            values = {key: part.suggest(trial, key) for key, part in self.space.items()}
            trial.set_user_attr(POSITION, position)
            return trial.number, values

    def _seed(self, position: int) -> None:
        """Make a trial's values depend only on its position and on earlier results. A search that
        was stopped between trials then continues like an uninterrupted one."""
        from optuna.samplers import TPESampler

        seed = mix("trial", self.search["seed"], position) & 0xFFFFFFFF  # NumPy accepts 32 bits
        self.study.sampler = TPESampler(seed=seed, constant_liar=True)

    def count_remaining(self) -> int:
        """The number of trials that have not been requested yet."""
        with self.translate_run_errors():
            return int(self.search["trials"]) - self._count_trials()

    def _count_trials(self, before: float = float("inf")) -> int:
        return sum(
            t.number < before and (t.state == self.states.RUNNING or POSITION in t.user_attrs)
            for t in self.study.get_trials(deepcopy=False)
        )

    def recover_trials(self, known: set[int]) -> list[tuple[int, dict[str, Any]]]:
        """Return the running trials of this folder that are missing from sweep.json because the
        process was killed before it recorded them. Discards trials without values."""
        trials = []
        with self.translate_run_errors():
            for trial in self.study.get_trials(deepcopy=False, states=[self.states.RUNNING]):
                own = self.own or trial.user_attrs.get(FOLDER) == self.search["folder"]
                if trial.number in known or not own:
                    continue
                if POSITION in trial.user_attrs:
                    values = {key: from_stored(trial.params[key]) for key in self.space}
                    trials.append((trial.number, values))
                else:
                    self.study.tell(trial.number, state=self.states.FAIL)
        return trials

    def report_result(self, member: Mapping[str, Any]) -> None:
        """Report a member's result to the study, once. A trial that was reported as failed stays
        failed: a later success is added as a separate trial, which is not counted."""
        from optuna.trial import create_trial

        number = member["trial"]
        value = objective_value(self.search, member)
        with self.translate_run_errors():
            trials = self.study.get_trials(deepcopy=False)
        trial = next((trial for trial in trials if trial.number == number), None)
        if trial is None:
            raise MissingError(f"{mask_passwords(self.url)} has no trial {number}", hint=self.hint)
        with self.translate_run_errors():
            if trial.state == self.states.RUNNING:
                state = self.states.FAIL if value is None else self.states.COMPLETE
                self.study.tell(number, value, state=state)
                return
            retried = any(other.user_attrs.get(RETRY_OF) == number for other in trials)
            if trial.state == self.states.FAIL and value is not None and not retried:
                success = create_trial(
                    params=trial.params,
                    distributions=trial.distributions,
                    value=value,
                    user_attrs={RETRY_OF: number, FOLDER: self.search["folder"]},
                )
                self.study.add_trial(success)

    def best(self) -> dict[str, Any]:
        """Return the number and value of the study's best trial, and whether it is from this
        folder; empty if no trial is finished."""
        with self.translate_run_errors():
            if not self.study.get_trials(deepcopy=False, states=[self.states.COMPLETE]):
                return {}
            best = self.study.best_trial
            number = best.user_attrs.get(RETRY_OF, best.number)
            here = best.user_attrs.get(FOLDER) == self.search["folder"]
            return {"trial": number, "value": best.value, "here": here}


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite storage; None for other storages and for storages in memory. Raises
    UsageError for an invalid URL."""
    from sqlalchemy import make_url

    with translate_url_errors(url):
        parsed = make_url(url)
    database = parsed.database or ""
    named = database and not database.startswith((":memory:", "file:"))
    return Path(database) if named and parsed.get_backend_name() == "sqlite" else None


def make_absolute(url: str) -> str:
    """Make the path of an SQLite file in a URL absolute, so that the URL works in every folder."""
    from sqlalchemy import make_url

    if (file := sqlite_file(url)) is None:
        return url
    return make_url(url).set(database=str(file.absolute())).render_as_string(hide_password=False)


def open_storage(url: str) -> Any:
    """Open the storage at a URL. If several processes create its tables at the same time, all but
    one get an error that the tables exist; these processes try again."""
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    for delay in RETRY_DELAYS:
        try:
            return RDBStorage(url, engine_kwargs=options)
        except SQLAlchemyError as error:
            conflict = isinstance(error, IntegrityError | ProgrammingError)
            if not conflict and "already exists" not in str(error):
                raise
            time.sleep(delay)
    return RDBStorage(url, engine_kwargs=options)


@contextmanager
def translate_url_errors(url: str) -> Iterator[None]:
    """Turn errors in the URL itself into LatentForge errors."""
    from sqlalchemy.exc import ArgumentError

    try:
        yield
    except ImportError as error:
        raise MissingError(
            f"the storage {mask_passwords(url)} needs a package that is not installed",
            details=[remove_secrets(one_line(error), url)],
            hint="install the driver of the database, such as psycopg2-binary",
        ) from None
    except (ArgumentError, ValueError) as error:
        raise UsageError(
            f"Optuna does not accept the storage URL {mask_passwords(url)}",
            details=[remove_secrets(one_line(error), url)],
            hint="--storage sqlite:///search.db, or postgresql://USER:PASSWORD@HOST/NAME",
        ) from None


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Turn storage errors into LatentForge errors that contain no password. Suppresses Optuna's log
    messages, such as that it has created a study."""
    import optuna
    from sqlalchemy.exc import ArgumentError, SAWarning, SQLAlchemyError

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", SAWarning)  # it quotes options of the URL
            yield
    except ArgumentError:
        raise
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, OSError) as error:
        raise MissingError(
            f"the storage {mask_passwords(url)} cannot be used",
            details=[remove_secrets(one_line(error), url)],
            hint="check that it exists and accepts the user and the password",
        ) from None
    finally:
        optuna.logging.set_verbosity(verbosity)
