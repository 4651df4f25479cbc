"""The schedules: their rates by formula, resuming, what is refused."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from autodrop import AutoDrop
from paper_checks.training import Config, Dataset, resume_differences, schedules, train
from paper_checks.training.data import split
from paper_checks.training.hypergradient import Hypergradient
from paper_checks.training.schedules import SCHEDULES, Entry, Unavailable

EPOCHS, EPOCH = 20, 10
ALPHA = 0.5
INSTALLED = [
    name
    for name, entry in SCHEDULES.items()
    if entry.package is None or importlib.util.find_spec(entry.package)
]


def small() -> Dataset:
    """Two overlapping clouds, 48 samples to train, 12 to test: 7 updates an epoch."""
    rng = np.random.default_rng(1)
    y = np.arange(60) % 2
    return split("clouds", rng.normal(size=(60, 5)) + y[:, None], y)


SHORT = Config(epochs=6, batch_size=7, learning_rate=0.1, hidden=(6,), window=2)


def rates(name: str, losses: Callable[[int], float] = lambda epoch: 1.0, **settings: Any) -> Any:
    """The rate of each update of 20 epochs of 10."""
    p = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([p], ALPHA, momentum=0.9)
    config = Config(
        epochs=EPOCHS, learning_rate=ALPHA, schedule=name, settings=tuple(settings.items())
    )
    schedule = schedules.make(optimizer, config, EPOCH)
    seen = []
    for epoch in range(EPOCHS):
        for _ in range(EPOCH):
            seen.append(optimizer.param_groups[0]["lr"])
            p.grad = torch.zeros(3)
            optimizer.step()
            schedule.after_update()
        schedule.after_epoch(losses(epoch))
    return np.array(seen)


t = np.arange(EPOCHS * EPOCH)
FORMULAS = {
    "constant": np.full(200, ALPHA),
    "multistep": ALPHA * 0.2 ** sum((t >= s).astype(int) for s in (60, 120, 160)),
    "cosine": ALPHA * (1 + np.cos(np.pi * t / 200)) / 2,
    "exponential": ALPHA * 0.95 ** (t // EPOCH),
    "linear": ALPHA * np.where(t < 10, (1 + 9 * t / 10) / 10, (200 - t) / 190),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_rates_by_formula(name: str) -> None:
    # The library multiplies rates step by step: 200 roundings.
    assert rates(name) == pytest.approx(FORMULAS[name], rel=200 * 2.0**-52, abs=1e-15)


def test_the_other_settings() -> None:
    recipe = ALPHA * 0.1 ** sum((t >= s).astype(int) for s in (100, 150))
    assert rates("multistep", recipe=1) == pytest.approx(recipe, rel=1e-14)
    assert rates("exponential", gamma=0.5)[10] == 0.25
    assert np.argmax(rates("linear", warmup=0.2)) == 40
    assert np.argmax(rates("triangular2")) == 40  # half a cycle of 4 epochs
    assert np.argmax(rates("triangular2", cycles=5)) == 20


def test_cycles() -> None:
    onecycle = rates("onecycle")
    assert np.argmax(onecycle) == pytest.approx(0.3 * 200, abs=1)
    # The peak, at 59.3 updates, lies between two: (1 − cos(π/59.3/2))/2 = 1.8e-4 at most.
    assert ALPHA * (1 - 1.8e-4) <= onecycle.max() <= ALPHA
    assert onecycle[0] == pytest.approx(ALPHA / 25)
    triangular = rates("triangular2", cycles=5)
    peaks = triangular[[20, 60, 100, 140, 180]]
    above = peaks - 0.01 * ALPHA
    assert above == pytest.approx(0.99 * ALPHA * 0.5 ** np.arange(5))


def test_plateau_looks_at_the_loss() -> None:
    assert (rates("plateau", lambda epoch: -epoch) == ALPHA).all()
    stuck = rates("plateau", lambda epoch: 1.0)
    # Patience 10: the twelfth epoch without a better loss is the first that is one too many.
    assert np.flatnonzero(stuck < ALPHA)[0] == 12 * EPOCH
    assert stuck[-1] == pytest.approx(0.1 * ALPHA)


@pytest.mark.parametrize("name", INSTALLED)
def test_resuming_changes_no_bit(name: str) -> None:
    config = replace(SHORT, schedule=name, window=None)
    found = resume_differences(config, small(), (1, 7, 24, 41))
    assert all(different == () for different in found.values())


def test_resuming_with_moved_images() -> None:
    rng = np.random.default_rng(1)
    data = split("noise", rng.normal(size=(60, 4, 4)), np.arange(60) % 2)
    images = replace(data, image=(1, 4, 4))
    config = replace(SHORT, augment="shift", model="cnn", width=2, watch=False)
    assert not any(resume_differences(config, images, (1, 10, 24)).values())
    still = train(replace(config, augment="none"), images)
    assert "weights" in still.differences(train(config, images))


@pytest.mark.parametrize("lost", ["schedule", "moves", "losses"])
def test_a_checkpoint_that_lacks_anything_is_noticed(
    lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control."""
    from paper_checks.training import Run

    rng = np.random.default_rng(1)
    data = replace(split("noise", rng.normal(size=(60, 4, 4)), np.arange(60) % 2), image=(1, 4, 4))
    config = replace(
        SHORT, augment="shift", schedule="plateau", settings=(("patience", 0),), epochs=12
    )
    complete = Run.state_dict

    def incomplete(self: Run) -> dict[str, Any]:
        other = complete(Run(self.config, self.data))
        if lost == "moves":
            other["moves"] = torch.zeros_like(complete(self)["moves"])
        return {**complete(self), lost: other[lost]}

    monkeypatch.setattr(Run, "state_dict", incomplete)
    assert resume_differences(config, data, [31 if lost == "losses" else 45])


def test_autodrop_variants() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], 0.1)
    windows = {}
    for name in ("autodrop", "autodrop-64", "autodrop-arxiv"):
        made = schedules.make(optimizer, Config(schedule=name), 13).autodrop
        assert isinstance(made, AutoDrop)
        windows[name] = made.rule.window
        assert made.rule.policy.factor == (0.2 if name == "autodrop-arxiv" else 0.95)
    assert windows == {"autodrop": 2, "autodrop-64": 64, "autodrop-arxiv": 13}
    config = Config(schedule="autodrop", settings=(("buffer", 7),), factor=0.5)
    rule = schedules.make(optimizer, config, 13).autodrop.rule  # type: ignore[union-attr]
    assert (rule.detector.buffer, rule.policy.factor) == (7, 0.5)  # type: ignore[attr-defined]


def test_a_schedule_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        SCHEDULES,
        "halving",
        Entry(
            "halving",
            lambda optimizer, config, epoch: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
            "epoch",
        ),
    )
    record = train(replace(SHORT, schedule="halving"), small())
    assert record.curves.learning_rate[-1] == 0.1 / 8
    assert not resume_differences(replace(SHORT, schedule="halving"), small(), [24])[24]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="schedule must be one of"):
        Config(schedule="staircase")
    with pytest.raises(ValueError, match=r"optimizer must be one of \('sgd',\) for schedule"):
        Config(schedule="hypergradient", optimizer="adamw")
    with pytest.raises(ValueError, match=r"settings must fit schedule 'cosine', got \{'steps': 3"):
        train(replace(SHORT, schedule="cosine", settings=(("steps", 3),)), small())
    with pytest.raises(ValueError, match="augment 'shift' needs images"):
        train(replace(SHORT, augment="shift"), small())


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        SCHEDULES, "schedule-free", replace(SCHEDULES["schedule-free"], package="no_such_package")
    )

    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(Unavailable, match="the package schedulefree is needed"):
        train(replace(SHORT, schedule="schedule-free"), small())


def test_hypergradient_by_hand() -> None:
    """The same loop in NumPy; momentum and decay as torch has them."""
    a, α, μ, decay, β = np.array([1.0, 0.3]), 0.1, 0.9, 0.01, 1e-3
    p = torch.nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([p], α, momentum=μ, weight_decay=decay)
    Hypergradient(optimizer, β)
    x, u = np.array([2.0, -1.0]), None
    for _ in range(30):
        p.grad = torch.from_numpy(a * p.detach().numpy())
        optimizer.step()
        g = a * x + decay * x
        if u is not None:
            α = max(0.0, α + β * float(g @ u))
        u = g if u is None else μ * u + g
        x = x - α * u
        assert optimizer.param_groups[0]["lr"] == pytest.approx(α, rel=1e-12)
    assert p.detach().numpy() == pytest.approx(x, rel=1e-12)


def test_hypergradient_is_the_derivative_by_the_rate() -> None:
    """−⟨g, u⟩ = ∂L(x − αu)/∂α, by a central difference."""
    a, x, u, α, h = np.array([1.0, 3.0]), np.array([1.0, -2.0]), np.array([0.5, 1.0]), 0.1, 1e-4

    def loss(rate: float) -> float:
        return float(a @ (x - rate * u) ** 2 / 2)

    p = torch.nn.Parameter(torch.from_numpy(x - α * u))
    optimizer = torch.optim.SGD([p], α, momentum=0.5)
    optimizer.state[p]["momentum_buffer"] = torch.tensor(u)
    Hypergradient(optimizer, 1e-2)
    p.grad = torch.from_numpy(a * p.detach().numpy())
    optimizer.step()
    slope = (loss(α + h) - loss(α - h)) / (2 * h)
    # The loss is quadratic in α: the central difference is exact but for rounding, 1e-16/h.
    assert optimizer.param_groups[0]["lr"] == pytest.approx(α - 1e-2 * slope, abs=1e-11)


def test_hypergradient_refuses() -> None:
    params = [torch.nn.Parameter(torch.zeros(2))]
    with pytest.raises(TypeError, match="optimizer must be an SGD, got Adam"):
        Hypergradient(torch.optim.Adam(params))
    with pytest.raises(ValueError, match="momentum > 0"):
        Hypergradient(torch.optim.SGD(params, 0.1))
    for rate in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="rate must be finite and > 0"):
            Hypergradient(torch.optim.SGD(params, 0.1, momentum=0.9), rate)


def test_hypergradient_stops_at_zero() -> None:
    p = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([p], 3.0, momentum=0.1)
    Hypergradient(optimizer, 10.0)
    for _ in range(2):  # the first update overshoots: the gradients have opposite signs
        p.grad = p.detach().clone()
        optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0.0
