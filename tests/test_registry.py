import pytest

from fmseg.errors import UnknownName, UsageError
from fmseg.registry import Registry, load_plugins


def test_unknown_names_are_answered_with_the_nearest():
    registry = Registry("recipe")
    registry.add("upernet", 1)
    registry.add("linear", 2)
    with pytest.raises(UnknownName, match=r"No recipe is called 'upernett'. Did you mean 'upernet'\?.*linear, upernet"):
        registry["upernett"]


def test_a_name_is_taken_once():
    registry = Registry("recipe")
    registry.register("a")(int)
    with pytest.raises(UsageError, match="already"):
        registry.add("a", float)
    assert registry["a"] is int


def test_a_missing_plugin_is_named():
    with pytest.raises(UsageError, match="no_such_module_of_mine"):
        load_plugins(["no_such_module_of_mine"])
