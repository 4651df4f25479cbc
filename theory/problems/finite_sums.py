"""Finite sums of Lipschitz losses with mini-batches: regression and classification by ⟨a_i, x⟩."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from theory import checks
from theory.problems.convex import Array, ConvexProblem, finite_array, integers, like, uniforms
from theory.problems.duality import minimise
from theory.problems.losses import AbsoluteLoss, HingeLoss, HuberLoss, LogisticLoss, Loss

__all__ = ["FiniteSum", "hinge_loss", "huber_regression", "l1_regression", "logistic_regression"]


@dataclass(frozen=True, eq=False, init=False)
class FiniteSum(ConvexProblem):
    """f(x) = (1/N) Σ_i ℓ(⟨a_i, x⟩, b_i), G_t the mean of ∂f_i over a mini-batch of B indices.

    With L the Lipschitz constant of ℓ,

        G = min(L·mean‖a_i‖, L·σ_max(A)/√N),    δ² = L²·mean‖a_i‖²/B  (× (N−B)/(N−1)),

    the last factor where the batch is drawn without replacement.  δ² bounds the variance at every
    x; `noise_variance_at` is the variance at one x, exactly over the data.  There is no
    regularisation by ‖x‖², under which f would not be Lipschitz.  The certificate needs f to grow
    in every direction; otherwise (rank-deficient A, hinge loss on separable or weakly separable
    classes) `minimum_lower` is only 0, and `optimality_gap` shows it.

    Parameters
    ----------
    features : A, shape (N, n), rows a_i; a constant column, if wanted, is one of them.
    targets : b, shape (N,); ±1 for a loss of two classes.
    loss : ℓ, one of `theory.problems.losses`.
    minimiser : x̂, shape (n,); None: found by `theory.problems.duality.minimise`.
    minimum_lower : a proven lower bound of f*; must come with a minimiser, and only then.
    start : x_0, scalar or shape (n,).
    batch : B ≥ 1; None: no sampling, G_t = ∂f(x_t).
    replacement : whether a batch may hold an index twice.

    Raises
    ------
    ValueError
        If a shape or a range does not fit, or f* is not attained (logistic loss on separable data).
    ImportError
        Without scipy (extra `checks`) when the minimiser has to be found.
    """

    features: Array
    targets: Array
    loss: Loss
    batch: int | None
    replacement: bool

    def __init__(
        self,
        features: Any,
        targets: Any,
        loss: Loss,
        *,
        minimiser: Any = None,
        minimum_lower: float | None = None,
        start: Any = 0.0,
        batch: int | None = None,
        replacement: bool = True,
    ) -> None:
        A, b = finite_array("features", features, 2), finite_array("targets", targets, 1)
        N, n = A.shape
        if b.shape != (N,):
            raise ValueError(f"targets must have shape ({N},), got {b.shape}")
        if loss.classes and (bad := abs(b) != 1).any():
            raise ValueError(f"targets of two classes must be -1 or 1, got {b[bad][0]}")
        if batch is not None:
            batch = checks.positive_integer("batch", batch)
            if batch > N and not replacement:
                raise ValueError(f"batch without replacement must be <= {N}, got {batch}")
        self._set_start(start, n)
        self._set(features=A, targets=b, loss=loss, batch=batch, replacement=replacement)
        if (minimiser is None) != (minimum_lower is None):
            raise ValueError("minimiser and minimum_lower must be given together or not at all")
        if minimum_lower is None:
            minimiser, minimum_lower, _ = minimise(A, b, loss)
        x = finite_array("minimiser", minimiser, 1)
        minimum = float(self.value(x))
        if not minimum_lower <= minimum * (1 + 8 * np.finfo(np.float64).eps):
            raise ValueError(
                f"minimum_lower must be <= f(minimiser) = {minimum}, got {minimum_lower}"
            )
        L, norms = loss.lipschitz, np.linalg.norm(A, axis=1)
        self._set(
            minimiser=x,
            minimum=minimum,
            minimum_lower=min(float(minimum_lower), minimum),
            subgradient_bound=L * float(min(norms.mean(), np.linalg.norm(A, 2) / math.sqrt(N))),
            noise=L * math.sqrt(float((norms**2).mean()) * self._variance_factor),
        )

    @property
    def _variance_factor(self) -> float:
        """Variance of a batch mean over that of one draw: 1/B, (N−B)/((N−1)B), or 0."""
        N = len(self.targets)
        if self.batch is None or (not self.replacement and self.batch == N):
            return 0.0
        return (1.0 if self.replacement else (N - self.batch) / (N - 1)) / self.batch

    @property
    def footprint(self) -> int:
        """max(N, B·n)."""
        return max(len(self.targets), (self.batch or 1) * self.dimension)

    def _predictions(self, x: Any) -> tuple[Any, Any]:
        """(z, b): z = Ax, shape (…, N), and the targets."""
        self._namespace(x)
        return x @ like(self.features, x).T, like(self.targets, x)

    def value(self, x: Any) -> Any:
        """(1/N) Σ ℓ(⟨a_i, x⟩, b_i); shapes (…, n) to (…)."""
        return self.loss.value(*self._predictions(x)).mean(-1)

    def subgradient(self, x: Any) -> Any:
        """(1/N) Σ ℓ'(⟨a_i, x⟩, b_i) a_i; shapes (…, n) to (…, n)."""
        u = self.loss.derivative(*self._predictions(x))
        return u @ like(self.features, x) / len(self.targets)

    def batch_subgradient(self, x: Any, indices: Any) -> Any:
        """(1/B) Σ_j ℓ'(⟨a_j, x⟩, b_j) a_j over j in `indices`, shape (…, B), a batch a row of x."""
        self._namespace(x)
        a = like(self.features, x)[indices]
        z = (a * x[..., None, :]).sum(-1)
        u = self.loss.derivative(z, like(self.targets, x)[indices])
        return (u[..., None] * a).mean(-2)

    def draw_batch(self, x: Any, rng: Any) -> Any:
        """Indices of a mini-batch for each row of x, shape (…, B); rng as for `ConvexProblem`.

        Without replacement it costs O(N log N) a row: the first B of a random permutation.
        """
        if self.batch is None:
            raise ValueError("this problem draws no mini-batches: batch is None")
        N, rows = len(self.targets), tuple(x.shape[:-1])
        if self.replacement:
            return integers(x, N, (*rows, self.batch), rng)
        return uniforms(x, (*rows, N), rng).argsort(-1)[..., : self.batch]

    def stochastic_subgradient(self, x: Any, rng: Any) -> Any:
        """`batch_subgradient` on a drawn batch, one for each row of x."""
        if self.batch is None:
            return self.subgradient(x)
        return self.batch_subgradient(x, self.draw_batch(x, rng))

    def noise_variance_at(self, x: Any) -> Any:
        """(1/B)(mean‖∂f_i(x)‖² − ‖∂f(x)‖²), × (N−B)/(N−1) without replacement; (…, n) to (…)."""
        u = self.loss.derivative(*self._predictions(x))
        A = like(self.features, x)
        g = u @ A / len(self.targets)
        second_moment = (u * u * (A * A).sum(-1)).mean(-1)
        return self._variance_factor * (second_moment - (g * g).sum(-1)).clip(0, None)


def l1_regression(features: Any, targets: Any, **sampling: Any) -> FiniteSum:
    """f(x) = (1/N) Σ |⟨a_i, x⟩ − b_i|; keywords `start`, `batch`, `replacement` of `FiniteSum`."""
    return FiniteSum(features, targets, AbsoluteLoss(), **sampling)


def huber_regression(features: Any, targets: Any, width: float = 1.0, **sampling: Any) -> FiniteSum:
    """f(x) = (1/N) Σ h(⟨a_i, x⟩ − b_i), h = ½r² up to |r| = width, then linear; as `FiniteSum`."""
    return FiniteSum(features, targets, HuberLoss(width), **sampling)


def hinge_loss(features: Any, labels: Any, **sampling: Any) -> FiniteSum:
    """f(x) = (1/N) Σ max(0, 1 − b_i⟨a_i, x⟩), b_i = ±1; keywords as for `FiniteSum`."""
    return FiniteSum(features, labels, HingeLoss(), **sampling)


def logistic_regression(features: Any, labels: Any, **sampling: Any) -> FiniteSum:
    """f(x) = (1/N) Σ log(1 + exp(−b_i⟨a_i, x⟩)), b_i = ±1; keywords as for `FiniteSum`.

    Raises ValueError on separable data, where f* = 0 is not attained.
    """
    return FiniteSum(features, labels, LogisticLoss(), **sampling)
