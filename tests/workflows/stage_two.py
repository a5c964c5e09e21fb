"""A flow on the codes of another run, whose code is the base noise of the flow, and a model that
uses such a flow: three stages."""

from dataclasses import dataclass

from latentforge import LatentSpec, LossSpec, ModelSpec, Role, Size, hookimpl


@dataclass(frozen=True)
class FlowConfig:
    """`hidden` is a width, `steps` the number of Euler steps. `registered` breaks a rule: the model
    of the role becomes a submodule."""

    hidden: Size = 16
    steps: Size = 4
    registered: bool = False


def build_flow(config, data, roles):
    import torch
    from torch import nn

    class Flow(nn.Module):
        def __init__(self):
            super().__init__()
            self.autoencoder = roles["autoencoder"]
            if config.registered:
                self.encoder = self.autoencoder.model
            self.latent = LatentSpec(self.autoencoder.model.latent.shape, prior="normal")
            size = self.latent.shape[0]
            self.net = nn.Sequential(
                nn.Linear(size + 1, config.hidden), nn.SiLU(), nn.Linear(config.hidden, size)
            )

        def velocity(self, z, t):
            return self.net(torch.cat([z, t], 1))

        def decode(self, z):
            for i in range(config.steps):
                t = torch.full_like(z[:, :1], i / config.steps)
                z = z + self.velocity(z, t) / config.steps
            return self.autoencoder.decode(z)

    return Flow()


def build_matching(config, data):
    import torch
    from torch import nn

    from latentforge.contracts import Terms

    class Matching(nn.Module):
        def forward(self, model, batch, step):
            z = model.autoencoder.encode(batch, sample=True)
            noise, t = torch.randn_like(z), torch.rand_like(z[:, :1])
            error = model.velocity((1 - t) * noise + t * z, t) - (z - noise)
            return Terms({"error": error.square().sum(1).mean()})

    return Matching()


def build_brighter(config, data, roles):
    import torch
    from torch import nn

    class Brighter(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = roles["generator"]
            self.latent = self.generator.model.latent
            self.power = nn.Parameter(torch.ones(()))

        def decode(self, z):
            return self.generator.decode(z).clamp(1e-3, 1) ** self.power

    return Brighter()


def build_ink(config, data):
    import torch
    from torch import nn

    from latentforge.contracts import Terms

    class Ink(nn.Module):
        def forward(self, model, batch, step):
            z = torch.randn(len(batch.x), *model.latent.shape, device=batch.x.device)
            ink = model.decode(z).mean() - batch.x.mean()
            return Terms({"ink": ink.square()})

    return Ink()


@hookimpl
def latentforge_models():
    yield ModelSpec(
        name="latent-flow",
        summary="A flow on the codes of an autoencoder",
        build=build_flow,
        config=FlowConfig,
        provides={"decode", "prior", "velocity"},
        default_loss="matching",
        roles={"autoencoder": Role({"encode", "decode"}, standardize=True)},
    )
    yield ModelSpec(
        name="brighter",
        summary="The images of a flow, brighter or darker",
        build=build_brighter,
        provides={"decode", "prior"},
        default_loss="ink",
        roles={"generator": {"decode", "prior"}},
    )


@hookimpl
def latentforge_losses():
    yield LossSpec(
        name="matching", summary="Flow matching", build=build_matching, needs={"velocity"}
    )
    yield LossSpec(name="ink", summary="The mean of all values", build=build_ink, needs={"decode"})
