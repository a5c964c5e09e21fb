"""interpolate, traverse and arithmetic against known paths of codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from latentforge import LatentSpec
from latentforge.errors import ConfigError, UsageError

SHAPE = (1, 2, 3)
N = 60


@pytest.fixture
def x():
    return torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def y():
    return torch.arange(N) % 3


def item(found, name):
    [one] = [i for i in found.items if i.name == name]
    return one


def codes(found):
    return {name: value.numpy() for name, value in item(found, "codes").arrays.items()}


# ---------------------------------------------------------------- interpolate


def test_linear_interpolation_passes_through_each_image(explore, affine, x):
    model = affine.Affine(SHAPE, (6,), scale=2.0)
    found = explore("interpolate", model, x, images=[4, 9, 2, 2], steps=5, path="linear")
    stops = 2 * (x[[4, 9, 2, 2]].flatten(1).numpy() - 0.5)
    got = codes(found)
    np.testing.assert_allclose(got["t"], np.arange(13) / 4)
    for d in range(6):
        expected = np.interp(got["t"], np.arange(4), stops[:, d])
        np.testing.assert_allclose(got["z_linear"][:, d], expected, atol=1e-6)
    np.testing.assert_allclose(got["x_linear"][::4], x[[4, 9, 2, 2]], atol=1e-6)
    assert got["index"].tolist() == [4, 9, 2, 2]
    assert found.metrics["endpoint_mse_per_pixel"] == pytest.approx(0, abs=1e-12)

    grid = item(found, "interpolation")
    assert grid.row_titles == ["linear 4 to 9", "linear 9 to 2", "linear 2 to 2"]
    times = ["t = 0.00", "t = 0.25", "t = 0.50", "t = 0.75", "t = 1.00"]
    assert list(grid.column_titles) == ["image", *times, "image"]
    torch.testing.assert_close(grid.rows[1][[0, 1]], x[[9, 9]])  # the image, decoded at t = 0
    torch.testing.assert_close(grid.rows[1][[-2, -1]], x[[2, 2]])


def test_class_means_interpolate_between_mean_codes(explore, affine, x, y):
    train = torch.rand(N, *SHAPE)
    options = {"classes": [2, 0], "between": "class_means", "path": "linear"}
    model = affine.Affine(SHAPE, (6,))
    found = explore("interpolate", model, x, y, train=(train, y), **options)
    means = [train[y == label].mean(0).flatten() - 0.5 for label in (2, 0)]
    got = codes(found)["z_linear"]
    np.testing.assert_allclose(got[[0, -1]], torch.stack(means), atol=1e-6)
    assert "endpoint_mse_per_pixel" not in found.metrics  # there is no image to compare with
    grid = item(found, "interpolation")
    assert grid.title == "From the mean code of class 2 to the mean code of class 0"
    assert [len(row) for row in grid.rows] == [10]


def test_a_linear_path_of_a_linear_decoder_is_a_crossfade(explore, affine, x):
    found = explore("interpolate", affine.Affine(SHAPE, (6,)), x)
    assert found.metrics["off_crossfade_linear"] == pytest.approx(0, abs=1e-6)
    assert found.metrics["largest_step_linear"] == pytest.approx(1, abs=1e-4)
    assert found.metrics["off_crossfade_spherical"] > 0.05


def test_off_crossfade_is_relative_to_half_the_distance(explore, affine, x):
    class Nonlinear(affine.Affine):
        def decode(self, z):  # keeps z at the ends of the path, doubles z in the middle
            return super().decode(z * (2 - 4 * z[:, :1].square()))

    ends = torch.full((2, *SHAPE), 0.5)
    ends[0, 0, 0, 0], ends[1, 0, 0, 0] = 0.0, 1.0
    ends[:, 0, 1, 2] = 0.7  # z is 0.2 at the ends and 0.4 in the middle
    found = explore("interpolate", Nonlinear(SHAPE, (6,)), ends, path="linear", pairs=3)
    # decoded ends are 1 apart and the middle is 0.2 from their mean: 0.2 / (1/2)
    assert found.metrics["off_crossfade_linear"] == pytest.approx(0.4, abs=1e-5)


def test_two_runs_interpolate_between_the_same_images(explore, affine, x):
    roles = {"other": affine.Affine(SHAPE, (6,), scale=3.0)}
    found = explore("interpolate", affine.Affine(SHAPE, (6,)), x, roles=roles, images=[5, 7])
    got = codes(found)
    np.testing.assert_allclose(got["other_z_linear"], 3 * got["z_linear"], atol=1e-6)
    np.testing.assert_allclose(got["other_x_linear"], got["x_linear"], atol=1e-6)
    grid = item(found, "interpolation")
    titles = ["own: linear", "own: spherical", "other: linear", "other: spherical"]
    assert grid.row_titles == titles
    for row in grid.rows:
        torch.testing.assert_close(row[[0, -1]], x[[5, 7]])
    own, other = (found.metrics[p + "off_crossfade_spherical"] for p in ("", "other_"))
    assert own == pytest.approx(other, rel=1e-4)  # means over the same pairs
    assert "metrics with the prefix other_ are of other, all others of own" in found.protocol


def test_confidence_along_the_path_matches_the_classifier(explore, affine):
    ends = torch.full((2, *SHAPE), 0.5)
    ends[0, 0, 0, 0], ends[1, 0, 0, 0] = 0.3, 0.9
    found = explore(
        "interpolate",
        affine.Affine(SHAPE, (6,)),
        ends,
        torch.tensor([0, 1]),
        roles={"classifier": affine.Threshold()},
        path="linear",
    )

    def confidence(pixel):
        return 1 / (1 + np.exp(-20 * abs(pixel - 0.5)))

    at_ends = (confidence(0.3) + confidence(0.9)) / 2
    assert found.metrics["end_confidence_linear"] == pytest.approx(at_ends, rel=1e-5)
    assert found.metrics["middle_confidence_linear"] == pytest.approx(confidence(0.6), rel=1e-5)
    curve = item(found, "confidence").series["linear"]
    # pairs are drawn in both directions, and the curve is the mean of them
    share = (confidence(0.9) - float(curve[0])) / (confidence(0.9) - confidence(0.3))
    t = np.linspace(0, 1, 11)
    expected = share * confidence(0.3 + 0.6 * t) + (1 - share) * confidence(0.9 - 0.6 * t)
    np.testing.assert_allclose(curve, expected, atol=1e-5)


@pytest.mark.parametrize("labels", [None, torch.zeros(4, dtype=torch.int64)])
def test_pairs_without_two_classes_have_different_images(explore, affine, labels):
    from latentforge_plugins.interpolate.paths import draw_pairs

    from latentforge.contracts import Arrays
    from latentforge.data.preparation import prepare_whole

    x = torch.rand(4, *SHAPE)
    given = Arrays(x, labels)
    images = prepare_whole({"train": given, "test": given}, "arrays").split("test")
    first, second = draw_pairs(images, 50)
    assert len(first) == 50
    assert (first != second).all()
    found = explore("interpolate", affine.Affine(SHAPE, (6,)), x, labels, pairs=50)
    assert "over 50 random pairs of test images;" in f"{found.protocol};"


def test_the_protocol_names_how_pairs_differ(explore, affine, x, y):
    model = affine.Affine(SHAPE, (6,))
    protocol = explore("interpolate", model, x, y, pairs=5).protocol
    assert "5 random pairs of test images of different classes" in protocol
    single = explore("interpolate", model, x[:1], y[:1], images=[0, 0], pairs=5)
    assert "5 random pairs of test images, each paired with itself" in single.protocol
    assert single.metrics["off_crossfade_linear"] == 0


def test_more_images_of_a_class_than_there_are_name_their_number(explore, affine, x, y):
    y = y.clone()
    y[y == 2] = 0
    y[7] = 2
    with pytest.raises(UsageError, match="'test' has 1 image of class 2, too few for") as error:
        explore("interpolate", affine.Affine(SHAPE, (6,)), x, y, classes=[0, 2, 2])
    assert error.value.hint == "--set split=train, or other classes"


def test_class_means_need_classes(explore, affine, x, y):
    with pytest.raises(ConfigError, match="classes"):
        explore("interpolate", affine.Affine(SHAPE, (6,)), x, y, between="class_means")


# ---------------------------------------------------------------- traverse


def test_a_traversal_moves_one_dimension_over_prior_quantiles(explore, affine, x):
    model = affine.Affine(SHAPE, (6,), log_var=[0.0] * 6)
    found = explore("traverse", model, x, steps=5, quantiles=[0.1, 0.9], image=7)
    got = codes(found)
    base = x[7].flatten().numpy() - 0.5
    for rank, dim in enumerate(got["dimension"]):
        expected = np.tile(base, (5, 1))
        expected[:, dim] = norm.ppf(np.linspace(0.1, 0.9, 5))
        np.testing.assert_allclose(got["z"][rank], expected, atol=1e-6)
        effect = np.square(expected[:, dim] - base[dim]).mean() / 6
        assert got["effect"][rank] == pytest.approx(effect, rel=1e-4)
    assert found.metrics["largest_effect"] == pytest.approx(got["effect"].max())
    grid = item(found, "traversal")
    assert list(grid.column_titles) == ["-1.28", "-0.52", "0.00", "0.52", "1.28"]
    assert "around test image 7" in grid.title


def test_quantiles_next_to_0_and_1_are_finite(explore, affine, x):
    ends = [1e-300, 0.9999999999999999]
    model = affine.Affine(SHAPE, (6,), log_var=[0.0] * 6)
    found = explore("traverse", model, x, steps=2, quantiles=ends)
    got = codes(found)
    moved = got["z"][0][:, got["dimension"][0]]
    np.testing.assert_allclose(moved, norm.ppf(ends), rtol=1e-5)
    assert list(item(found, "traversal").column_titles) == ["-37.05", "8.21"]
    without = codes(explore("traverse", affine.Affine(SHAPE, (6,)), x, steps=2, quantiles=ends))
    z = x.flatten(1).numpy() - 0.5
    first = without["dimension"][0]
    expected = [z[:, first].min(), z[:, first].max()]
    np.testing.assert_allclose(without["z"][0][:, first], expected, atol=1e-6)


def test_a_traversal_with_nan_codes_is_refused(explore, affine, x):
    class NanCodes(affine.Affine):
        def encode(self, x):
            codes = super().encode(x)
            codes.z[0, 0] = torch.nan
            return codes

    with pytest.raises(UsageError, match=r"quantiles 0\.02 and 0\.98 are infinite or NaN"):
        explore("traverse", NanCodes(SHAPE, (6,)), x)


def test_rows_are_sorted_by_the_kl_of_the_model(explore, affine, x):
    log_var = torch.tensor([-1.0, 0.0, -6.0, -0.3, -3.0, -2.0])
    model = affine.Affine(SHAPE, (6,), scale=0.1, log_var=log_var)
    found = explore("traverse", model, torch.rand(9, *SHAPE), train=(x, None), rows=4)
    mean = 0.1 * (x.flatten(1) - 0.5)
    kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean(0)
    got = codes(found)
    assert got["dimension"].tolist() == [2, 4, 5, 0, 3, 1]
    np.testing.assert_allclose(got["kl"], kl[[2, 4, 5, 0, 3, 1]], rtol=1e-4)
    grid = item(found, "traversal")
    assert list(grid.row_titles) == [f"z{d}  KL {float(kl[d]):.2f}" for d in (2, 4, 5, 0)]
    assert grid.row_titles[0] == "z2  KL 2.50"
    assert found.metrics["active_dims"] == int((kl > 0.01).sum()) == 5
    bars = item(found, "kl")
    assert bars.labels == ["z2", "z4", "z5", "z0", "z3", "z1"]


def test_without_a_prior_quantiles_and_variances_of_codes_are_used(explore, affine, x):
    spread = torch.tensor([1.0, 0.2, 0.6, 0.02, 0.8, 0.4]).reshape(SHAPE)
    x = 0.5 + (x - 0.5) * spread
    model = affine.Affine(SHAPE, (6,), scale=2.0)
    found = explore("traverse", model, x, steps=3, quantiles=[0.05, 0.95])
    z = 2 * (x.flatten(1).numpy() - 0.5)
    got = codes(found)
    assert got["dimension"].tolist() == [0, 4, 2, 5, 1, 3]
    np.testing.assert_allclose(got["variance"], z.var(0)[[0, 4, 2, 5, 1, 3]], rtol=1e-4)
    expected = np.tile(z.mean(0), (3, 1))
    expected[:, 4] = np.quantile(z[:, 4], [0.05, 0.5, 0.95])
    np.testing.assert_allclose(got["z"][1], expected, atol=1e-5)
    grid = item(found, "traversal")
    assert list(grid.column_titles) == ["5%", "50%", "95%"]
    assert grid.row_titles[0] == f"z0  var {z.var(0)[0]:.2f}"
    assert "codes' quantiles" in grid.title
    assert "training codes" in found.protocol
    assert [i.name for i in found.items] == ["traversal", "codes"]  # no KL to draw


def test_the_title_names_the_dimensions_that_are_drawn_and_the_unit(explore, affine, x):
    own = affine.Affine(SHAPE, (6,), log_var=[0.0] * 6)
    title = item(explore("traverse", own, x, steps=3), "traversal").title
    assert title == "Each dimension varied over the prior's quantiles; KL in nats"
    title = item(explore("traverse", own, x, steps=3, rows=2), "traversal").title
    assert title.startswith("The 2 of 6 dimensions with the largest KL, varied over")
    plain = affine.Affine(SHAPE, (6,))
    title = item(explore("traverse", plain, x, steps=3, rows=2), "traversal").title
    assert title.startswith("The 2 of 6 dimensions with the largest variance, varied over")
    assert title.endswith("; var: variance of the training codes")


@pytest.mark.parametrize(("strength", "says"), [(1.0, False), (0.03, True)])
def test_values_with_almost_no_effect_are_announced(explore, affine, x, strength, says):
    class Weak(affine.Affine):
        def decode(self, z):
            return super().decode(strength * z)

    found = explore("traverse", Weak(SHAPE, (1, 2, 3)), x)
    [note] = [n for n in found.notes if "almost no effect" in n] or [""]
    assert bool(note) is says
    assert ("change all values of a code together" in note) is says
    if says:
        variance = float(x.double().var(0, correction=0).mean())
        assert f"the largest is {found.metrics['largest_effect']:.2g}" in note
        assert f"the variance of the training images is {variance:.2g}" in note


def test_a_posterior_with_a_kl_that_the_model_does_not_declare_is_not_read(explore, affine, x):
    """A model with a learnt prior may use the usual posterior, whose kl() is that to N(0, I)."""
    model = affine.Affine(SHAPE, (6,), log_var=[-1.0] * 6)
    model.latent, model.provides = LatentSpec((6,)), {"encode", "decode"}
    found = explore("traverse", model, x, roles={"other": model}, steps=3)
    assert {"variance", "other_variance"} <= {*codes(found)}
    assert not {"kl", "other_kl"} & {*codes(found)}
    assert "KL" not in found.protocol
    assert all("var" in title for title in item(found, "traversal").row_titles)


def test_two_runs_are_traversed_around_the_same_image(explore, affine, x):
    own = affine.Affine(SHAPE, (6,), log_var=[-1.0] * 6)
    other = affine.Affine(SHAPE, (4,), scale=2.0, log_var=[-4.0, 0.0, -1.0, -2.0])
    found = explore("traverse", own, x, roles={"other": other}, image=3, steps=3)
    got = codes(found)
    np.testing.assert_allclose(got["z"][0, 1, 1:], x[3].flatten()[1:] - 0.5, atol=1e-6)
    assert got["other_dimension"].tolist()[:3] == [0, 3, 2]
    np.testing.assert_allclose(got["other_z"][0, 1, 1:], 2 * x[3].flatten()[1:4] - 1, atol=1e-6)
    assert item(found, "traversal-other").title.startswith("other: ")
    bars = item(found, "kl")
    assert bars.labels == [str(i + 1) for i in range(6)]
    assert bars.series["other"][4:] == [0.0, 0.0]
    assert bars.series["other"][0] == pytest.approx(float(got["other_kl"][0]))
    assert found.metrics["other_active_dims"] == sum(got["other_kl"] > 0.01)
    assert found.roles == {"traversal-other": "other"}
    parts = found.protocol.split("; ")
    assert len(set(parts)) == len(parts) == 5
    assert "other_...: the same for other" in parts


def test_the_protocol_names_the_differences_of_a_second_run(explore, affine, x):
    own = affine.Affine(SHAPE, (6,), log_var=[-1.0] * 6)
    found = explore("traverse", own, x, roles={"other": affine.Affine(SHAPE, (4,))}, steps=3)
    [protocol] = [part for part in found.protocol.split("; ") if part.startswith("other_")]
    assert protocol == (
        "other_...: the same for other, variance of codes in place of mean KL(q(z|x) || p(z)) in "
        "nats, its training codes in place of the prior N(0, I), the mean code in place of 0"
    )
    spatial = {"other": affine.Affine(SHAPE, (1, 2, 2))}
    notes = explore("traverse", affine.Affine(SHAPE, (1, 2, 2)), x, roles=spatial, steps=3).notes
    assert len([note for note in notes if "are flattened" in note]) == 1
    notes = explore("traverse", affine.Affine(SHAPE, (1, 2, 3)), x, roles=spatial, steps=3).notes
    assert [note.split(":")[0] for note in notes if "are flattened" in note] == ["own", "other"]


# ---------------------------------------------------------------- arithmetic


def test_arithmetic_adds_multiples_of_the_difference_of_class_means(explore, affine, x, y):
    train = torch.rand(N, *SHAPE)
    model = affine.Affine(SHAPE, (6,), scale=2.0)
    options = {"minus": 2, "plus": 1, "scales": [-1.0, 0.0, 0.5]}
    found = explore("arithmetic", model, x, y, train=(train, y), **options)
    plus, minus = (2 * (train[y == k].mean(0).flatten() - 0.5).numpy() for k in (1, 2))
    got = codes(found)
    assert got["index"].tolist() == [2, 5, 8, 11, 0, 1, 3, 4]  # of class 2, then of the others
    z = 2 * (x[got["index"]].flatten(1).numpy() - 0.5)
    expected = z[:, None] + np.array([-1.0, 0.0, 0.5])[:, None] * (plus - minus)
    np.testing.assert_allclose(got["z"], expected, atol=1e-5)
    np.testing.assert_allclose(got["x"][:, 1], x[got["index"]], atol=1e-6)
    length = np.linalg.norm(plus - minus)
    assert found.metrics["difference_length"] == pytest.approx(length, rel=1e-5)
    assert item(found, "arithmetic").column_titles == ("image", "s = -1", "s = 0", "s = 0.5")


def test_plus_share_matches_the_predictions_of_the_classifier(explore, affine):
    first = torch.tensor([0.1, 0.2, 0.3, 0.45, 0.55, 0.65])  # four of class 0, two of class 1
    x = torch.full((6, *SHAPE), 0.5)
    x[:, 0, 0, 0] = first
    y = torch.tensor([0, 0, 0, 0, 1, 1])
    roles = {"classifier": affine.Threshold()}
    found = explore("arithmetic", affine.Affine(SHAPE, (6,)), x, y, roles=roles, images=[5])
    step = 0.6 - first[:4].mean()
    shares = [float((first[:4] + s * step > 0.5).float().mean()) for s in (0, 1)]
    assert shares == [0.0, 0.75]
    assert [found.metrics[f"plus_share_at_{s}"] for s in (0, 1)] == shares
    curves = item(found, "shares")
    at = int((curves.x == 1).nonzero())
    assert curves.series["class 1"][at] == 0.75
    assert curves.series["class 0"][at] == 0.25
    assert codes(found)["index"].tolist() == [5]  # the image grid shows another image


def test_arithmetic_refuses_missing_classes_and_images(explore, affine, x, y):
    model = affine.Affine(SHAPE, (6,))
    with pytest.raises(UsageError, match="no class 7: there are 3"):
        explore("arithmetic", model, x, y, plus=7)
    with pytest.raises(ConfigError, match="their difference is 0"):
        explore("arithmetic", model, x, y, plus=0)
    few = torch.where(y == 1, 0, y)  # no training image is of class 1
    with pytest.raises(UsageError, match="class 1 has no training images"):
        explore("arithmetic", model, x, y, train=(x, few))
    with pytest.raises(UsageError, match="no image 60"):
        explore("arithmetic", model, x, y, images=[60])
