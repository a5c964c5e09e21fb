"""The network of `fsq`: Mentzer, Minnen, Agustsson and Tschannen 2023, arXiv:2309.15505, with layer
normalization (Ba, Kiros and Hinton 2016) before the tanh, in place of their shift for even numbers
of levels. Without it, the outputs of the encoder grow until the tanh of some dimensions is
saturated, and these keep one level for all images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentforge import DataSpec, LatentSpec
from latentforge.latent import to_range, widened
from latentforge_plugins.grids import GridDecoder, GridEncoder, Quantized
from latentforge_plugins.networks import image_shape, network_input

from .config import FsqConfig


class Fsq(nn.Module):
    def __init__(self, config: FsqConfig, data: DataSpec) -> None:
        super().__init__()
        self.range = data.range
        shape = image_shape("fsq", data, "ae")
        dim = len(config.levels)
        self.encoder = GridEncoder(shape, config.width, dim)
        self.decoder = GridDecoder(shape, config.width, dim)
        self.latent = LatentSpec(shape=self.encoder.shape)
        self.levels = config.levels
        levels = torch.tensor(config.levels)
        places = [math.prod(config.levels[:i]) for i in range(dim)]  # of a number in mixed radix
        self._keep("count", levels)
        self._keep("place", torch.tensor(places))
        self._keep("middle", levels // 2)  # the level of value 0

    def _keep(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value[:, None, None], persistent=False)  # (D, 1, 1)

    def encode(self, x: Tensor) -> Quantized:
        z = widened(self.encoder(network_input(x, self.range)))  # (B, D, H, W)
        if z[0].numel() > 1:  # the normalized value of a code of one value is 0
            z = F.layer_norm(z, z.shape[1:])
        offset = 0.5 * (self.count % 2 == 0)  # an even number of levels has none in the middle
        bounded = z.tanh() * (self.count - 1) / 2 - offset
        level = bounded.detach().round()
        entry = ((level + self.middle) * self.place).sum(1).long()
        return Quantized(bounded / self.middle, level / self.middle, entry)

    @property
    def codebook(self) -> Tensor:
        """All entries, (K, D), in the order of their indices."""
        entry = torch.arange(math.prod(self.levels), device=self.count.device)
        level = entry // self.place[..., 0] % self.count[..., 0] - self.middle[..., 0]  # (D, K)
        return (level / self.middle[..., 0]).T

    def decode_logits(self, z: Tensor) -> Tensor:
        return self.decoder(z)  # (B, C, H, W)

    def decode(self, z: Tensor) -> Tensor:
        return to_range(self.decode_logits(z), self.range)
