import numpy as np
import pytest
import torch

from latentforge import Forge


def formula(x, y):
    """Kornblith et al. 2019, equation (4), for columns of features."""
    x, y = x - x.mean(0), y - y.mean(0)
    return (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())


def test_alignment_is_that_of_the_paper_and_ignores_rotations(external):
    external("cka")
    from latentforge_cka.alignment import alignment, kernel

    x, y = torch.randn(50, 6).double(), torch.randn(50, 4).double()
    turned = 3 * x @ torch.linalg.qr(torch.randn(6, 6).double()).Q + 1
    found = alignment([kernel(x)], [kernel(each) for each in (x, turned, y, torch.ones(50, 2))])
    assert found.tolist() == [pytest.approx([1, 1, float(formula(x, y)), 0])]


def test_codes_and_layers_of_runs_are_compared(external, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forge = Forge(plugins=[external("cka")])
    brief = {"train": {"epochs": 1, "batch_size": 256}, "quiet": True}
    vae, classifier = forge.train("vae", **brief), forge.train("mlp-classifier", **brief)
    codes = forge.train("vae", **brief | {"train": {"epochs": 1, "seed": 1}})
    found = vae.explore("cka", roles={"other": codes}, quiet=True)
    each = []
    for run in (vae, codes):
        forge.encode(run, f"{run.name}.npz")
        each.append(torch.from_numpy(np.load(f"{run.name}.npz")["z"]).double())
    assert found["metrics"]["cka_last"] == pytest.approx(float(formula(*each)), rel=1e-4)
    assert found["metrics"]["shuffled_last"] < 0.1

    mixed = classifier.explore("cka", roles={"other": vae}, quiet=True)
    cka = np.load(next(file for file in mixed["files"] if file.endswith("matrix.npz")))["cka"]
    layers = len(classifier.load_model().layers())
    assert cka.shape == (1 + layers, 2)
    assert cka[0, 0] == pytest.approx(1)
    assert ((cka >= 0) & (cka <= 1 + 1e-9)).all()


def test_a_class_of_a_conditional_run(external, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forge = Forge(plugins=[external("cka")])
    run = forge.train("cvae", train={"epochs": 1, "batch_size": 256}, quiet=True)
    found = run.explore("cka", roles={"other": run}, condition=3, quiet=True)
    assert found["metrics"]["cka_last"] == pytest.approx(1)


@pytest.mark.slow
def test_the_package_installs_and_its_readme_works(follow_readme):
    follow_readme("cka")
