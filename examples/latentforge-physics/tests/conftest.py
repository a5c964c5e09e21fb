import pytest

pytest_plugins = ["latentforge.testing"]


@pytest.fixture(scope="session")
def latentforge_plugins():
    return ["latentforge_physics"]
