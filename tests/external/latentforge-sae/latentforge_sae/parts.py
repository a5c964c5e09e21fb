import torch
from torch import nn

from latentforge import LatentSpec
from latentforge.contracts import Terms
from latentforge.errors import UsageError
from latentforge.findings import Findings, ImageGrid, NamedArrays
from latentforge.latent import Gaussian, Point


class SparseAutoencoder(nn.Module):
    def __init__(self, config, data):
        super().__init__()
        if data.kind != "vector":
            raise UsageError("sparse-autoencoder needs vectors")
        self.latent = LatentSpec((config.features,))
        directions = nn.functional.normalize(torch.randn(config.features, data.size), dim=1)
        self.directions = nn.Parameter(directions)  # of the features, of length 1
        self.reading = nn.Parameter(directions.T.clone())
        self.threshold = nn.Parameter(torch.zeros(config.features))
        self.centre = nn.Parameter(torch.zeros(data.size))

    def encode(self, x):
        return Point(((x - self.centre) @ self.reading + self.threshold).relu())

    def decode(self, z):
        return z @ self.directions + self.centre

    def after_step(self):  # long directions would make the features small without making them few
        self.directions.div_(self.directions.norm(dim=1, keepdim=True))


class SparseLoss(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.sparsity, self.likelihood = config.sparsity, Gaussian(1.0)

    def forward(self, model, batch, step):
        z = model.encode(batch.x).sample()
        recon = self.likelihood.mean_nll(model, z, batch.x)
        total = z.flatten(1).abs().sum(1).mean()
        return Terms({"recon": recon, "features": total}, {"features": self.sparsity})


class Sparsity:
    def __init__(self):
        self.count, self.sums, self.uses = 0, 0.0, 0

    def update(self, seen):
        x, recon = seen.batch.x.flatten(1).double(), seen.recon.flatten(1)
        self.count += len(x)
        self.sums = self.sums + torch.stack([x, x.square(), (recon - x).square()]).sum(1)
        self.uses = self.uses + (seen.z.flatten(1) > 0).sum(0)

    def compute(self):
        mean, square, error = self.sums / self.count
        return {
            "sparsity": float(self.uses.sum() / self.count),
            "dead_features": float((self.uses == 0).double().mean()),
            "explained_variance": float(1 - error.sum() / (square - mean.square()).sum()),
        }


def top_examples(context, config):
    classifier = context.roles["classifier"]
    data, images = classifier.data, classifier.images(config.split)
    if not torch.equal(images.y, context.images(config.split).y):
        raise UsageError("the run was not trained on the units of this classifier and its images")
    if not data.drawable:
        raise UsageError("the data of the classifier are no images")
    z = context.codes(config.split)
    order = (z > 0).sum(0).argsort(descending=True)[: config.features]
    rows, titles, captions = [], [], []
    for feature in order.tolist():
        values, at = z[:, feature].topk(min(config.examples, len(z)))
        batch = images.batch_at(at.tolist())
        rows.append(data.to_unit(batch.x))
        titles.append(f"z{feature}, active in {(z[:, feature] > 0).double().mean():.0%}")
        captions.append(
            [f"{data.classes[y]}: {v:.2f}" for y, v in zip(batch.y, values, strict=True)]
        )
    title = f"Images of the split {config.split} with the largest values of a feature"
    grid = ImageGrid("examples", title, rows, row_titles=titles, captions=captions)
    return Findings([grid, NamedArrays("features", {"feature": order})])
