"""Contract checks for explorers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import chdir
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import torch

from latentforge.config.resolve import check_options
from latentforge.config.schema import Component
from latentforge.config.selection import SelectedExplorer
from latentforge.conformance.assertions import (
    HANDLE_DATA,
    LABELS_HINT,
    SEED_HINT,
    refusal_is_not_checked,
    require_handled,
    require_unmodified_models,
    without_times,
)
from latentforge.conformance.capabilities import roles_of
from latentforge.conformance.examples import LIMITS
from latentforge.conformance.fixtures import (
    load_tiny_run,
    models_of,
    other_runs,
    restricted_run,
    run_folder_for,
    run_host,
    run_needs,
    run_with,
)
from latentforge.conformance.global_state import require_no_global_change
from latentforge.conformance.labels import condition_for
from latentforge.conformance.subject import (
    CheckSkipped,
    Subject,
    require,
)
from latentforge.findings import Film, Findings, ImageGrid, Scatter

if TYPE_CHECKING:
    from latentforge.workflows.load import LoadedRun


def it_returns_findings(subject: Subject) -> None:
    found = _first_result(subject)
    files, metrics = {Path(file).name for file in found["files"]}, found["metrics"]
    hint = "return Findings([...]) with a picture, a table or arrays"
    require(files - {"findings.json"}, "it returned no findings", hint)
    not_a_number = [name for name, value in metrics.items() if math.isnan(value)]
    saw = f"{', '.join(not_a_number)} is NaN"
    require(not not_a_number, saw, "leave out a metric that cannot be computed")
    saw = f"it returns metrics {', '.join(metrics)} but no protocol"
    hint = "Findings(..., protocol='a sentence: unit, what it sums over, which codes')"
    require(not metrics or found["protocol"], saw, hint)


def it_uses_only_declared_capabilities(subject: Subject) -> None:
    with restricted_run(subject) as loaded_run:
        _find(subject, loaded_run)


def it_works_without_labels(subject: Subject) -> None:
    needs = {*subject.entry.spec.needs, *chain(*roles_of(subject).values())}
    if subject.entry.spec.labels or "classify" in needs:
        raise CheckSkipped("it has labels=True, or needs a classifier")
    _require_handled(subject, "a run without labels", LABELS_HINT, case="unlabelled", labels=False)


def the_same_run_gives_the_same_findings(subject: Subject) -> None:
    one, other = _first_result(subject), _explore(subject)
    first, second = (without_times(found["metrics"]) for found in (one, other))
    require(first == second, f"the metrics of two runs differ: {first}, {second}", SEED_HINT)
    digests = other["digests"]
    differ = [name for name, digest in one["digests"].items() if digest != digests.get(name)]
    require(not differ, f"files of two runs differ: {', '.join(differ)}", SEED_HINT)


def it_writes_no_files(subject: Subject) -> None:
    """An explorer only returns findings; the core renders and writes them."""
    run = run_with(subject, run_needs(subject))
    before = {*run.path.iterdir()}
    folder = run_folder_for(subject).parent
    with chdir(folder):
        _explore(subject)
    new = sorted(path.name for path in {*folder.iterdir(), *run.path.iterdir()} - before)
    require(not new, f"it writes {', '.join(new)}", "return findings and write no files")


def the_model_is_not_modified(subject: Subject) -> None:
    loaded_run = load_tiny_run(subject)
    with require_unmodified_models(models_of(loaded_run)):
        subject.cache["findings"] = _find(subject, loaded_run)


def images_are_between_0_and_1(subject: Subject) -> None:
    """Decoded values of a range without bounds may be outside the limits that are drawn."""
    if run_host(subject, run_needs(subject)).examples.spec.range_name in LIMITS:
        raise CheckSkipped("the values of its data have no bounds")
    findings = subject.once("findings", lambda: _find(subject, load_tiny_run(subject)))
    for item in findings.items:
        panels = chain(*item.frames) if isinstance(item, Film) else [item]
        for images in chain(*map(_images_of, panels)):
            low, high = float(images.min()), float(images.max())
            saw = f"images of {item.name!r} go from {low:.3g} to {high:.3g}"
            hint = "values outside [0, 1] are clipped: scale them, or use colours='heat'"
            require(low >= -TOLERANCE and high <= 1 + TOLERANCE, saw, hint)


def data_without_some_classes_works(subject: Subject) -> None:
    _require_handled(subject, "a run without images of one class", case="empty", empty=1)


def one_test_image_works(subject: Subject) -> None:
    _require_handled(subject, "a run with one test image", case="one", test=1)


def global_state_is_unchanged(subject: Subject) -> None:
    with require_no_global_change("exploring", first=lambda: _first_result(subject)):
        _explore(subject)


TOLERANCE = 1e-3  # a rounding error, which is not visible


def _images_of(item: Any) -> Iterator[torch.Tensor]:
    """Yield the images of a finding, except heat maps, whose values are arbitrary."""
    if isinstance(item, ImageGrid) and item.colours == "grey":
        yield from item.rows
    if isinstance(item, Scatter):
        shown = item.images, item.plane.images if item.plane else None
        yield from (images for images in shown if images is not None)


def _require_handled(subject: Subject, run: str, hint: str = HANDLE_DATA, **data: Any) -> None:
    """Explore a tiny run with this data, which the explorer may refuse."""
    with require_handled(run, hint):
        _explore(subject, **data)


def _first_result(subject: Subject) -> dict[str, Any]:
    """Return the result of the first exploration, which several checks share."""
    with refusal_is_not_checked(subject):
        return subject.once("explored", lambda: _explore(subject))


def _explore(subject: Subject, **data: Any) -> dict[str, Any]:
    """Explore a tiny run and return its metrics, files, and digests of the files."""
    out, entry = run_folder_for(subject), subject.entry
    run, roles = run_with(subject, run_needs(subject), **data), other_runs(subject, **data)
    result = subject.forge.explore(
        entry.reference,
        run,
        roles=roles,
        out=out,
        device="cpu",
        condition=condition_for(subject, run, *roles.values()),
        quiet=True,
        **subject.options,
    )
    return {**result, "digests": _digests(out)}


def _find(subject: Subject, loaded_run: LoadedRun) -> Findings:
    """Return the findings for a loaded run without rendering them."""
    from latentforge.workflows.explore import compute_findings

    others = [other.run for other in loaded_run.roles.values()]
    selected = SelectedExplorer(
        explorer=Component(subject.entry, subject.config),
        objective=_objective_of(subject),
        condition=condition_for(subject, loaded_run.run, *others),
    )
    with refusal_is_not_checked(subject):
        return compute_findings(loaded_run, selected, lambda _engine: None)


def _digests(folder: Path) -> dict[str, str]:
    """Return SHA-256 digests of the pictures, tables and arrays in a folder. Archives contain
    timestamps, so their members are hashed. HTML pages and findings.json contain timestamps too;
    they are skipped, because they repeat the content."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".npz":
            with ZipFile(path) as archive:
                for name in archive.namelist():
                    digests[f"{path.name}:{name}"] = hashlib.sha256(archive.read(name)).hexdigest()
        elif path.suffix in (".png", ".gif", ".csv"):
            digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def _objective_of(subject: Subject) -> Component | None:
    """Return the default objective of the explorer, or None if it does not search."""
    if not (name := subject.entry.spec.searches):
        return None
    entry = subject.forge.registry.get("objectives", name)
    return Component(entry, check_options(entry.spec.config, {}, entry.name))
