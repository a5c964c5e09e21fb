import torch
from torch import nn

from latentforge import LatentSpec
from latentforge.latent import DiagonalGaussian, Given


class LabelVae(nn.Module):
    def __init__(self, config, data):
        super().__init__()
        classes, hidden, code = len(data.classes), config.hidden, config.latent_dim
        self.latent, self.shape = LatentSpec((code,), prior="own"), data.shape
        self.encoder = Conditioned(data.size, hidden, 2 * code, classes)
        self.decoder = Conditioned(code, hidden, data.size, classes)
        self.prior_of_class = nn.Embedding(classes, 2 * code)
        nn.init.zeros_(self.prior_of_class.weight)  # the training starts with N(0, I)

    def given(self, y):
        return Given(self, y)

    def encode(self, x, y):
        return gaussian(self.encoder(x.flatten(1), y))

    def decode_logits(self, z, y):
        return self.decoder(z, y).unflatten(1, self.shape)

    def decode(self, z, y):
        return self.decode_logits(z, y).sigmoid()

    def prior(self, y):
        return gaussian(self.prior_of_class(y), ClassPrior)


class ClassPrior(DiagonalGaussian):
    """p(z | y), whose row i is under y[i]."""

    def sample(self, n):
        return super().sample()  # n is the number of labels

    def kl(self, posterior):
        return posterior.kl_to(self)


class Conditioned(nn.Module):
    """An MLP with one hidden layer, to which the embedding of the class is added."""

    def __init__(self, inputs, hidden, outputs, classes):
        super().__init__()
        self.first, self.last = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
        self.label = nn.Embedding(classes, hidden)

    def forward(self, values, y):
        return self.last(torch.relu(self.first(values) + self.label(y)))


def gaussian(parameters, kind=DiagonalGaussian):
    mean, log_var = parameters.chunk(2, dim=1)
    return kind(mean, log_var.clamp(-8, 8))
