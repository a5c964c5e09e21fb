import math

import torch

from latentforge.errors import UsageError


def binned(values, bins):
    """The bin of each value (N,); the bins divide the range of the values into equal parts."""
    low, high = values.min(), values.max()
    width = (high - low).clamp(min=torch.finfo(values.dtype).tiny) / bins
    return ((values - low) / width).long().clamp(max=bins - 1)


def entropy(counts):
    share = counts[counts > 0] / counts.sum()
    return -(share * share.log()).sum()


def information(one, other):
    """The mutual information of two columns of integers (N,), in nats."""
    joint = torch.zeros(int(one.max()) + 1, int(other.max()) + 1, dtype=torch.float64)
    joint.index_put_((one, other), joint.new_ones(()), accumulate=True)
    return entropy(joint.sum(0)) + entropy(joint.sum(1)) - entropy(joint)


class InformationGap:
    def __init__(self, config, context):
        self.bins, self.factors = config.bins, context.data.factors
        if math.prod(context.model.latent.shape) < 2:
            raise UsageError("mig compares latent dimensions, and the model has only one")
        self.codes, self.values = [], {factor.name: [] for factor in self.factors}
        self.protocol = (
            "difference of the two largest mutual informations of a factor and a dimension of the "
            "posterior mode, over the entropy of the factor; mean over the factors; numbers in "
            f"{self.bins} bins of equal width"
        )

    def update(self, seen):
        self.codes.append(seen.z.flatten(1).double().cpu())
        for name, values in self.values.items():
            values.append(seen.batch.factors[name].cpu())

    def compute(self):
        codes = [binned(z, self.bins) for z in torch.cat(self.codes).T]
        gaps = {}
        for factor in self.factors:
            values = torch.cat(self.values[factor.name])
            values = values if factor.names else binned(values.double(), self.bins)
            if values.eq(values[0]).all():
                raise UsageError(f"mig needs factors that vary, and {factor.name!r} does not")
            each = torch.stack([information(z, values) for z in codes])
            first, second = each.topk(2).values
            gaps[f"mig_{factor.name}"] = float((first - second) / entropy(values.bincount()))
        return {"mig": sum(gaps.values()) / len(gaps), **gaps}
