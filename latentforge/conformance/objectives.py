"""Contract checks for objectives."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from latentforge.conformance.assertions import (
    require_same,
    require_tensor,
    run_with_seeds,
    seed_torch,
    use_other_device,
)
from latentforge.conformance.capabilities import restrict_to_needs, roles_of
from latentforge.conformance.examples import DEFAULT, Examples, given_examples, make_data_spec
from latentforge.conformance.fixtures import (
    load_tiny_run,
    role_models,
    run_host,
    run_needs,
)
from latentforge.conformance.global_state import require_no_global_change
from latentforge.conformance.subject import (
    CheckFailed,
    CheckSkipped,
    NotChecked,
    Subject,
    require,
)
from latentforge.io.text import counted

ROWS = 5


def requests_are_strings(subject: Subject) -> None:
    requests = _objective_of(subject).requests
    require(not isinstance(requests, str), f"requests is {requests!r}", "use a list of strings")
    require(len(requests) > 0, "it has no requests", "describe each one in `requests`")
    texts = all(isinstance(text, str) and text.strip() for text in requests)
    require(texts, f"requests is {list(requests)!r}", "describe each request in a string")


def one_score_and_one_flag_per_row(subject: Subject) -> None:
    objective, x, request = _prepare(subject)
    score, satisfied = objective.score(x, request), objective.satisfied(x, request)
    require_tensor(score, (ROWS,), "score(x, request)", x.dtype)
    require_tensor(satisfied, (ROWS,), "satisfied(x, request)", torch.bool)


def its_options_do_not_clash_with_an_explorer(subject: Subject) -> None:
    """The options of both are set in one namespace, so a shared name would be ambiguous."""
    options = {field.name for field in fields(subject.entry.spec.config)}
    for entry in subject.forge.registry.entries("explorers"):
        if entry.spec.searches:
            shared = sorted(options & {field.name for field in fields(entry.spec.config)})
            saw = f"it and explorer {entry.name!r} both have an option {', '.join(shared)}"
            require(not shared, saw, "rename them: the explorer rejects such an objective")


def it_uses_only_declared_capabilities(subject: Subject) -> None:
    if not roles_of(subject):
        raise CheckSkipped("it has no roles")
    from latentforge.workflows.explore import create_context

    loaded_run = load_tiny_run(subject)
    with restrict_to_needs(*role_models(subject, loaded_run.roles), field="roles"):
        objective = _build(subject, create_context(loaded_run))
        x, request = _attempts(subject, objective)
        objective.score(x, request)
        objective.satisfied(x, request)


def it_works_on_another_device(subject: Subject) -> None:
    objective, x, request = _prepare(subject)
    if "context" in subject.cache:
        raise CheckSkipped("it is built for a run, and all x are on the device of that run")
    with use_other_device(DEVICE_HINT) as device:
        x, request = x.to(device), request.to(device)
        for name in ("score", "satisfied"):
            value = getattr(objective, name)(x, request)
            saw = f"{name}(x, request) is on {value.device}"
            require(value.device == x.device, saw, DEVICE_HINT)


def the_score_is_differentiable_in_x(subject: Subject) -> None:
    objective, x, request = _prepare(subject)
    x = x.detach().clone().requires_grad_()
    score = objective.score(x, request)
    require(score.requires_grad, "the score has no gradient in x", "do not detach or round x")
    [gradient] = torch.autograd.grad(score.sum(), x, allow_unused=True)
    require(gradient is not None, "the score does not depend on x", "use x in score")
    require(gradient.isfinite().all(), "the gradient of the score is not finite", GRADIENT_HINT)
    # if all rows satisfy their requests, a gradient of 0 is correct
    satisfied = objective.satisfied(x, request)
    saw = "the gradient of the score is 0 everywhere, although not all rows satisfy their requests"
    require(gradient.any() or satisfied.all(), saw, GRADIENT_HINT)


def rows_are_independent(subject: Subject) -> None:
    """A search drops rows that are satisfied, so no row may depend on the others."""
    objective, x, request = _prepare(subject)
    score, satisfied = objective.score(x, request), objective.satisfied(x, request)
    for row in range(ROWS):
        part = slice(row, row + 1)
        alone = objective.score(x[part], request[part])
        saw = "the score of a row depends on the other rows"
        require_same(score[part], alone, saw, "do not take means over the batch")
        same = torch.equal(objective.satisfied(x[part], request[part]), satisfied[part])
        saw = "satisfied() of a row depends on the other rows"
        require(same, saw, "compute each row on its own")


def the_score_is_deterministic(subject: Subject) -> None:
    objective, x, request = _prepare(subject)
    scores = run_with_seeds((0, 1), lambda: objective.score(x, request))
    hint = "use no random numbers in score"
    require(torch.equal(*scores), "the scores of two calls differ", hint)


def one_class_per_request(subject: Subject) -> None:
    objective = _objective_of(subject)
    classes = getattr(objective, "classes", None)
    if classes is None:
        raise CheckSkipped("it has no classes")
    require_tensor(classes, (len(objective.requests),), "classes", torch.int64)


def global_state_is_unchanged(subject: Subject) -> None:
    with require_no_global_change("building and calling it", first=lambda: _prepare(subject)):
        objective, x, request = _prepare(subject)
        objective.score(x, request)


DEVICE_HINT = "make tensors with device=x.device (x.new_tensor, torch.zeros_like)"
GRADIENT_HINT = "make it finite and non-zero: a search follows this gradient"


def _objective_of(subject: Subject) -> Any:
    """A new objective, with the context of a tiny run if it does not work without one."""
    from latentforge.workflows.explore import create_context

    def scores_alone() -> bool:
        try:
            objective = _build(subject, None)
            objective.score(*_attempts(subject, objective))
        except Exception:
            return False
        return True

    if subject.once("does without a run", scores_alone):
        return _build(subject, None)
    return _build(subject, subject.once("context", lambda: create_context(load_tiny_run(subject))))


def _build(subject: Subject, context: Any) -> Any:
    seed_torch(0, "objective")
    with torch.no_grad():
        return subject.entry.spec.build(subject.config, context)


def _attempts(subject: Subject, objective: Any) -> tuple[Tensor, Tensor]:
    """Return the rows of `example`, by default examples of the data, and a request for each."""
    x = subject.example() if subject.example else _examples_for(subject).batch(ROWS).x
    if len(x) != ROWS:
        raise CheckFailed(f"the example has {counted(len(x), 'row')}", f"return {ROWS} rows")
    return x, torch.arange(ROWS) % len(objective.requests)


def _examples_for(subject: Subject) -> Examples:
    """The data of the run that the objective is built for. Without one, the given data or shape,
    the example of its spec, or images."""
    if "context" in subject.cache:
        return run_host(subject, run_needs(subject)).examples
    if given := given_examples(subject):
        return given
    if subject.shape:
        return Examples(make_data_spec(subject.shape))
    example = subject.entry.spec.example
    return Examples(example) if example else DEFAULT


def _prepare(subject: Subject) -> tuple[Any, Tensor, Tensor]:
    """Return an objective, rows and their requests. Raises CheckSkipped if it cannot score them."""
    objective = _objective_of(subject)
    x, request = _attempts(subject, objective)
    if not subject.example:
        try:
            objective.score(x, request)
        except (RuntimeError, IndexError, ValueError) as error:  # the errors of a wrong shape
            why = f"it does not score data of {_examples_for(subject)} ({error})"
            hint = "state `example` in its spec, give --shape, or pass example=, a function that"
            raise NotChecked(f"{why}; {hint} returns inputs") from None
    return objective, x, request
