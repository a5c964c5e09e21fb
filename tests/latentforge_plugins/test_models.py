"""The built-in networks: their architectures, supported shapes and contracts."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from latentforge_plugins.networks import padding_to
from torch import nn

from latentforge import DataSpec, Forge
from latentforge.errors import UsageError
from latentforge.latent import DiagonalGaussian, Point

from ..params import slow_except

REGISTRY = Forge().registry
AUTOENCODERS = ["ae", "vae", "beta-vae", "conv-vae", "deconv-vae"]
CLASSIFIERS = ["mlp-classifier", "cnn-classifier"]
SHAPES = [(1, 28, 28), (3, 32, 32), (1, 28, 20), (1, 64, 64), (2, 5, 3), (1, 1, 1), (30,)]
MNIST = (1, 28, 28)


def spec_of(shape, classes=("a", "b", "c")):
    return DataSpec(shape, "image" if len(shape) == 3 else "vector", classes)


def build(name, shape=MNIST, **options):
    spec = REGISTRY.get("models", name).spec
    torch.manual_seed(0)
    return spec.build(spec.config(**options), spec_of(shape))


def unsupported(name, shape):
    return (len(shape) == 1 and name in ("conv-vae", "deconv-vae", "cnn-classifier")) or (
        name == "deconv-vae" and min(shape[1:]) < 28
    )


def supported(names):
    return [(name, shape) for name in names for shape in SHAPES if not unsupported(name, shape)]


def layers(module):
    """Return type, weight shape and stride (if any) of each layer with weights, in order."""
    return [
        (type(m).__name__, tuple(m.weight.shape), *([m.stride[0]] if hasattr(m, "stride") else []))
        for m in module.modules()
        if hasattr(m, "weight")
    ]


def parameters(module):
    return sum(p.numel() for p in module.parameters())


# ---------------------------------------------------------------- contracts of all models


@pytest.mark.parametrize(("name", "shape"), supported(AUTOENCODERS))
def test_codes_and_images_have_the_declared_shapes(name, shape):
    model, x = build(name, shape, latent_dim=5), torch.rand(3, *shape)
    assert model.latent.shape == (5,)
    assert model.latent.prior == (None if name == "ae" else "normal")
    posterior = model.encode(x)
    assert isinstance(posterior, Point if name == "ae" else DiagonalGaussian)
    assert posterior.mode().shape == posterior.sample().shape == (3, 5)
    assert model.decode(posterior.mode()).shape == x.shape


@pytest.mark.parametrize(("name", "shape"), supported(AUTOENCODERS))
def test_one_image_gives_the_same_result_as_in_a_batch(name, shape):
    model, x = build(name, shape).eval(), torch.rand(4, *shape)
    with torch.no_grad():
        z = model.encode(x).mode()
        torch.testing.assert_close(model.encode(x[:1]).mode(), z[:1])
        image = model.decode(z)
        torch.testing.assert_close(model.decode(z[:1]), image[:1])
        torch.testing.assert_close(image, model.decode_logits(z).sigmoid())
    assert ((image >= 0) & (image <= 1)).all()


@pytest.mark.parametrize(("name", "shape"), supported(AUTOENCODERS))
def test_the_default_loss_gives_every_parameter_a_gradient(name, shape):
    model = build(name, shape)
    x = torch.rand(4, *shape)
    posterior = model.encode(x)
    loss = F.binary_cross_entropy_with_logits(model.decode_logits(posterior.sample()), x)
    if name != "ae":
        loss = loss + posterior.kl().mean()
    loss.backward()
    untouched = [key for key, p in model.named_parameters() if p.grad is None]
    assert untouched == []
    assert all(p.grad.isfinite().all() for p in model.parameters())
    if math.prod(shape) > 30:  # in a tiny network a whole ReLU layer can be inactive
        assert all(p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(("name", "shape"), supported(CLASSIFIERS))
def test_classifiers_give_logits_and_hookable_layers(name, shape):
    model, x = build(name, shape).eval(), torch.rand(3, *shape)
    seen = {}
    for layer in model.layers():
        model.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output, layer=layer: seen.update({layer: output})
        )
    logits = model(x)
    assert logits.shape == (3, 3)
    assert list(seen) == list(model.layers())  # collected in forward order
    assert all(len(output) == 3 for output in seen.values())
    torch.testing.assert_close(model.head(seen[model.layers()[-1]].flatten(1)), logits)
    logits.logsumexp(1).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", AUTOENCODERS + CLASSIFIERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_unsupported_shapes_are_refused_with_an_alternative_model(name, shape):
    if not unsupported(name, shape):
        build(name, shape)
        return
    with pytest.raises(UsageError, match="size") as caught:
        build(name, shape)
    assert name in caught.value.message
    instead = caught.value.hint.partition(",")[0].removeprefix("the model ")
    build(instead, shape)  # the alternative supports the shape


def test_deconv_vae_names_its_smallest_size():
    with pytest.raises(UsageError, match="size 28x28 or larger, not 28x27"):
        build("deconv-vae", (1, 28, 27))
    build("deconv-vae", (1, 28, 28))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_without_classes_is_refused(name):
    spec = REGISTRY.get("models", name).spec
    with pytest.raises(UsageError, match="needs labels"):
        spec.build(spec.config(), spec_of(MNIST, classes=()))


# ---------------------------------------------------------------- the architectures


def linear(*widths):
    """Return the parameter count of linear layers between `widths`."""
    return sum(a * b + b for a, b in pairwise(widths))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("ae", {"hidden": (128,), "latent_dim": 16}, linear(784, 128, 16, 128, 784)),
        ("ae", {"latent_dim": 2}, linear(784, 512, 128, 2, 128, 512, 784)),
        ("vae", {}, linear(784, 256, 128, 2 * 16) + linear(16, 128, 256, 784)),
        ("vae", {"encoder": (7,), "decoder": ()}, linear(784, 7, 32) + linear(16, 784)),
        ("beta-vae", {"latent_dim": 2}, linear(784, 400, 2 * 2) + linear(2, 400, 784)),
        ("mlp-classifier", {}, linear(784, 128, 128, 128, 3)),
        ("mlp-classifier", {"layers": 0, "width": 5}, linear(784, 5, 3)),
        ("cnn-classifier", {}, 80 + 1168 + 4640 + linear(128, 3)),
    ],
)
def test_the_parameter_count_matches_the_published_network(name, options, expected):
    assert parameters(build(name, **options)) == expected


def test_the_last_encoder_layer_has_an_activation_in_beta_vae_only():
    def activations(model):
        return [type(layer) for layer in model.encoder]

    assert activations(build("vae")) == [nn.Linear, nn.ELU, nn.Linear]
    assert activations(build("vae", activate_last=True)) == [nn.Linear, nn.ELU] * 2
    assert activations(build("vae", encoder=(30,))) == [nn.Linear, nn.ELU]
    assert activations(build("vae", encoder=(30,), activate_last=False)) == [nn.Linear]
    assert activations(build("beta-vae")) == [nn.Linear, nn.ELU]
    assert activations(build("beta-vae", activation="gelu")) == [nn.Linear, nn.GELU]


def test_the_first_layer_of_mlp_classifier_has_no_activation():
    kinds = [type(layer) for layer in build("mlp-classifier").features]
    assert kinds == [nn.Linear, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]


def test_conv_vae_on_mnist_matches_the_published_network():
    model = build("conv-vae", padding="zeros")
    assert layers(model) == [
        ("Conv2d", (64, 1, 3, 3), 1),
        ("BatchNorm2d", (64,)),
        ("Conv2d", (32, 64, 3, 3), 1),
        ("BatchNorm2d", (32,)),
        ("Linear", (400, 1568)),
        ("BatchNorm1d", (400,)),
        ("Linear", (20, 400)),  # mean
        ("Linear", (20, 400)),  # log-variance
        ("Linear", (400, 20)),
        ("BatchNorm1d", (400,)),
        ("Linear", (1568, 400)),
        ("BatchNorm1d", (1568,)),
        ("Conv2d", (64, 32, 3, 3), 1),
        ("BatchNorm2d", (64,)),
        ("Conv2d", (1, 64, 3, 3), 1),
    ]
    encoder = 640 + 128 + 18464 + 64 + linear(1568, 400) + 800 + linear(400, 40)
    decoder = linear(20, 400) + 800 + linear(400, 1568) + 3136 + 18496 + 128 + 577
    assert parameters(model) == encoder + decoder == 1_324_041


def published_conv_vae(model, x, z):
    """Compute the network with functions on the same weights, in the order of the description."""
    w = dict(model.named_parameters())

    def norm(h, key):
        dims = [0, *range(2, h.ndim)]
        shape = (1, -1) + (1,) * (h.ndim - 2)
        h = (h - h.mean(dims, keepdim=True)) / (h.var(dims, False, keepdim=True) + 1e-5).sqrt()
        return h * w[f"{key}.weight"].view(shape) + w[f"{key}.bias"].view(shape)

    def layer(h, key, next_key):
        weight, bias = w[f"{key}.weight"], w[f"{key}.bias"]
        h = F.conv2d(h, weight, bias, padding=1) if h.ndim == 4 else F.linear(h, weight, bias)
        return norm(h.relu(), next_key)

    h = F.max_pool2d(layer(x, "encoder.0", "encoder.2"), 2)
    h = F.max_pool2d(layer(h, "encoder.4", "encoder.6"), 2)
    h = layer(h.flatten(1), "encoder.9", "encoder.11")
    heads = [(w[f"head.{key}.weight"], w[f"head.{key}.bias"]) for key in ("mean", "log_var")]
    code = torch.cat([F.linear(h, weight, bias) for weight, bias in heads], dim=1)
    h = layer(layer(z, "decoder.0", "decoder.2"), "decoder.3", "decoder.5")
    h = F.interpolate(h.view(-1, 32, 7, 7), (14, 14))
    h = F.interpolate(layer(h, "decoder.8", "decoder.10"), (28, 28))
    return code, F.conv2d(h, w["decoder.12.weight"], w["decoder.12.bias"], padding=1)


def test_conv_vae_matches_a_functional_implementation():
    model = build("conv-vae", padding="zeros")
    x, z = torch.rand(6, *MNIST), torch.randn(6, 20)
    code, logits = published_conv_vae(model, x, z)
    posterior = model.encode(x)
    both = torch.cat([posterior.mean, posterior.log_var], dim=1)
    torch.testing.assert_close(both, code, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.decode_logits(z), logits, rtol=1e-4, atol=1e-4)


def test_conv_vae_trains_on_a_batch_of_one_image():
    model = build("conv-vae")
    model.encode(torch.rand(8, *MNIST))
    statistics = model.encoder[-1].running_mean.clone()
    z = model.encode(torch.rand(1, *MNIST)).sample()
    model.decode(z).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.encoder.parameters())
    assert torch.equal(model.encoder[-1].running_mean, statistics)


def test_partial_padding_draws_no_frame():
    zeros, partial = (build("conv-vae", padding=p).decoder[-1] for p in ("zeros", "partial"))
    torch.nn.init.ones_(zeros.weight)
    partial.load_state_dict(zeros.state_dict())
    flat = torch.rand(64, 1, 1).expand(2, 64, 9, 8)
    whole = partial(flat)  # nine times the sum over channels, also at the border
    assert torch.allclose(whole, whole[..., :1, :1], atol=1e-4)
    assert not torch.allclose(zeros(flat), whole, atol=1e-2)  # with zeros there is a frame
    x = torch.rand(2, 64, 9, 8)
    inside = (..., slice(1, -1), slice(1, -1))
    assert torch.allclose(partial(x)[inside], zeros(x)[inside], atol=1e-4)


def test_conv_vae_pads_evenly_and_crops_the_decoded_image():
    model = build("conv-vae", (1, 5, 28)).eval()
    assert model.padding == (0, 0, 1, 2)
    z = torch.randn(2, 20)
    whole = model.decoder(z)
    assert whole.shape == (2, 1, 8, 28)
    assert torch.equal(model.decode_logits(z), whole[:, :, 1:6])


@pytest.mark.parametrize(("multiple", "side"), [(4, 28), (4, 30), (4, 1), (16, 28), (16, 33)])
def test_padding_reaches_the_next_multiple_and_differs_by_at_most_one(multiple, side):
    left, right, top, bottom = padding_to(multiple, side, 2 * side)
    assert (side + top + bottom) % multiple == (2 * side + left + right) % multiple == 0
    assert 0 <= bottom - top <= 1
    assert 0 <= right - left <= 1
    assert top + bottom < multiple


def test_deconv_vae_on_mnist_matches_the_published_network():
    model = build("deconv-vae")
    assert layers(model) == [
        ("Conv2d", (32, 1, 4, 4), 2),
        ("Conv2d", (64, 32, 4, 4), 2),
        ("Conv2d", (128, 64, 3, 3), 2),
        ("Linear", (2, 512)),  # mean
        ("Linear", (2, 512)),  # log-variance
        ("Linear", (1024, 2)),
        ("FromCells", (1024, 256, 4, 4), 2),  # a ConvTranspose2d
        ("ConvTranspose2d", (256, 128, 6, 6), 2),
        ("ConvTranspose2d", (128, 1, 6, 6), 2),
    ]
    assert all(m.padding == (0, 0) for m in model.modules() if hasattr(m, "padding"))
    assert all(m.output_padding == (0, 0) for m in model.decoder if hasattr(m, "output_padding"))
    encoder = 544 + 32832 + 73856 + linear(512, 4)
    decoder = linear(2, 1024) + 4_194_560 + 1_179_776 + 4_609
    assert parameters(model) == encoder + decoder == 5_491_301


@pytest.mark.parametrize("side", [28, 30, 36])  # one cell, one cell and padding, more cells
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_first_decoder_layer_of_deconv_vae_is_a_transposed_convolution(side, memory_format):
    model = build("deconv-vae", (1, side, side), encoder=(2, 2, 2), decoder=(5, 4, 2))
    [layer] = [m for m in model.modules() if type(m).__name__ == "FromCells"]
    layer.to(memory_format=memory_format)
    x = torch.rand(3, 5, *[(side - 20) // 8] * 2)
    expected = torch.nn.functional.conv_transpose2d(
        x, layer.weight, layer.bias, stride=2, output_padding=layer.output_padding
    )
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("side", [*range(28, 46), 64, 101])
def test_deconv_vae_supports_any_larger_side(side):
    small = {"encoder": (2, 2, 2), "decoder": (2, 2, 2)}
    for shape in ((1, side, 28), (3, 31, side)):
        model = build("deconv-vae", shape, **small)
        x = torch.rand(1, *shape)
        assert model.decode(model.encode(x).mode()).shape == x.shape


@pytest.mark.parametrize("name", AUTOENCODERS)
@pytest.mark.parametrize(("activation", "low", "high"), [("relu", 0, math.inf), ("tanh", -1, 1)])
def test_latent_activation_bounds_the_mean_but_not_the_variance(name, activation, low, high):
    x = torch.rand(16, *MNIST)
    free = build(name).eval().encode(x)
    model = build(name, latent_activation=activation).eval()
    mode = model.encode(x).mode()
    assert ((mode >= low) & (mode <= high)).all()
    torch.testing.assert_close(mode, getattr(free.mode(), activation)())
    if name != "ae":
        torch.testing.assert_close(model.encode(x).log_var, free.log_var)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    "name",
    slow_except(
        ["vae", "beta-vae", "mlp-classifier"],
        ["vae", "beta-vae", "conv-vae", "deconv-vae", "mlp-classifier"],
    ),
)
def test_a_model_trains_from_python_and_reloads(name, tmp_path):
    small = {
        "vae": {"encoder": [32], "decoder": [32], "latent_dim": 4},
        "beta-vae": {"encoder": [32], "decoder": [32], "latent_dim": 4},
        "conv-vae": {"channels": [4, 4], "hidden": 16, "latent_dim": 4},
        "deconv-vae": {"encoder": [4, 4, 4], "decoder": [16, 8, 4]},
    }
    run = Forge().train(
        name,
        data={"name": "digits", "test": 0.8},
        model=small.get(name, {}),
        train={"epochs": 2, "batch_size": 32, "lr": 3e-3},
        run=tmp_path / "run",
        quiet=True,
    )
    first, last = (line["train"]["loss"] for line in run.history())
    assert last < first
    metrics = run.metrics["test"]
    assert all(math.isfinite(value) for value in metrics.values())
    assert run.evaluate(device="cpu") == pytest.approx(metrics, rel=1e-5)


def test_pooling_before_relu_gives_the_values_and_gradients_of_the_usual_order():
    model = build("cnn-classifier")
    x = torch.rand(32, 1, 28, 28).round(decimals=1) * (torch.rand(32, 1, 28, 28) > 0.5)

    def usual(h):
        for i in (0, 3):
            h = F.max_pool2d(F.relu(model.features[i](h)), 2)
        return F.avg_pool2d(F.relu(model.features[6](h)), 4)

    results = []
    for features in (model.features, usual):
        model.zero_grad()
        out = features(F.pad(x, model.padding))
        out.square().sum().backward()
        results.append((out, [p.grad.clone() for p in model.features.parameters()]))
    (one, gradients), (other, others) = results
    assert torch.equal(one, other)
    assert all(map(torch.equal, gradients, others))
