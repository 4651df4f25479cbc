"""The motion of live parameters, on their own devices: how far a sample of them gets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from autodrop.motion import COPIES, LAGS, Plan
from autodrop.sources import Source

__all__ = ["Displacements"]


class Displacements:
    """Probe and snapshots, see `autodrop.motion`, of the vectors x of `sources`.

    Call `note` after every update and `close` at a window's end; neither waits for a device.

    plan: for the next window's end. counts: terms of each lag's sum since the last `close`. ready:
    whether the copies are those that plans refer to; False after `forget`, until a plan restarts.
    """

    sample = 2**18
    """Coordinates to follow, up to rounding; all of them in a smaller model."""
    entries = 1 + len(LAGS)
    """The numbers of one window: ‖x − x_u‖², then a sum for each lag."""

    def __init__(self, sources: Sequence[Source], device: torch.device) -> None:
        self.sources = tuple(source for source in sources if source.size)
        self._device = device
        self.anchor = [source.read().clone() for source in self.sources]
        self.snapshots = [[x.clone() for x in self.anchor] for _ in range(COPIES)]
        self._sums = torch.zeros(len(LAGS), dtype=torch.float64, device=device)
        self.forget()

    def forget(self) -> None:
        """Nothing that was measured or kept is of use."""
        self.age = 0
        self.counts = [0] * len(LAGS)
        self._sums.zero_()
        self.plan = Plan(restart=True)
        self.ready = False

    def note(self) -> None:
        """One update of the parameters."""
        self.age += 1
        if self.age not in LAGS:
            return
        i = LAGS.index(self.age)
        self._sums.narrow(0, i, 1).add_(self._square(self.anchor))
        self.counts[i] += 1
        if self.age == LAGS[-1]:
            self._keep(self.anchor)
            self.age = 0

    def close(self) -> torch.Tensor:
        """Follow the plan at a window's end; its `entries` numbers, float64, on the device.

        The first is nan where the plan has nothing to compare.
        """
        plan, self.plan = self.plan, Plan()
        displacement = self._sums.new_full((1,), math.nan)
        if plan.compare is not None:
            displacement = self._square(self.snapshots[plan.compare]).reshape(1)
        numbers = torch.cat((displacement, self._sums))
        self._sums.zero_()
        if plan.store is not None:
            self._keep(self.snapshots[plan.store])
        if plan.restart:
            self._keep(self.anchor)
            self.age = 0
            self.ready = True
        return numbers

    def take_counts(self) -> tuple[int, ...]:
        """The counts, which start again at 0."""
        counts, self.counts = tuple(self.counts), [0] * len(LAGS)
        return counts

    def copies(self) -> Iterable[tuple[str, list[torch.Tensor]]]:
        """The vectors of the state, aliased, under their names."""
        yield "anchor", self.anchor
        for i, snapshot in enumerate(self.snapshots):
            yield f"snapshot{i}", snapshot

    def state(self) -> dict[str, object]:
        """All but the copies; waits for the device."""
        return {
            "age": self.age,
            "ready": self.ready,
            "counts": list(self.counts),
            "sums": self._sums.tolist(),
            "plan": [-1 if slot is None else int(slot) for slot in self.plan],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`, the copies being what they were."""
        self.age = state["age"]
        self.counts = list(state["counts"])
        self._sums.copy_(torch.tensor(state["sums"], dtype=torch.float64))
        compare, store, restart = state["plan"]
        self.plan = Plan(
            None if compare < 0 else compare, None if store < 0 else store, bool(restart)
        )
        self.ready = state["ready"]

    def _square(self, since: Sequence[torch.Tensor]) -> torch.Tensor:
        """Σ ‖x − since‖² over the vectors that count here, for all coordinates by the sample's."""
        found: dict[torch.device, list[torch.Tensor]] = {}
        for source, then in zip(self.sources, since, strict=True):
            if source.owned:
                d = source.read().double() - then
                square = d.dot(d) * (source.population / source.size)
                found.setdefault(source.device, []).append(square)
        total = self._sums.new_zeros(())
        for squares in found.values():
            total = total + torch.stack(squares).sum().to(self._device, non_blocking=True)
        return total

    def _keep(self, home: Sequence[torch.Tensor]) -> None:
        for source, vector in zip(self.sources, home, strict=True):
            vector.copy_(source.read())
