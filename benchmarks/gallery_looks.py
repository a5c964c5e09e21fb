"""The content of the gallery: its runs; the command, images and text of each explorer; and the
metrics with their target bounds."""

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
    """A command, its images with their alternative texts, and a description.

    The description contains the command's metrics in braces, with dots written as underscores."""

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
class Metric:
    """A metric of a command, and its target bounds."""

    look: str
    key: str
    name: str
    form: str = ".1%"
    low: float = -math.inf
    high: float = math.inf

    def bounds_text(self) -> str:
        low, high = (format(bound, self.bound_form()) for bound in (self.low, self.high))
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"{low} to {high}"
        if math.isfinite(self.low):
            return f"at least {low}"
        return f"at most {high}" if math.isfinite(self.high) else "-"

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
                    "walk.gif": "An animation: a path over the map of codes, the decoded image "
                    "at the current point, and its class probabilities, until the image is a four",
                    "results.png": "Ten digits of other classes at the starting points, above "
                    "the digits 0 to 9 that the search found",
                    "walks.png": "Ten paths over the map of codes, each from a circle to a star",
                },
                "**An autoencoder with two latent dimensions.** Each request starts at the code "
                "of a random training image of another class. The search moves the code until the "
                "guiding classifier assigns a high probability to the requested digit. The "
                "animation shows the path of the fifth request, whose target is a four. Of the "
                "1,000 requests, {success_share:.1%} reach p >= 0.9: {success_at_start:.1%} do so "
                "before the first step, {success_single_start:.1%} (including these) from their "
                "first starting point, and the rest use up to 16 starting points. The median "
                "number of gradient steps of a satisfied request, summed over its starting "
                "points, is {median_steps:.0f}. `cnn`, a classifier that did not guide the "
                "search, assigns {judge_agreement:.1%} of all results to the requested class.",
            ),
            Look(
                "guided-vae16",
                SEARCH.format("vae16") + "--set n=1000",
                {
                    "walk.gif": "An animation: a path over the principal plane of the codes, the "
                    "decoded image, and its class probabilities",
                    "results.png": "Ten digits of other classes at the starting points, above "
                    "the digits 0 to 9 that the search found",
                },
                "**A variational autoencoder with 16 latent dimensions.** The map shows the plane "
                "of the two principal directions of the codes. Of 1,000 requests, "
                "{success_share:.1%} reach p >= 0.9, {success_single_start:.1%} from their first "
                "starting point. The median number of gradient steps is {median_steps:.0f}. `cnn` "
                "assigns {judge_agreement:.1%} of all results to the requested class.",
            ),
            Look(
                "guided-search",
                SEARCH.format("ae2") + "--preset latent-differentiation-search --set n=1000",
                {
                    "results.png": "Ten decoded starting points far from the codes, above the "
                    "results of the search: few are the requested digit",
                },
                "**The search as originally published** ([source](reproduction.md#sources)), "
                "available as a preset. Each request starts from one sample of N(0, 10²) in each "
                "dimension. It makes at most 500 Adam steps, which maximise only the score, "
                "without a prior. {success_share:.1%} of the requests reach p >= 0.9, and `cnn` "
                "assigns {judge_agreement:.1%} of all results to the requested class.",
            ),
            Look(
                "inpaint",
                "latentforge explore guided runs/vae16 --preset inpaint-lower-half",
                {
                    "inpainting.png": "Ten digits, their upper halves, the results of the "
                    "search, and the two baselines",
                },
                "**Another objective: completing half of an image.** The search uses only the "
                "upper half of an image. On the hidden halves of 100 test images, its mean "
                "squared error per pixel is {hidden_mse_per_pixel:.4f}. There are two baselines: "
                "the mean of the training images of the true class, which requires the label, has "
                "an error of {hidden_mse_class_mean:.4f}, and the training image that is nearest "
                "on the known half has an error of {hidden_mse_nearest:.4f}.",
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
                    "interpolation.png": "From a seven to a two in twelve images: linear and "
                    "spherical interpolation, in an autoencoder and in a variational autoencoder",
                    "confidence.png": "Four curves of classifier confidence along the path, "
                    "lowest in the middle",
                },
                "Interpolation between the same two test images in an autoencoder and in a "
                "variational autoencoder, both with 16 latent dimensions. The metrics are means "
                "over 200 pairs of images of different classes. The classifier's mean confidence "
                "(its largest class probability) at the decoded midpoint of the linear "
                "interpolation is {middle_confidence_linear:.1%} for the autoencoder and "
                "{other_middle_confidence_linear:.1%} for the variational autoencoder. At the "
                "midpoint of the spherical interpolation it is {middle_confidence_spherical:.1%} "
                "and {other_middle_confidence_spherical:.1%}, and at the end points "
                "{end_confidence_linear:.1%} and {other_end_confidence_linear:.1%}.",
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
                    "samples.png": "36 digits decoded from the prior, above 36 from a mixture of "
                    "Gaussians fitted to the codes",
                },
                "Images decoded from samples of the prior, and from samples of a mixture of ten "
                "Gaussians that was fitted to the training codes after training. The mean "
                "confidence of a classifier is {confidence_prior:.1%} for 1,000 samples from the "
                "prior, {confidence_mixture:.1%} for 1,000 samples from the mixture, and "
                "{confidence_test_recon:.1%} for 1,000 reconstructions of test images. A "
                "classifier can be confident about an image that is not a digit, so a low "
                "confidence is more informative than a high one.",
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
                    "manifold.png": "21 x 21 decoded digits over the plane from -3 to 3; "
                    "neighbouring digits are similar",
                },
                "A two-dimensional latent space, decoded on a regular grid from -3 to 3 in each "
                "dimension. The grid covers {codes_inside:.1%} of the training codes.",
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
                    "traversal.png": "Ten rows of digits at beta 1, one row for each latent "
                    "dimension, from low to high",
                    "traversal-other.png": "Ten rows of digits at beta 4, one row for each latent "
                    "dimension, from low to high",
                    "kl.png": "Bars: the KL of each dimension at beta 1 and at beta 4",
                },
                "In each row, one of ten latent dimensions varies from the 2% quantile to the 98% "
                "quantile of the prior, and the others are 0. The rows are sorted by KL, the "
                "largest first. For the dimension with the largest effect, the mean squared change "
                "of a pixel is {largest_effect:.4f} at beta 1 and {other_largest_effect:.4f} at "
                "beta 4. The number of dimensions with a KL above 0.01 nats is {active_dims:.0f} "
                "at beta 1 and {other_active_dims:.0f} at beta 4.",
            )
        ],
    ),
    Section(
        "latent-map",
        [
            Look(
                "map-vae16",
                "latentforge explore latent-map runs/vae16",
                {
                    "map.png": "Ten clusters of points, one for each digit, with little overlap",
                },
                "A t-SNE map of the 16-dimensional codes of the 10,000 test images. The command "
                "also writes an HTML page that shows the image under the pointer. For "
                "{knn_accuracy_map:.1%} of the images, the majority class of the 10 nearest "
                "neighbours in the map is the class of the image. For the 10 nearest neighbours "
                "in the latent space, the fraction is {knn_accuracy_codes:.1%}.",
            ),
            Look(
                "map-ae2",
                "latentforge explore latent-map runs/ae2",
                {
                    "map.png": "Points in rays from the centre outwards, one colour for each digit",
                },
                "The two-dimensional codes of the autoencoder, plotted directly. For "
                "{knn_accuracy_codes:.1%} of the images, the majority class of the 10 nearest "
                "neighbours is the class of the image. The HTML page for this map shows the "
                "decoded image at any position between the points.",
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
                    "arithmetic.png": "Eight zeros that become ones as a vector is added to "
                    "their codes",
                    "shares.png": "Curves: the fraction of images classified as 0 falls, the "
                    "fraction classified as 1 rises, and other classes peak in between",
                },
                "The difference between the mean code of the ones and the mean code of the zeros "
                "is added to the codes of zeros. When it is added once, a classifier labels "
                "{plus_share_at_1:.1%} of the 980 test zeros as ones.",
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
                "The ten training images that are nearest to each of three unusual test images, "
                "by code and by pixels. {same_class_share_codes:.0%} of the thirty neighbours by "
                "code and {same_class_share_pixels:.0%} of the thirty neighbours by pixels have "
                "the class of the test image.",
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
                    "reconstructions.png": "The first ten test images, the ten with the best and "
                    "the ten with the worst reconstruction, each above its reconstruction",
                },
                "The reconstructions of the first ten test images, and the ten best and the ten "
                "worst reconstructions of all 10,000 test images. The images are ranked by the "
                "reconstruction loss of the run: {error_best:.1f} nats for the best image, "
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
                    "maps-features-2.png": "Heat maps of eight channels of the first pooling "
                    "layer, averaged over the images of each digit",
                    "features.png": "Histograms of sixteen features, each with its fitted normal "
                    "density",
                },
                "The heat maps are the activations of a classifier after its first pooling layer, "
                "averaged over the images of each class. The histograms show features of its last "
                "convolution, each with a normal density of the same mean and variance. The mean "
                "absolute skewness over all features is {mean_abs_skewness:.2f}, and the mean "
                "absolute excess kurtosis is {mean_abs_excess_kurtosis:.2f}. Both are 0 for a "
                "normal distribution.",
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
                    "corruption.png": "Four digits with increasing noise, each image with the "
                    "class that a classifier predicts",
                    "accuracy.png": "A curve: accuracy falls from near 1 to a tenth",
                },
                "Images with increasing noise, up to pure noise, as in a diffusion model. At noise "
                "level s, an image x, scaled to [-1, 1], becomes sqrt(1 - s²) x + s eps with "
                "standard normal noise eps. The accuracy of the classifier on 2,000 test images is "
                "{accuracy_at_0_00:.1%} without noise, {accuracy_at_0_50:.1%} at s = 0.5 and "
                "{accuracy_at_0_80:.1%} at s = 0.8. The captions show the predicted class and its "
                "probability.",
            ),
            Look(
                "corruption-vae16",
                "latentforge explore corruption runs/vae16",
                {
                    "error.png": "Two curves over the noise level: the error of the noisy image "
                    "and the error of its reconstruction",
                },
                "The same noise in the input of a VAE that was trained on clean images. At "
                "s = 0.5 the mean squared difference from the clean images is "
                "{mse_noisy_at_0_50:.3f} for the noisy images and {mse_recon_at_0_50:.3f} for "
                "their reconstructions.",
            ),
        ],
    ),
)
REPORT = "latentforge report runs/ae2"
SHOTS = {
    "report-desktop.png": "A report on a desktop: a map of codes with the image of the point under "
    "the pointer, and next to it the decoded image at that position",
    "report-phone.png": "The same report on a phone, with a dark background",
}
AT_START = "requests with p >= 0.9 before the first step"
SINGLE_START = "requests that reach p >= 0.9 from the first starting point"
METRICS = (
    Metric("guided-ae2", "success_share", "requests that reach p >= 0.9", low=0.99),
    Metric("guided-ae2", "judge_agreement", "judge agreement", low=0.97),
    Metric("guided-ae2", "search_seconds", "seconds", ".1f", high=20),
    Metric("guided-ae2", "success_at_start", AT_START),
    Metric("guided-ae2", "success_single_start", SINGLE_START),
    Metric("guided-ae2", "median_steps", "median number of gradient steps", ".0f"),
    Metric("guided-vae16", "success_share", "requests that reach p >= 0.9", low=0.995),
    Metric("guided-vae16", "judge_agreement", "judge agreement", low=0.97),
    Metric("guided-vae16", "search_seconds", "seconds", ".1f", high=5),
    Metric("guided-vae16", "success_at_start", AT_START),
    Metric("guided-vae16", "success_single_start", SINGLE_START),
    Metric("guided-vae16", "median_steps", "median number of gradient steps", ".0f"),
    Metric("guided-search", "success_share", "requests that reach p >= 0.9", low=0.12, high=0.29),
    Metric("guided-search", "judge_agreement", "judge agreement"),
    Metric("inpaint", "hidden_mse_per_pixel", "error on the hidden half", ".4f"),
    Metric("inpaint", "over_class_mean", "error relative to the class mean", ".2f", high=1),
    Metric("inpaint", "over_nearest", "error relative to the nearest image", ".2f", high=1),
    Metric("map-vae16", "knn_accuracy_map", "k-NN accuracy in the map"),
    Metric("map-vae16", "knn_accuracy_codes", "k-NN accuracy in the latent space"),
    Metric("map-vae16", "knn_accuracy_lost", "accuracy lost in the map", high=0.02),
    Metric("map-vae16", "command_seconds", "seconds", ".1f", high=40),
)
OF = {
    "guided-ae2": "guided, AE z=2",
    "guided-vae16": "guided, VAE z=16",
    "guided-search": "original search, AE z=2",
    "inpaint": "inpainting, VAE z=16",
    "map-vae16": "t-SNE of 10,000 codes, z=16",
}
