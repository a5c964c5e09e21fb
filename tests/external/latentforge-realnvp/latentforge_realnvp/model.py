import torch
from torch import nn

from latentforge import LatentSpec
from latentforge.latent import DiagonalGaussian, standard_normal_log_prob


class RealNvpVae(nn.Module):
    def __init__(self, config, data):
        super().__init__()
        hidden, code = config.hidden, config.latent_dim
        self.latent, self.shape = LatentSpec((code,), prior="own"), data.shape
        self.encoder = mlp(data.size, hidden, 2 * code)
        self.decoder = mlp(code, hidden, data.size)
        self.flow = RealNvp(code, config.couplings, config.coupling_hidden)

    def encode(self, x):
        mean, log_var = self.encoder(x.flatten(1)).chunk(2, dim=1)
        return DiagonalGaussian(mean, log_var.clamp(-8, 8))

    def decode_logits(self, z):
        return self.decoder(z).unflatten(1, self.shape)

    def decode(self, z):
        return self.decode_logits(z).sigmoid()

    def prior(self):
        return self.flow


class RealNvp(nn.Module):
    """Dinh et al. 2017: a density whose samples are N(0, I) after affine couplings."""

    def __init__(self, size, couplings, hidden):
        super().__init__()
        self.nets = nn.ModuleList(mlp(size, hidden, 2 * size) for _ in range(couplings))
        for net in self.nets:
            nn.init.zeros_(net[-1].weight)  # the training starts with N(0, I)
            nn.init.zeros_(net[-1].bias)
        kept = (torch.arange(size) + torch.arange(couplings)[:, None]) % 2
        self.register_buffer("kept", kept.float())  # (couplings, D)

    def coupling(self, i, z):
        """Return log scale and shift, which are 0 where coupling i keeps z."""
        log_scale, shift = self.nets[i](z * self.kept[i]).chunk(2, dim=1)
        moved = 1 - self.kept[i]
        return log_scale.tanh() * moved, shift * moved

    def log_prob(self, z):
        log_det = z.new_zeros(len(z))
        for i in range(len(self.nets)):
            log_scale, shift = self.coupling(i, z)
            z = z * log_scale.exp() + shift
            log_det = log_det + log_scale.sum(1)
        return standard_normal_log_prob(z) + log_det

    def sample(self, n):
        z = torch.randn(n, self.kept.shape[1], device=self.kept.device)
        for i in reversed(range(len(self.nets))):
            log_scale, shift = self.coupling(i, z)
            z = (z - shift) * (-log_scale).exp()
        return z


def mlp(inputs, hidden, outputs):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
