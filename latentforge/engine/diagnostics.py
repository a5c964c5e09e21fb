"""Diagnostics: checks of codes and loss curves, which return what they saw and a hint.

`find_problems` needs only metrics and runs during training. `workflows/diagnose.py` calls the
checks of a finished run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from latentforge.contracts import DataSpec, LatentSpec, at_once
from latentforge.data.images import ImageSplit
from latentforge.io.text import counted
from latentforge.latent import LOG_VAR_RANGE, declared_kl, dimension_names, given, log_ratio

BATCH = 1000
DEAD_KL = 0.01  # nats per image; a dimension below it carries no information about the image
DEAD_VARIANCE = 0.01  # variance of the means, for a prior of variance 1: Burda et al. 2016
MIN_IMAGES = 100  # images needed to estimate a variance
DEAD_SHARE = 1e-4  # fraction of the largest variance of the codes, for a model without a prior
COLLAPSED_KL = 0.5  # nats per image, summed over dimensions
USED_SHARE = 0.1  # smallest perplexity of a codebook, as a fraction of its entries
CODES_PER_ENTRY = 10  # codes needed to judge how often entries are used
LARGE_KL = 1000.0  # nats in one dimension: codes 45 standard deviations from the prior's mean
LARGE_LOG_VAR = 10.0  # a standard deviation of 150; the prior's is 1
GAP = 0.1  # accepted excess of the held-out loss, as a fraction of the training loss
LARGE_GAP = 0.3  # the same limit if only the final held-out loss is known
RISE = 0.01  # accepted rise of the held-out loss, as a fraction of its minimum
NATS = 1.0  # losses nearer to 0, such as cross-entropies, are compared on an absolute scale
LEAST_RISE = 0.05  # nats
WARM_UP = (
    "a KL that warms up (--loss beta-elbo --set loss.beta=1 --set loss.schedule=linear "
    "--set loss.end_epoch=N)"
)
IGNORED = "the decoder ignores the code"
# the mean KL is an upper bound of the mutual information of image and code
LITTLE = "the code carries at most this much information about the image"
ARTEFACT = 0.01  # smallest excess of the running average that is reported, as a fraction
UNSTABLE_HINT = "a smaller train.lr, train.clip_grad_norm=1, a larger beta; check the data's range"


@dataclass(frozen=True)
class Diagnosis:
    """The result of a check. `saw` states a fact with numbers, and `attempt` is a hint. A note does
    not report a problem."""

    check: str
    severity: Literal["warning", "note"]
    saw: str
    attempt: str

    def adapt(self, data: DataSpec) -> Diagnosis:
        """Return the diagnosis in the words of the data. The name of the check stays."""
        return replace(self, saw=data.adapt(self.saw), attempt=data.adapt(self.attempt))

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.severity}: {self.check}: {self.saw}; {self.attempt}"


@dataclass(frozen=True)
class Codes:
    """Statistics of the posteriors of a split, each (D,) with one value per latent dimension."""

    variance: Tensor  # of the posteriors' modes
    images: int
    kl: Tensor | None = None  # mean, nats per image
    log_var: tuple[float, float] | None = None  # minimum and maximum over all dimensions
    names: Sequence[str] = ()  # of the dimensions if they have groups
    estimated_kl: float | None = None  # mean of samples and images, if there is no closed form
    own_prior: bool = False  # whose variance is not known to be 1


# ---------------------------------------------------------------- while training


@dataclass
class WarningHistory:
    """The warnings of a run by check, with the first and the last epoch of each."""

    seen: dict[str, tuple[int, int, Diagnosis]] = field(default_factory=dict)  # first, last epoch
    epoch: int = 0

    def update(self, epoch: int, diagnoses: Sequence[Diagnosis]) -> list[Diagnosis]:
        """Add the findings after an epoch; return warnings of checks that had not warned before."""
        self.epoch = epoch
        known = set(self.seen)
        for finding in diagnoses:
            if finding.severity == "warning":
                first = self.seen[finding.check][0] if finding.check in self.seen else epoch
                self.seen[finding.check] = (first, epoch, finding)
        return [finding for finding in self.findings() if finding.check not in known]

    def findings(self) -> list[Diagnosis]:
        """One finding per check: a warning with current numbers, or a note if it has passed."""
        return [self._describe(*seen) for seen in self.seen.values()]

    def passed(self) -> list[Diagnosis]:
        return [finding for finding in self.findings() if finding.severity == "note"]

    def _describe(self, first: int, last: int, finding: Diagnosis) -> Diagnosis:
        if last == self.epoch:
            since = f"since epoch {first}" if first < last else f"after epoch {first}"
            return replace(finding, saw=f"{since}: {finding.saw}")
        when = f"from epoch {first} to epoch {last}" if first < last else f"after epoch {first}"
        fact, _, _ = finding.saw.partition(": ")  # without the consequence, which no longer applies
        saw = f"{when}, but no longer: {fact}"
        return replace(finding, severity="note", saw=saw, attempt="nothing: it has passed")


def find_problems(
    per_dim: Mapping[str, Sequence[float]],
    train: float | None = None,
    held_out: Sequence[float] = (),
    latent: LatentSpec | None = None,
    advice: str = WARM_UP,
) -> list[Diagnosis]:
    """Find collapse, explosion and overfitting from the metrics of an epoch alone.

    `train` is the loss on training images, `held_out` the validation loss after each epoch so far.
    Both are computed in evaluation mode and with the loss's schedule at its end, because a running
    average under a schedule belongs to a different objective. `advice` is that of
    `advise_on_collapse`.
    """
    diagnoses: list[Diagnosis] = []
    if kl := per_dim.get("kl"):
        names = _names(latent, len(kl))
        collapsed = find_collapse(torch.tensor(kl), "while training", advice, names=names)
        diagnoses += [*collapsed, *check_kl(kl, names)]
    if train is not None and held_out:
        diagnoses += check_overfitting(train, held_out, "training images", "the validation images")
    return diagnoses


# ---------------------------------------------------------------- a finished run


def find_dead_latents(codes: Codes, where: str, advice: str = WARM_UP) -> Iterator[Diagnosis]:
    """Find latent dimensions without information about the image. `advice` is that of
    `advise_on_collapse`."""
    if codes.kl is not None:
        enough = codes.images >= MIN_IMAGES  # the variance of a few images is unreliable
        variance = codes.variance if enough and not codes.own_prior else None
        yield from find_collapse(codes.kl, f"on {where}", advice, variance, codes.names)
        return
    if codes.estimated_kl is not None and codes.estimated_kl < COLLAPSED_KL:
        saw = f"an estimated KL of {codes.estimated_kl:.3g} nats per image on {where}"
        yield describe_collapse(saw, LITTLE, advice)
        return
    largest = float(codes.variance.max())
    if dead := (codes.variance <= DEAD_SHARE * largest).nonzero().flatten().tolist():
        named = _join(dead, codes.names)
        yield Diagnosis(
            "dead latents",
            "warning",
            f"{len(dead)} of {counted(len(codes.variance), 'code dimension')} ({named}) "
            f"hardly {'varies' if len(dead) == 1 else 'vary'} between images",
            "fewer latent dimensions, another seed or a smaller train.lr",
        )


def find_collapse(
    kl: Tensor,
    where: str,
    advice: str = WARM_UP,
    variance: Tensor | None = None,
    names: Sequence[str] = (),
) -> Iterator[Diagnosis]:
    """Find collapse or dead dimensions from the KL (D,) in nats and the variance of the means."""
    dead, total = kl < DEAD_KL, float(kl.sum())
    constant = variance is not None and bool((variance < DEAD_VARIANCE).all())
    if bool(dead.all()) or total < COLLAPSED_KL or constant:
        same = ", and no posterior mean varies between images" if constant else ""
        effect = IGNORED if constant or bool(dead.all()) else LITTLE
        yield describe_collapse(f"a KL of {total:.3g} nats per image {where}{same}", effect, advice)
    elif dims := dead.nonzero().flatten().tolist():
        yield Diagnosis(
            "dead latents",
            "note",
            f"{len(dims)} of {counted(len(kl), 'latent dimension')} ({_join(dims, names)}) "
            f"{'carries' if len(dims) == 1 else 'carry'} less than {DEAD_KL} nats {where}",
            "nothing if the metrics are good: the model uses as many dimensions as it needs; "
            "otherwise a smaller beta, a warm-up, or fewer dimensions",
        )


def describe_collapse(saw: str, effect: str, advice: str) -> Diagnosis:
    attempt = ", ".join(filter(None, [advice, "more epochs"]))
    return Diagnosis("posterior collapse", "warning", f"{saw}: {effect}", attempt)


def advise_on_collapse(options: Any, likelihood: Any) -> str:
    """Return what raises the KL of a run whose loss has these `options` and this likelihood. It
    names only options that the loss has."""
    names = {field.name for field in fields(options)}
    advice = [WARM_UP]
    if "beta" in names:
        advice.append("a smaller loss.beta")
    width = getattr(likelihood, "sigma", getattr(likelihood, "scale", None))  # Gaussian, Laplace
    if "sigma" in names and isinstance(width, float):  # a learnt one is a tensor
        advice.append("a smaller loss.sigma")
    return ", ".join(advice)


def find_codebook_collapse(counts: Tensor, where: str, options: Any) -> Iterator[Diagnosis]:
    """Find a codebook of which few entries are used, from the number of codes of each, (K,). The
    hint names only those of the model's `options` that exist."""
    entries = len(counts)
    has_restart = "restart" in {field.name for field in fields(options)}
    restart = "restart unused entries (model.restart), " if has_restart else ""
    if counts.sum() < CODES_PER_ENTRY * entries:
        return
    share = counts.double() / counts.sum()
    perplexity = float(torch.exp(-torch.xlogy(share, share).sum()))
    if perplexity < USED_SHARE * entries:
        yield Diagnosis(
            "codebook collapse",
            "warning",
            f"{int((counts > 0).sum())} of {entries} entries of the codebook occur in the codes of "
            f"{where}, and a perplexity of {perplexity:.3g}: the others carry no information",
            f"{restart}more epochs, another train.lr, or fewer entries",
        )


def check_log_var(codes: Codes) -> Iterator[Diagnosis]:
    """Find a log-variance that is far above the prior's, at the lower clamp, or not finite."""
    if codes.log_var is None:
        return
    low, high = codes.log_var
    if not math.isfinite(low + high) or high > LARGE_LOG_VAR or low <= LOG_VAR_RANGE[0]:
        fact = f"the posterior's log-variance goes from {low:.3g} to {high:.3g}"
        yield Diagnosis("log-variance", "warning", fact, UNSTABLE_HINT)


def check_kl(kl: Sequence[float], names: Sequence[str] = ()) -> Iterator[Diagnosis]:
    """Find a KL so large that a code or a variance must be far from the prior's."""
    largest = max(kl)
    if largest > LARGE_KL:
        fact = (
            f"a KL of {largest:.3g} nats per image in latent dimension "
            f"{_join([kl.index(largest)], names)}: its "
            "codes or their variance are far from the prior"
        )
        yield Diagnosis("log-variance", "warning", fact, UNSTABLE_HINT)


def check_overfitting(
    train: float, held_out: Sequence[float], train_set: str, held_set: str
) -> Iterator[Diagnosis]:
    """Compare the losses of training and held-out images, in nats per image.

    `held_out` contains the loss on held-out images after each epoch, or only the final one. A gap
    alone may be the result of a good fit, but a held-out loss that has risen again is not.
    """
    gap, lowest = (held_out[-1] - train) / max(abs(train), NATS), min(held_out)
    rises = held_out[-1] > lowest + max(RISE * abs(lowest), LEAST_RISE)
    if gap > GAP and (rises or len(held_out) == 1):
        rise = f", up from {lowest:.5g}" if rises else ""
        yield Diagnosis(
            "overfitting",
            "warning" if rises or gap > LARGE_GAP else "note",
            f"a loss of {train:.5g} on {train_set}, and of {held_out[-1]:.5g} on {held_set}{rise}",
            "train.patience (it needs a validation split), more images, a smaller network, "
            "train.weight_decay",
        )


def explain_running_average(
    recorded: float, final: float, held_out: float, split: str, layers: Sequence[str] = ()
) -> Iterator[Diagnosis]:
    """Explain why the recorded training loss, a running average, is above the held-out loss.
    `layers` are the kinds of layers of the model that act differently in training mode."""
    if recorded > held_out and recorded - final > ARTEFACT * abs(final):
        yield Diagnosis(
            "running average",
            "note",
            f"the recorded training loss {recorded:.5g} is above the {split} loss {held_out:.5g}, "
            f"but the finished model has {final:.5g} on the same training images",
            "nothing: the recorded loss is a mean over the epoch, during which the weights improved"
            + (f", with {' and '.join(layers)} in training mode" if layers else ""),
        )


# ---------------------------------------------------------------- statistics


def compute_code_statistics(model: Any, images: ImageSplit, provides: Set[str]) -> Codes:
    """Compute the statistics of the codes in one pass of the encoder over a split. `provides` are
    the capabilities of the model."""
    modes, kls, log_vars = [], [], []
    estimate = {"prior", "log_prob"} <= provides
    total = 0.0
    for batch in images.batches(at_once(images.spec, BATCH)):
        view = given(model, batch.y, provides)
        posterior = view.encode(batch.x)
        modes.append(posterior.mode().flatten(1).cpu())
        kl = declared_kl(view, posterior, provides)
        if kl is not None:
            kls.append(kl.flatten(1).cpu())
        elif estimate:
            total += float(log_ratio(view, posterior, posterior.sample()).cpu().double().sum())
        if (log_var := getattr(posterior, "log_var", None)) is not None:
            log_vars.append(torch.stack(log_var.aminmax()))
    extremes = torch.stack(log_vars) if log_vars else None  # (batches, 2)
    variance = torch.cat(modes).double().var(0, correction=0)
    latent = getattr(model, "latent", None)
    return Codes(
        variance=variance,
        names=_names(latent, len(variance)),
        images=len(images),
        kl=torch.cat(kls).double().mean(0) if kls else None,
        estimated_kl=total / len(images) if estimate and not kls else None,
        log_var=(float(extremes.min()), float(extremes.max())) if extremes is not None else None,
        own_prior=getattr(latent, "prior", None) == "own",
    )


def count_entries(model: Any, images: ImageSplit, provides: Set[str]) -> Tensor:
    """How often each entry of a model's codebook occurs in the codes of a split, int64 (K,).
    `provides` are the capabilities of the model."""
    counts = torch.zeros(len(model.codebook), dtype=torch.int64)
    for batch in images.batches(at_once(images.spec, BATCH)):
        entry = given(model, batch.y, provides).encode(batch.x).entry
        counts += entry.flatten().cpu().bincount(minlength=len(counts))
    return counts


def _names(latent: LatentSpec | None, size: int) -> list[str]:
    """The names of the dimensions of a code of this size if they have groups, else none."""
    names = dimension_names(latent) if latent and latent.groups else []
    return names if len(names) == size else []


def _join(dims: Sequence[int], names: Sequence[str] = ()) -> str:
    text = ", ".join(names[dim] if names else str(dim) for dim in dims[:8])
    return text if len(dims) <= 8 else f"{text}, ..."
