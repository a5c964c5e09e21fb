import torch
from torch import nn

from latentforge import LatentSpec
from latentforge.contracts import Terms
from latentforge.errors import UsageError
from latentforge.findings import Findings, Lines
from latentforge.latent import DiagonalGaussian, kl_estimate


class CountVae(nn.Module):
    def __init__(self, config, data):
        super().__init__()
        if data.kind != "signal":
            raise UsageError("count-vae needs signals", hint="--set data.layout=signal")
        self.latent = LatentSpec((config.latent_dim,), prior="normal")
        (channels, length), width = data.shape, config.channels
        short = (length + 3) // 4  # two convolutions of stride 2
        self.encoder = nn.Sequential(
            nn.Conv1d(channels, width, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Conv1d(width, width, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(width * short, 2 * config.latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(config.latent_dim, width * short),
            nn.SiLU(),
            nn.Unflatten(1, (width, short)),
            nn.Upsample(size=(length + 1) // 2),
            nn.Conv1d(width, width, 5, padding=2),
            nn.SiLU(),
            nn.Upsample(size=length),
            nn.Conv1d(width, channels, 5, padding=2),
        )

    def encode(self, x):
        mean, log_var = self.encoder(x.log1p()).chunk(2, dim=1)
        return DiagonalGaussian(mean, log_var.clamp(-15, 15))

    def decode(self, z):
        return self.decoder(z).exp()


class NegativeBinomial(nn.Module):
    """Counts with the mean decode(z) and the variance mean + mean^2 / dispersion."""

    def __init__(self):
        super().__init__()
        self.log_dispersion = nn.Parameter(torch.zeros(()))

    def variance(self, mean):
        return mean + mean.square() * (-self.log_dispersion).exp()

    def nll(self, model, z, x):
        mean, r = model.decode(z), self.log_dispersion.exp()
        ways = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
        log_prob = ways - r * torch.log1p(mean / r) - torch.xlogy(x, 1 + r / mean)
        return -log_prob.flatten(1).sum(1)

    def mean_nll(self, model, z, x):
        return self.nll(model, z, x).mean()

    def check(self, x):
        if (x < 0).any() or (x != x.round()).any():
            raise UsageError("a negative-binomial likelihood needs counts")

    def describe(self):
        return f"negative-binomial, dispersion {float(self.log_dispersion.exp()):.3g}"


class CountElbo(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.beta, self.likelihood = config.beta, NegativeBinomial()

    def forward(self, model, batch, step):
        posterior = model.encode(batch.x)
        z = posterior.sample()
        terms = {
            "recon": self.likelihood.mean_nll(model, z, batch.x),
            "kl": kl_estimate(model, posterior, z).mean(),
            "dispersion": self.likelihood.log_dispersion.detach().exp(),
        }
        return Terms(terms, {"kl": self.beta, "dispersion": 0.0})


def fano_factor(context, bins=12):
    """The variance of the counts of the test split relative to their mean, by the decoded mean."""
    x, mean = [], []
    for batch in context.images("test").batches(256):
        x.append(batch.x.flatten())
        mean.append(context.model.decode(context.model.encode(batch.x).mode()).flatten())
    x, mean = torch.cat(x), torch.cat(mean)
    edges = torch.logspace(*torch.stack([mean.min(), mean.max()]).log10().tolist(), bins + 1)
    place = torch.bucketize(mean, edges[1:-1].to(mean))
    parts = [part for i in range(bins) if len(part := (place == i).nonzero()[:, 0]) >= 10]
    at = torch.stack([mean[part].mean() for part in parts])
    variance = torch.stack([(x[part] - mean[part]).square().mean() for part in parts])
    series = {"test data": variance / at, "Poisson": torch.ones_like(at)}
    if isinstance(context.loss.likelihood, NegativeBinomial):
        series[context.loss.likelihood.describe()] = context.loss.likelihood.variance(at) / at
    title = "Dispersion of the counts around the decoded mean"
    return Findings([Lines("fano", title, at, series, "decoded mean", "variance / mean")])
