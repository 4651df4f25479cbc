"""Convex methods by brute force: eq. (9) word for word, dense linear algebra, every noise path.

A second route for `theory.potential`, `bounds` and `multipliers`. Nothing here uses their
recursions: coefficients come from solving triangular systems, gaps from running the method.
"""

from itertools import pairwise, product
from typing import NamedTuple

import numpy as np

from theory import StepwiseSchedule, TorchMomentum, UnifiedMomentum

CONSTANTS = {"distance": 1.0, "subgradient": 1.0}


def iterates(method, rates, gradient, start):
    """x_0 … x_T, with G_t = gradient(t, x_t): eq. (9), or `torch.optim.SGD`, word for word."""
    x, ys, buffer = start, start, 0
    points = [x]
    for t, rate in enumerate(rates):
        G = gradient(t, x)
        if isinstance(method, TorchMomentum):
            buffer = method.momentum * buffer + G
            x = x - rate * (G + method.momentum * buffer if method.nesterov else buffer)
        else:
            y, ys_next = x - rate * G, x - method.s * rate * G
            x, ys = y + method.momentum * (ys_next - ys), ys_next
        points.append(x)
    return points


def displacements(method, rates):
    """Row t: minus the coefficients of G_0 … G_{T−1} in x_t − x_0, t = 0 … T; exact."""
    T = len(rates)
    unit = np.array([[int(i == j) for j in range(T)] for i in range(T)], dtype=object)
    zero = np.array([0 * rates[0]] * T, dtype=object)
    return -np.array(iterates(method, rates, lambda t, x: unit[t], zero), dtype=object)


class DensePotential(NamedTuple):
    """η_0 … η_{T−1}, and z_t = Σ_j Z[t, j] x_j, t = 0 … T; kernel[t] = Σ_i |c_i|, t = 0 … T−1."""

    steps: list
    Z: np.ndarray
    kernel: list


def dense_potential(method, rates):
    """z_t = x_0 − Σ_{i<t} η_iG_i written in the iterates, by back substitution."""
    T, β = len(rates), method.momentum
    if isinstance(method, TorchMomentum):
        η = [
            sum(β ** (t - i) * rates[t] for t in range(i, T)) + β ** (T - i) * rates[-1] / (1 - β)
            for i in range(T)
        ]
    else:
        η = [rate / (1 - β) for rate in rates]
    X = displacements(method, rates)
    Z = np.zeros((T + 1, T + 1), dtype=object) + 0 * rates[0]
    kernel = []
    for t in range(T + 1):
        target = [η[i] if i < t else 0 * β for i in range(T)]
        kernel.append(sum(abs(a - b) for a, b in zip(target, X[t], strict=True)))
        for j in range(t, 0, -1):  # x_j is the first iterate to contain G_{j−1}
            Z[t, j] = target[j - 1] / X[j, j - 1]
            target = [a - Z[t, j] * b for a, b in zip(target, X[j], strict=True)]
        Z[t, 0] = 1 - sum(Z[t, 1:])
    return DensePotential(η, Z, kernel[:-1])


class TheoremC(NamedTuple):
    """W with Σ_j W_jF_j ≤ bound, if no entry of `b` below the diagonal is positive."""

    W: np.ndarray
    b: np.ndarray
    bound: float

    @property
    def violation(self):
        """The largest b[t, j], j < t, in units of the largest entry."""
        return float(np.tril(self.b, -1).max() / np.abs(self.b).max())


def theorem_c(form, v, last, *, distance, subgradient, noise=0.0):
    """Theorem C from its proof: the inequalities along v_t(z_t − y_t), added up.

    form : the `dense_potential` of N updates.  v : v_{−1}, v_0 … v_{N−1}.  last : S_N.  The step
    η_N = S_N/v_{N−1} exists in the proof alone, along ∂f(x_N) without noise.
    """
    v = np.append(np.asarray(v, float), v[-1])
    η = np.append(np.asarray(form.steps, float), last / v[-1])
    Z = np.asarray(form.Z, float)
    ζ = np.diff(v)
    b = v[1:, None] * Z - np.cumsum(ζ[:, None] * Z, axis=0)
    W = (η * v[1:]) @ b
    moments = np.append(np.full(len(η) - 1, subgradient**2 + noise**2), subgradient**2)
    bound = (v[0] ** 2 * distance**2 + np.sum(moments * (v[1:] * η) ** 2)) / 2
    return TheoremC(W, b, float(bound))


def last_iterate_multipliers(form, last):
    """v_{−1} … v_{N−1} with W = (0, …, 0, 1), for a given S_N."""
    Z, η = np.asarray(form.Z, float), np.asarray(form.steps, float)
    D = np.linalg.solve(Z.T, np.eye(len(Z))[-1])
    v, S = [D[-1] / last], last
    for t in range(len(η) - 1, -1, -1):
        S += η[t] * v[0]
        v.insert(0, D[t:].sum() / S)
    return np.array(v)


class Problems(NamedTuple):
    """f(x) = max(0, max_k ⟨a_k, x⟩ + b_k), ‖a_k‖ ≤ G, b_k ≤ 0: minimal, 0, at the origin.

    slopes (P, K, d), offsets (P, K), start (P, d), for P problems at once.  Where pieces tie, the
    oracle answers with the one of largest b_k, whose gradient points least to the origin.
    """

    slopes: np.ndarray
    offsets: np.ndarray
    start: np.ndarray

    def limit_gap(self, gap):
        """The problems with all pieces lowered until F_0 ≤ gap."""
        excess = np.maximum(0, self.values(self.start) - gap)
        return self._replace(offsets=self.offsets - excess[:, None])

    def repeat(self, copies):
        return Problems(*(np.repeat(field, copies, axis=0) for field in self))

    def pieces(self, x):
        return np.einsum("pkd,pd->pk", self.slopes, x) + self.offsets

    def values(self, x):
        return np.maximum(0, self.pieces(x).max(axis=1))

    def gaps(self, method, rates, noise=None):
        """f(x_t), shape (T + 1, P); `noise` (T, P, d) is added to the subgradients."""
        order = np.argsort(-self.offsets, axis=1, kind="stable")
        slopes = np.take_along_axis(self.slopes, order[:, :, None], axis=1)
        offsets = np.take_along_axis(self.offsets, order, axis=1)
        rows = np.arange(len(slopes))

        def gradient(t, x):
            pieces = np.einsum("pkd,pd->pk", slopes, x) + offsets
            best = pieces.max(axis=1)
            # An answer that is wrong by rounding is an ε-subgradient, ε of the order of rounding.
            tied = pieces >= (best - 1e-13 * (1 + abs(best)))[:, None]
            G = slopes[rows, tied.argmax(axis=1)] * (best >= 0)[:, None]
            return G if noise is None else G + noise[t]

        return np.array([self.values(x) for x in iterates(method, rates, gradient, self.start)])


def resisting(count, coordinates, dimension, R, G):
    """f = G max_i x_i on `coordinates` axes, from R/√n·(1, …, 1): F_t = GR/√n until all are seen.

    After Nesterov: the oracle always shows an axis that the method has not moved along.
    """
    slopes = np.zeros((count, dimension, dimension))
    slopes[:, :coordinates, :coordinates] = G * np.eye(coordinates)
    start = np.zeros((count, dimension))
    start[:, :coordinates] = R / np.sqrt(coordinates)
    return Problems(slopes, np.zeros((count, dimension)), start)


def random_problems(rng, count, dimension, R, G):
    """`count` problems of four kinds in `dimension` ≥ 2, in equal shares."""
    share = -(-count // 4)
    shape = (share, dimension, dimension)
    parts = [resisting(share, dimension - int(rng.integers(2)), dimension, R, G)]
    # The same with unequal offsets, up to the height of the start.
    low = -rng.random(shape[:2]) * G * R / np.sqrt(dimension) * rng.random((share, 1))
    parts.append(parts[0]._replace(offsets=low))
    # One-dimensional: two slopes, a flat stretch, and a start to the right of it.
    slopes, start = np.zeros(shape), np.zeros(shape[:2])
    slopes[:, 0, 0] = G
    slopes[:, 1, 0] = -G * np.where(rng.random(share) < 0.5, 1, rng.random(share))
    start[:, 0] = R * np.where(rng.random(share) < 0.5, 1, rng.random(share))
    offsets = np.zeros(shape[:2])
    offsets[:, :2] = -G * R * rng.random((share, 2)) * (rng.random((share, 2)) < 0.3)
    parts.append(Problems(slopes, offsets, start))
    # Any directions; one piece falls towards the origin from the start.
    slopes = rng.normal(size=shape)
    start = rng.normal(size=shape[:2])
    start *= R / np.linalg.norm(start, axis=1, keepdims=True)
    slopes[:, 0] = start
    lengths = G * np.maximum(rng.random(shape[:2]), rng.random(shape[:2]))
    slopes *= (lengths / np.linalg.norm(slopes, axis=2))[:, :, None]
    offsets = -G * R * rng.exponential(0.1, shape[:2]) * (rng.random(shape[:2]) < 0.5)
    parts.append(Problems(slopes, offsets, start))
    return Problems(*(np.concatenate(fields)[:count] for fields in zip(*parts, strict=True)))


def expected_gaps(problems, method, rates, noise, skew):
    """E f(x_t), shape (T + 1, P), by running all 2ᵀ paths of a two-point noise.

    noise : (T, P, d), the vector n_t.  skew : (T,) in (0, 1): n_t·√((1−p)/p) with probability p,
    else −n_t·√(p/(1−p)): mean 0 and second moment ‖n_t‖².
    """
    T, P = len(rates), len(problems.start)
    heads = np.array(list(product((True, False), repeat=T)))
    size = np.where(heads, np.sqrt((1 - skew) / skew), -np.sqrt(skew / (1 - skew)))
    paths = (np.repeat(noise, len(heads), axis=1)) * np.tile(size, (P, 1)).T[:, :, None]
    gaps = problems.repeat(len(heads)).gaps(method, rates, paths)
    return gaps.reshape(T + 1, P, -1) @ np.where(heads, skew, 1 - skew).prod(axis=1)


class Draw(NamedTuple):
    method: object
    rates: list
    constants: dict


def random_method(rng):
    """SGD, heavy ball, Nesterov, s = 1/(1−β), any s ≤ 1/(1−β), any s ≤ 2/(1−β), torch's."""
    β = float(rng.uniform(0, 0.95))
    s = [0, 0, 1, 1, rng.random(), 1 + rng.random()]
    kind = int(rng.integers(7))
    if kind == 6:
        return TorchMomentum(β)
    if kind == 3:  # 1/(1 − β) without rounding
        return UnifiedMomentum(0.5, 2.0)
    scale = 1 if kind <= 2 else 1 / (1 - β)
    return UnifiedMomentum(β if kind else 0.0, float(s[kind] * scale))


def random_rates(rng, method, T, unit):
    """About `unit`(1−β)/√T: constant, stepwise or linear decay, any decreasing, in any order."""
    typical = unit * (1 - method.momentum) / np.sqrt(T)
    rates = np.exp(rng.normal(size=T) * rng.choice([0.2, 0.7]))
    kind = int(rng.integers(6))
    if kind == 0:
        rates = np.ones(T)
    elif kind == 1:
        rates = np.arange(T, 0, -1) / T * 2
    elif kind == 2:
        lengths = rng.multinomial(T - 1, [0.4, 0.3, 0.3]) + np.array([1, 0, 0])
        rates = np.repeat(rng.uniform(0.1, 1) ** np.arange(3), lengths)
    if kind < 5:
        rates = np.sort(rates)[::-1]
    if rng.random() < 0.8:
        typical *= np.exp(0.7 * rng.normal())
    return [float(rate) for rate in rates * typical]


def random_draw(rng, T, noisy=False):
    """A method, rates, and R, G, a gap ≤ GR and δ (0 unless `noisy`)."""
    method = random_method(rng)
    R, G = (float(value) for value in np.exp(rng.normal(size=2)))
    δ = float(G * rng.uniform(0, 1.5)) if noisy else 0.0
    share = 1.0 if rng.random() < 0.5 else float(rng.uniform(0.1, 1))
    constants = {"distance": R, "subgradient": G, "gap": share * G * R, "noise": δ}
    return Draw(method, random_rates(rng, method, T, R / np.hypot(G, δ)), constants)


def non_increasing(rates):
    return all(after <= before for before, after in pairwise(rates))


def weighted_average(rates, gaps):
    """Σα_tF_t / Σα_t over t < T."""
    return np.asarray(rates) @ gaps[: len(rates)] / sum(rates)


def table_schedule(F):
    """MATH-like three stages, ½ × 3, ⅓ × 4, ¼ × 5, in the number type F."""
    return StepwiseSchedule([F(1) / 2, F(1) / 3, F(1) / 4], [3, 4, 5])
