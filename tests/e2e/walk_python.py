"""A new user's first half hour in Python, on embedded digits, in the current folder."""

from pathlib import Path

import torch

from latentforge import Forge, open_run
from latentforge.errors import UsageError

forge = Forge()
print("models:", ", ".join(forge.registry.names("models")))

# two models on the same images
ae = forge.train(
    "ae", data="digits", model={"latent_dim": 8}, train={"epochs": 8, "batch_size": 32}
)
classifier = forge.train(
    "cnn-classifier", data="digits", train={"epochs": 20, "batch_size": 32, "lr": 3e-3}
)
print(ae.path, ae.metrics["test"])
assert ae.metrics["test"]["recon"] < ae.history()[0]["train"]["recon"]
assert classifier.metrics["test"]["accuracy"] > 0.9

# the model is a plain module: encode, add noise, decode, classify
images = forge.load_data("digits").split("test")
model, judge = ae.load_model(), classifier.load_model()
with torch.no_grad():
    batch = images.batch_at(range(100))
    z = model.encode(batch.x).mode()
    recon = model.decode(z + 0.01 * torch.randn_like(z))
    agreement = (judge(recon).argmax(1) == batch.y).float().mean().item()
print("the classifier reads", f"{agreement:.0%}", "of the reconstructions right")
assert agreement > 0.5

# an interpolation between two digits, and the run opened again
found = ae.explore("interpolate", classes=(3, 8), steps=6)
assert all(Path(file).stat().st_size > 0 for file in found["files"])
again = open_run(ae.path)
assert again.evaluate() == ae.evaluate()

# custom data: 200 circles of two sizes
y, x = torch.meshgrid(torch.linspace(-1, 1, 20), torch.linspace(-1, 1, 20), indexing="ij")
radius = torch.linspace(0.3, 0.9, 200)
circles = ((x**2 + y**2).sqrt() < radius[:, None, None]).float()  # (200, 20, 20)
own = forge.train(
    "ae", data=(circles, (radius > 0.6).long()), model={"latent_dim": 2}, train={"epochs": 20}
)
assert own.metrics["test"]["mse_per_pixel"] < 0.05

# an invalid option and its message
try:
    forge.train("ae", train={"epochs": 0, "lr": float("nan")})
except UsageError as error:
    details = error.details
assert [line.split(":")[0].split(" ")[0] for line in details] == ["train.epochs", "train.lr"]
print("the walk is done")
