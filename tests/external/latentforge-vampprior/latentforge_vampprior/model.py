import math

import torch
from torch import nn

from latentforge import LatentSpec
from latentforge.latent import DiagonalGaussian


class Mixture:
    """p(z) = mean_k q(z | u_k), where `parts` are the posteriors of the pseudo-inputs u_k."""

    def __init__(self, parts):
        self.mean, self.log_var = parts.mean, parts.log_var  # (K, D) each

    def each(self, z):
        """log q(z | u_k) of all components, (B, K)."""
        squares = (z[:, None] - self.mean).square() * (-self.log_var).exp()  # (B, K, D)
        return -0.5 * (squares + self.log_var + math.log(2 * math.pi)).sum(2)

    def log_prob(self, z):
        return self.each(z).logsumexp(1) - math.log(len(self.mean))

    def sample(self, n):
        k = torch.randint(len(self.mean), (n,), device=self.mean.device)
        return DiagonalGaussian(self.mean[k], self.log_var[k]).sample()


class VampVae(nn.Module):
    def __init__(self, config, data):
        super().__init__()
        self.latent, self.shape = LatentSpec((config.latent_dim,), prior="own"), data.shape
        hidden, code = config.hidden, config.latent_dim
        self.encoder = nn.Sequential(
            nn.Linear(data.size, hidden), nn.ELU(), nn.Linear(hidden, 2 * code)
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, hidden), nn.ELU(), nn.Linear(hidden, data.size)
        )
        self.pseudo_logits = nn.Parameter(torch.randn(config.pseudo_inputs, *data.shape))

    def encode(self, x):
        mean, log_var = self.encoder(x.flatten(1)).chunk(2, dim=1)
        return DiagonalGaussian(mean, log_var.clamp(-10, 10))

    def decode_logits(self, z):
        return self.decoder(z).unflatten(1, self.shape)

    def decode(self, z):
        return self.decode_logits(z).sigmoid()

    def pseudo_inputs(self):
        """Examples in the range of the data, (K, *shape)."""
        return self.pseudo_logits.sigmoid()

    def prior(self):
        return Mixture(self.encode(self.pseudo_inputs()))
