"""Contract checks for measures."""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any

from latentforge.config.schema import Component
from latentforge.conformance.assertions import (
    LABELS_HINT,
    SEED_HINT,
    refusal_is_not_checked,
    require_declared_factors,
    require_handled,
    require_unmodified_models,
    without_times,
)
from latentforge.conformance.capabilities import roles_of
from latentforge.conformance.fixtures import (
    load_tiny_run,
    models_of,
    other_runs,
    restricted_run,
    run_needs,
    run_with,
)
from latentforge.conformance.global_state import require_no_global_change
from latentforge.conformance.subject import CheckSkipped, Subject, require
from latentforge.errors import UsageError

if TYPE_CHECKING:
    from latentforge.workflows.load import LoadedRun


def it_returns_finite_numbers_with_a_protocol(subject: Subject) -> None:
    result = _first_result(subject)
    metrics, protocol = result["metrics"], result["protocol"]
    hint = "return a dict from names to numbers in compute()"
    require(metrics, "it returned no metrics", hint)
    wrong = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    hint = "fix the arithmetic, or raise UsageError if the data does not define it"
    require(not wrong, ", ".join(wrong), hint)
    undefined = [name for name in metrics if not protocol[name].strip()]
    hint = "protocol='a sentence: unit, what it sums over, which z' in its spec"
    require(not undefined, f"{', '.join(undefined)} has no protocol", hint)


def metric_names_do_not_depend_on_the_split(subject: Subject) -> None:
    expected = [*_first_result(subject)["metrics"]]
    for split in ("train", "validation"):
        with require_handled(f"the split {split}"):
            names = [*_evaluate(subject, split)["metrics"]]
        saw = f"its metrics on the split {split} are {names}, and on test {expected}"
        hint = "return the same names for each split, because curves and tables compare them"
        require(sorted(names) == sorted(expected), saw, hint)


def the_same_evaluation_gives_the_same_numbers(subject: Subject) -> None:
    found = _first_result(subject), _evaluate(subject)
    first, second = (without_times(result["metrics"]) for result in found)
    saw = f"the metrics of two evaluations differ: {first}, {second}"
    require(first == second, saw, SEED_HINT)


def it_uses_only_declared_capabilities(subject: Subject) -> None:
    with restricted_run(subject) as loaded_run:
        _measure(subject, loaded_run)


def it_works_without_labels(subject: Subject) -> None:
    needs = {*subject.entry.spec.needs, *chain(*roles_of(subject).values())}
    if subject.entry.spec.labels or "classify" in needs:
        raise CheckSkipped("it has labels=True, or needs a classifier")
    with require_handled("a run without labels", LABELS_HINT):
        _evaluate(subject, case="unlabelled", labels=False)


def it_works_without_factors(subject: Subject) -> None:
    """The runs of the other checks have factors."""
    if subject.entry.spec.factors:
        raise CheckSkipped("it has factors=True")
    with require_handled("a run without factors", "set factors=True in its spec"):
        try:
            _evaluate(subject, case="plain", factors=False)
        except UsageError as error:
            require_declared_factors(subject, error)
            raise


def a_split_of_one_image_works(subject: Subject) -> None:
    with require_handled("a split of one image"):
        _evaluate(subject, case="one", test=1)


def the_model_is_not_modified(subject: Subject) -> None:
    loaded_run = load_tiny_run(subject)
    with require_unmodified_models(models_of(loaded_run)):
        _measure(subject, loaded_run)


def global_state_is_unchanged(subject: Subject) -> None:
    with require_no_global_change("evaluating", first=lambda: _first_result(subject)):
        _evaluate(subject)


def _first_result(subject: Subject) -> dict[str, Any]:
    """Return the result of the first evaluation, which several checks share."""
    with refusal_is_not_checked(subject):
        return subject.once("evaluated", lambda: _evaluate(subject))


def _evaluate(subject: Subject, split: str = "test", **data: Any) -> dict[str, Any]:
    """Evaluate a tiny run with the measure."""
    run, roles = run_with(subject, run_needs(subject), **data), other_runs(subject, **data)
    result: dict[str, Any] = subject.forge.evaluate(
        run,
        split,
        measures=[subject.entry.reference],
        roles=roles,
        options={subject.entry.name: subject.options} if subject.options else {},
        device="cpu",
    )
    return result


def _measure(subject: Subject, loaded_run: LoadedRun) -> None:
    """Compute the metrics of a loaded run."""
    from latentforge.workflows.evaluate import measure_split

    with refusal_is_not_checked(subject):
        measure_split(loaded_run, "test", [Component(subject.entry, subject.config)])
