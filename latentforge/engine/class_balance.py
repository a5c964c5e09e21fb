"""Checks whether an accuracy is that of a frequent class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from latentforge.engine.diagnostics import Diagnosis

MAJORITY = 0.5  # share of the largest class from which a run is checked for imbalance
IMBALANCE = 1.5  # share of the largest class, as a multiple of that of equal classes
GAP = 0.1  # accepted excess of an accuracy over the balanced accuracy


def find_majority(counts: Mapping[str, int]) -> tuple[str, float]:
    """Return the most frequent class and its fraction of the images."""
    largest = max(counts, key=lambda name: counts[name])
    return largest, counts[largest] / max(1, sum(counts.values()))


def is_imbalanced(counts: Mapping[str, int]) -> bool:
    present = sum(count > 0 for count in counts.values())
    share = find_majority(counts)[1]
    return present > 1 and share >= max(MAJORITY, IMBALANCE / present)


def check_training_classes(counts: Mapping[str, int]) -> Iterator[Diagnosis]:
    """Check the number of training images of each class before a classifier is trained."""
    if is_imbalanced(counts):
        largest, share = find_majority(counts)
        yield Diagnosis(
            "imbalance",
            "warning",
            f"{counts[largest]} of the {sum(counts.values())} training images are of class "
            f"{largest}, and answering it always has accuracy {share:.3f} on such images",
            "use the measure balanced_accuracy; add images of the rare classes",
        )


def check_majority(counts: Mapping[str, int], split: str, accuracy: float) -> Iterator[Diagnosis]:
    """Check whether an accuracy on `split` is above that of its most frequent class. `counts` is
    the number of images of each class in it."""
    largest, baseline = find_majority(counts)
    if baseline == 1:
        fact = (
            f"all images of the {split} split are of class {largest}, and the model has accuracy "
            f"{accuracy:.3f}"
        )
        hint = "evaluate on images of all classes: nothing is known about the others"
        yield Diagnosis("accuracy", "warning", fact, hint)
    elif accuracy <= baseline:
        yield Diagnosis(
            "accuracy",
            "warning",
            f"answering {largest} always has accuracy {baseline:.3f} on the {split} images, and "
            f"the model has {accuracy:.3f}",
            "compare the class counts of the splits with `latentforge data show`, or train longer",
        )


def check_balance(
    counts: Mapping[str, int],
    held_out: Mapping[str, int],
    split: str,
    accuracy: float,
    recalls: Sequence[float],
) -> Iterator[Diagnosis]:
    """Check whether an accuracy is that of a frequent class. `counts` is the number of training
    images of each class, `held_out` that of the images of `split`, and `recalls` the accuracy on
    each class that has some of these."""
    if not is_imbalanced(counts):
        yield from check_majority(held_out, split, accuracy)
        return
    largest = find_majority(counts)[0]
    baseline = held_out.get(largest, 0) / sum(held_out.values())
    absent = sum(count > 0 for count in counts.values()) - len(recalls)
    balanced = sum(recalls) / len(recalls)
    is_baseline = absent > 0 or accuracy < baseline + 0.5 * (1 - baseline)
    weighted = f"{balanced:.3f} if each class has the same weight"
    missing = f"{absent} of the classes have no {split} image"
    yield Diagnosis(
        "imbalance",
        "warning" if is_baseline or balanced < accuracy - GAP else "note",
        f"{counts[largest]} of the {sum(counts.values())} training images are of class {largest}, "
        f"and answering it always has accuracy {baseline:.3f} on the {split} images; the model "
        f"has {accuracy:.3f}, "
        f"and {missing if absent > 0 else weighted}",
        "use the measure balanced_accuracy; add images of the rare classes",
    )
