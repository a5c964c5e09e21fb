"""A measure and an explorer that show how the codebook is used."""

import torch
from torch import Tensor

from latentforge.findings import Arrays, Bars, Finding, Findings, ImageGrid

COLUMNS = 8


def perplexity(used: Tensor) -> Tensor:
    """Return the effective number of entries: exp of the entropy of their frequencies (K,)."""
    return torch.exp(-torch.xlogy(used, used).sum())


class Perplexity:
    """Accumulates counts over the whole split, because perplexity is not a mean over batches."""

    def __init__(self) -> None:
        self.counts = torch.zeros(())

    def update(self, seen) -> None:
        entries = len(seen.model.codebook)
        self.counts = self.counts + seen.posterior.entry.flatten().bincount(minlength=entries)

    def compute(self) -> dict[str, float]:
        counts = self.counts.double()
        return {"perplexity": float(perplexity(counts / counts.sum()))}


def explore(context, config) -> Findings:
    model, images = context.model, context.images("test")
    entries = len(model.codebook)
    counts = torch.zeros(entries, dtype=torch.int64, device=context.device)
    for batch in images.batches(500):
        counts += model.encode(batch.x).entry.flatten().bincount(minlength=entries)
    order = counts.argsort(descending=True, stable=True)
    shares = counts.double() / counts.sum()
    _, height, width = model.latent.shape
    z = model.codebook[order[: config.shown], :, None, None].expand(-1, -1, height, width)
    names = [str(int(entry)) for entry in order]
    found: list[Finding] = [
        Bars("use", "How often each entry is used", names, {"share": shares[order].tolist()}, ""),
        Arrays("codebook", {"entries": model.codebook, "counts": counts}),
    ]
    if context.data.drawable:
        x = model.decode(z)
        rows = x.split(COLUMNS)
        captions = [names[i : i + COLUMNS] for i in range(0, len(x), COLUMNS)]
        title = "Images decoded from one entry each, the most used first"
        found.append(ImageGrid("entries", title, rows, captions=captions))
    metrics = {"perplexity": float(perplexity(shares)), "used": int((counts > 0).sum())}
    return Findings(
        found,
        metrics,
        "over the codes of all test images; perplexity: exp of the entropy of the entries'"
        " frequencies; used: number of entries that occur",
    )
