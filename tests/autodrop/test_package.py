"""What the package exports, and that all of it is documented."""

import importlib
import inspect
import pkgutil

import pytest

import autodrop

MODULES = [
    importlib.import_module(f"autodrop.{info.name}")
    for info in pkgutil.iter_modules(autodrop.__path__)
]


def own(module):
    """The public classes and functions that a module defines."""
    return {
        name: value
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


@pytest.mark.parametrize("module", [autodrop, *MODULES], ids=lambda module: module.__name__)
def test_all_names_what_a_module_defines(module):
    assert list(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, name) for name in module.__all__)
    assert own(module).keys() <= set(module.__all__)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_everything_public_has_a_docstring(module):
    assert module.__doc__
    bare = []
    for name, value in own(module).items():
        parts = {name: value}
        if inspect.isclass(value):
            parts |= {
                f"{name}.{method}": member
                for method, member in vars(value).items()
                if not method.startswith("_")
                and callable(getattr(value, method))
                and not inspect.isclass(member)
            }
        # From the object itself: a method without a docstring would inherit its base class's.
        bare += [part for part, member in parts.items() if not member.__doc__]
    assert bare == []
