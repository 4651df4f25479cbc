"""The audit of the AutoDrop paper: every claim with a verdict, its evidence and its figures.

``python -m paper_checks`` runs the claims and writes ``report/index.html``. A claim is a statement
of the paper in our words together with a check that decides it by at least two independent routes
(:mod:`paper_checks.claim`); the claims live in :mod:`paper_checks.claims`, one module per section
of the paper.

Source: Wang, Teng, Choromanska, *AutoDrop: Training Deep Learning Models with Automatic Learning
Rate Drop*, UAI 2024, PMLR 244:3603–3629.
"""

from importlib.util import find_spec

_missing = [
    name
    for name in ("jinja2", "matplotlib", "rich", "scipy", "sklearn", "sympy")
    if find_spec(name) is None
]
if _missing:
    raise ModuleNotFoundError(
        f"paper_checks needs {', '.join(_missing)}: install it with pip install 'autodrop[checks]'"
    )
