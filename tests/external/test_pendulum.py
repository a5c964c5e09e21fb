import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from latentforge import Forge, search


def test_the_simulation_agrees_with_an_adaptive_solver(external):
    external("pendulum")
    from latentforge_pendulum.strobe import GRAVITY, simulate

    def motion(_, state):
        return state[1], -GRAVITY * np.sin(state[0])

    start = torch.tensor([[1.2, 0.3, -0.7], [0.0, -4.0, 2.5]], dtype=torch.float64)
    ends = simulate(*start, 2.0, 40)[-1]
    exact = [solve_ivp(motion, (0, 2), state, rtol=1e-8).y[0, -1] for state in start.T.numpy()]
    assert ends.numpy() == pytest.approx(exact, abs=np.deg2rad(1))
    fine = simulate(*start, 2.0, 400)[-1]  # the error of the method is of second order
    assert fine.numpy() == pytest.approx(exact, abs=np.deg2rad(0.01))


def test_the_state_of_a_picture_is_read_from_it(external):
    external("pendulum")
    from latentforge_pendulum.strobe import draw, read

    angle, speed = torch.cartesian_prod(torch.linspace(-1, 1, 9), torch.linspace(-4, 4, 9)).T
    found = read(draw(angle, speed, 24, 24))
    assert (found[0] - angle).abs().max() < 0.02
    assert (found[1] - speed).abs().max() < 0.15


def test_a_search_finds_pendulums_without_a_model(external):
    plugin = external("pendulum")
    from latentforge_pendulum.strobe import draw, simulate

    objective = plugin.build(plugin.SwingConfig(), None)

    def decode(state):
        return draw(*state.T, 24, 24)

    found = search(decode, objective, torch.zeros(1, 5, 2), lr=0.2)
    assert found.satisfied.all()
    ends = simulate(*found.z.T, 1.0, 400)[-1].rad2deg()  # of the codes, not of what is read
    assert ends.tolist() == pytest.approx([-60, -30, 0, 30, 60], abs=6)


def test_guided_shows_what_it_found(external, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forge = Forge(plugins=[external("pendulum")])
    run = forge.train(
        "ae", data={"name": "pendulum", "images": 300}, train={"epochs": 1}, quiet=True
    )
    assert [factor["name"] for factor in run.manifest["data"]["factors"]] == ["angle", "speed"]
    found = run.explore("guided", objective="swing", angles=[10.0], steps=2, restarts=1, quiet=True)
    assert found["metrics"]["swing_error"] <= 180
    assert {"swing_pendulums.png", "swing_paths.png", "swing_states.csv"} <= {
        f.split("/")[-1] for f in found["files"]
    }


@pytest.mark.slow
def test_the_package_installs_and_its_readme_works(follow_readme):
    follow_readme("pendulum")
