"""topk and majority compared with numpy, also with equal distances and with rows in chunks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from latentforge import neighbours
from latentforge.neighbours import majority, topk


def rows_of(count: int, seed: int, levels: int = 0) -> torch.Tensor:
    """Random rows (N, 3), float64; with few `levels` many distances are equal."""
    x = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x * levels).floor() if levels else x


def expected(queries, rows, k, own=None):
    away = np.linalg.norm(queries.numpy()[:, None] - rows.numpy()[None], axis=2)
    if own is not None:
        away[np.arange(len(queries)), own.numpy()] = np.inf
    order = np.argsort(away, 1, kind="stable")[:, :k]
    return np.take_along_axis(away, order, 1), order


@pytest.mark.parametrize("levels", [0, 3])
@pytest.mark.parametrize("k", [1, 7, 50])
@pytest.mark.parametrize("chunk", [2**22, 300])
def test_neighbours_and_their_order_equal_those_of_numpy(levels, k, chunk, monkeypatch):
    monkeypatch.setattr(neighbours, "DISTANCES", chunk)
    queries, rows = rows_of(40, 1, levels), rows_of(500, 2, levels)
    distance, index = topk(queries, rows, k, exact=True)
    away, order = expected(queries, rows, k)
    assert np.array_equal(index.numpy(), order)
    assert distance.numpy() == pytest.approx(away, abs=1e-12)


def test_rows_in_chunks_give_the_same_result():
    queries, rows = rows_of(30, 1, 3), rows_of(200, 2, 3)
    whole = topk(queries, rows, 9, exact=True)
    for size in (1, 7, 199, 200):
        by_parts = topk(queries, iter(rows.split(size)), 9, exact=True)
        for one, other in zip(whole, by_parts, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("chunk", [2**22, 300])
def test_a_query_among_the_rows_is_not_its_own_neighbour(chunk, monkeypatch):
    monkeypatch.setattr(neighbours, "DISTANCES", chunk)
    rows = rows_of(120, 3, 4)  # with copies, which are neighbours at a distance of 0
    own = torch.tensor([119, 0, 5, 64])
    distance, index = topk(rows[own], rows, 6, own=own, exact=True)
    away, order = expected(rows[own], rows, 6, own)
    assert np.array_equal(index.numpy(), order)
    assert distance.numpy() == pytest.approx(away, abs=1e-12)
    assert not (index == own[:, None]).any()


def test_matrix_product_finds_the_same_and_keeps_float32():
    queries, rows = rows_of(40, 1), rows_of(500, 2)
    exact, product = topk(queries, rows, 5, exact=True), topk(queries, rows, 5)
    assert torch.equal(exact[1], product[1])
    assert product[0].numpy() == pytest.approx(exact[0].numpy(), abs=1e-7)
    assert topk(queries.float(), rows.float(), 5)[0].dtype == torch.float32


def test_the_majority_is_the_first_of_the_most_frequent_labels():
    labels = torch.tensor([[2, 1, 1], [2, 1, 0], [2, 2, 0], [1, 2, 2]])
    assert majority(labels, 3).tolist() == [1, 0, 2, 2]


def test_the_module_imports_no_torch():
    code = "import sys, latentforge.neighbours; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
