"""A plugin with models that are hard to export, for `-p` and `Forge(plugins=[...])`."""

from __future__ import annotations

from latentforge import ModelSpec, hookimpl


def build(kind, data):
    import torch
    from torch import nn

    from latentforge import LatentSpec
    from latentforge.latent import Point

    class Odd(nn.Module):
        """Encodes x (B, 1, 28, 28) to codes (B, 2, 7, 7) by a convolution, and decodes."""

        def __init__(self):
            super().__init__()
            self.latent = LatentSpec(shape=(98,) if kind == "liar" else (2, 7, 7))
            self.down = nn.Conv2d(1, 2, 4, stride=4)
            self.up = nn.ConvTranspose2d(2, 1, 4, stride=4)
            if kind == "tied":
                self.up.weight = self.down.weight
                self.to(memory_format=torch.channels_last)
            self.calls = 0

        def encode(self, x):
            if kind == "branching" and x.sum() > 100:
                x = -x
            if kind == "fixed":
                x = x * torch.ones(len(x), 1, 1, 1)
            if kind == "rare":
                x = torch.special.ndtri(x.clamp(0.1, 0.9))
            return Point(self.down(x))

        def decode_logits(self, z):
            self.calls += 1
            return self.up(z.reshape(-1, 2, 7, 7)) + (self.calls if kind == "counting" else 0)

        def decode(self, z):
            x = self.decode_logits(z).sigmoid()
            return x.flatten(1) if kind == "liar" else x

    return Odd()


@hookimpl
def latentforge_models():
    for kind in ("spatial", "branching", "counting", "tied", "liar", "fixed", "rare"):
        yield ModelSpec(
            name=kind,
            summary="for tests",
            build=lambda config, data, kind=kind: build(kind, data),
            provides={"encode", "decode", "decode_logits"},
            default_loss="reconstruction",
        )
