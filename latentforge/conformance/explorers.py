"""Contract checks for explorers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import torch

from latentforge.config.resolve import check_options
from latentforge.config.schema import Component
from latentforge.conformance.capabilities import only_what_is_needed, roles_of
from latentforge.conformance.fixtures import (
    opened,
    other_runs,
    run_folder_for,
    run_with,
    with_roles,
)
from latentforge.conformance.global_state import nothing_global_changed
from latentforge.conformance.subject import CheckFailed, CheckSkipped, Subject, require
from latentforge.errors import UsageError
from latentforge.findings import Film, Findings, ImageGrid, Scatter

if TYPE_CHECKING:
    from latentforge.workflows.load import LoadedRun


def it_finds_something(subject: Subject) -> None:
    found = _once(subject)
    require(
        {Path(file).name for file in found["files"]} - {"findings.json"},
        "it returned no findings",
        "return Findings([...]) with a picture, a table or arrays",
    )
    ruined = [name for name, value in found["metrics"].items() if math.isnan(value)]
    require(not ruined, f"{', '.join(ruined)} is NaN", "leave out a metric that cannot be computed")
    require(
        not found["metrics"] or found["protocol"],
        f"it returns metrics {', '.join(found['metrics'])} but no protocol",
        "Findings(..., protocol='a sentence: unit, what it sums over, which codes')",
    )


def it_needs_no_more_than_it_says(subject: Subject) -> None:
    """The config lists only the needed capabilities too, for explorers that read it."""
    seen, needs = opened(subject), subject.entry.spec.needs
    entry = seen.config.model.entry
    bare = replace(entry, spec=replace(entry.spec, provides=needs))
    config = replace(seen.config, model=replace(seen.config.model, entry=bare))
    model, loss = seen.loaded.model, seen.loaded.loss
    beside = type(loss), type(getattr(loss, "likelihood", loss))
    with (
        only_what_is_needed((model, entry.spec.provides, needs), named="needs", beside=beside),
        only_what_is_needed(*with_roles(subject, seen), named="roles"),
    ):
        _looked(subject, replace(seen, config=config))


def it_works_without_labels(subject: Subject) -> None:
    wanted = {*subject.entry.spec.needs, *chain(*roles_of(subject).values())}
    if subject.entry.spec.labels or "classify" in wanted:
        raise CheckSkipped("it has labels=True, or needs a classifier")
    _tried(subject, "a run without labels", LABELS, what="unlabelled", labels=False)


def the_same_run_gives_the_same_findings(subject: Subject) -> None:
    one, other = _once(subject), _explored(subject)
    clocks = ("seconds", "per_second")  # suffixes of timing metrics
    first, second = (
        repr({k: v for k, v in found["metrics"].items() if not k.endswith(clocks)})
        for found in (one, other)
    )
    require(first == second, f"the metrics of two runs differ: {first}, {second}", SEED)
    differ = [name for name, told in one["held"].items() if told != other["held"].get(name)]
    require(not differ, f"files of two runs differ: {', '.join(differ)}", SEED)


def it_writes_no_file_of_its_own(subject: Subject) -> None:
    """The core renders and writes the returned findings."""
    run = run_with(subject, subject.entry.spec.needs)
    before = {*run.path.iterdir()}
    folder = run_folder_for(subject).parent
    with chdir(folder):
        _explored(subject)
    new = sorted(path.name for path in {*folder.iterdir(), *run.path.iterdir()} - before)
    require(not new, f"it writes {', '.join(new)}", "return findings and write no files")


def it_leaves_the_model_as_it_is(subject: Subject) -> None:
    seen = opened(subject)
    models = {f"the model of role {role}": loaded.model for role, loaded in seen.roles.items()}
    models = {"the model": seen.loaded.model, **models}
    before = {name: _fingerprint(model) for name, model in models.items()}
    subject.kept["findings"] = _looked(subject, seen)
    changed = [name for name, model in models.items() if _fingerprint(model) != before[name]]
    require(
        not changed,
        f"weights, buffers, mode or requires_grad of {' and '.join(changed)} have changed",
        "work on a copy (copy.deepcopy), and keep the models in evaluation mode",
    )


def images_lie_between_0_and_1(subject: Subject) -> None:
    findings = subject.once("findings", lambda: _looked(subject, opened(subject)))
    for item in findings.items:
        panels = chain(*item.frames) if isinstance(item, Film) else [item]
        for images in chain(*map(_images_of, panels)):
            low, high = float(images.min()), float(images.max())
            require(
                low >= -CLIPPED and high <= 1 + CLIPPED,
                f"images of {item.name!r} go from {low:.3g} to {high:.3g}",
                "values outside [0, 1] are clipped: scale them, or use colours='heat'",
            )


def a_class_without_images_works(subject: Subject) -> None:
    _tried(subject, "a run with a class without images", what="empty", empty=1)


def one_test_image_works(subject: Subject) -> None:
    _tried(subject, "a run with one test image", what="one", test=1)


def nothing_global_is_changed(subject: Subject) -> None:
    with nothing_global_changed("exploring", first=lambda: _once(subject)):
        _explored(subject)


CLIPPED = 1e-3  # a rounding error, which is not visible
COPES = "handle this data, or raise UsageError with a hint"
LABELS = "set labels=True in its spec, or do not use y; if only an option needs y, raise UsageError"
SEED = "use torch's default generator, which is seeded, or the seed in the context"


def _images_of(item: Any) -> Iterator[torch.Tensor]:
    """The images of a finding, except those whose colours show arbitrary numbers."""
    if isinstance(item, ImageGrid) and item.colours == "grey":
        yield from item.rows
    if isinstance(item, Scatter):
        shown = item.images, item.plane.images if item.plane else None
        yield from (images for images in shown if images is not None)


def _tried(subject: Subject, of: str, mend: str = COPES, **given: Any) -> None:
    """Raise CheckSkipped if the explorer refuses such a run with a UsageError, CheckFailed if it
    raises anything else."""
    try:
        _explored(subject, **given)
    except UsageError as error:
        raise CheckSkipped(f"it rejects {of}: {error.message}") from None
    except CheckSkipped:
        raise
    except Exception as error:
        raise CheckFailed(f"for {of}: {error}", mend) from error


def _once(subject: Subject) -> dict[str, Any]:
    """The result of the first exploration, for the checks that need no other."""
    return subject.once("explored", lambda: _explored(subject))


def _explored(subject: Subject, **given: Any) -> dict[str, Any]:
    """Explore a tiny run: metrics, files, and digests of the contents of the files."""
    out = run_folder_for(subject)
    found: dict[str, Any] = subject.forge.explore(
        subject.entry.reference,
        run_with(subject, subject.entry.spec.needs, **given),
        roles=other_runs(subject, **given),
        out=out,
        device="cpu",
        quiet=True,
        **subject.options,
    )
    return {**found, "held": _held(out)}


def _looked(subject: Subject, seen: LoadedRun) -> Findings:
    """The findings for a loaded run, not rendered."""
    from latentforge.workflows.explore import compute_findings

    explorer = Component(subject.entry, subject.config)
    return compute_findings(seen, explorer, _objective_of(subject), lambda _engine: None)


def _held(folder: Path) -> dict[str, str]:
    """SHA-256 digests of the pictures, tables and arrays in a folder. Archives contain the time, so
    their members are hashed. Pages and findings.json repeat the content, contain times and are
    skipped."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".npz":
            with ZipFile(path) as archive:
                for name in archive.namelist():
                    found[f"{path.name}:{name}"] = hashlib.sha256(archive.read(name)).hexdigest()
        elif path.suffix in (".png", ".gif", ".csv"):
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _fingerprint(model: torch.nn.Module) -> str:
    flags = [module.training for module in model.modules()]
    digest = hashlib.sha256(str([flags, [p.requires_grad for p in model.parameters()]]).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()


def _objective_of(subject: Subject) -> Component | None:
    """The default objective of an explorer that searches, else None."""
    if not subject.entry.spec.searches:
        return None
    entry = subject.forge.registry.get("objectives", subject.entry.spec.searches)
    return Component(entry, check_options(entry.spec.config, {}, entry.name))
