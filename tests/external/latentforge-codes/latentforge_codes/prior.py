import math

import torch
from torch import nn
from torch.special import ndtr

from latentforge import LatentSpec

from .posterior import Intervals

UNIFORM = (
    1e-3  # the share of a uniform distribution, so that every interval exceeds rounding errors
)
SOFTNESS = 0.05  # of the bounds in the gradient of `decode`


class CodeGru(nn.Module):
    """p(entries) = prod_i p(entry_i | the entries before it), row by row.

    The code u is the noise of this prior: entry i is the inverse of its distribution function at
    ndtr(u_i). With u from N(0, I), `decode` thus samples entries from the prior."""

    def __init__(self, config, autoencoder):
        super().__init__()
        self.autoencoder, self.entries = autoencoder, len(autoencoder.model.codebook)
        _, *self.grid = autoencoder.model.latent.shape
        self.latent = LatentSpec((math.prod(self.grid),), prior="normal")
        self.first = nn.Parameter(torch.zeros(1, 1, config.hidden))
        self.embedding = nn.Embedding(self.entries, config.hidden)
        self.gru = nn.GRU(config.hidden, config.hidden, batch_first=True)
        self.head = nn.Linear(config.hidden, self.entries)

    def probabilities(self, inputs, state=None):
        """Of the entries after each of the `inputs`, (B, T, entries), and the state of the GRU."""
        output, state = self.gru(inputs, state)
        return (1 - UNIFORM) * self.head(output).softmax(-1) + UNIFORM / self.entries, state

    def of(self, entry):
        """The probabilities of all entries at each place of `entry`, (B, N, entries)."""
        first = self.first.expand(entry.shape[0], -1, -1)
        return self.probabilities(torch.cat([first, self.embedding(entry[:, :-1])], 1))[0]

    def encode(self, x):
        entry = self.autoencoder.model.encode(x).entry.flatten(1)
        p = self.of(entry)
        at = entry[..., None]
        size = p.gather(2, at)
        return Intervals((p.cumsum(2).gather(2, at) - size)[..., 0], size[..., 0])

    @torch.no_grad()
    def bounds(self, u):
        """The upper bounds of all intervals but the last, for entries that u gives, (B, N, E-1)."""
        token, state, bounds = self.first.expand(u.shape[0], -1, -1), None, []
        for place in ndtr(u).split(1, dim=1):
            p, state = self.probabilities(token, state)
            bounds.append(p.cumsum(2)[..., :-1])
            token = self.embedding((bounds[-1] <= place[..., None]).sum(2))
        return torch.cat(bounds, 1)

    def quantized(self, u):
        """The code of the autoencoder. The gradient is straight through softened bounds."""
        margin = self.bounds(u) - ndtr(u)[..., None]  # (B, N, E-1)
        soft = (margin / SOFTNESS).sigmoid()
        below = (margin > 0).float() + soft - soft.detach()
        ends = torch.zeros_like(below[..., :1]), torch.ones_like(below[..., :1])
        hot = torch.cat([below, ends[1]], 2) - torch.cat([ends[0], below], 2)  # one-hot
        return (hot @ self.autoencoder.model.codebook).movedim(2, 1).unflatten(2, self.grid)

    def decode_logits(self, u):
        return self.autoencoder.decode_logits(self.quantized(u))

    def decode(self, u):
        return self.autoencoder.decode(self.quantized(u))
