"""The page of priors.py, docs/priors.md, and the targets that results miss."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from priors_results import (
    Difference,
    Result,
    mean_and_error,
    paired_difference,
    standard_error,
    within_range,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "priors.md"
Results = dict[tuple[str, str], list[Result]]  # by case and side, one for each seed

NLL_CASES = {
    "vae": "`vae`",
    "iwae": "`vae --loss iwae`",
    "flow": "`vae --set model.prior=flow`",
    "vamp": "`vae --set model.prior=vamp`",
}
SIDES = {"ours": "LatentForge", "plain": "plain PyTorch"}
AGREEMENT, PERPLEXITY = 0.95, 128.0  # at least


def page(
    protocol: Mapping[str, Any], results: Results, long_epochs: int, long: Results, more: Results
) -> str:
    lines = [
        "# Priors, bounds, conditions and codebooks",
        "",
        "`make priors` writes this page. Each value is from a training of this call or of an",
        "earlier one with the same settings. No result is selected by its score.",
        "",
        *protocol_lines(protocol, results, long, more),
    ]
    if any(case in NLL_CASES for case, _ in results):
        lines += ["", "## Negative log-likelihood", "", *nll_section(protocol, results)]
    if more:
        lines += ["", "## More seeds", "", *more_section(more)]
    if long:
        lines += ["", f"## After {long_epochs} epochs", "", *long_section(long)]
    if cvae := results.get(("cvae", "ours")):
        lines += ["", "## Samples by class", "", *cvae_section(protocol, cvae)]
    if vq_vae := results.get(("vq-vae", "ours")):
        lines += ["", "## Codebook", "", *vq_vae_section(protocol, vq_vae)]
    return "\n".join(lines) + "\n"


def protocol_lines(
    protocol: Mapping[str, Any], results: Results, long: Results, more: Results
) -> Iterator[str]:
    listed = [
        result for found in (results, more, long) for each in found.values() for result in each
    ]
    every = list({str(result["key"]): result for result in listed}.values())
    seeds = sorted({result["key"]["seed"] for each in results.values() for result in each})
    yield (
        f"Data `{protocol['data']}`, {protocol['epochs']} epochs, batches of "
        f"{protocol['batch_size']}, Adam with learning rate {protocol['lr']:g}, "
        f"{protocol['latent_dim']} latent dimensions, seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}. ± is the standard error of a mean over seeds. "
        f"The trainings took {sum(result['seconds'] for result in every) / 60:.0f} minutes."
    )
    yield ""
    names = ("date", "processor", "cores", "threads", "torch")
    machines = (
        (result["device"], *(result["machine"][name] for name in names)) for result in every
    )
    for device, day, processor, cores, threads, torch in dict.fromkeys(machines):
        yield (
            f"- {day}: {device}, {processor} ({cores} cores), "
            f"{threads} thread{'s' * (threads > 1)}, torch {torch}"
        )


# ---------------------------------------------------------------- nll


def nll_section(protocol: Mapping[str, Any], results: Results) -> Iterator[str]:
    images = len(next(r for (case, _), r in results.items() if case in NLL_CASES)[0]["nll"])
    yield (
        "The images are binarized once (`data.binarize=fixed`). nll is -log p(x) in nats per "
        f"image, estimated with K={protocol['nll_samples']} importance samples of q(z\\|x) for "
        f"each of {images:,} test images. `iwae` trains with K={protocol['iwae_samples']}. Plain "
        "PyTorch is [plain_priors.py](../benchmarks/plain_priors.py), which uses nothing of "
        "LatentForge: the same networks and images, with its own RealNVP, VampPrior, bound, "
        "training loop and estimate of the nll, and with its own initial weights, batches and "
        "noise. A model is within the range if the mean of LatentForge is between the smallest and "
        "the largest value of plain PyTorch. Even if both have the same distribution, the mean of "
        "three values is outside the range of three others with a probability of 37 % (for normal "
        "distributions). The last column is therefore the better test: LatentForge - plain "
        "PyTorch, with the standard error that follows from the spread over the seeds of both."
    )
    yield ""
    yield (
        f"The norm of the gradient is clipped to {protocol['clip']:g}, about twice its usual "
        "value. Without this, a training of plain PyTorch with the VampPrior diverged in its 13th "
        "epoch, after one sample of z, far from all others, had cost 2,300 nats."
    )
    yield ""
    yield from nll_table(results)
    yield ""
    yield (
        "The next table shows nll of `vae` - nll in nats, for the same seed and the same images: "
        "positive values are better. The standard error over images is that of the mean over "
        "images, after averaging over seeds; the standard error over seeds is that of the mean "
        "over seeds. *Better* means that the difference exceeds three times each of them."
    )
    yield ""
    yield from difference_table(results)


def nll_table(results: Results) -> Iterator[str]:
    header = ("model", "nll, LatentForge", "of each seed", "nll, plain PyTorch", "of each seed")
    yield from table(*header, "within the range", "difference")
    cases = [case for case in NLL_CASES if any((case, side) in results for side in SIDES)]
    for case in cases:
        ours, plain = (means(results.get((case, side), [])) for side in SIDES)
        cells = [NLL_CASES[case]]
        for values in (ours, plain):
            cells += [mean_and_error(values, 2) if values else "-", each(values)]
        if ours and plain:
            cells += ["yes" if within_range(statistics.fmean(ours), plain) else "no"]
            cells += [unpaired(ours, plain)]
        else:
            cells += ["-", "-"]
        yield row(cells)


def difference_table(results: Results) -> Iterator[str]:
    header = ("model", "", "difference", "standard error over images", "over seeds")
    yield from table(*header, "of each seed", "better by more than three standard errors")
    for case, side, difference in differences(results):
        seed_error = difference.seed_error
        pairs = zip(means(results["vae", side]), means(results[case, side]), strict=True)
        cells = [NLL_CASES[case], SIDES[side], f"{difference.mean:.3f}"]
        cells += [f"{difference.image_error:.3f}"]
        cells += ["-" if seed_error is None else f"{seed_error:.3f}"]
        cells += [each([a - b for a, b in pairs]), "yes" if difference.better else "no"]
        yield row(cells)


def differences(results: Results) -> Iterator[tuple[str, str, Difference]]:
    """The paired differences to vae, of each other case that has results on the same side."""
    for case in NLL_CASES:
        for side in SIDES:
            if case != "vae" and (case, side) in results and ("vae", side) in results:
                base, other = ([r["nll"] for r in results[c, side]] for c in ("vae", case))
                yield case, side, paired_difference(base, other)


def more_section(more: Results) -> Iterator[str]:
    seeds = sorted({result["key"]["seed"] for each in more.values() for result in each})
    yield (
        f"The same trainings with seeds {seeds[0]} to {seeds[-1]}, for models of which a single "
        "seed decided the results of the tables above. Seeds that are not in those tables were "
        "added after their results were known."
    )
    yield ""
    yield from nll_table(more)
    yield ""
    yield from difference_table(more)


def long_section(long: Results) -> Iterator[str]:
    seeds = [result["key"]["seed"] for result in next(iter(long.values()))]
    yield (
        f"LatentForge only, seed {seeds[0]}, with otherwise the same settings. The difference is "
        "nll of `vae` - nll, with its standard error over images."
    )
    yield ""
    yield from table("model", "nll", "difference")
    found = {case: difference for case, _, difference in differences(long)}
    for (case, _), results in long.items():
        cells = [NLL_CASES[case], f"{means(results)[0]:.2f}"]
        gap = found.get(case)
        yield row([*cells, f"{gap.mean:.3f} ± {gap.image_error:.3f}" if gap else "-"])


# ---------------------------------------------------------------- cvae and vq-vae


def cvae_section(protocol: Mapping[str, Any], results: Sequence[Result]) -> Iterator[str]:
    sampled = protocol["sampled"]
    agreement = [result["agreement"] for result in results]
    errors = [(p * (1 - p) / sampled) ** 0.5 for p in agreement]
    accuracy = results[0]["classifier_accuracy"]
    yield (
        f"`cvae` with its default options samples {sampled:,} images, as many of each class. "
        "Agreement is the fraction that a `cnn-classifier`, trained with the preset "
        "`fast-mnist-cnn` in float32 and with another seed, assigns to the class under which they "
        f"were sampled. It classifies {accuracy:.2%} of the test images correctly. The target is "
        f"at least {AGREEMENT:.0%} for each seed."
    )
    yield ""
    yield from table("seed", "agreement", "standard error over the samples")
    for result, error in zip(results, errors, strict=True):
        yield row([str(result["key"]["seed"]), f"{result['agreement']:.3f}", f"{error:.3f}"])
    yield row(["mean", mean_and_error(agreement, 3), ""])


def vq_vae_section(protocol: Mapping[str, Any], results: Sequence[Result]) -> Iterator[str]:
    yield (
        "`vq-vae` with its default options, and `ae` with "
        f"{protocol['latent_dim']} latent dimensions, trained with the Bernoulli likelihood, as "
        "`vq-vae`, and with the Gaussian one. MSE is the mean over the pixels of the test images. "
        f"The targets are a perplexity of at least {PERPLEXITY:.0f} and an MSE of at most that of "
        "each autoencoder."
    )
    yield ""
    header = ("seed", "perplexity", "fraction of entries in use")
    yield from table(*header, "MSE, `vq-vae`", "MSE, `ae`", "MSE, `ae`, Gaussian")
    keys = ("perplexity", "codebook_usage", "mse_vq_vae", "mse_ae", "mse_ae_gaussian")
    digits = (1, 3, 5, 5, 5)
    for result in results:
        cells = (f"{result[key]:.{n}f}" for key, n in zip(keys, digits, strict=True))
        yield row([str(result["key"]["seed"]), *cells])
    columns = ([result[key] for result in results] for key in keys)
    averages = (mean_and_error(values, n) for values, n in zip(columns, digits, strict=True))
    yield row(["mean", *averages])


# ---------------------------------------------------------------- targets and parts of tables


def missed(results: Results, more: Results | None = None) -> list[str]:
    """The targets that these results miss, as sentences. A case in `more` is judged by its seeds
    there."""
    more = more or {}
    judged_there = {case for case, _ in more}
    found = [text for case, text in nll_misses(results) if case not in judged_there]
    found += [text for _, text in nll_misses(more)]
    for result in results.get(("cvae", "ours"), []):
        found += missed_by(result, "agreement", result["agreement"] >= AGREEMENT)
    for result in results.get(("vq-vae", "ours"), []):
        found += missed_by(result, "perplexity", result["perplexity"] >= PERPLEXITY)
        smallest = min(result["mse_ae"], result["mse_ae_gaussian"])
        found += missed_by(result, "mse_vq_vae", result["mse_vq_vae"] <= smallest)
    return found


def nll_misses(results: Results) -> Iterator[tuple[str, str]]:
    """The missed targets of the nll, each with its case."""
    for case, side, difference in differences(results):
        if side == "ours" and not difference.better:
            text = "not better than vae by more than three standard errors"
            yield case, f"{case}, {SIDES[side]}: {text}"
    for case in NLL_CASES:
        ours, plain = (means(results.get((case, side), [])) for side in SIDES)
        if ours and len(plain) > 1 and not within_range(statistics.fmean(ours), plain):
            yield case, f"{case}: outside the range of plain PyTorch"


def missed_by(result: Result, metric: str, met: bool) -> list[str]:
    key = result["key"]
    return [] if met else [f"{key['case']}, seed {key['seed']}: {metric} {result[metric]:.4g}"]


def means(results: Sequence[Result]) -> list[float]:
    return [statistics.fmean(result["nll"]) for result in results]


def unpaired(ours: Sequence[float], plain: Sequence[float]) -> str:
    """The difference of two means, with its standard error if both have several values."""
    difference = statistics.fmean(ours) - statistics.fmean(plain)
    errors = standard_error(ours), standard_error(plain)
    if errors[0] is None or errors[1] is None:
        return f"{difference:.2f}"
    return f"{difference:.2f} ± {(errors[0] ** 2 + errors[1] ** 2) ** 0.5:.2f}"


def each(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values) or "-"


def table(*header: str) -> Iterator[str]:
    yield row(header)
    yield "|" + "---|" * len(header)


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
