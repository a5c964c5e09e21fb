"""The section of the explorer `latent-map`: the codes of all test images, by model and by beta."""

from __future__ import annotations

from gallery_content import Comparison, Look, Section

ALT = "Points on a plane, one colour for each digit: {}"
BETAS = {"vae2-beta0": 0, "vae2": 1, "vae2-beta4": 4}
CLUSTERS = "Clusters of points, one colour for each digit, with little overlap"
ACCURACY = "the majority class of the 10 nearest neighbours is the class of the image"
T_SNE = (
    "For {knn_accuracy_map:.1%} of the images, the majority class of the 10 nearest neighbours in "
    "the map is the class of the image. For the 10 nearest neighbours in the latent space, the "
    "fraction is {knn_accuracy_codes:.1%}."
)


def beta_look(run: str, shape: str, text: str) -> Look:
    return Look(
        f"map-{run}",
        f"latentforge explore latent-map runs/{run}",
        {"map.png": ALT.format(shape)},
        f"**A VAE with two latent dimensions and beta {BETAS[run]}.** {text}",
    )


MAPS = Section(
    "latent-map",
    [
        beta_look(
            "vae2-beta0",
            "the ones and sevens spread far out, the other digits close together",
            "The posterior means of the 10,000 test images, plotted directly. The KL is not part "
            "of the loss, so nothing keeps the codes near the prior N(0, I): z0 ranges from "
            "{axis_0_low:.1f} to {axis_0_high:.1f} and z1 from {axis_1_low:.1f} to "
            "{axis_1_high:.1f}, and the KL is {run_test_kl:.1f} nats. For "
            f"{{knn_accuracy_codes:.1%}} of the images, {ACCURACY}.",
        ),
        beta_look(
            "vae2",
            "ones, zeros and sevens apart, the other digits overlapping in the middle",
            "z0 ranges from {axis_0_low:.1f} to {axis_0_high:.1f} and z1 from {axis_1_low:.1f} to "
            "{axis_1_high:.1f}. The KL is {run_test_kl:.1f} nats, and the k-NN accuracy is "
            "{knn_accuracy_codes:.1%}.",
        ),
        beta_look(
            "vae2-beta4",
            "an arrangement as at beta 1, in a smaller range",
            "z0 ranges from {axis_0_low:.1f} to {axis_0_high:.1f} and z1 from {axis_1_low:.1f} to "
            "{axis_1_high:.1f}. The KL is {run_test_kl:.1f} nats, and the k-NN accuracy is "
            "{knn_accuracy_codes:.1%}.",
        ),
        Comparison(
            {f"map-{run}": f"beta {beta}" for run, beta in BETAS.items()},
            {
                "run.test.kl": (".1f", "KL on the test images, in nats"),
                "run.test.recon": (".1f", "reconstruction loss on the test images, in nats"),
                "knn_accuracy_codes": (".1%", f"fraction of test images for which {ACCURACY}"),
                "axis_0_low": (".1f", "lowest posterior mean in z0"),
                "axis_0_high": (".1f", "highest posterior mean in z0"),
                "axis_1_low": (".1f", "lowest posterior mean in z1"),
                "axis_1_high": (".1f", "highest posterior mean in z1"),
            },
        ),
        Look(
            "map-ae2",
            "latentforge explore latent-map runs/ae2",
            {"map.png": ALT.format("rays from the centre outwards")},
            "**An autoencoder with two latent dimensions.** The codes are unbounded: z0 ranges "
            "from {axis_0_low:.1f} to {axis_0_high:.1f} and z1 from {axis_1_low:.1f} to "
            "{axis_1_high:.1f}. For {knn_accuracy_codes:.1%} of the images, "
            f"{ACCURACY}. The HTML page for this map shows the decoded image at any position "
            "between the points.",
        ),
        Look(
            "map-ae2-tanh",
            "latentforge explore latent-map runs/ae2-tanh",
            {"map.png": ALT.format("all inside the square from -1 to 1, many at its border")},
            "**An autoencoder with a tanh on its code.** The article on the beta VAE explains "
            "large codes by an unbounded ReLU and suggests tanh in its place. Here it replaces the "
            "ReLU on the code of the preset `grad-ae`. The codes are in (-1, 1): z0 ranges from "
            "{axis_0_low:.2f} to {axis_0_high:.2f} and z1 from {axis_1_low:.2f} to "
            f"{{axis_1_high:.2f}}. For {{knn_accuracy_codes:.1%}} of the images, {ACCURACY}.",
        ),
        Look(
            "map-vae16",
            "latentforge explore latent-map runs/vae16",
            {"map.png": CLUSTERS},
            "**A t-SNE map of 16-dimensional codes** of the 10,000 test images. The command also "
            f"writes an HTML page that shows the image under the pointer. {T_SNE}",
        ),
        Look(
            "map-conv-vae",
            "latentforge explore latent-map runs/conv-vae",
            {"map.png": CLUSTERS},
            "**A t-SNE map of a convolutional VAE** with 20 latent dimensions, as in the article "
            f"on which its preset is based. {T_SNE}",
        ),
    ],
)
