"""The section of the explorer `guided`: searches for digits, their comparison, and inpainting."""

from __future__ import annotations

from gallery_content import Comparison, Look, Section

SEARCH = "latentforge explore guided runs/{} --with classifier=runs/mlp --with judge=runs/cnn "
PUBLISHED = SEARCH.format("ae2") + "--preset latent-differentiation-search --set n=1000"
ONE_START = "--set restarts=1 --set solutions=1 --set steps=400"

FROM_ZEROS = Look(
    "guided-ae2",
    f"{SEARCH.format('ae2')}--set target=5 --set start_class=0 --set noise=0 --set n=100 "
    "--set film=9",
    {
        "walk.gif": "An animation: a path from the codes of the zeros to those of the fives, the "
        "decoded image, which turns from a zero into a five, and its class probabilities",
    },
    "**From a zero to a five**, in an autoencoder with two latent dimensions, as in the article on "
    "this search ([source](reproduction.md#sources)). Each request starts at the code of a random "
    "zero. The search moves the code with Adam until the guiding classifier assigns a high "
    "probability to a five; without noise, the steps depend only on the gradients. The animation "
    "shows request 9, which is satisfied after {film_steps:.0f} steps, from starting point "
    "{film_start:.0f}, and then moves away from the boundary of the solutions. Of 100 such "
    "requests, {success_single_start:.0%} reach p >= 0.9 from their first starting point and "
    "{success_share:.0%} from one of 16. Without a gradient, {best_of_16:.0%} are satisfied by the "
    "best of 16 random training codes of other classes than five.",
)

DIGITS = Look(
    "guided-digits",
    SEARCH.format("ae2") + "--set n=1000",
    {
        "results.png": "Ten digits of other classes at the starting points, above the digits 0 to "
        "9 that the search found",
        "walks.png": "Ten paths over the map of codes, each from a circle to a star",
    },
    "**A thousand digits from the same autoencoder.** Each request is for one of ten digits and "
    "starts at the code of a random training image of another class. The search adds noise to its "
    "Adam steps, which it reduces step by step. Of the 1,000 requests, {success_share:.1%} reach "
    "p >= 0.9: {success_at_start:.1%} do so before the first step, {success_single_start:.1%} "
    "(including these) from their first starting point, and the others need more of their 16 "
    "starting points. The median number of gradient steps of a satisfied request, summed over its "
    "starting points, is {median_steps:.0f}. `cnn`, a classifier that did not guide the search, "
    "assigns {judge_agreement:.1%} of all results to the requested class. Two baselines use no "
    "gradient: of the first 100 requests, {best_of_16:.0%} are satisfied by the best of 16 random "
    "training codes of other classes, and {best_of_256:.0%} by the best of 256. The results are "
    "near the most probable images of each class: the 1,000 results form {result_groups:.0f} "
    "groups of similar images, and the codes of a class have {deviation_ratio:.2f} times the "
    "spread of its training images ({deviation_ratio_min:.2f} to {deviation_ratio_max:.2f} for "
    "single classes).",
)

VARIATIONAL = Look(
    "guided-vae16",
    SEARCH.format("vae16") + "--set n=1000",
    {
        "walk.gif": "An animation: a path over the principal plane of the codes, the decoded "
        "image, and its class probabilities",
        "results.png": "Ten digits of other classes at the starting points, above the digits 0 to "
        "9 that the search found",
    },
    "**A variational autoencoder with 16 latent dimensions.** The map shows the plane of the two "
    "principal directions of the codes. Of 1,000 requests, {success_share:.1%} reach p >= 0.9, "
    "{success_single_start:.1%} from their first starting point. The median number of gradient "
    "steps is {median_steps:.0f}. `cnn` assigns {judge_agreement:.1%} of all results to the "
    "requested class. The best of 16 random training codes of other classes satisfies "
    "{best_of_16:.0%} of the first 100 requests, and the best of 256 satisfies {best_of_256:.0%}. "
    "A search climbs, so its results are near the most probable images of each class. 100 Langevin "
    "steps from each solution therefore sample codes of the class: the results form "
    "{result_groups:.0f} groups, and the codes of a class have {deviation_ratio:.2f} times the "
    "spread of its training images.",
)

SAMPLES = Look(
    "guided-one-start",
    f"{SEARCH.format('vae16')}{ONE_START} --set n=1000 --set shown=20",
    {
        "results.png": "Twenty digits of other classes at the starting points, above two "
        "different results for each digit",
    },
    "**The same search from one starting point**, with up to 400 steps. {success_share:.1%} of the "
    "requests reach p >= 0.9 from it, and `cnn` assigns {judge_agreement:.1%} of all results to "
    "the requested class. The results form "
    "{result_groups:.0f} groups, and the codes of a class have {deviation_ratio:.2f} times the "
    "spread of its training images ({deviation_ratio_min:.2f} to {deviation_ratio_max:.2f} for "
    "single classes). The mean log density of the results is {log_prior:.1f} nats, that of the "
    "training codes {log_prior_training:.1f} nats.",
)

SGD = Look(
    "guided-search",
    PUBLISHED,
    {
        "results.png": "Ten decoded starting points far from the codes, above the results of the "
        "search: few are the requested digit",
    },
    "**The search as published** ([source](reproduction.md#sources)), available as a preset. Each "
    "request starts from one sample of N(0, 10²) in each dimension. It makes at most 500 plain "
    "gradient steps (SGD), which maximise only the score, without a prior. {success_share:.1%} of "
    "the requests reach p >= 0.9, and {success_at_start:.1%} do so before the first step. `cnn` "
    "assigns {judge_agreement:.1%} of all results to the requested class.",
)

ADAM = Look(
    "guided-search-adam",
    f"{PUBLISHED} --set optimizer=adam",
    {},
    "**The published search with Adam** in place of SGD. {success_share:.1%} of the requests reach "
    "p >= 0.9, and `cnn` assigns {judge_agreement:.1%} of all results to the requested class.",
)

COMPARISON = Comparison(
    {
        "guided-digits": "AE z=2",
        "guided-vae16": "VAE z=16",
        "guided-one-start": "VAE z=16, one start",
        "guided-search": "published, AE z=2, SGD",
        "guided-search-adam": "published, AE z=2, Adam",
    },
    {
        "success_share": (".1%", "fraction of requests that are satisfied, with p >= 0.9"),
        "success_at_start": (
            ".1%",
            "fraction satisfied at the first starting point, before any gradient step",
        ),
        "success_single_start": (".1%", "fraction satisfied from the first starting point"),
        "best_of_16": (
            ".0%",
            "fraction of the first 100 requests that the best of 16 random training codes of other "
            "classes satisfies, without a gradient",
        ),
        "best_of_256": (".0%", "the same for the best of 256"),
        "judge_agreement": (
            ".1%",
            "fraction of all requests whose result is classified as the requested class by `cnn`, "
            "which did not guide the search",
        ),
        "median_steps": (
            ".0f",
            "median number of gradient steps of a satisfied request, summed over its starting "
            "points",
        ),
        "result_groups": (
            ".0f",
            "number of groups of results: each is within a root mean square difference of 0.1 per "
            "pixel of the first of its group",
        ),
        "deviation_ratio": (
            ".2f",
            "spread of the codes of a class divided by that of its training images, mean over the "
            "classes",
        ),
        "deviation_ratio_min": (".2f", "the smallest of these ratios"),
        "deviation_ratio_max": (".2f", "the largest of these ratios"),
        "log_prior": (
            ".1f",
            "mean log density of the results under a mixture fitted to the training codes, in nats",
        ),
        "log_prior_training": (".1f", "mean log density of the training codes under it"),
        "search_seconds": (".1f", "seconds of the search for all 1,000 requests"),
    },
)

INPAINT = Look(
    "inpaint",
    "latentforge explore guided runs/vae16 --preset inpaint-lower-half",
    {
        "inpainting.png": "Ten digits, their upper halves, the results of the search, and the "
        "three baselines",
    },
    "**Another objective: completing half of an image.** The search uses only the upper half of an "
    "image. On the hidden halves of 100 test images, its mean squared error per pixel is "
    "{hidden_mse_per_pixel:.4f}. There are three baselines: the mean of the training images of the "
    "true class, which requires the label, has an error of {hidden_mse_class_mean:.4f}; the "
    "training image that is nearest on the known half has an error of {hidden_mse_nearest:.4f}; "
    "and the mean of the 20 nearest ones, which requires no label, has an error of "
    "{hidden_mse_neighbours:.4f}. The error of the search is {over_neighbours:.2f} times the last "
    "one. Its results are means of the images of sampled codes, because the squared error is "
    "smallest for the mean of the possible images. They are therefore blurred where the upper half "
    "leaves the lower one open.",
)

GUIDED = Section(
    "guided",
    [FROM_ZEROS, DIGITS, VARIATIONAL, SAMPLES, SGD, ADAM, COMPARISON, INPAINT],
)
