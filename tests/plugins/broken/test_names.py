"""Resolution of a component name that several distributions offer."""

from __future__ import annotations

import pytest

from latentforge.errors import PluginError, UsageError
from latentforge.plugins.loading import load_plugins


@pytest.fixture
def builtin(site):
    site.add("latentforge", site.offering("ae", "vae"), "autoencoder")


def test_plain_name_is_that_of_a_plugin_if_the_built_in_is_off(site, builtin):
    site.add("latentforge-foo", site.offering("ae"), "foo")
    registry = load_plugins(off=["autoencoder"])
    assert registry.get("models", "ae").qualified == "latentforge-foo/ae"
    assert registry.notices == ()


def test_ambiguous_name_is_an_error_only_when_used(site):
    site.add("latentforge-one", site.offering("swirl", "one"))
    site.add("latentforge-two", site.offering("swirl"))
    registry = load_plugins()
    assert registry.problems == ()
    assert registry.names("models") == ("one", "swirl")
    with pytest.raises(UsageError, match="latentforge-one/swirl and latentforge-two/swirl") as e:
        registry.get("models", "swirl")
    assert e.value.exit_code == 2
    assert registry.get("models", "latentforge-two/swirl").plugin.name == "latentforge-two"


def test_one_distribution_cannot_offer_a_name_twice(site):
    site.module("a", site.offering("swirl"))
    site.module("b", site.offering("swirl"))
    site.metadata("latentforge-swirl", "a = a\nb = b")
    registry = load_plugins()
    assert registry.get("models", "swirl").plugin.name == "a"
    (problem,) = registry.problems
    assert problem.plugin == "b"
    assert problem.cause == "model 'swirl': plugin a already provides a component of that name"


def test_unknown_name_lists_the_plugins_that_did_not_load(site, builtin):
    site.add("latentforge-bad", "import no_such_module", "bad")
    site.add("latentforge-off", site.offering("x"), "gone")
    registry = load_plugins(off=["gone"])
    with pytest.raises(PluginError, match="unknown model 'wavelet'") as error:
        registry.get("models", "wavelet")
    bad, off = error.value.details
    assert "plugin bad (latentforge-bad 1.0): import: ModuleNotFoundError" in bad
    assert off == "plugin gone (latentforge-off 1.0): disabled by -p no:gone"
    with pytest.raises(UsageError, match="did you mean 'vae'") as error:
        registry.get("models", "vaee")
    assert error.value.details == (bad, off)


def test_qualified_name_reports_why_its_plugin_did_not_load(site, builtin):
    site.add("latentforge-bad", "import no_such_module", "bad")
    registry = load_plugins()
    with pytest.raises(PluginError, match="latentforge-bad offers no model 'x'") as error:
        registry.get("models", "latentforge_bad/x")
    assert "no_such_module" in error.value.details[0]


def test_qualified_name_of_a_missing_plugin_hints_at_pip(site, builtin):
    registry = load_plugins()
    with pytest.raises(PluginError, match="no plugin 'somebody-else' is installed") as error:
        registry.get("models", "somebody-else/x")
    assert error.value.hint == "pip install somebody-else"


def test_misspelt_distribution_does_not_hint_at_pip(site, builtin):
    with pytest.raises(PluginError, match="did you mean 'latentforge'") as error:
        load_plugins().get("models", "latentfoge/ae")
    assert "pip install" not in error.value.hint


def test_unknown_name_of_a_working_distribution_is_a_usage_error(site, builtin):
    with pytest.raises(UsageError, match="latentforge offers no model 'aee', did you mean 'ae'"):
        load_plugins().get("models", "latentforge/aee")
