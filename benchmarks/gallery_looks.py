"""The sections of the gallery after the searches: training, maps, and the other explorers."""

from __future__ import annotations

from gallery_content import Look, Section
from gallery_maps import MAPS
from gallery_search import GUIDED
from gallery_training import TRAINING

SECTIONS = (
    GUIDED,
    TRAINING,
    Section(
        "interpolate",
        [
            Look(
                "interpolate",
                "latentforge explore interpolate runs/ae16 --with other=runs/vae16 "
                "--with classifier=runs/cnn --set 'images=[0, 1]'",
                {
                    "interpolation.png": "From a seven to a two in twelve images: linear and "
                    "spherical interpolation, in an autoencoder and in a variational autoencoder",
                    "confidence.png": "Four curves of classifier confidence along the path, "
                    "lowest in the middle",
                },
                "Interpolation between the first two test images in an autoencoder and in a "
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
                "confidence is more informative than a high one. The mean distance in pixels to "
                "the nearest training image is {nearest_train_prior:.2f} for samples from the "
                "prior, {nearest_train_mixture:.2f} for samples from the mixture, "
                "{nearest_train_test_recon:.2f} for reconstructions of test images and "
                "{nearest_train_test:.2f} for the test images themselves; copies of training "
                "images would have a distance near 0.",
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
    MAPS,
    Section(
        "arithmetic",
        [
            Look(
                "arithmetic",
                "latentforge explore arithmetic runs/vae16 --with classifier=runs/cnn",
                {
                    "arithmetic.png": "Four zeros and four other digits that become ones as a "
                    "vector is added to their codes",
                    "shares.png": "Curves: the fraction of images classified as 0 falls, the "
                    "fraction classified as 1 rises, and other classes peak in between",
                },
                "The difference between the mean code of the ones and the mean code of the zeros "
                "is added to the codes of zeros and of other digits. When it is added once, a "
                "classifier labels {plus_share_at_1:.1%} of the 980 test zeros as ones.",
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
                    "reconstructions.png": "One test image of each class, the ten images with "
                    "the best and the ten with the worst reconstruction, each above its "
                    "reconstruction",
                },
                "The reconstructions of one test image of each class, and the ten best and the ten "
                "worst reconstructions of all 10,000 test images. The images are ranked by "
                "-log p(x|z) minus the entropy of the image itself, which is the smallest possible "
                "value: {error_best:.1f} nats for the best image, {error_median:.1f} for the "
                "median and {error_worst:.1f} for the worst.",
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
                    "maps-features-2.png": "Heat maps of the channels of the first level, averaged "
                    "over the images of each digit",
                    "features.png": "Histograms of sixteen features, each with its fitted normal "
                    "density",
                },
                "The heat maps are the activations of a classifier after its first pooling layer "
                "and ReLU, averaged over the images of each class. Channels that are the same for "
                "all classes are left out. The histograms show features of its last convolution, "
                "each with a normal density of the same mean and variance. The mean absolute "
                "skewness over all features is {mean_abs_skewness:.2f}, and the mean absolute "
                "excess kurtosis is {mean_abs_excess_kurtosis:.2f}. Both are 0 for a normal "
                "distribution.",
            ),
            Look(
                "activations-second",
                "latentforge explore activations runs/cnn --set 'layers=[\"features.5\"]' "
                "--set channels=16",
                {
                    "maps-features-5.png": "Heat maps of the channels of the second level, "
                    "averaged over the images of each digit: coarser, and harder to interpret",
                },
                "The activations of the second level, after its pooling layer and ReLU. There are "
                "at most 16 channels; those that are the same for all classes are left out.",
            ),
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
