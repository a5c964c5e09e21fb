import torch

from latentforge import Arrays
from latentforge.errors import UsageError


def hidden_units(layer, split, classifier):
    names = classifier.model.layers()
    layer = layer or names[-1]
    if layer not in names:
        raise UsageError(f"no layer {layer!r}", hint=f"layer is one of {', '.join(names)}")
    train = outputs(classifier, layer, "train")
    units = train if split == "train" else outputs(classifier, layer, split)
    images = classifier.images(split)
    # a mean square of 1, so that the weight of the sparsity means the same for each layer
    units = units / train.square().mean().sqrt()
    return Arrays(units.cpu(), images.y.cpu(), classifier.data.classes, range="any")


def outputs(classifier, layer, split):
    """The outputs of the layer for a split (N, D), averaged over the positions of a feature map."""
    seen = []
    module = classifier.model.get_submodule(layer)
    hook = module.register_forward_hook(lambda module, args, output: seen.append(output))
    with hook, torch.no_grad():
        for batch in classifier.images(split).batches(256):
            classifier.model(batch.x)
    return torch.cat([x.flatten(2).mean(2) if x.ndim > 2 else x for x in seen])
