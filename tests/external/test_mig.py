from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

from latentforge import DataSpec, Forge, LatentSpec
from latentforge.contracts import Factor


def gaps(codes, shape, angle):
    from latentforge_mig.measure import InformationGap

    data = DataSpec((1, 8, 8), factors=(Factor("shape", tuple("abcd")), Factor("angle", ())))
    model = SimpleNamespace(latent=LatentSpec((codes.shape[1],)))
    measure = InformationGap(SimpleNamespace(bins=20), SimpleNamespace(data=data, model=model))
    for part in torch.arange(len(codes)).split(300):
        batch = SimpleNamespace(factors={"shape": shape[part], "angle": angle[part]})
        measure.update(SimpleNamespace(z=codes[part], batch=batch))
    return measure.compute()


def test_gaps_of_codes_that_determine_the_factors(external):
    external("mig")
    # every angle occurs with every shape, in the order of the shapes
    shape, angle = torch.cartesian_prod(torch.arange(4.0), torch.arange(200.0)).T
    shape, one, other, dead = shape.long(), shape, 3 - 2 * angle, torch.full((800,), 0.3)
    apart = gaps(torch.stack([one, other, dead], 1), shape, angle)
    assert apart == pytest.approx({"mig": 1, "mig_shape": 1, "mig_angle": 1})
    twice = gaps(torch.stack([one, other, other], 1), shape, angle)
    assert twice == pytest.approx({"mig": 0.5, "mig_shape": 1, "mig_angle": 0})


def test_the_metric_of_a_run_equals_that_of_its_exported_codes(external, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forge = Forge(plugins=[external("mig")])
    data = {"name": "factor-digits", "images": 300, "test_images": 300}
    run = forge.train("vae", data=data, model={"latent_dim": 3}, train={"epochs": 2}, quiet=True)
    found = forge.evaluate(run, measures=["mig"], options={"mig": {"bins": 7}})
    forge.encode(run, "codes.npz", split="test")
    stored = np.load("codes.npz")

    def binned(values):
        return np.digitize(values, np.histogram_bin_edges(values, 7)[1:-1])

    wanted = {}
    for name in ("y", *(name for name in stored if name.startswith("factor_"))):
        values = stored[name] if name == "y" else binned(stored[name])
        each = sorted(mutual_info_score(binned(z), values) for z in stored["z"].T)
        share = np.unique(values, return_counts=True)[1]
        known = "class" if name == "y" else name.removeprefix("factor_")
        wanted[f"mig_{known}"] = (each[-1] - each[-2]) / entropy(share)
    wanted["mig"] = np.mean([*wanted.values()])
    assert len(wanted) == 7
    assert found["metrics"] == pytest.approx(
        wanted, abs=1e-3
    )  # a value may be at the edge of a bin
    assert "7 bins" in found["protocol"]["mig"]


@pytest.mark.slow
def test_the_package_installs_and_its_readme_works(follow_readme):
    follow_readme("mig")
