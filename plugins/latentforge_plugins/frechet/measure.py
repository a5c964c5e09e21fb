"""The measure `fid`: Fréchet distances of samples and reconstructions to real images.

The floor is the distance between two sets of real images. The distance is defined by Heusel et al.
2017; here, the features come from a classifier trained on the same kind of images instead of from
Inception."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import EvaluateContext, Images, Seen
from latentforge.errors import UsageError
from latentforge_plugins.measures import BATCH, Moments, products, select_random

from . import cache
from .config import FidConfig
from .features import Features, check_same_data, describe_data
from .gaussian import Fit, fit, frechet_distance, square_root

PER_FEATURE = 10  # minimum number of images; with fewer, covariance and distance are mostly noise


class Fid:
    """Computes `fid_samples`, `fid_recon` and `fid_floor`, each of N images against the same N real
    images."""

    def __init__(self, config: FidConfig, context: EvaluateContext) -> None:
        classifier = context.roles["classifier"]
        check_same_data(context, classifier)
        self.features = Features(classifier, config.layer, config.grid)
        self.context = context
        split, other = context.split, "test" if context.split == "train" else "train"
        real, others = context.images(split), context.images(other)
        if real.same_as(others):
            raise UsageError(
                "fid needs a second split of real images, but there is only one",
                hint='data={"train": ..., "test": ...}',
            )
        self.count = self.check_count(config, real, others)
        self.selected = select_random(self.count, len(real), real.device)
        self.reference = self.fit_features(real, self.selected)
        floor = self.fit_features(others, select_random(self.count, len(others), others.device))
        self.floor = frechet_distance(floor, self.reference)
        self.recon = Moments(products)
        self.model: Any = context.model
        latent: Any = context.model.latent
        self.latent_shape, self.normal = latent.shape, latent.prior == "normal"
        source = "N(0, I)" if self.normal else "a Gaussian fitted to the codes of the train split"
        self.protocol = (
            f"Fréchet distance of Gaussian fits to {len(self.reference.mean)} features: layer "
            f"{self.features.layer}{self.features.describe_pooling()} of classifier "
            f"{classifier.run.path} "
            f"({classifier.checkpoint}, weights {self.features.weights[:12]}, trained on "
            f"{describe_data(classifier)}); N={self.count} images each, against N of the {split} "
            f"split. fid_samples: decoded z from {source}; fid_recon: reconstructions of the same "
            f"N images, z the posterior mode; fid_floor: real images of the {other} split"
        )

    def check_count(self, config: FidConfig, real: Images, others: Images) -> int:
        """Return the number of images in each set. Raises UsageError if it is too small for the
        features, or larger than a split."""
        most = min(len(real), len(others))
        count = config.images or most
        if count > most:
            raise UsageError(
                f"fid.images is {count}, but the splits have {len(real)} and {len(others)} images",
                hint=f"--set fid.images={most}, or 0 for the largest possible",
            )
        size = self.features(next(real.batches(1)).x).shape[1]
        least = PER_FEATURE * size
        if count < least:
            cells = max(self.features.cells)
            fewer = "--set fid.grid=1" if cells > 1 else "select a layer with fewer features"
            more = f"--set fid.images={most}" if least <= most else "use more images"
            raise UsageError(
                f"fid of {size} features needs {least} images, {PER_FEATURE} for each feature, "
                f"but there are {count}",
                hint=f"{fewer}, or {more}",
            )
        return count

    def update(self, seen: Seen) -> None:
        selected = self.selected[seen.batch.index]
        if selected.any():
            self.recon.update(self.features(seen.recon[selected]))

    def compute(self) -> Mapping[str, float]:
        samples = Moments(products)
        draw = self.sample_prior if self.normal else self.fitted_sampler()
        for start in range(0, self.count, BATCH):
            z = draw(min(BATCH, self.count - start))
            samples.update(self.features(self.model.decode(z)))
        return {
            "fid_samples": frechet_distance(fit(samples), self.reference),
            "fid_recon": frechet_distance(fit(self.recon), self.reference),
            "fid_floor": self.floor,
        }

    def sample_prior(self, n: int) -> Tensor:
        return torch.randn(n, *self.latent_shape, device=self.selected.device)

    def fitted_sampler(self) -> Callable[[int], Tensor]:
        """Return a function that samples n codes from a Gaussian fitted to the training codes."""
        codes = Moments(products)
        for batch in self.context.images("train").batches(BATCH):
            codes.update(self.model.encode(batch.x).mode().flatten(1))
        fitted = fit(codes)
        root = square_root(fitted.covariance)

        def draw(n: int) -> Tensor:
            z = fitted.mean + torch.randn(n, len(root), dtype=root.dtype) @ root
            return z.float().to(self.selected.device).view(n, *self.latent_shape)

        return draw

    def fit_features(self, images: Images, selected: Tensor) -> Fit:
        """Return the fit to the features of the selected images, from the cache if possible."""
        state = hashlib.sha256(self.features.key.encode())
        state.update(json.dumps(self.context.preprocessing, sort_keys=True).encode())
        state.update(f"{images.stored} {images.spec.shape} {images.dynamic}".encode())
        for indices in selected.nonzero().squeeze(1).split(BATCH):
            state.update(images.raw(indices).cpu().numpy().tobytes())
        key = state.hexdigest()
        if (cached := cache.read(key)) is not None:
            return cached
        moments = Moments(products)
        for batch in images.batches(BATCH):
            if (in_batch := selected[batch.index]).any():
                moments.update(self.features(batch.x[in_batch]))
        fitted = fit(moments)
        cache.write(key, fitted)
        return fitted
