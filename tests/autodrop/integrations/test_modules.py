"""What each module of the integrations exports, and that all of it is documented."""

import importlib
import pkgutil

import pytest

import autodrop.integrations
from tests.autodrop import test_package

MODULES = [
    importlib.import_module(f"autodrop.integrations.{info.name}")
    for info in pkgutil.iter_modules(autodrop.integrations.__path__)
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_it_is_exported_and_documented(module):
    test_package.test_all_names_what_a_module_defines(module)
    test_package.test_everything_public_has_a_docstring(module)
