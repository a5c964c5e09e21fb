"""The measure `fid`: Fréchet distances of samples and reconstructions to real images.

A floor is the distance between two sets of real images, of two splits or of the training split
alone. The distance is defined by Heusel et al. 2017; here, the features come from a classifier
trained on the same kind of images instead of from Inception."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from latentforge.contracts import EvaluateContext, Images, Seen
from latentforge.errors import UsageError
from latentforge.io.text import are, counted
from latentforge.latent import prior_of
from latentforge.seeding import generator
from latentforge_plugins.measures import BATCH, Moments, products, select_random, view_for

from . import cache
from .config import FidConfig
from .features import Features, check_same_data, describe_data
from .gaussian import Fit, fit, fit_rows, frechet_distance, square_root

RESAMPLES = 20
PER_FEATURE = 10  # minimum number of images; with fewer, covariance and distance are mostly noise


class Fid:
    """Computes `fid_samples`, `fid_recon`, `fid_recon_other` and `fid_floor`, each of N images
    against the same N real images, and `fid_floor_train` of two sets of N training images. For a
    model without a prior, `fid_samples_gaussian` replaces `fid_samples`. A model without an encoder
    has no reconstructions. Distances of generated images have a standard error, and a ratio to the
    floor."""

    def __init__(self, config: FidConfig, context: EvaluateContext) -> None:
        classifier = context.roles["classifier"]
        check_same_data(context, classifier)
        self.features = Features(classifier, config.layer, config.grid)
        self.context, self.encodes = context, "encode" in context.provides
        split, other = context.split, "test" if context.split == "train" else "train"
        real, others = context.images(split), context.images(other)
        if real.same_as(others):
            raise UsageError(
                "fid needs a second split of real images, but there is only one",
                hint='data={"train": ..., "test": ...}',
            )
        small = split if len(real) <= len(others) else other
        self.count = self.check_count(config, real, others, small)
        self.selected = select_random(self.count, len(real), real.device)
        self.reference = self.fit_features(real, self.selected)
        self.others = others
        self.selected_others = select_random(self.count, len(others), others.device)
        floor = self.fit_features(others, self.selected_others)
        self.floors = {"fid_floor": frechet_distance(floor, self.reference)}
        train, fitted = (real, self.reference) if split == "train" else (others, floor)
        if len(train) >= 2 * self.count:
            rest = select_random(self.count, len(train), train.device, start=self.count)
            distance = frechet_distance(self.fit_features(train, rest), fitted)
            self.floors["fid_floor_train"] = distance
        self.recon: list[Tensor] = []  # features
        self.y = None if real.y is None else real.y[self.selected]  # of the real images
        latent: Any = context.model.latent
        self.latent_shape = latent.shape
        self.samples = "fid_samples" if latent.prior else "fid_samples_gaussian"
        fitted = "a Gaussian fitted to the codes of the train split, as the model has no prior"
        source = {"normal": "N(0, I)", "own": "the model's own prior"}.get(latent.prior, fitted)
        conditional = "conditional" in context.provides
        labels = ", under the labels of the N real images" if conditional else ""
        recon = (
            "fid_recon: reconstructions of the same N images, z the posterior mode; "
            f"fid_recon_other: of N images of the {other} split; "
        )
        self.protocol = (
            f"Fréchet distance of Gaussian fits to {len(self.reference.mean)} features: layer "
            f"{self.features.layer}{self.features.describe_pooling()} of classifier "
            f"{classifier.run.path} "
            f"({classifier.checkpoint}, weights {self.features.weights[:12]}, trained on "
            f"{describe_data(classifier)}); N={self.count} images each, against N of the {split} "
            f"split. {self.samples}: decoded z from {source}{labels}; "
            f"{recon if self.encodes else ''}"
            f"fid_floor: real images of the {other} split; fid_floor_train: two "
            "sets of N images of the train split, the part of the floor that is due to N"
            f"{'' if 'fid_floor_train' in self.floors else ' (not computed: it has fewer than 2N)'}"
            f"; _se: standard deviation over {RESAMPLES} bootstrap samples of the generated "
            "images; _over_floor: divided by fid_floor"
        )

    def check_count(self, config: FidConfig, real: Images, others: Images, small: str) -> int:
        """Return the number of images in each set. Raises UsageError if it is too small for the
        features, or larger than a split. `small` is the name of the smaller split."""
        most = min(len(real), len(others))
        count = config.images or most
        if count > most:
            raise UsageError(
                f"fid.images is {count}, but the splits have {len(real)} and "
                f"{counted(len(others), 'image')}",
                hint=f"--set fid.images={most}, or 0 for the largest possible",
            )
        x = next(real.batches(1)).x
        size = self.features(x).shape[1]
        least = PER_FEATURE * size
        if count < least:
            cells = math.prod(self.features.cells)
            is_enough = cells > 1 and PER_FEATURE * size // cells <= count
            fewer = "--set fid.grid=1" if is_enough else self.suggest_layer(x, count)
            where = "" if config.images else f" in the {small} split, the smaller of the two"
            more = f"--set fid.images={most}" if least <= most else "use more images"
            raise UsageError(
                f"fid of {counted(size, 'feature')} needs {least} images, {PER_FEATURE} for each "
                f"feature, but there {are(count)} {count}{where}",
                hint=f"{fewer}, or {more}",
            )
        return count

    def suggest_layer(self, x: Tensor, count: int) -> str:
        """Return the options that select the layer with the most features for which `count` images
        are enough, with their number."""
        for grid in dict.fromkeys((self.features.grid, 1)):
            sizes = self.features.find_sizes(x, grid)
            fitting = {name: size for name, size in sizes.items() if PER_FEATURE * size <= count}
            if fitting:
                layer = max(fitting, key=lambda name: fitting[name])
                smaller = "--set fid.grid=1 " if grid != self.features.grid else ""
                features = counted(fitting[layer], "feature")
                return f"{smaller}--set fid.layer={layer} ({features})"
        return "use a classifier with a narrower layer"

    def update(self, seen: Seen) -> None:
        selected = self.selected[seen.batch.index]
        if self.encodes and selected.any():
            self.recon.append(self.features(seen.recon[selected]).cpu())

    def compute(self) -> Mapping[str, float]:
        fitted = None if self.context.model.latent.prior else self.fitted_sampler()
        samples, other = [], []
        for part in torch.arange(self.count, device=self.selected.device).split(BATCH):
            view = view_for(self.context, None if self.y is None else self.y[part])
            draw = fitted or prior_of(view).sample
            samples.append(self.features(view.decode(draw(len(part)))).cpu())
        for batch in self.others.batches(BATCH) if self.encodes else ():
            if (selected := self.selected_others[batch.index]).any():
                chosen = batch.select(selected)
                view = view_for(self.context, chosen.y)
                recon = view.decode(view.encode(chosen.x).mode())
                other.append(self.features(recon).cpu())
        metrics: dict[str, float] = {}
        parts = {self.samples: samples}
        if self.encodes:
            parts |= {"fid_recon": self.recon, "fid_recon_other": other}
        for name, features in parts.items():
            rows = torch.cat(features).double()
            metrics[name] = frechet_distance(fit_rows(rows), self.reference)
            metrics[f"{name}_se"] = self.resampling_error(rows)
        floor = self.floors["fid_floor"]
        ratios = {f"{name}_over_floor": metrics[name] / floor for name in parts if floor}
        return {**metrics, **ratios, **self.floors}

    def resampling_error(self, rows: Tensor) -> float:
        """The standard deviation of the distance over bootstrap samples of the rows (N, F)."""
        noise = generator("cpu", "bootstrap of fid")
        distances = []
        for _ in range(RESAMPLES):
            chosen = torch.randint(len(rows), (len(rows),), generator=noise)
            distances.append(frechet_distance(fit_rows(rows[chosen]), self.reference))
        return float(torch.tensor(distances, dtype=torch.float64).std())

    def fitted_sampler(self) -> Callable[[int], Tensor]:
        """Return a function that samples n codes from a Gaussian fitted to the training codes."""
        codes = Moments(products)
        for batch in self.context.images("train").batches(BATCH):
            codes.update(view_for(self.context, batch.y).encode(batch.x).mode().flatten(1))
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
