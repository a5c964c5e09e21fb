"""sample and manifold against known densities and planes of codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from latentforge_plugins.densities import fit_mixture
from latentforge_plugins.walks import principal_directions
from scipy.stats import multivariate_normal, norm
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from latentforge.errors import ConfigError, UsageError

SHAPE = (1, 2, 3)


@pytest.fixture(scope="module")
def x():
    """Images whose pixels form two clusters, around 0.25 and 0.75."""
    generator = torch.Generator().manual_seed(1)
    near = 0.1 * (torch.rand(400, *SHAPE, generator=generator) - 0.5)
    return near + torch.where(torch.arange(400) % 2 == 0, 0.25, 0.75).reshape(-1, 1, 1, 1)


def item(found, name):
    [one] = [i for i in found.items if i.name == name]
    return one


def codes(found):
    return {name: value.numpy() for name, value in item(found, "codes").arrays.items()}


# ---------------------------------------------------------------- sample


def test_samples_of_the_prior_are_standard_normal_and_decoded(explore, affine, x):
    model = affine.Affine(SHAPE, (3,), scale=2.0, log_var=[0.0] * 3)
    found = explore("sample", model, x, sources=["prior"], n=4000, rows=2, columns=5)
    got = codes(found)
    z = got["z_prior"]
    assert z.shape == (4000, 3)
    assert np.abs(z.mean(0)).max() < 4 / np.sqrt(4000)  # standard errors
    np.testing.assert_allclose(np.cov(z.T), np.eye(3), atol=4 * np.sqrt(2 / 4000))
    np.testing.assert_allclose(got["x_prior"].reshape(-1, 6)[:, :3], 0.5 + z / 2, atol=1e-6)
    known = 2 * (x.flatten(1)[:, :3].numpy() - 0.5)
    expected = norm.logpdf(known).sum(1).mean()
    assert found.metrics["code_log_density_prior"] == pytest.approx(expected, rel=1e-5)
    grid = item(found, "samples")
    assert [len(row) for row in grid.rows] == [5, 5]
    assert list(grid.row_titles) == ["prior N(0, I)", ""]
    np.testing.assert_allclose(torch.cat(list(grid.rows)), got["x_prior"][:10])


def test_the_protocol_says_where_densities_are_evaluated(explore, affine, x):
    model = affine.Affine(SHAPE, (3,), log_var=[0.0] * 3)
    both = explore("sample", model, x, sources=["prior", "mixture"], n=20).protocol
    assert "under each source at the posterior modes of 20 test images" in both
    assert "the densities of the two kinds are not comparable" in both
    for sources in (["prior"], ["gaussian", "mixture"]):
        one = explore("sample", model, x, sources=sources, n=20).protocol
        assert "at the posterior modes of" in one
        assert "not comparable" not in one


def test_without_a_prior_samples_come_from_a_fitted_gaussian(explore, affine, x):
    found = explore("sample", affine.Affine(SHAPE, (2,)), x, sources=["prior"], n=4000)
    z, known = codes(found)["z_gaussian"], x.flatten(1)[:, :2].numpy() - 0.5
    assert np.abs(z.mean(0) - known.mean(0)).max() < 4 * known.std() / np.sqrt(4000)
    np.testing.assert_allclose(np.cov(z.T), np.cov(known.T), rtol=4 * np.sqrt(2 / 4000))
    density = multivariate_normal(known.mean(0), np.cov(known.T))
    expected = density.logpdf(known).mean()
    assert found.metrics["code_log_density_gaussian"] == pytest.approx(expected, rel=1e-3)
    assert not any("prior" in name for name in found.metrics)
    assert "the model has no prior" in item(found, "samples").title
    assert "used because the model has no prior" in found.protocol
    assert item(found, "samples").row_titles[0] == "fitted Gaussian"


def test_the_mixture_matches_scikit_learn_and_samples_its_clusters(explore, affine, x):
    held = x[:300] + 0.01
    found = explore(
        "sample",
        affine.Affine(SHAPE, (2,)),
        held,
        train=(x, None),
        sources=["mixture", "gaussian"],
        components=2,
        n=2000,
    )
    known, unseen = (part.flatten(1)[:, :2].double().numpy() - 0.5 for part in (x, held))
    expected = GaussianMixture(2, random_state=7).fit(known).score(unseen)
    assert found.metrics["code_log_density_mixture"] == pytest.approx(expected, rel=1e-2)
    assert found.metrics["code_log_density_gaussian"] < expected - 0.5
    z = codes(found)["z_mixture"]
    low = z[z[:, 0] < 0]
    assert len(low) / 2000 == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 2000))
    np.testing.assert_allclose(low.mean(0), known[known[:, 0] < 0].mean(0), atol=4 * 0.03 / 30)
    assert list(item(found, "samples").row_titles)[::3] == ["mixture of 2", "fitted Gaussian"]


def test_aggregate_variance_adds_code_and_posterior_variances(explore, affine, x):
    log_var = [np.log(0.3), np.log(0.01)]
    model = affine.Affine(SHAPE, (2,), log_var=log_var)
    z = codes(explore("sample", model, x, sources=["aggregate"], n=5000))["z_aggregate"]
    expected = x.flatten(1)[:, :2].numpy().var(0) + np.exp(log_var)
    np.testing.assert_allclose(z.var(0), expected, rtol=4 * np.sqrt(2 / 5000))


def test_the_nearest_training_distance_matches_brute_force(explore, affine, x):
    held = torch.rand(50, *SHAPE)
    model = affine.Affine(SHAPE, (6,))
    sources = ["aggregate", "gaussian"]
    found = explore("sample", model, held, train=(x, None), sources=sources, n=100)

    def nearest(images):
        apart = np.reshape(images, (-1, 1, 6)) - x.flatten(1).numpy()
        return np.linalg.norm(apart, axis=2).min(1).mean()

    metrics = found.metrics
    samples = codes(found)["x_gaussian"]
    assert metrics["nearest_train_gaussian"] == pytest.approx(nearest(samples), rel=1e-4)
    assert metrics["nearest_train_test"] == pytest.approx(nearest(held.numpy()), rel=1e-4)
    assert metrics["nearest_train_aggregate"] == pytest.approx(0, abs=1e-3)  # copies of train
    assert "nearest_train_test" not in explore("sample", model, x, n=20).metrics  # test is train


def test_the_nearest_training_image_is_found_in_any_batch(explore, affine):
    from latentforge_plugins.sample.draw import COMPARED

    train = torch.rand(4100, *SHAPE)
    held = train[:COMPARED] + 0.01 * torch.rand(COMPARED, *SHAPE)
    held[: COMPARED // 2] = train[-COMPARED // 2 :] + 0.02
    model = affine.Affine(SHAPE, (6,))
    found = explore("sample", model, held.clamp(0, 1), train=(train, None), n=500)
    tree = NearestNeighbors(n_neighbors=1).fit(train.flatten(1).double().numpy())
    expected = tree.kneighbors(held.clamp(0, 1).flatten(1).double().numpy())[0].mean()
    assert found.metrics["nearest_train_test"] == pytest.approx(expected, rel=1e-2)


def test_nearest_train_test_is_estimated_on_all_classes(explore, affine):
    train = torch.zeros(10, *SHAPE)
    held = torch.zeros(1000, *SHAPE)
    held[500:, 0, 0, 0] = 1.0
    y = torch.arange(1000) // 500
    found = explore("sample", affine.Affine(SHAPE, (6,)), held, y, train=(train, y[:10]), n=1000)
    share = found.metrics["nearest_train_test"]  # each distance is 0 or 1
    assert share == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 500))


def test_the_protocol_names_the_number_of_fitted_codes(explore, affine):
    x = torch.rand(10_001, *SHAPE)
    model = affine.Affine(SHAPE, (2,))
    options = {"sources": ["mixture", "gaussian"], "components": 1, "n": 10}
    protocol = explore("sample", model, x, **options).protocol
    assert "covariances, fitted to 10000 random codes of the 10001 training codes" in protocol
    assert "a Gaussian fitted to the 10001 training codes" in protocol
    protocol = explore("sample", model, x[1:], **options).protocol
    assert "covariances, fitted to the 10000 training codes" in protocol


def test_the_entropy_of_one_certain_class_is_positive_zero(explore, affine):
    class Certain(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([[0.0, 1000.0]]).repeat(len(x), 1)

    x, y = torch.rand(20, *SHAPE), torch.arange(20) % 2
    model, roles = affine.Affine(SHAPE, (6,)), {"classifier": Certain()}
    found = explore("sample", model, x, y, sources=["gaussian"], n=10, roles=roles)
    assert str(found.metrics["class_entropy_gaussian"]) == "0.0"


def test_confidence_and_entropy_of_samples_match_the_classifier(explore, affine, x):
    roles = {"classifier": affine.Threshold()}
    y = torch.arange(400) % 2
    found = explore(
        "sample", affine.Affine(SHAPE, (6,)), x, y, sources=["aggregate"], n=500, roles=roles
    )
    p = 1 / (1 + np.exp(-20 * (codes(found)["x_aggregate"].reshape(500, 6)[:, 0] - 0.5)))
    confidence = np.maximum(p, 1 - p).mean()
    assert found.metrics["confidence_aggregate"] == pytest.approx(confidence, rel=1e-4)
    mean = p.mean()
    entropy = -mean * np.log(mean) - (1 - mean) * np.log(1 - mean)
    assert found.metrics["class_entropy_aggregate"] == pytest.approx(entropy, rel=1e-4)
    assert "0.69 if all classes are equally frequent" in found.protocol


# ---------------------------------------------------------------- manifold


def test_a_manifold_over_the_prior_is_a_regular_grid(explore, affine, x):
    model = affine.Affine(SHAPE, (4,), log_var=[0.0] * 4)
    found = explore("manifold", model, x, size=5, reach=2.0, dims=[3, 1])
    got, even = codes(found), np.linspace(-2, 2, 5)
    for row in range(5):
        for column in range(5):
            expected = [0, even[row], 0, even[column]]
            np.testing.assert_allclose(got["z"][row, column], expected, atol=1e-6)
    grid = item(found, "manifold")
    top_left = grid.rows[0][0].flatten()
    np.testing.assert_allclose(top_left, [0.5, 2.5, 0.5, -1.5, 0.5, 0.5], atol=1e-6)
    assert list(grid.column_titles) == ["-2.00", "", "0.00", "", "2.00"]
    assert list(grid.row_titles) == ["2.00", "", "0.00", "", "-2.00"]
    assert "z3 to the right and z1 upwards" in grid.title
    assert found.metrics["codes_inside"] == 1


def test_quantile_spacing_is_uniform_in_prior_probability(explore, affine, x):
    model = affine.Affine(SHAPE, (2,), log_var=[0.0] * 2)
    axis = codes(explore("manifold", model, x, size=7, spacing="quantile"))["axis_x"]
    np.testing.assert_allclose(norm.cdf(axis), (np.arange(7) + 0.5) / 7, atol=1e-6)


@pytest.mark.parametrize("spacing", ["linear", "quantile"])
def test_without_a_prior_the_grid_covers_the_codes(explore, affine, x, spacing):
    found = explore("manifold", affine.Affine(SHAPE, (3,)), x, size=6, dims=[0, 2], spacing=spacing)
    z = x.flatten(1)[:, :3].numpy() - 0.5
    got = codes(found)
    for axis, dim in (("axis_x", 0), ("axis_y", 2)):
        ends = np.quantile(z[:, dim], [0.01, 0.99])
        middles = np.quantile(z[:, dim], (np.arange(6) + 0.5) / 6)
        expected = np.linspace(*ends, 6) if spacing == "linear" else middles
        np.testing.assert_allclose(got[axis], expected, atol=1e-4)
    np.testing.assert_allclose(got["z"][..., 1], z[:, 1].mean(), atol=1e-5)
    a, b = got["axis_x"], got["axis_y"]
    inside = (z[:, 0] >= a[0]) & (z[:, 0] <= a[-1]) & (z[:, 2] >= b[0]) & (z[:, 2] <= b[-1])
    assert 0.5 < found.metrics["codes_inside"] < 1
    assert found.metrics["codes_inside"] == pytest.approx(inside.mean())


def test_a_grid_of_two_dimensions_is_not_called_the_whole_space(explore, affine, x):
    model = affine.Affine(SHAPE, (2,), log_var=[0.0] * 2)
    found = explore("manifold", model, x, size=3, reach=0.1)
    assert found.metrics["codes_inside"] < 1
    assert "; the model has no other dimensions; codes_inside: " in found.protocol
    assert "whole" not in found.protocol + item(found, "manifold").title
    deeper = affine.Affine(SHAPE, (3,), log_var=[0.0] * 3)
    assert "no other dimensions" not in explore("manifold", deeper, x, size=3).protocol


def test_the_plane_spans_the_dimensions_of_the_largest_kl(explore, affine, x):
    model = affine.Affine(SHAPE, (6,), log_var=[-0.1, -2.0, -0.1, -0.1, -3.0, -0.1])
    found = explore("manifold", model, x, size=3)
    posterior = model.encode(x)
    mean, log_var = posterior.mean, posterior.log_var
    kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).flatten(1).mean(0)
    first, second = kl.topk(2).indices.tolist()
    assert first > second
    assert found.protocol.startswith(f"z{first} from -3 to 3 to the right, z{second} from -3 to 3")
    assert f"the largest KL, {kl[first]:.2f} and {kl[second]:.2f} nats" in found.protocol


def test_without_a_kl_the_plane_spans_the_dimensions_of_the_largest_variance(explore, affine, x):
    stretch = torch.tensor([0.1, 0.1, 1.0, 0.1, 0.5, 0.1]).reshape(SHAPE)
    model = affine.Affine(SHAPE, (6,), log_var=[-0.1] * 6)
    model.provides = {"encode", "decode", "prior", "log_prob"}
    found = explore("manifold", model, 0.5 + (x - 0.5) * stretch, size=3)
    assert found.protocol.startswith("z2 from -3 to 3 to the right, z4 from -3 to 3")
    assert "the largest variance of the codes, " in found.protocol


def test_the_principal_plane_matches_pca(explore, affine, x):
    stretch = torch.tensor([1.0, 0.1, 0.5, 0.2, 2.0, 0.3]).reshape(SHAPE)
    x = 0.6 + (x - 0.5) * stretch / 3
    found = explore("manifold", affine.Affine(SHAPE, (6,)), x, size=3, plane="principal")
    z = x.flatten(1).numpy() - 0.5
    pca = PCA(2).fit(z)
    share = pca.explained_variance_ratio_.sum()
    assert f"principal directions of the training codes, {share:.0%}" in found.protocol
    got = codes(found)
    for row in range(3):
        for column in range(3):
            point = pca.transform(got["z"][row, column][None])[0]
            expected = [got["axis_x"][column], got["axis_y"][row]]
            np.testing.assert_allclose(np.abs(point), np.abs(expected), atol=1e-4)
    flat = pca.inverse_transform(pca.transform(got["z"].reshape(9, 6)))
    np.testing.assert_allclose(got["z"].reshape(9, 6), flat, atol=1e-5)  # no other direction
    ends = np.quantile(pca.transform(z)[:, 0], [0.01, 0.99])
    ends = np.sort(ends) if got["z"][0, -1, 4] > got["z"][0, 0, 4] else ends
    np.testing.assert_allclose(np.sort(np.abs(got["axis_x"][[0, -1]])), np.sort(np.abs(ends)), 1e-3)


def test_reach_without_a_prior_is_reported_as_unused(explore, affine, x):
    plain = explore("manifold", affine.Affine(SHAPE, (3,)), x, size=3)
    noted = explore("manifold", affine.Affine(SHAPE, (3,)), x, size=3, reach=2.0)
    assert plain.notes == ()
    assert [note.split(":")[0] for note in noted.notes] == ["reach 2 had no effect"]
    assert "the grid covers the 1% to 99% quantile of the codes" in noted.notes[0]
    np.testing.assert_array_equal(codes(plain)["z"], codes(noted)["z"])
    model = affine.Affine(SHAPE, (3,), log_var=[0.0] * 3)
    assert explore("manifold", model, x, size=3, reach=2.0).notes == ()


@pytest.mark.parametrize(("count", "size"), [(300, 7), (300, 2), (6, 40)])
def test_principal_directions_match_a_singular_value_decomposition(count, size):
    generator = torch.Generator().manual_seed(count)
    z = torch.randn(count, size, generator=generator) * torch.linspace(1, 3, size) + 5.0
    mean, axes, shares = principal_directions(z)
    known = z.double().numpy()
    _, scale, expected = np.linalg.svd(known - known.mean(0), full_matrices=False)
    expected = expected[:2]
    expected *= np.sign(expected[[0, 1], np.abs(expected).argmax(1)])[:, None]
    np.testing.assert_allclose(mean, known.mean(0))
    np.testing.assert_allclose(axes, expected, atol=1e-9)
    np.testing.assert_allclose(shares, scale[:2] ** 2 / (scale**2).sum(), rtol=1e-9)
    again = principal_directions(torch.cat([z, 2 * z.double().mean(0) - z]))  # mirrored: same plane
    np.testing.assert_allclose(again[1], axes, atol=1e-6)


def test_an_invalid_plane_is_refused(explore, affine, x):
    with pytest.raises(UsageError, match="no latent dimension 3: this model has 3"):
        explore("manifold", affine.Affine(SHAPE, (3,)), x, dims=[0, 3])
    with pytest.raises(
        UsageError, match="needs two latent dimensions, but this model has one"
    ) as one:
        explore("manifold", affine.Affine(SHAPE, (1,)), x)
    assert one.value.hint == "latentforge explore traverse RUN"
    with pytest.raises(ConfigError, match="two different dimensions"):
        explore("manifold", affine.Affine(SHAPE, (3,)), x, dims=[1, 1])


@pytest.mark.parametrize(
    "options",
    [
        {"plane": "principal", "dims": [1, 2]},
        {"plane": "principal", "reach": 2.0},
        {"spacing": "quantile", "reach": 2.0},
    ],
)
def test_options_without_effect_are_refused(explore, affine, x, options):
    with pytest.raises(ConfigError, match=r"exclude each other|reach needs"):
        explore("manifold", affine.Affine(SHAPE, (3,)), x, **options)


@pytest.mark.parametrize(
    ("codes", "dimensions", "components"), [(40, 3, 10), (39, 3, 9), (5, 8, 1)]
)
def test_mixture_has_enough_codes_for_each_covariance(codes, dimensions, components):
    generator = torch.Generator().manual_seed(0)
    mixture = fit_mixture(torch.randn(codes, dimensions, generator=generator), 10, seed=0)
    assert len(mixture.mixture_distribution.probs) == components
