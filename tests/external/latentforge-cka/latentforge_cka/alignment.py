import torch

from latentforge.errors import UsageError
from latentforge.findings import Findings, ImageGrid, NamedArrays


def kernel(features):
    """The centred linear kernel of features (N, ...): (N, N), of norm 1, or 0 for constants."""
    features = features.flatten(1)
    features = features - features.mean(0)
    products = features @ features.T
    return products / products.norm().clamp(min=torch.finfo(products.dtype).tiny)


def alignment(one, other):
    """The linear CKA of each kernel of `one` with each of `other`."""
    return torch.stack([torch.stack([(a * b).sum() for b in other]) for a in one])


def kernels(run, batches):
    """The kernels of the images, of a classifier's layers and of the codes, by name."""
    seen, hooks = {}, ()

    def keep(name, values):
        seen.setdefault(name, []).append(values.cpu().double())

    def hook(name):
        return lambda module, inputs, output: keep(name, output)

    if run.provides >= {"classify", "layers"}:
        layers = {name: run.model.get_submodule(name) for name in run.model.layers()}
        hooks = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        for batch in batches:
            keep("images", batch.x)
            if hooks:
                run.model(batch.x)
            if "encode" in run.provides:
                keep("codes", run.model.encode(batch.x).mode())
    finally:
        for each in hooks:
            each.remove()
    return {name: kernel(torch.cat(parts)) for name, parts in seen.items()}


def explore(context, config):
    images, other = context.images(config.split), context.roles["other"]
    chosen = torch.randperm(len(images))[: config.images]
    if len(chosen) < 3:
        raise UsageError(f"cka needs at least three images, and the {config.split} split has fewer")
    batches = [images.batch_at(part.tolist()) for part in chosen.split(250)]
    rows, columns = kernels(context, batches), kernels(other, batches)
    cka = alignment(rows.values(), columns.values())
    order = torch.randperm(len(chosen))
    chance = alignment(rows.values(), [each[order][:, order] for each in columns.values()])
    tiles = (1 - cka).float()[:, :, None, None, None].expand(-1, -1, 1, 8, 8)  # a grey image each
    return Findings(
        [
            ImageGrid(
                "cka",
                f"CKA of {context.name} (rows) and {other.name} (columns): black is 1",
                [*tiles],
                column_titles=[*columns],
                row_titles=[*rows],
                captions=[[f"{value:.2f}" for value in row] for row in cka.tolist()],
            ),
            NamedArrays("matrix", {"cka": cka, "shuffled": chance}),
        ],
        {"cka_last": float(cka[-1, -1]), "shuffled_last": float(chance[-1, -1])},
        f"linear CKA of the last rows and columns, {[*rows][-1]} and {[*columns][-1]}, on "
        f"{len(chosen)} images of the {config.split} split, codes the posterior modes; "
        "shuffled_last: the same if the other run has the images in another order",
    )
