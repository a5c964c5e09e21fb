"""The trials of a search, which Optuna keeps: in the sweep's folder, or in a storage that several
sweeps share. Optuna is an optional dependency, and imported here alone.
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
from latentforge.io.redact import MASK, masked, without_secrets
from latentforge.seeding import mix
from latentforge.sweeps.record import command_again, objective_value
from latentforge.sweeps.search_space import read_space

FILE = "search.db"  # of a search that keeps its trials in its own folder
FOLDER = "latentforge:folder"  # attributes of a trial: which sweep's folder asked for it,
PLACE = "latentforge:place"  # how many trials were there before it,
AGAIN = "latentforge:again"  # and of which failed trial it is the second attempt

WAITS = (0.2, 0.5, 1.0, 2.0)  # seconds between attempts to make the tables of a storage


def check_optuna() -> None:
    """MissingError where Optuna is not installed."""
    if find_spec("optuna") is None:
        raise MissingError(
            "a search needs optuna, not installed here",
            remedy="pip install 'latentforge[sweep]'",
        )


class Study:
    """The trials of one search, some of them perhaps asked for by other sweeps.

    Counted as one of the search's trials is each that was asked for and not handed back: running,
    done and failed ones. `search` is what sweep.json says of it.
    """

    def __init__(
        self, search: Mapping[str, Any], folder: Path, storage: str | None, *, new: bool
    ) -> None:
        """Begin the search's study or join it; where it is not `new`, it must be there. UsageError
        for a storage URL that is none, MissingError for a storage that cannot be used."""
        check_optuna()
        from sqlalchemy import URL

        self.search, self.space, self.folder = search, read_space(search["space"]), folder
        self.own = not search["storage"]
        if storage is None and MASK in search["storage"]:
            raise UsageError(
                f"{folder} does not keep the password of its storage, {search['storage']}",
                remedy=command_again(folder, search),
            )
        self.url = storage or str(search["storage"])
        if self.own:
            database = str(folder.absolute() / FILE)
            self.url = URL.create("sqlite", database=database).render_as_string()
        if not new and (file := file_of(self.url)) and not file.exists():
            raise MissingError(
                f"{file.absolute()} is not there, where the trials of the search are kept",
                remedy="" if self.own else "--storage URL, where it is now",
            )
        with opening(self.url), said_as_ours(self.url):
            self.storage = storage_of(self.url)
            self._open(new)

    def _open(self, new: bool) -> None:
        import optuna

        name = self.search["study"]
        if not new and name not in optuna.get_all_study_names(self.storage):
            self.close()
            raise MissingError(
                f"there is no search {name} in the storage {masked(self.url)}",
                remedy="--storage URL, where it is now",
            )
        self.study = optuna.create_study(
            storage=self.storage,
            study_name=name,
            direction="minimize" if self.search["better"] == "lower" else "maximize",
            load_if_exists=True,
        )
        self.finished = optuna.trial.TrialState.COMPLETE
        self.failed = optuna.trial.TrialState.FAIL
        self.running = optuna.trial.TrialState.RUNNING

    def close(self) -> None:
        """Let go of the storage."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    @contextmanager
    def reached(self) -> Iterator[None]:
        """RunFailed where the storage fails on the way; what was trained is told at --resume."""
        try:
            with said_as_ours(self.url):
                yield
        except LatentForgeError as error:
            raise RunFailed(
                error.message,
                details=error.details,
                remedy=command_again(self.folder, self.search),
            ) from None

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        """The number and the values of a new trial, or None where there are enough."""
        with self.reached():
            if self.left() <= 0:
                return None
            trial = self.study.ask()
            trial.set_user_attr(FOLDER, self.search["folder"])
            # Two that ask at once are told apart by their numbers: the later one counts the other.
            place = self._counted(before=trial.number)
            if place >= self.search["trials"]:
                self.study.tell(trial, state=self.failed)
                return None
            self._seed(place)
            values = {key: part.suggest(trial, key) for key, part in self.space.items()}
            trial.set_user_attr(PLACE, place)
            return trial.number, values

    def _seed(self, place: int) -> None:
        """What a trial tries depends on its place and on what was told before it: a search that
        was stopped between trials then goes on as if it had not been."""
        from optuna.samplers import TPESampler

        seed = mix("trial", self.search["seed"], place) & 0xFFFFFFFF  # numpy takes 32 bits
        self.study.sampler = TPESampler(seed=seed, constant_liar=True)

    def left(self) -> int:
        """How many trials nobody has asked for yet."""
        with self.reached():
            return int(self.search["trials"]) - self._counted()

    def _counted(self, before: float = float("inf")) -> int:
        return sum(
            trial.number < before and (trial.state == self.running or PLACE in trial.user_attrs)
            for trial in self.study.get_trials(deepcopy=False)
        )

    def adopted(self, known: set[int]) -> list[tuple[int, dict[str, Any]]]:
        """The running trials of this folder that sweep.json does not know, because the process
        was killed just then; those without values are handed back."""
        found = []
        with self.reached():
            for trial in self.study.get_trials(deepcopy=False):
                ours = self.own or trial.user_attrs.get(FOLDER) == self.search["folder"]
                if trial.state != self.running or trial.number in known or not ours:
                    continue
                if PLACE in trial.user_attrs:
                    told = trial.params
                    values = {key: part.value_of(told[key]) for key, part in self.space.items()}
                    found.append((trial.number, values))
                else:
                    self.study.tell(trial.number, state=self.failed)
        return found

    def settle(self, member: Mapping[str, Any]) -> None:
        """Tell how a member ended, unless that was told. A trial that was told to have failed
        stays so: a later success is told as a trial of its own, which is not counted."""
        number = member["trial"]
        value = objective_value(self.search, member)
        with self.reached():
            trials = self.study.get_trials(deepcopy=False)
            trial = next((trial for trial in trials if trial.number == number), None)
            if trial is None:
                raise MissingError(f"{masked(self.url)} has no trial {number}")
            if trial.state == self.running:
                state = self.failed if value is None else self.finished
                self.study.tell(number, value, state=state)
                return
            told = any(other.user_attrs.get(AGAIN) == number for other in trials)
            if trial.state == self.failed and value is not None and not told:
                self._tell_again(trial, value)

    def _tell_again(self, trial: Any, value: float) -> None:
        from optuna.trial import create_trial

        self.study.add_trial(
            create_trial(
                params=trial.params,
                distributions=trial.distributions,
                value=value,
                user_attrs={AGAIN: trial.number, FOLDER: self.search["folder"]},
            )
        )

    def best(self) -> dict[str, Any]:
        """The number and value of the best trial of all, and whether it is of this folder; empty
        where none is done."""
        with self.reached():
            done = [t for t in self.study.get_trials(deepcopy=False) if t.state == self.finished]
            if not done:
                return {}
            best = self.study.best_trial
            number = best.user_attrs.get(AGAIN, best.number)
            here = best.user_attrs.get(FOLDER) == self.search["folder"]
            return {"trial": number, "value": best.value, "here": here}


def file_of(url: str) -> Path | None:
    """The file of an SQLite storage; None of others, and of one in memory. UsageError for a URL
    that is none."""
    from sqlalchemy import make_url

    with opening(url):
        parsed = make_url(url)
    place = parsed.database or ""
    named = place and not place.startswith((":memory:", "file:"))
    return Path(place) if named and parsed.get_backend_name() == "sqlite" else None


def rooted(url: str) -> str:
    """The URL with the path of an SQLite file absolute, so that it is found from every folder."""
    from sqlalchemy import make_url

    if (file := file_of(url)) is None:
        return url
    return make_url(url).set(database=str(file.absolute())).render_as_string(hide_password=False)


def storage_of(url: str) -> Any:
    """The storage at a URL. Several that begin at once all make its tables, and all but one find
    that there are some."""
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

    local = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    for seconds in WAITS:
        try:
            return RDBStorage(url, engine_kwargs=local)
        except SQLAlchemyError as error:
            raced = isinstance(error, IntegrityError | ProgrammingError)
            if not raced and "already exists" not in str(error):
                raise
            time.sleep(seconds)
    return RDBStorage(url, engine_kwargs=local)


@contextmanager
def opening(url: str) -> Iterator[None]:
    """What can be wrong with a URL itself, as errors of ours."""
    from sqlalchemy.exc import ArgumentError

    try:
        yield
    except ImportError as error:
        raise MissingError(
            f"the storage {masked(url)} needs a package that is not installed here",
            details=[without_secrets(one_line(error), url)],
            remedy="install the driver of its database, such as psycopg2-binary",
        ) from None
    except (ArgumentError, ValueError) as error:
        raise UsageError(
            f"the storage {masked(url)} is no URL that Optuna takes",
            details=[without_secrets(one_line(error), url)],
            remedy="--storage sqlite:///search.db, or postgresql://USER:PASSWORD@HOST/NAME",
        ) from None


@contextmanager
def said_as_ours(url: str) -> Iterator[None]:
    """What fails in a storage as an error of ours, in which no password stands. Nothing is said of
    what Optuna logs, such as that it has made a study."""
    import optuna
    from sqlalchemy.exc import ArgumentError, SAWarning, SQLAlchemyError

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", SAWarning)  # of options in the URL, with their values
            yield
    except ArgumentError:
        raise
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, OSError) as error:
        raise MissingError(
            f"the storage {masked(url)} cannot be used",
            details=[without_secrets(one_line(error), url)],
            remedy="see that it is there, and takes the user and the password",
        ) from None
    finally:
        optuna.logging.set_verbosity(verbosity)
