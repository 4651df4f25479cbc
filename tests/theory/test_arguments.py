"""What a user gets wrong first is answered in the user's terms, never by a NaN."""

from fractions import Fraction

import numpy as np
import pytest

from theory import (
    NoisyQuadratic,
    StepwiseSchedule,
    UnifiedMomentum,
    moments,
    saturation,
    simulate,
)

PROBLEM, SGD = NoisyQuadratic([0.5, 1.0], 0.1, 1.0), UnifiedMomentum.sgd()
SCHEDULE = StepwiseSchedule.constant(0.3, 12)
RUN = moments.evolve(PROBLEM, SGD, SCHEDULE)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: moments.evolve(PROBLEM, 0.9, SCHEDULE), TypeError, "method must be .*0.9"),
        (lambda: moments.evolve(PROBLEM, SGD, [0.1] * 9), TypeError, "schedule must be"),
        (lambda: moments.evolve([1.0], SGD, SCHEDULE), TypeError, "problem must be a NoisyQuad"),
        (lambda: moments.evolve(PROBLEM, SGD, SCHEDULE, True), ValueError, "window must be .*True"),
        (lambda: simulate.run(PROBLEM, SGD, SCHEDULE, trajectories=2, seed=0, window=2.5),
         ValueError, "window must be a positive integer, got 2.5"),
        (lambda: saturation.expected_angle(PROBLEM, 0.1, 64), TypeError, "method .* got 64"),
        (lambda: saturation.cosine_ratio(3.0, 0.1), TypeError, "problem must be .* got 3.0"),
        (lambda: saturation.step_autocovariance(PROBLEM, 0.1, lags=-1), ValueError, "lags must be"),
        (lambda: saturation.transient_step_moments(PROBLEM, 0.1, 0.5), ValueError, "iteration"),
        (lambda: saturation.window_cosine(3.0, 4), ValueError, "0 < step < 2, got 3.0"),
        (lambda: saturation.window_cosine(0, 4), ValueError, "0 < step < 2, got 0"),
        (lambda: saturation.window_cosine(Fraction(-1), 4), ValueError, "0 < step < 2, got -1"),
        (lambda: saturation.window_cosine(np.array([1.0, np.nan]), 4), ValueError, "0 < step < 2"),
        (lambda: StepwiseSchedule(0.1, 100), TypeError, "rates must be a sequence, .* got 0.1"),
        (lambda: NoisyQuadratic([Fraction(1), float("nan")], 1), ValueError, "must be finite"),
        (lambda: RUN.expected_cosine([1.5]), TypeError, "windows must be a sequence of integers"),
        (lambda: RUN.expected_cosine(3), TypeError, "windows must be a sequence of integers"),
        (lambda: moments.evolve(NoisyQuadratic([1.0], 0.0, 0.0), SGD, SCHEDULE).ratio,
         ZeroDivisionError, "nothing moves"),
    ],
)  # fmt: skip
def test_a_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()
