import numpy as np

from latentforge import Arrays


def spectra(config, split):
    """A line at `position`, and in half of the spectra a weaker one a fifth of the length away."""
    random = np.random.default_rng(["train", "test"].index(split))
    examples = config.examples if split == "train" else max(1, config.examples // 4)
    position = random.uniform(0.1, 0.7, examples)
    brightness = random.uniform(5, 40, examples)
    second = random.integers(0, 2, examples)
    place = np.linspace(0, 1, config.length)

    def line(centre):
        return np.exp(-0.5 * ((place - centre[:, None]) / 0.03) ** 2)

    lines = line(position) + 0.6 * second[:, None] * line(position + 0.2)
    mean = 1 + brightness[:, None] * lines
    # a Poisson distribution whose mean is gamma-distributed is negative-binomial
    x = random.poisson(random.gamma(config.dispersion, mean / config.dispersion))
    factors = {"position": position, "brightness": brightness}
    classes = ("one line", "two lines")
    return Arrays(x, second, classes, factors=factors, range="counts", kind="signal")
