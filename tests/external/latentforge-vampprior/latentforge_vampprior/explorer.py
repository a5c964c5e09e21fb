import torch

from latentforge.findings import Findings, ImageGrid, NamedArrays

SHOWN = 16


def explore(context, config):
    """The components that explain most training codes: their pseudo-inputs and decoded means."""
    x, prior = context.model.pseudo_inputs(), context.model.prior()
    share = prior.each(context.codes("train")).softmax(1).mean(0)  # (K,)
    largest = share.argsort(descending=True, stable=True)[:SHOWN]
    found = [NamedArrays("components", {"pseudo_inputs": x, "mean": prior.mean, "share": share})]
    if context.data.drawable:
        grid = ImageGrid(
            "pseudo-inputs",
            f"The {len(largest)} most used of {len(x)} components: shares of the training codes",
            [x[largest], context.model.decode(prior.mean[largest])],
            column_titles=[f"{part:.1%}" for part in share[largest].tolist()],
            row_titles=["pseudo-input", "decoded mean"],
        )
        found.insert(0, grid)
    in_use = float(torch.special.entr(share).sum().exp())
    said = "components_in_use: exp of the entropy of the components' shares of the training codes"
    return Findings(found, {"components_in_use": in_use}, said)
