"""Section 4: AutoDrop on top of any optimizer, and what has to be added to a training loop."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from autodrop import AutoDrop, angle_between
from paper_checks.claim import Context, Evidence, Kind, Outcome, Verdict, claim

LOOP = """\
for x, y in batches:
    def closure():
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        return loss
    optimizer.step(closure)
    record()
"""
WITH_AUTODROP = """\
from autodrop import AutoDrop
scheduler = AutoDrop(optimizer, window, min_lr=min_lr)
for x, y in batches:
    def closure():
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        return loss
    optimizer.step(closure)
    record()
    scheduler.step()
"""
WINDOW = 2

# The constructors' options where the defaults do not train this network with noisy batches.
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD with momentum": ("SGD", {"lr": 0.05, "momentum": 0.9}),
    "SGD, Nesterov": ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "LBFGS": ("LBFGS", {"lr": 0.05, "max_iter": 2}),
    **{
        name: (name, {})
        for name in (
            "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam",
            "RAdam", "RMSprop", "Rprop", "SparseAdam",
        )
    },
}  # fmt: skip


@dataclass(frozen=True)
class Path:
    """One run: the iterates x_0 … x_T (rows, float64) and the rate of each update.

    scheduler: AutoDrop, if there was one.
    """

    iterates: np.ndarray
    rates: tuple[float, ...]
    scheduler: AutoDrop | None


@dataclass
class _Recorder:
    model: nn.Module
    optimizer: Optimizer
    iterates: list[np.ndarray] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def __call__(self) -> None:
        self.rates.append(float(self.optimizer.param_groups[0]["lr"]))
        self.look()

    def look(self) -> None:
        self.iterates.append(
            np.concatenate([p.detach().numpy().ravel().copy() for p in self.model.parameters()])
        )


def known_optimizers() -> Iterator[str]:
    """The names of `OPTIMIZERS` that this torch has."""
    return (name for name, (kind, _) in OPTIMIZERS.items() if hasattr(torch.optim, kind))


def run(name: str, source: str, updates: int, seed: int, floor: bool = False) -> Path:
    """Train a small network in float64 by the loop `source`, from the same start and batches.

    floor: whether the first rate is also the least, so that no drop changes it.
    """
    generator = torch.Generator().manual_seed(seed)
    kind, options = OPTIMIZERS[name]
    model: nn.Module
    if kind == "SparseAdam":
        model = nn.Embedding(9, 4, sparse=True)
        inputs = torch.randint(9, (updates, 6), generator=generator)
    else:
        # Matrices alone, which is what Muon takes.
        model = nn.Sequential(nn.Linear(5, 6, bias=False), nn.Tanh(), nn.Linear(6, 4, bias=False))
        inputs = torch.randn(updates, 6, 5, generator=generator, dtype=torch.float64)
    model.double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    targets = torch.randn(updates, 6, 4, generator=generator, dtype=torch.float64)
    optimizer = getattr(torch.optim, kind)(model.parameters(), **options)
    record = _Recorder(model, optimizer)
    record.look()
    names: dict[str, Any] = {
        "batches": list(zip(inputs, targets, strict=True)),
        "loss_function": F.mse_loss,
        "model": model,
        "optimizer": optimizer,
        "record": record,
        "window": WINDOW,
        "min_lr": float(optimizer.param_groups[0]["lr"]) if floor else 0.0,
    }
    exec(compile(source, "<training loop>", "exec"), names)
    return Path(np.array(record.iterates), tuple(record.rates), names.get("scheduler"))


def mean_steps(iterates: np.ndarray) -> np.ndarray:
    """Steps between the means of successive windows, rows."""
    windows = len(iterates[:-1]) // WINDOW
    means = iterates[: windows * WINDOW].reshape(windows, WINDOW, -1).mean(axis=1)
    return np.diff(means, axis=0)


def angles(iterates: np.ndarray) -> np.ndarray:
    """Equation (8) from the iterates themselves, degrees."""
    steps = mean_steps(iterates)
    return np.degrees(angle_between(steps[1:], steps[:-1]))


def replayed(path: Path) -> tuple[float, ...]:
    """The rates of the updates, by the pure rule on the angles of the iterates."""
    assert path.scheduler is not None
    rule, first = path.scheduler.rule, path.rates[0]
    state, rate, rates = rule.init(), first, []
    ω = iter(np.radians(angles(path.iterates)))
    for t in range(1, len(path.rates) + 1):
        rates.append(rate)
        if rule.observes(t):
            state = rule.observe(state, next(ω) if t >= 3 * WINDOW else None)
        if rule.acts(t):
            state, decision = rule.act(state)
            if decision.drop:
                (rate,) = rule.policy.lowered((rate,))
    return tuple(rates)


def added_lines(before: str, after: str) -> tuple[int, int]:
    """(lines of `after` that are not in `before`, lines of `before` that are not in `after`)."""
    marks = [line[0] for line in difflib.ndiff(before.splitlines(), after.splitlines())]
    return marks.count("+"), marks.count("-")


@claim(
    id="any-optimizer",
    place="Section 1, p. 3604; Section 4, p. 3608; abstract, p. 3603",
    title="AutoDrop is simple, and can be put on top of any optimizer",
    statement="AutoDrop is extremely simple to use, a meta-scheme that can be put on top of any "
    "optimization method for training deep networks.",
    kind=Kind.IDENTITY,
    hypotheses="every optimizer of torch.optim; a small network in float64, noisy batches, window "
    "2, ρ = 0.95, m = 10",
    expected=Verdict.CORRECTED,
)
def any_optimizer(context: Context) -> Outcome:
    evidence = Evidence()
    updates = context.pick(120, 600)
    seed = context.rng_seed("any-optimizer")
    evidence.exact(
        "lines that a training loop gains and loses", added_lines(LOOP, WITH_AUTODROP), (3, 0)
    )
    rows, same_to_the_end = [], []
    for name in known_optimizers():
        plain = run(name, LOOP, updates, seed)
        floored = run(name, WITH_AUTODROP, updates, seed, floor=True)
        path = run(name, WITH_AUTODROP, updates, seed)
        assert path.scheduler is not None
        evidence.exact(
            f"{name}: at a rate that cannot drop, iterates that AutoDrop changes",
            int((floored.iterates != plain.iterates).any(axis=1).sum()), 0,
        )  # fmt: skip
        ω = angles(path.iterates)
        # A mean is off by 2 roundings of ‖x‖ at most on either route, and a step has two means.
        shortest = np.linalg.norm(mean_steps(path.iterates), axis=1).min()
        longest = np.linalg.norm(path.iterates, axis=1).max()
        rounding = 16 * np.finfo(float).eps * longest / shortest
        evidence.equal(
            f"{name}: angles of `autodrop` = eq. (8) from the iterates (degrees)",
            path.scheduler.angular_velocities, ω, np.degrees(rounding),
            source="rounding of four means, 2 ε ‖x‖ each on two routes, beside the shortest step",
        )  # fmt: skip
        evidence.exact(
            f"{name}: updates whose rate is not the rule's, replayed on these angles",
            sum(a != b for a, b in zip(path.rates, replayed(path), strict=True)), 0,
        )  # fmt: skip
        evidence.at_least(f"{name}: drops", len(path.scheduler.drops), 1)
        differs = np.flatnonzero((path.iterates != plain.iterates).any(axis=1))
        first = path.scheduler.drops[0].step if path.scheduler.drops else updates
        if len(differs):
            evidence.at_least(f"{name}: first iterate that a drop changes", differs[0], first + 1)
        else:
            same_to_the_end.append(name)
        rows.append(
            (
                name,
                len(path.scheduler.drops),
                f"{path.rates[0]:g}",
                f"{path.rates[-1]:.4g}",
                int(differs[0]) if len(differs) else "none",
            )
        )
    evidence.exact("optimizers that a drop does not change", same_to_the_end, ["Rprop"])
    evidence.route("the same loop with and without AutoDrop", f"{len(rows)} optimizers")
    evidence.route("eq. (8) and the rule, from the recorded iterates", f"{updates} updates each")
    evidence.table(
        "AutoDrop on every optimizer of torch.optim",
        ["optimizer", "drops", "first rate", "last rate", "first iterate that differs"],
        rows,
    )
    return evidence.outcome(
        Verdict.CORRECTED,
        f"Three lines more, and {len(rows)} optimizers run under AutoDrop as they are: bit by bit "
        "as without it until its first drop, by the rule's rates afterwards. On one of them, "
        "Rprop, the drops change nothing.",
        cases=len(rows),
        correction="On top of any method that reads its learning rate at every update. Rprop reads "
        "it at the first one only: its step sizes then follow the signs of the gradients, and no "
        "schedule of the rate has an effect.",
    )
