"""Presets: named options for `latentforge train` and `latentforge explore`.

All except `fast-mnist-cnn` and `inpaint-lower-half` reproduce published experiments on the latent
spaces of MNIST. Models are trained on all 60,000 training images.
"""

from pathlib import Path

from latentforge import PresetSpec, hookimpl

SUMMARIES = {
    "latent-differentiation-ae": "784-512-128-2 autoencoder, squared error, 10 epochs",
    "latent-differentiation-classifier": "MLP classifier, 5 epochs, 97 %",
    "grad-ae": "784-400-2 autoencoder with a ReLU on the code, 20 epochs",
    "grad-vae-beta0": "784-400-2 VAE with beta 0, 20 epochs",
    "grad-vae-beta1": "784-400-2 VAE, 20 epochs",
    "grad-vae-beta4": "784-400-2 VAE with beta 4, 20 epochs",
    "grad-vae-z10-beta1": "784-400-10 VAE, 20 epochs",
    "grad-vae-z10-beta4": "784-400-10 VAE with beta 4, 20 epochs",
    "grad-deconv-vae": "VAE of strided and transposed convolutions, latent_dim 2, 3 epochs",
    "diffusion-series-cnn": "Small CNN classifier, 100 epochs, 99.1 %",
    "fast-mnist-cnn": "CNN classifier, 99 % on MNIST in 3 epochs",
    "tsne-conv-vae": "VAE with batch norm, pooling and upsampling, latent_dim 20, 5 epochs",
    "vanilla-ae": "784-128-16 autoencoder, 10 epochs",
    "vanilla-ae-relu": "784-128-16 autoencoder with a ReLU on the code, 10 epochs",
    "vanilla-vae": "784-256-128-16 VAE, 15 epochs, test ELBO -104 nats",
    "latent-differentiation-search": "explore guided: one start from N(0, 10²), no prior",
    "inpaint-lower-half": "explore guided: complete the lower half of 100 test images",
}


@hookimpl
def latentforge_presets():
    for name, summary in SUMMARIES.items():
        yield PresetSpec(name=name, summary=summary, path=Path(__file__).with_name(f"{name}.toml"))
