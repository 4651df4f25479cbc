"""Hypothesis strategies for bounds that ask nothing of the method or of the order of the rates."""

from hypothesis import strategies as st

from tests.strategies import fractions
from theory import UnifiedMomentum
from theory.methods import TorchMomentum

UNIT = {"distance": 1.0, "subgradient": 1.0}


@st.composite
def any_method(draw, exact=False):
    """Unified Momentum with any s, also > 1/(1 − β), or torch's, with Nesterov or without."""
    β = draw(fractions(0, "9/10"), label="momentum")
    kind = draw(st.sampled_from(["heavy ball", "nesterov", "any s", "torch", "torch nesterov"]))
    s = draw(fractions(0, 5), label="s")
    β, s = (β, s) if exact else (float(β), float(s))
    return {
        "heavy ball": UnifiedMomentum(β, 0),
        "nesterov": UnifiedMomentum(β, 1),
        "any s": UnifiedMomentum(β, s),
        "torch": TorchMomentum(β),
        "torch nesterov": TorchMomentum(β, nesterov=True),
    }[kind]


def any_rates(longest):
    """In any order, over a factor of 20."""
    return st.lists(st.floats(0.05, 1), min_size=1, max_size=longest)
