"""The claims on what AutoDrop costs and on what it runs: planted mistakes take the verdict away.

What clocks say is given to the check, so that no test depends on the time that anything takes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from autodrop import AngularVelocity, AutoDrop
from autodrop.detectors import GaussianSaturation
from paper_checks.claim import Context, Outcome, Verdict
from paper_checks.claims import section4_5_optimizers as optimizers
from paper_checks.claims import section6_1_cost as cost
from paper_checks.overhead import Estimate, Result, Setup, cases
from tests.paper_checks.plants import Plant, returning

TINY = Setup(width=2, batch=2, repeats=8, windows=7, threads=1, clock="cpu")
CLOCKS = ("share of a step", "one more forward pass", "whole loops")


@pytest.fixture(scope="module")
def tiny() -> Result:
    """A real measurement on a network so small that its times mean nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "_BUFFER", 2**12)
        return cost.measured(TINY)


@pytest.fixture(scope="module")
def counts() -> cost.Counted:
    return cost.counted()


def about(value: float) -> Estimate:
    return Estimate(value, 0.95 * value, 1.05 * value)


def given(
    result: Result,
    share: float = 0.009,
    forward: float = 0.3,
    loop: float = 1.01,
    control: float = 1.31,
    waits: tuple[int, int] | None = None,
) -> Result:
    """The result with other readings of the clocks."""
    changes: dict[str, dict[str, Any]] = {
        "autodrop": {"window_share": about(share)},
        "forward": {"share": about(forward)},
        "snapshot": {},
    }
    if waits is not None:
        changes["autodrop"]["waits"], changes["snapshot"]["waits"] = waits
    ratios = {"multistep": 1.0, "autodrop": loop, "control": control}
    return dataclasses.replace(
        result,
        rows=tuple(dataclasses.replace(row, **changes.get(row.name, {})) for row in result.rows),
        loops=tuple(
            dataclasses.replace(row, ratio=about(ratios[row.name])) for row in result.loops
        ),
    )


def check(monkeypatch: pytest.MonkeyPatch, result: Result) -> Outcome:
    monkeypatch.setattr(cost, "measured", lambda setup: result)
    return cost.computationally_cheap(Context(seed=1))


@pytest.mark.parametrize("waits", [None, (0, 1)], ids=["cpu", "cuda"])
def test_cheap_as_seen(
    tiny: Result, waits: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = check(monkeypatch, given(tiny, waits=waits))
    assert outcome.failed == ()
    assert outcome.verdict is Verdict.HOLDS
    assert len(outcome.routes) == 4
    # 8 rounds, and 21 iterations of three loops.
    assert outcome.cases == 8 + 3 * 21
    assert "batch of 11 or so" in outcome.summary


def test_on_a_real_measurement_all_that_is_counted_holds(
    tiny: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = check(monkeypatch, tiny)
    assert [loop.name for loop in tiny.loops] == ["multistep", "autodrop", "control"]
    by_clock = [fact for fact in outcome.facts if any(word in fact.name for word in CLOCKS)]
    assert len(by_clock) == 5
    assert all(fact.ok for fact in outcome.facts if fact not in by_clock)
    assert len(outcome.facts) == 14


@pytest.mark.parametrize(
    ("readings", "fact"),
    [
        pytest.param({"share": 0.06, "loop": 1.06}, "share of a step", id="above the limit"),
        pytest.param({"share": 0.051}, "share of a step", id="not surely below the limit"),
        pytest.param({"loop": 1.2}, "lower end of the 95 % interval", id="dear in whole loops"),
        pytest.param({"share": 0.5, "loop": 1.01}, "whole loops = single calls", id="routes apart"),
        pytest.param({"forward": 0.04}, "control, one more", id="blind to a forward pass"),
        pytest.param({"control": 1.02}, "control, the loop", id="loops blind to a forward pass"),
        pytest.param({"waits": (1, 1)}, "waits for the GPU", id="waits in every step"),
        pytest.param({"waits": (0, 0)}, "control: waits", id="blind to waits"),
    ],
)
def test_other_readings_turn_the_check_red(
    tiny: Result,
    counts: cost.Counted,
    readings: dict[str, Any],
    fact: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cost, "counted", lambda: counts)
    outcome = check(monkeypatch, given(tiny, **readings))
    assert outcome.verdict is Verdict.UNDECIDED
    assert any(fact in failed.name for failed in outcome.failed), outcome.reason


def test_what_is_measured() -> None:
    """A small network at quick, the real one at full and on a GPU; always Table 3's batch."""
    quick = cost.setup_of(Context())
    assert quick == Setup(width=8, batch=64, repeats=8, windows=7, threads=1, clock="cpu")
    full = cost.setup_of(Context("full"))
    assert full == dataclasses.replace(quick, width=None)
    # Refused only because this test needs no GPU.
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch finds 0 CUDA devices"):
            cost.setup_of(Context(device="cuda"))


def _with_an_operation(right: Any) -> Any:
    def update(self: AngularVelocity) -> float | None:
        torch.zeros(1, device="meta").add_(1)
        return right(self)

    return update


def _with_a_clone(right: Any) -> Any:
    def advance(self: AngularVelocity, skipped: torch.Tensor | None = None) -> bool:
        for p in self.params:
            p.clone()
        return right(self, skipped)

    return advance


def _with_a_copy(right: Any) -> Any:
    def init(self: AngularVelocity, params: Any, *args: Any, **options: Any) -> None:
        right(self, params, *args, **options)
        self.more = [p.detach().clone() for p in self.params]  # type: ignore[attr-defined]

    return init


def _nudging(right: Any) -> Any:
    def step(self: AutoDrop, epoch: int | None = None) -> None:
        with torch.no_grad():
            for group in self.optimizer.param_groups:
                for p in group["params"]:
                    p.mul_(1 + 2**-50)
        right(self, epoch)

    return step


def _twice(right: Any) -> Any:
    def step(self: AutoDrop, epoch: int | None = None) -> None:
        before = len(self.drops)
        right(self, epoch)
        if len(self.drops) > before:
            for group in self.optimizer.param_groups:
                group["lr"] *= 0.95

    return step


PLANTS = {
    "a scheduler that copies the parameters to the host": Plant(
        cost.computationally_cheap,
        cost,
        "autodrop",
        lambda right: cost.snapshots,
        "reads a number",
    ),
    "a scheduler that reads a number": Plant(
        cost.computationally_cheap, cost, "autodrop", lambda right: cost.norms, "reads a number"
    ),
    "reading is not seen": Plant(
        cost.computationally_cheap, cost, "reads", returning(lambda found: False), "reads a number"
    ),
    "one operation more in every step": Plant(
        cost.computationally_cheap,
        AngularVelocity,
        "update",
        _with_an_operation,
        "an ordinary step, plain sums",
    ),
    "a temporary copy in every step": Plant(
        cost.computationally_cheap, AngularVelocity, "advance", _with_a_clone, "bytes moved"
    ),
    "one copy more is kept": Plant(
        cost.computationally_cheap, AngularVelocity, "__init__", _with_a_copy, "scratch beyond"
    ),
    "one copy more is in the state": Plant(
        cost.computationally_cheap,
        AngularVelocity,
        "state_dict",
        returning(lambda state: state | {"more": torch.zeros(11_173_962, device="meta")}),
        "copies of the parameters kept",
    ),
    "a step of the network is thousandths of what it is": Plant(
        cost.computationally_cheap,
        cost,
        "operations_of_a_step",
        returning(lambda flops: flops // 1000),
        "elements touched",
    ),
    "the excess without its − 1": Plant(
        cost.computationally_cheap,
        cost,
        "excess",
        returning(lambda found: found + 1),
        "largest excess",
    ),
    "AutoDrop moves the parameters": Plant(
        optimizers.any_optimizer, AutoDrop, "step", _nudging, "iterates that AutoDrop changes"
    ),
    "angles of the first step": Plant(
        optimizers.any_optimizer,
        optimizers,
        "mean_steps",
        returning(lambda steps: steps[::-1]),
        "eq. (8) from the iterates",
    ),
    "a drop lowers the rate twice": Plant(
        optimizers.any_optimizer, AutoDrop, "step", _twice, "updates whose rate is not the rule's"
    ),
    "a detector that never fires": Plant(
        optimizers.any_optimizer,
        GaussianSaturation,
        "update",
        lambda right: lambda self, state, angle: (right(self, state, angle)[0], False),
        "SGD: drops",
    ),
    "a fourth line": Plant(
        optimizers.any_optimizer,
        optimizers,
        "WITH_AUTODROP",
        lambda right: right + "pass\n",
        "lines that a training loop gains",
    ),
    "an optimizer without Rprop's deafness": Plant(
        optimizers.any_optimizer,
        optimizers,
        "OPTIMIZERS",
        lambda right: {"Rprop": right["SGD"]},
        "optimizers that a drop does not change",
    ),
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_a_planted_mistake_turns_the_check_red(
    plant: Plant, tiny: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "measured", lambda setup: given(tiny))
    few = {name: optimizers.OPTIMIZERS[name] for name in ("SGD", "Rprop")}
    monkeypatch.setattr(optimizers, "OPTIMIZERS", few)
    monkeypatch.setattr(plant.owner, plant.name, plant.make(getattr(plant.owner, plant.name)))
    outcome = plant.check(Context())
    assert outcome.verdict is Verdict.UNDECIDED
    assert any(plant.fact in fact.name for fact in outcome.failed), outcome.reason


def test_any_optimizer_at_another_seed() -> None:
    outcome = optimizers.any_optimizer(Context(seed=1))
    assert outcome.failed == ()
    assert outcome.verdict is Verdict.CORRECTED


def test_every_optimizer_of_torch_is_there() -> None:
    kinds = {kind for kind, _ in optimizers.OPTIMIZERS.values()}
    exported = {
        name
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    }
    assert exported - {"Optimizer"} <= kinds


def test_reads_lets_other_errors_pass() -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        cost.reads(lambda optimizer, params: broken)
