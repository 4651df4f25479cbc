"""The examples in a docstring, as the tests run them."""

from __future__ import annotations

import inspect
import itertools
import textwrap


def examples(documented):
    """The indented blocks of a docstring, in their order."""
    lines = inspect.getdoc(documented).splitlines()
    runs = itertools.groupby(lines, key=lambda line: not line or line.startswith("    "))
    blocks = (textwrap.dedent("\n".join(run)).strip("\n") for indented, run in runs if indented)
    return [block for block in blocks if block]
