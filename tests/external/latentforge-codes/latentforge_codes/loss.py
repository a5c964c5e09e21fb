from torch import nn

from latentforge.contracts import Terms


class CodeNll(nn.Module):
    """-log p(entries): the KL of the ELBO. Its other term has no parameters of the prior."""

    def __init__(self, autoencoder):
        super().__init__()
        self.likelihood = autoencoder.loss.likelihood  # for measures such as `elbo`

    def forward(self, model, batch, step):
        kl = model.encode(batch.x).kl()
        return Terms({"kl": kl.sum(1).mean()}, per_dim={"kl": kl.mean(0).detach()})
