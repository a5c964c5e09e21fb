"""Latent search against closed forms: its path, its number of steps and its result."""

from __future__ import annotations

import math

import pytest
import torch
from ignite.engine import Events
from latentforge_plugins.densities import fit_mixture
from torch.distributions import Normal

from latentforge import search
from latentforge.errors import RunFailed, UsageError


class Near:
    """Request i: be within `reach` of goals[i]. The score is minus half the squared distance."""

    def __init__(self, goals, reach=0.1):
        self.goals = torch.tensor(goals, dtype=torch.float64)  # (N, D)
        self.requests = [f"be near {goal}" for goal in goals]
        self.reach = reach

    def score(self, x, request):
        return -0.5 * (x - self.goals[request]).square().sum(1)

    def satisfied(self, x, request):
        return (x - self.goals[request]).norm(dim=1) < self.reach


class Stairs(Near):
    """The same score with a zero gradient: a plateau."""

    def score(self, x, request):
        return super().score(x, request).detach() + 0.0 * x.sum(1)


def same(z):
    return z


def at(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_a_request_stops_at_the_step_of_its_closed_form():
    # k steps of descent on half the squared distance leave (1 - lr)^k of the distance
    lr, distances = 0.1, [0.05, 1.0, 2.0, 8.0]
    objective = Near([[d] for d in distances])
    start = torch.zeros(1, 4, 1, dtype=torch.float64)
    decoded = []

    def decode(z):
        decoded.append(len(z))
        return z

    found = search(decode, objective, start, steps=200, lr=lr, optimizer="sgd")
    expected = [max(0, math.ceil(math.log(0.1 / d) / math.log(1 - lr))) for d in distances]
    assert found.satisfied.all()
    assert found.steps.tolist() == expected
    left = at(*[d * (1 - lr) ** k for d, k in zip(distances, expected, strict=True)])
    torch.testing.assert_close(found.z[:, 0], at(*distances) - left)
    torch.testing.assert_close(found.score, -0.5 * left**2)
    assert found.round.tolist() == [0] * 4
    # a satisfied request is not decoded again, but all are decoded once at the end
    assert sum(decoded) == sum(k + 1 for k in expected) + 4


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_requests_do_not_influence_each_other(optimizer):
    objective = Near([[0.4, 0.0], [3.0, -1.0], [1.0, 1.0]])
    start = torch.zeros(1, 3, 2, dtype=torch.float64)
    found = search(same, objective, start, steps=40, lr=0.1, optimizer=optimizer, watch=[1])
    classes = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}
    z = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    reference, path = classes[optimizer]([z], lr=0.1), []
    for _ in range(41):  # the other requests end earlier and must not disturb the moments
        path.append(z[0].detach().clone())
        reference.zero_grad()
        (-objective.score(z, torch.tensor([1]))).sum().backward()
        reference.step()
    assert len(set(found.steps.tolist())) == 3
    walked = found.paths[1]
    torch.testing.assert_close(walked, torch.stack(path[: len(walked)]))
    assert torch.equal(walked[-1], found.z[1])


def test_an_unsolved_request_restarts_from_the_next_start():
    objective = Near([[5.0], [0.3]])
    start = at([[0.0], [0.0]], [[4.0], [9.0]])  # (2 restarts, 2 requests, 1)
    extra = math.ceil(math.log(0.1 / 1.0) / math.log(0.9))  # 22
    short = search(same, objective, start, steps=20, lr=0.1, optimizer="sgd")
    assert short.satisfied.tolist() == [False, True]
    assert short.round[0] == 1  # the nearer of two unsolved starts
    found = search(same, objective, start, steps=30, lr=0.1, optimizer="sgd")
    assert found.round.tolist() == [1, 0]
    assert found.steps.tolist() == [30 + extra, math.ceil(math.log(0.1 / 0.3) / math.log(0.9))]


def test_noise_crosses_a_plateau_and_decays_to_zero():
    start = torch.zeros(4, 20, 1, dtype=torch.float64)
    objective = Stairs([[0.5]] * 20)
    assert not search(same, objective, start, steps=30).satisfied.any()
    found = search(same, objective, start, steps=30, noise=0.5, watch=[0])
    assert found.satisfied.all()
    walked = []

    def decode(z):
        walked.append(float(z.detach()[0, 0]))
        return z

    search(decode, Stairs([[1e6]]), start[:1, :1], steps=1000, noise=0.5)
    sizes = torch.tensor(walked[:1001]).diff().reshape(10, 100).std(1)  # of each tenth of the round
    expected = 0.5 * (1.0 - (torch.arange(10) + 0.5) / 10)
    torch.testing.assert_close(sizes, expected, rtol=0.35, atol=0.02)


def test_noise_depends_on_the_seed_alone():
    start = torch.zeros(2, 5, 2)
    goals = Near([[3.0, 0.0]] * 5)
    goals.goals = goals.goals.float()
    states = [torch.get_rng_state()]
    first = search(same, goals, start, steps=20, noise=0.3, seed=1)
    torch.manual_seed(99)
    second = search(same, goals, start, steps=20, noise=0.3, seed=1)
    other = search(same, goals, start, steps=20, noise=0.3, seed=2)
    assert torch.equal(first.z, second.z)
    assert not torch.equal(first.z, other.z)
    torch.manual_seed(99)
    states = torch.get_rng_state()
    search(same, goals, start, steps=20, noise=0.3)
    assert torch.equal(states, torch.get_rng_state())


def test_steps_are_in_units_of_the_scale():
    # in u = z / s the gradient is s times that in z, so one step of descent moves z by s^2 lr g
    scale = at(0.5, 2.0)
    objective, start = Near([[1.0, 1.0]], reach=1e-9), at(0.2, -0.4)
    found = search(
        same, objective, start[None, None], steps=1, lr=0.1, optimizer="sgd", scale=scale
    )
    torch.testing.assert_close(found.z[0], start + 0.1 * scale**2 * (1.0 - start))


def test_the_prior_shifts_the_mode_by_its_weight():
    # the mode of N(z; a, 1) N(z; 0, 1)^w is a / (1 + w)
    objective = Near([[2.0]], reach=0.0)
    normal = Normal(torch.zeros((), dtype=torch.float64), 1.0)
    for weight in (0.0, 1.0, 3.0):
        found = search(
            same,
            objective,
            at([[0.5]])[None, 0],
            steps=300,
            lr=0.1,
            optimizer="sgd",
            prior=lambda z: normal.log_prob(z).sum(1),
            prior_weight=weight,
        )
        assert float(found.z) == pytest.approx(2.0 / (1.0 + weight), abs=1e-6)
        assert not found.satisfied.any()
        assert float(found.score) == pytest.approx(-0.5 * float(found.z - 2.0) ** 2)


def test_settling_raises_the_score_without_counting_steps():
    objective = Near([[3.0]], reach=1.0)
    start = at([[0.0]])[None, 0]
    options = {"steps": 50, "lr": 0.1, "optimizer": "sgd"}
    edge = search(same, objective, start, **options)
    inside = search(same, objective, start, settle=20, **options)
    assert float(edge.score) < -0.3
    assert float(inside.score) > -0.02
    assert inside.satisfied.all()
    assert torch.equal(inside.steps, edge.steps)


def test_jitter_moves_a_solution_off_a_narrow_ridge():
    class Needle:
        """A narrow peak at 0 on the slope of a higher, wide peak at 2."""

        requests = ("be high",)

        def score(self, x, request):
            return (0.05 * torch.exp(-((x / 0.02) ** 2)) - 0.1 * (x - 2.0) ** 2)[:, 0]

        def satisfied(self, x, request):
            return self.score(x, request) > -0.5

    start, options = at([[0.001]])[None, 0], {"steps": 1, "lr": 0.02, "settle": 400}
    sharp = search(same, Needle(), start, **options)
    broad = search(same, Needle(), start, jitter=0.3, **options)
    assert abs(float(sharp.z)) < 0.05
    assert float(broad.z) == pytest.approx(2.0, abs=0.2)


def test_the_solution_with_the_highest_score_is_returned():
    class Two(Near):
        """A peak at -3 with a maximum of -0.4, and one at 3 with a maximum of 0."""

        def score(self, x, request):
            low, high = -0.5 * (x + 3.0) ** 2 - 0.4, -0.5 * (x - 3.0) ** 2
            return torch.where(x < 0, low, high)[:, 0]

        def satisfied(self, x, request):
            return self.score(x, request) > -0.6

    start = at([[-2.0]], [[2.0]], [[-2.5]])
    options = {"steps": 60, "lr": 0.1, "settle": 60}
    one = search(same, Two([[0.0]]), start, **options)
    two = search(same, Two([[0.0]]), start, solutions=2, **options)
    assert float(one.z) == pytest.approx(-3.0, abs=0.1)
    assert float(two.z) == pytest.approx(3.0, abs=0.1)
    assert torch.equal(one.steps, two.steps)
    assert (two.round.tolist(), two.first_round.tolist()) == ([1], [0])


def test_search_accepts_any_latent_shape_and_decoder():
    weight = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    objective = Near([[0.5] * 5, [-0.5] * 5])
    start = torch.zeros(1, 2, 3, 2, 2, dtype=torch.float64)
    found = search(lambda z: z.flatten(1) @ weight, objective, start, steps=200, lr=0.05)
    assert found.z.shape == (2, 3, 2, 2)
    assert found.satisfied.all()
    torch.testing.assert_close(found.x, found.z.flatten(1) @ weight)


def test_handlers_see_rounds_steps_and_the_satisfied_share():
    seen = []

    def attach(engine):
        engine.add_event_handler(
            Events.EPOCH_COMPLETED,
            lambda e: seen.append((e.state.epoch, e.state.iteration, e.state.metrics["satisfied"])),
        )

    objective = Near([[0.3], [9.0]])
    start = at([[0.0], [0.0]], [[0.0], [8.5]], [[0.0], [0.0]])
    search(same, objective, start, steps=20, lr=0.1, optimizer="sgd", attach=attach)
    assert seen[0] == (1, 20, 0.5)
    assert seen[1][0] == 2
    assert seen[1][2] == 1.0
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("start", "options", "message"),
    [
        (torch.zeros(2, 1), {}, r"start must be \(restarts, 2, \*latent\) for 2 requests"),
        (torch.zeros(1, 3, 1), {}, r"not \(1, 3, 1\)"),
        (torch.zeros(0, 2, 1), {}, r"not \(0, 2, 1\)"),
        (torch.full((1, 2, 1), math.nan), {}, "start must contain finite floats"),
        (torch.zeros(1, 2, 1), {"optimizer": "adma"}, "optimizer must be one of adam, "),
        (torch.zeros(1, 2, 1), {"steps": 0}, "steps must be at least 1"),
        (torch.zeros(1, 2, 1, dtype=torch.int64), {}, "start must contain finite floats"),
        (torch.zeros(1, 2, 1), {"solutions": 0}, "solutions must be at least 1"),
        (torch.zeros(1, 2, 1), {"noise": math.nan}, "noise must be at least 0 and finite"),
        (torch.zeros(1, 2, 1), {"lr": -1.0}, "lr and scale must be above 0"),
        (torch.zeros(1, 2, 1), {"scale": 0.0}, "lr and scale must be above 0"),
        (torch.zeros(1, 2, 1), {"watch": [2]}, "watch: no request 2: there are 2, from 0"),
    ],
)
def test_invalid_search_arguments_are_refused(start, options, message):
    with pytest.raises(UsageError, match=message):
        search(same, Near([[1.0], [2.0]]), start, **options)


def test_the_error_for_a_nan_score_names_the_request():
    objective = Near([[1.0], [math.nan]])
    with pytest.raises(RunFailed, match=r"the score of request 'be near \[nan\]'"):
        search(same, objective, torch.zeros(1, 2, 1, dtype=torch.float64), steps=3)


def test_the_path_of_a_request_leads_from_its_start_to_its_code():
    objective = Near([[3.0], [0.4], [9.0]], reach=0.5)
    start = at([[-9.0], [0.0], [0.0]], [[2.0], [1.0], [0.0]], [[2.4], [0.6], [8.0]])
    options = {"steps": 12, "settle": 5, "solutions": 2}
    found = search(same, objective, start, watch=[0, 1, 2], **options)
    for request, path in found.paths.items():
        assert torch.equal(path[0], start[found.round[request], request])
        assert torch.equal(path[-1], found.z[request])
    assert set(found.round.tolist()) != {0}


def test_nan_ends_one_request_at_a_finite_code():
    class Cliff(Near):
        def score(self, x, request):
            return super().score(x, request) + 0.0 * (4.0 - x[:, 0]).log()

    objective = Cliff([[1.0], [9.0]])
    start = torch.zeros(1, 2, 1, dtype=torch.float64)
    mixture = fit_mixture(torch.randn(500, 1, dtype=torch.float64), 2, 0)
    found = search(
        same, objective, start, steps=80, lr=0.2, prior=mixture.log_prob, prior_weight=0.01
    )
    assert found.satisfied.tolist() == [True, False]
    assert 3.0 < float(found.z[1]) < 4.0


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda self, x, request: x.mean(), r"one number for each row of x, \(1,\), not \(\)"),
        (lambda self, x, request: x.detach()[:, 0], "its score has no gradient"),
    ],
)
def test_an_objective_that_breaks_its_contract_is_named(score, message):
    broken = type("Broken", (Near,), {"score": score})([[1.0]])
    with pytest.raises(UsageError, match=f"objective Broken: .*{message}"):
        search(same, broken, torch.zeros(1, 1, 1))


def test_a_search_leaves_no_gradients_in_the_decoder():
    decoder = torch.nn.Linear(1, 1, dtype=torch.float64)
    search(decoder, Near([[50.0]]), torch.zeros(1, 1, 1, dtype=torch.float64), steps=3)
    assert decoder.weight.grad is None


def test_settling_returns_a_satisfied_solution():
    class Fenced(Near):
        """The score rises toward 5, but only x below 1 satisfies the request."""

        def satisfied(self, x, request):
            return x[:, 0] < 1.0

    start = at([[0.5]], [[0.0]])  # (2 restarts, 1 request, 1)
    found = search(same, Fenced([[5.0]]), start, steps=5, lr=0.3, settle=20, solutions=2)
    assert found.satisfied.tolist() == [True]
    assert 0.5 <= float(found.z) < 1.0


@pytest.mark.parametrize(("jitter", "each"), [(0.0, 1), (0.2, 2)])
def test_a_settling_step_decodes_twice_only_with_jitter(jitter, each):
    decoded = []

    def decode(z):
        decoded.append(z.detach().clone())
        return z

    start, settle = torch.zeros(1, 1, 1, dtype=torch.float64), 7
    found = search(
        decode, Near([[0.3]], reach=0.5), start, steps=1, lr=0.1, settle=settle, jitter=jitter,
        optimizer="sgd", watch=[0],
    )  # fmt: skip
    # the start; the first gradient from there; each step; the result
    assert len(decoded) == 1 + (0 if jitter else 1) + each * settle + 1
    if not jitter:  # from 0 to 0.3 (1 - 0.9^k); the last is the best
        torch.testing.assert_close(found.z[0, 0], at(0.3 * (1 - 0.9**settle))[0])
        expected = [at(0.3 * (1 - 0.9**k))[None] for k in range(settle + 1)]
        torch.testing.assert_close(decoded[1:-1], expected)


def test_inference_mode_around_a_search_changes_nothing():
    decoder = torch.nn.Linear(1, 1)
    torch.nn.init.ones_(decoder.weight)  # both goals can be reached
    goals = Near([[0.7], [-2.0]])
    goals.goals = goals.goals.float()
    options = {"steps": 20, "noise": 0.1, "settle": 3, "jitter": 0.1, "watch": [0]}
    start = torch.zeros(2, 2, 1)
    outside = search(decoder, goals, start, scale=torch.tensor([2.0]), **options)
    with torch.inference_mode():
        start, scale = torch.zeros(2, 2, 1), torch.tensor([2.0])
        inside = search(decoder, goals, start, scale=scale, **options)
    assert torch.equal(outside.z, inside.z)
    assert torch.equal(outside.paths[0], inside.paths[0])
    assert outside.satisfied.any()
    assert not inside.z.is_inference()


def test_weights_created_in_inference_mode_are_refused_with_a_hint():
    with torch.inference_mode():
        decoder = torch.nn.Linear(1, 1, dtype=torch.float64)
    with pytest.raises(UsageError, match=r"created inside torch\.inference_mode\(\)") as caught:
        search(decoder, Near([[0.7]]), torch.zeros(1, 1, 1, dtype=torch.float64))
    assert "torch.no_grad()" in str(caught.value.hint)
