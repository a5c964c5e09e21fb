"""The loss of the VQ-VAE, in nats and squared distances per image."""

from torch import nn
from torch.nn import functional as F

from latentforge.contracts import Terms
from latentforge.latent import Bernoulli

from .codebook import perplexity


class Vq(nn.Module):
    likelihood = Bernoulli()  # which measures such as recon use

    def __init__(self, config) -> None:
        super().__init__()
        self.commitment = config.commitment

    def forward(self, model, batch, step) -> Terms:
        posterior = model.encode(batch.x)
        recon = self.likelihood.nll(model, posterior.sample(), batch.x)  # (B,)
        used = F.one_hot(posterior.entry, len(model.codebook)).float().mean((0, 1, 2))  # (K,)
        return Terms(
            {
                "recon": recon.mean(),
                "codebook": posterior.codebook().mean(),
                "commitment": posterior.commitment().mean(),
                "perplexity": perplexity(used),
            },
            {"commitment": self.commitment, "perplexity": 0.0},
        )
