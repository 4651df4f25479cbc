"""Moments of a run by brute force: a second route that shares only the problem with `theory`.

Eq. (9) is run literally, with x and yˢ, on linear forms: each iterate of a mode is a row of
coefficients in the basis (x_0, yˢ_0, c_0, …, c_{T−1}). These basis variables have a known joint
Gaussian law, so every moment is one dense matrix product. Nothing is recursive in the moments, no
window is ever composed of maps, and the cost is what it is: O(T²) a mode. Fractions stay exact.
"""

from fractions import Fraction
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np
import scipy.linalg
import sympy


class Moments(NamedTuple):
    """risk (⌊T/k⌋ + 1,), inner (W,), squared_norm (W + 1,), mean (W, n, 2), covariance
    (W, n, 2, 2).

    And what bounds rounding: `size` ≥ max_t E‖x_t‖², and `gain`, the largest coefficient.
    """

    risk: np.ndarray
    inner: np.ndarray
    squared_norm: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    size: float
    gain: float


def update(x, ys, gradient, rate, method):
    """(x_{t+1}, yˢ_{t+1}): UAI 2024, eq. (9), word for word."""
    y = x - rate * gradient
    ys_next = x - method.s * rate * gradient
    return y + method.momentum * (ys_next - ys), ys_next


def iterates(a, method, rates, dtype):
    """Rows of x_0 … x_T in the basis (x_0, yˢ_0, c_0, …, c_{T−1}), for one mode."""
    basis = np.zeros((len(rates) + 2, len(rates) + 2), dtype=dtype)
    basis[range(len(basis)), range(len(basis))] = 1
    x, ys, *noise = basis
    rows = [x]
    for rate, c in zip(rates, noise, strict=True):
        x, ys = update(x, ys, a * (x - c), rate, method)
        rows.append(x)
    return np.stack(rows)


def one_step(a, method, rate):
    """M and b with (x, yˢ)_{t+1} = M (x, yˢ)_t + b c_t, read off from eq. (9) on unit vectors."""
    columns = [update(x, ys, a * (x - c), rate, method) for x, ys, c in ((1, 0, 0), (0, 1, 0))]
    gain = update(0, 0, a * (0 - 1), rate, method)
    return [list(row) for row in zip(*columns, strict=True)], list(gain)


def stationary(a, v, method, rate, exact):
    """The covariance of (x, yˢ) that one step leaves as it is, by a linear solver."""
    M, b = one_step(a, method, rate)
    if not exact:
        b = np.array(b, dtype=float)
        return scipy.linalg.solve_discrete_lyapunov(np.array(M, dtype=float), v * np.outer(b, b))
    M, b = (sympy.Matrix(part).applyfunc(_rational) for part in (M, b))
    xx, xy, yy = unknowns = sympy.symbols("xx xy yy")
    S = sympy.Matrix([[xx, xy], [xy, yy]])
    (solution,) = sympy.linsolve(list(M * S * M.T + _rational(v) * b * b.T - S), *unknowns)
    xx, xy, yy = (_fraction(value) for value in solution)
    return np.array([[xx, xy], [xy, yy]])


def _rational(value):
    exact = Fraction(value)
    return sympy.Rational(exact.numerator, exact.denominator)


def _fraction(value):
    return Fraction(int(value.p), int(value.q))


def evolve(problem, method, schedule, window, from_stationary=False, shift=0):
    """Everything that `theory.moments.evolve` knows, for short runs.

    shift: by how many iterates every window is late; 0 but in negative controls, where it is 1.
    """
    exact, k = problem.exact, window
    dtype = object if exact else float
    stages = zip(schedule.rates, schedule.lengths, strict=True)
    rates = list(chain.from_iterable(repeat(rate, length) for rate, length in stages))
    T, windows = len(rates), len(rates) // k
    average = np.zeros((windows, T + 1), dtype=dtype)  # y_i from x_0 … x_T
    for i in range(windows):
        average[i, i * k + shift : (i + 1) * k + shift] = Fraction(1, k) if exact else 1 / k
    difference = average[1:] - average[:-1]

    seen = np.arange(0, T + 1, k)
    risk, size, gain = 0, 0, 0
    means, covariances = [], []
    for a, v, x0 in zip(problem.curvature, problem.noise_variance, problem.start, strict=True):
        X = iterates(a, method, rates, dtype)
        mean = np.zeros(T + 2, dtype=dtype)
        K = np.zeros((T + 2, T + 2), dtype=dtype)
        K[range(2, T + 2), range(2, T + 2)] = v
        if from_stationary:
            K[:2, :2] = stationary(a, v, method, rates[0], exact)
        else:
            mean[:2] = x0
        second = (X @ K * X).sum(axis=1) + (X @ mean) ** 2
        risk = risk + a * second[seen] / 2
        size, gain = size + float(max(second)), max(gain, float(np.abs(X).max()))
        U = difference @ X
        means.append(U @ mean)
        covariances.append(U @ K @ U.T)

    m, C = np.stack(means, axis=1), np.stack(covariances, axis=-1)  # (W + 1, n), (W + 1, W + 1, n)
    i = np.arange(windows - 1)
    u, v = i[:-1], i[1:]
    squared_norm = (C[i, i] + m**2).sum(axis=-1)
    inner = (C[u, v] + m[u] * m[v]).sum(axis=-1)
    mean = np.stack([m[u], m[v]], axis=-1)
    blocks = np.stack([np.stack([C[p, q] for q in (u, v)], axis=-1) for p in (u, v)], axis=-2)
    return Moments(risk, inner, squared_norm, mean, blocks, size, gain)
