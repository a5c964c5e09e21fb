from __future__ import annotations

import hashlib

import pytest
import torch

from latentforge.seeding import Noise, generator, mix, permutation

FROZEN = 4501180788524428461


def test_seeds_are_frozen():
    # frozen: a change would make every earlier run impossible to resume bit for bit
    assert mix("noise", 0, 0) == FROZEN
    digest = hashlib.blake2b(b"noise\x000\x000", digest_size=8).hexdigest()
    assert int(digest, 16) // 2 == FROZEN


def test_seeds_depend_on_every_part_and_its_boundaries():
    seeds = {mix(p, a, b) for p in ("noise", "order") for a in range(50) for b in range(50)}
    assert len(seeds) == 2 * 50 * 50
    assert mix("a", 1, 23) != mix("a", 12, 3)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generator_is_reproducible_and_keeps_the_default_state():
    before = torch.get_rng_state()
    one, two = (torch.rand(5, generator=generator("cpu", "x", 3)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, torch.rand(5, generator=generator("cpu", "x", 4)))
    assert torch.equal(before, torch.get_rng_state())


def test_an_epochs_order_is_a_permutation_that_depends_on_seed_and_epoch_only():
    order = permutation(1000, 7, 2)
    torch.rand(3)  # moves the default generator
    assert torch.equal(order, permutation(1000, 7, 2))
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert not torch.equal(order, permutation(1000, 7, 3))
    assert not torch.equal(order, permutation(1000, 8, 2))


def test_the_noise_of_a_step_does_not_depend_on_the_steps_before_it():
    def draw(noise: Noise, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise.reseed(step)
        x = torch.ones(64)
        return torch.randn_like(x), torch.nn.functional.dropout(x, 0.5)

    running = Noise("cpu", "noise", 5)
    straight = [draw(running, step) for step in range(4)]
    torch.rand(100)
    resumed = draw(Noise("cpu", "noise", 5), 3)
    assert all(torch.equal(a, b) for a, b in zip(straight[3], resumed, strict=True))
    assert not torch.equal(straight[2][0], straight[3][0])
    assert not torch.equal(draw(Noise("cpu", "noise", 6), 3)[0], resumed[0])
    assert not torch.equal(draw(Noise("cpu", "measure", 5), 3)[0], resumed[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_noise_reseeds_the_gpu_and_the_cpu():
    def draw(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        Noise("cuda", "noise", 5).reseed(step)
        return torch.randn(8, device="cuda"), torch.randn(8)

    first = draw(1)
    assert all(torch.equal(a, b) for a, b in zip(first, draw(1), strict=True))
    assert not torch.equal(first[0], draw(2)[0])


def test_the_order_and_the_noise_of_a_step_are_frozen():
    """A change of either would make earlier runs impossible to resume bit for bit."""
    assert permutation(10, 0, 0).tolist() == [5, 9, 2, 1, 4, 6, 8, 7, 3, 0]
    Noise("cpu", "train", 0).reseed(7)
    assert torch.initial_seed() == 3787100100533880272
