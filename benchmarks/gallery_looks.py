"""What the gallery shows: the runs it needs, each explorer's command, its pictures and what one
sees in them, and the figures with the bounds between which they were asked to be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RUNS = {  # the name of a run: the preset that trains it
    "ae2": "latent-differentiation-ae",
    "mlp": "latent-differentiation-classifier",
    "cnn": "diffusion-series-cnn",
    "vae2": "grad-vae-beta1",
    "ae16": "vanilla-ae",
    "vae16": "vanilla-vae",
    "vae10-beta1": "grad-vae-z10-beta1",
    "vae10-beta4": "grad-vae-z10-beta4",
}


@dataclass(frozen=True)
class Look:
    """One command, the pictures of it that the page shows, each with its alternative text, and what
    one sees: a text with the command's figures in braces, their dots written as underscores."""

    name: str
    command: str
    pictures: Mapping[str, str]
    text: str


@dataclass(frozen=True)
class Section:
    title: str
    looks: Sequence[Look]
    text: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure of a look, and between which bounds it was asked to be."""

    look: str
    key: str
    name: str
    form: str = ".1%"
    low: float = -math.inf
    high: float = math.inf

    def asked(self) -> str:
        low, high = (format(bound, self.bound_form()) for bound in (self.low, self.high))
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"{low} to {high}"
        if math.isfinite(self.low):
            return f"from {low}"
        return f"to {high}" if math.isfinite(self.high) else "-"

    def bound_form(self) -> str:
        return ".3g" if "%" not in self.form else ".1%" if self.low * 100 % 1 else ".0%"


SEARCH = "latentforge explore guided runs/{} --with classifier=runs/mlp --with judge=runs/cnn "
SECTIONS = (
    Section(
        "guided",
        [
            Look(
                "guided-ae2",
                SEARCH.format("ae2") + "--set n=1000 --set film=4",
                {
                    "walk.gif": "A film: a walk over the map of codes, the image that the place "
                    "decodes to, and its class probabilities, until it is a four",
                    "results.png": "Ten digits of other classes at which the search began, over "
                    "the digits 0 to 9 that it found",
                    "walks.png": "Ten walks over the map of codes, each from a circle to a star",
                },
                "**An autoencoder of two dimensions.** Each request begins at the code of a random "
                "training image of another class, and the code moves until the classifier that "
                "guides is sure of the digit asked for. The film is the walk of the fifth of the "
                "1,000 requests, which asks for a four. {success_share:.1%} of the requests reach "
                "p >= 0.9; {success_at_start:.1%} do so before the first step, "
                "{success_single_start:.1%} from their first start, and the others from up to 16, "
                "the median after {median_steps:.0f} gradient steps over all starts. A classifier "
                "that did not guide puts {judge_agreement:.1%} of all results in the class asked "
                "for.",
            ),
            Look(
                "guided-vae16",
                SEARCH.format("vae16") + "--set n=1000",
                {
                    "walk.gif": "A film: a walk over the principal plane of the codes, the image "
                    "decoded, and its class probabilities",
                    "results.png": "Ten digits of other classes at which the search began, over "
                    "the digits 0 to 9 that it found",
                },
                "**A variational autoencoder of 16 dimensions.** The map is the plane of the "
                "codes' two principal directions. {success_share:.1%} of 1,000 requests reach "
                "p >= 0.9, {success_single_start:.1%} from their first start, the median after "
                "{median_steps:.0f} steps; the judge agrees on {judge_agreement:.1%}.",
            ),
            Look(
                "guided-search",
                SEARCH.format("ae2") + "--preset latent-differentiation-search --set n=1000",
                {
                    "results.png": "Ten decoded starts far off the codes, over what plain gradient "
                    "steps came to: few are the digit asked for",
                },
                "**The search as its write-up prints it**, a preset: one start from N(0, 10²) in "
                "each dimension, plain gradient steps, no prior. {success_share:.1%} reach "
                "p >= 0.9, and the judge agrees on {judge_agreement:.1%} of all.",
            ),
            Look(
                "inpaint",
                "latentforge explore guided runs/vae16 --preset inpaint-lower-half",
                {
                    "inpainting.png": "Ten digits, their upper halves, what the search made of "
                    "these, and the two baselines",
                },
                "**Another objective: half an image.** The search sees the upper half alone. On "
                "the hidden halves of 100 test images its mean squared error per pixel is "
                "{hidden_mse_per_pixel:.4f}; that of the mean of the training images of the true "
                "class, which it is told, {hidden_mse_class_mean:.4f}, and that of the training "
                "image nearest on the known half {hidden_mse_nearest:.4f}.",
            ),
        ],
    ),
    Section(
        "interpolate",
        [
            Look(
                "interpolate",
                "latentforge explore interpolate runs/ae16 --with other=runs/vae16 "
                "--with classifier=runs/cnn",
                {
                    "interpolation.png": "From a seven to a two in twelve images: along the line "
                    "and the arc, in an autoencoder and in a variational one",
                    "confidence.png": "Four curves of a classifier's largest probability along the "
                    "way, lowest in the middle",
                },
                "The same two test images in an autoencoder and in a variational one, both of 16 "
                "dimensions. Over 200 pairs of images of different classes, the classifier's "
                "largest probability at the decoded middle of the line is "
                "{middle_confidence_linear:.1%} in the autoencoder and "
                "{other_middle_confidence_linear:.1%} in the variational one; at the middle of the "
                "arc {middle_confidence_spherical:.1%} and "
                "{other_middle_confidence_spherical:.1%}; at the ends {end_confidence_linear:.1%} "
                "and {other_end_confidence_linear:.1%}.",
            )
        ],
    ),
    Section(
        "sample",
        [
            Look(
                "sample",
                "latentforge explore sample runs/vae16 --with classifier=runs/cnn",
                {
                    "samples.png": "36 digits decoded from the prior, over 36 from a mixture of "
                    "Gaussians fitted on the codes",
                },
                "Codes from the prior, and from a mixture of ten Gaussians that is fitted on the "
                "training codes afterwards. Of 1,000 samples each, a classifier's largest "
                "probability is {confidence_prior:.1%} and {confidence_mixture:.1%} in the mean; "
                "of as many reconstructions of test images {confidence_test_recon:.1%}. It can be "
                "sure of what is no digit, so a low figure tells more than a high one.",
            )
        ],
    ),
    Section(
        "manifold",
        [
            Look(
                "manifold",
                "latentforge explore manifold runs/vae2",
                {
                    "manifold.png": "21 x 21 decoded digits over the plane from -3 to 3, of which "
                    "neighbours are alike",
                },
                "A latent space of two dimensions, decoded on a regular grid from -3 to 3. "
                "{codes_inside:.1%} of the training codes lie in it.",
            )
        ],
    ),
    Section(
        "traverse",
        [
            Look(
                "traverse",
                "latentforge explore traverse runs/vae10-beta1 --with other=runs/vae10-beta4",
                {
                    "traversal.png": "Ten rows of digits at beta 1, a row for each latent "
                    "dimension, from low to high",
                    "traversal-other.png": "The same at beta 4",
                    "kl.png": "Bars: the KL of each dimension at beta 1 and at beta 4",
                },
                "Each of ten dimensions from the prior's 2% to its 98% quantile, the others at "
                "0; the rows with the largest KL come first. The mean squared change of a pixel "
                "is at most {largest_effect:.4f} at beta 1, and {other_largest_effect:.4f} at "
                "beta 4. {active_dims:.0f} dimensions have a KL above 0.01 nats at beta 1, and "
                "{other_active_dims:.0f} at beta 4.",
            )
        ],
    ),
    Section(
        "latent-map",
        [
            Look(
                "map-vae16",
                "latentforge explore latent-map runs/vae16",
                {"map.png": "Ten clouds of points, one for each digit, which hardly overlap"},
                "The codes of the 10,000 test images, 16 dimensions, by t-SNE; the command writes "
                "an HTML page too, which shows the image under the pointer. Most of the 10 "
                "nearest others have the class of an image for {knn_accuracy_map:.1%} of the "
                "images in the map, and for {knn_accuracy_codes:.1%} in the latent space.",
            ),
            Look(
                "map-ae2",
                "latentforge explore latent-map runs/ae2",
                {"map.png": "Rays of points from the middle outwards, a colour for each digit"},
                "The two dimensions of the autoencoder as they are. Here the nearest others tell "
                "the class of {knn_accuracy_codes:.1%} of the images; the page that comes with it "
                "shows what any place between the points decodes to.",
            ),
        ],
    ),
    Section(
        "arithmetic",
        [
            Look(
                "arithmetic",
                "latentforge explore arithmetic runs/vae16 --with classifier=runs/cnn",
                {
                    "arithmetic.png": "Eight zeros that become ones as a vector is added to their "
                    "codes",
                    "shares.png": "Curves: the share of images that are seen as 0 falls, that of 1 "
                    "rises, and others peak in between",
                },
                "The mean code of the ones less that of the zeros, added to the codes of zeros. "
                "Added once, it makes ones of {plus_share_at_1:.1%} of the 980 test zeros in the "
                "eyes of a classifier.",
            )
        ],
    ),
    Section(
        "neighbours",
        [
            Look(
                "neighbours",
                "latentforge explore neighbours runs/vae16 --set space=both "
                "--set 'images=[7, 8, 18]'",
                {
                    "neighbours.png": "Three test images, each with its ten nearest training "
                    "images by code and by pixels",
                },
                "The training images nearest to three odd test images, by code and by pixels: "
                "{same_class_share_codes:.0%} and {same_class_share_pixels:.0%} of these thirty "
                "are of the image's class.",
            )
        ],
    ),
    Section(
        "reconstruct",
        [
            Look(
                "reconstruct",
                "latentforge explore reconstruct runs/vae16",
                {
                    "reconstructions.png": "The first ten test images, the ten best and the ten "
                    "worst reconstructed, each over its reconstruction",
                },
                "The first, the best and the worst of the 10,000 test images. The likelihood that "
                "the run was trained with says which: {error_best:.1f} nats for the best one, "
                "{error_median:.1f} for the median and {error_worst:.1f} for the worst.",
            )
        ],
    ),
    Section(
        "activations",
        [
            Look(
                "activations",
                "latentforge explore activations runs/cnn",
                {
                    "maps-features-2.png": "Heat maps: eight channels of the first pooling layer, "
                    "the mean over each digit's images",
                    "features.png": "Histograms of sixteen features with the fitted normal "
                    "density over each",
                },
                "What a classifier makes of each class, after its first pooling layer, and "
                "features of its last convolution beside the normal distributions of their mean "
                "and variance. The mean absolute skewness over all features is "
                "{mean_abs_skewness:.2f}, the mean absolute excess kurtosis "
                "{mean_abs_excess_kurtosis:.2f}; both are 0 for a normal distribution.",
            )
        ],
    ),
    Section(
        "corruption",
        [
            Look(
                "corruption-cnn",
                "latentforge explore corruption runs/cnn",
                {
                    "corruption.png": "Four digits under growing noise, with the class that a "
                    "classifier sees in each",
                    "accuracy.png": "A curve: accuracy falls from near 1 to a tenth",
                },
                "Images on the way to pure noise, as a diffusion model corrupts them. The "
                "classifier is right on {accuracy_at_0_00:.1%} of 2,000 clean test images, on "
                "{accuracy_at_0_50:.1%} at s = 0.5 and on {accuracy_at_0_80:.1%} at s = 0.8; the "
                "captions say how sure it is.",
            ),
            Look(
                "corruption-vae16",
                "latentforge explore corruption runs/vae16",
                {"error.png": "Two curves over the noise: of the noisy image and of what it gives"},
                "The same for a VAE that was trained without noise: at s = 0.5 noisy images have a "
                "mean squared difference of {mse_noisy_at_0_50:.3f} to the clean ones, and their "
                "reconstructions {mse_recon_at_0_50:.3f}.",
            ),
        ],
    ),
)
REPORT = "latentforge report runs/ae2"
SHOTS = {
    "report-desktop.png": "A report on a desktop: a map of codes with the image of the point under "
    "the pointer, and beside it what that place decodes to",
    "report-phone.png": "The same report on a phone, light on dark",
}
FIGURES = (
    Figure("guided-ae2", "success_share", "requests that reach p >= 0.9", low=0.99),
    Figure("guided-ae2", "judge_agreement", "the judge agrees", low=0.97),
    Figure("guided-ae2", "search_seconds", "seconds", ".1f", high=20),
    Figure("guided-ae2", "success_at_start", "p >= 0.9 before the first step"),
    Figure("guided-ae2", "success_single_start", "p >= 0.9 from the first start alone"),
    Figure("guided-ae2", "median_steps", "median of the gradient steps", ".0f"),
    Figure("guided-vae16", "success_share", "requests that reach p >= 0.9", low=0.995),
    Figure("guided-vae16", "judge_agreement", "the judge agrees", low=0.97),
    Figure("guided-vae16", "search_seconds", "seconds", ".1f", high=5),
    Figure("guided-vae16", "success_at_start", "p >= 0.9 before the first step"),
    Figure("guided-vae16", "success_single_start", "p >= 0.9 from the first start alone"),
    Figure("guided-vae16", "median_steps", "median of the gradient steps", ".0f"),
    Figure("guided-search", "success_share", "requests that reach p >= 0.9", low=0.12, high=0.29),
    Figure("guided-search", "judge_agreement", "the judge agrees"),
    Figure("inpaint", "hidden_mse_per_pixel", "error on the hidden half", ".4f"),
    Figure("inpaint", "over_class_mean", "over that of the class mean", ".2f", high=1),
    Figure("inpaint", "over_nearest", "over that of the nearest half", ".2f", high=1),
    Figure("map-vae16", "knn_accuracy_map", "k-NN accuracy in the map"),
    Figure("map-vae16", "knn_accuracy_codes", "k-NN accuracy in the latent space"),
    Figure("map-vae16", "knn_accuracy_lost", "what the map loses", high=0.02),
    Figure("map-vae16", "command_seconds", "seconds", ".1f", high=40),
)
OF = {
    "guided-ae2": "guided, AE z=2",
    "guided-vae16": "guided, VAE z=16",
    "guided-search": "the write-up's own search, AE z=2",
    "inpaint": "inpainting, VAE z=16",
    "map-vae16": "t-SNE of 10,000 x 16",
}
