from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from latentforge_plugins.digits import DigitsConfig, latentforge_datasets, load, reader
from sklearn.datasets import load_digits

from latentforge.config.schema import DataConfig
from latentforge.data.preparation import prepare
from latentforge.errors import MissingError


def test_digits_match_scikit_learn():
    x, y = reader.read()
    truth = load_digits()
    assert np.array_equal(x[:, 0].numpy() * 16, truth.images)
    assert np.array_equal(y, truth.target)


def test_reading_digits_does_not_import_scikit_learn():
    code = (
        "import sys; from latentforge_plugins.digits import *; load(DigitsConfig(), 'train');"
        "print('sklearn' in sys.modules, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "True"]  # torch proves that the load ran


@pytest.mark.parametrize("size", [1, 8, 16, 27, 28, 32, 64])
def test_every_size_centres_the_digit_in_a_black_margin(size: int):
    x = load(DigitsConfig(size=size), "train").x
    assert x.shape == (1797, 1, size, size)
    assert x.dtype == torch.uint8
    ink = (x.amax(dim=(0, 1)) > 0).nonzero()  # (pixels, 2), nonzero in any digit
    low, high = ink.amin(0), ink.amax(0)
    assert abs(int((low + high)[0]) - (size - 1)) <= 1
    assert int(high[0] - low[0] + 1) == max(1, round(size * 20 / 28))


def test_resizing_to_28_pixels_keeps_the_mean_brightness():
    x, _ = reader.read()
    drawn = load(DigitsConfig(), "train").x.float() / 255
    # bilinear scaling from 8 to 20 pixels keeps the mean except at the clamped border
    source, result = x.mean(dim=(1, 2, 3)), drawn.mean(dim=(1, 2, 3)) * (28 / 20) ** 2
    assert torch.corrcoef(torch.stack([source, result]))[0, 1] > 0.99
    assert float((source - result).abs().max()) < 0.03


def test_the_dataset_has_three_splits_and_ten_classes():
    (spec,) = latentforge_datasets()
    splits = prepare(
        lambda split: spec.load(spec.config(), split), spec.splits, spec.name, DataConfig(test=0.2)
    )
    assert {k: len(v) for k, v in splits.splits.items()} == {
        "train": 1294,
        "validation": 144,
        "test": 359,
    }
    assert splits.spec.classes == tuple("0123456789")
    assert splits.spec.shape == (1, 28, 28)


def test_missing_scikit_learn_hints_at_the_install_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "sklearn")
    with pytest.raises(MissingError, match="is not installed") as caught:
        reader.source()
    assert caught.value.hint == "pip install scikit-learn"


def test_a_missing_or_damaged_scikit_learn_file_is_reported(tmp_path, monkeypatch):
    data = tmp_path / "sklearn" / "datasets" / "data"
    data.mkdir(parents=True)
    (tmp_path / "sklearn" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sklearn")
    with pytest.raises(MissingError, match=r"has no file digits\.csv\.gz"):
        reader.source()
    (data / "digits.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(MissingError, match="cannot be read") as caught:
        reader.read()
    assert "digits.csv.gz" in caught.value.message
