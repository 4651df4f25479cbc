"""A rule that decides on the device: angle, saturation, drop and new rates, never read back.

    rule = DeviceRule(Rule(64), groups=1, device="cuda")
    rule.observe(products)         # where a window ended
    record = rule.act([rate])      # where the rule acts; the rates are lowered in place

The same rule as `autodrop.rules`, `detectors` and `policy` have it, written as arithmetic on
tensors: both sides of every decision are computed and one is selected, so that the host need not
know which. Its state goes to and comes from the host's `RuleState`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch

from autodrop.angle import LEAST_SQUARE, ROUNDING
from autodrop.detectors import (
    GaussianSaturation,
    GaussianState,
    MovingAverageSaturation,
    MovingAverageState,
    ThresholdSaturation,
    ThresholdState,
)
from autodrop.rules import Rule, RuleState

__all__ = ["DeviceRecord", "DeviceRule", "Lost"]

Lost = Literal["not finite", "still"]

# math.degrees is a product with this number.
_DEGREES = 180.0 / math.pi
# How `lost` is written as a number; the last one is an error.
_LOST: tuple[Lost | None, ...] = (None, "not finite", "still")
_UNSOUND = 3

# The state is one vector of float64: these numbers, then the angles that the detector remembers,
# the last one at the end. nan stands for None.
_KNOWN, _WAITED, _THRESHOLD, _ANGLE, _LOST_AS, _COUNT, _SMOOTHED = range(7)
_NUMBERS = 7


class DeviceRecord(NamedTuple):
    """What a decision was, on the host.

    angle: of the last window observed, in radians; None if it had none.
    lost: why it had none: "not finite", "still" (the mean did not move), or None, which it also is
        for an angle and for the first two windows.
    drop: whether the rule lowered the rates; at their floors they stay as they are all the same.
    old_lr, new_lr: the rate of each group before and after, as its tensor has it.
    """

    angle: float | None
    lost: Lost | None
    drop: bool
    old_lr: tuple[float, ...]
    new_lr: tuple[float, ...]

    @classmethod
    def unpack(cls, values: Sequence[float]) -> DeviceRecord:
        """From the numbers of a record of `DeviceRule.act`, copied to the host.

        Raises ValueError if they say that the products were no inner products.
        """
        angle, lost, drop, *rates = values
        if lost == _UNSOUND:
            raise ValueError(
                "uv must satisfy |uv| <= sqrt(uu * vv), got products on the device that do not"
            )
        groups = len(rates) // 2
        return cls(
            None if math.isnan(angle) else angle,
            _LOST[int(lost)],
            bool(drop),
            tuple(rates[:groups]),
            tuple(rates[groups:]),
        )


class DeviceRule:
    """`rule`, decided where its numbers are: `observe` and `act` never wait for the device.

    rule: with a detector of `autodrop.detectors`, and without averages.
    groups: the number of rates.
    device: where the products and the rates are.

    State and arithmetic are float64, rates of any floating dtype. The decisions are those of
    `Rule.observe` and `Rule.act` on the angles of `AngularVelocity`, but for how the device rounds
    sums, exp and atan2. Everything but `observe` and `act` may wait for the device. All state has
    one address for good: both can be captured in a CUDA graph.

    Raises ValueError for a rule with averages and unless there is a floor for each group, TypeError
    for another detector.
    """

    def __init__(self, rule: Rule, groups: int, device: torch.device | str) -> None:
        if rule.policy.average:
            raise ValueError("average must be False for a rule that decides on the device")
        detector = rule.detector
        # By type: a derived class may have another `update`.
        if type(detector) is GaussianSaturation:
            self._slots = detector.buffer - 1
        elif type(detector) is MovingAverageSaturation:
            self._slots = detector.length
        elif type(detector) is ThresholdSaturation:
            self._slots = 1
        else:
            raise TypeError(
                "detector must be a GaussianSaturation, MovingAverageSaturation or "
                f"ThresholdSaturation for a rule that decides on the device, got {detector!r}"
            )
        self.rule = rule
        self._detector: Any = detector
        self._absolute = getattr(detector, "test", "absolute") == "absolute"
        # A tensor, since CUDA divides by a number as it multiplies with the rounded reciprocal.
        self._factor = torch.tensor(rule.policy.factor, dtype=torch.float64, device=device)
        self._ages = torch.arange(self._slots, -1, -1, dtype=torch.float64, device=device)
        self._state = torch.zeros(_NUMBERS + self._slots, dtype=torch.float64, device=device)
        self._set_groups(groups)
        self.load(rule.init())

    @torch.no_grad()
    def observe(self, products: torch.Tensor) -> None:
        """One more window: (⟨u,u⟩, ⟨v,v⟩, ⟨u,v⟩), float64 of shape (3,); the detector sees ω.

        u is the step of the mean to this window, v the one before it. As in `AngularVelocity`, the
        first two windows have no angle, nor has one in which the mean is not finite or did not
        move, after which tracking starts afresh.
        """
        (known, waited, θ, _, _, count, smoothed), before = self._parts()
        uu, vv, uv = products.unbind()

        finite = torch.isfinite(uu)
        moved = (uu > LEAST_SQUARE) | (known == 0)
        ready = finite & moved & (known == 2)
        c = uv / (uu.sqrt() * vv.sqrt())
        sound = (c.abs() <= 1.0 + ROUNDING) & (vv < math.inf)
        seen = ready & sound
        lost = torch.zeros_like(uu).masked_fill(ready & sound.logical_not(), _UNSOUND)
        lost = lost.masked_fill(moved.logical_not(), _LOST.index("still"))
        lost = lost.masked_fill(finite.logical_not(), _LOST.index("not finite"))
        ω = _angle(c).masked_fill(seen.logical_not(), math.nan)
        known = (known + 1.0).clamp(max=2.0).masked_fill(lost > 0, 0.0)

        B = torch.cat((before, ω.reshape(1)))
        oldest, rest = B.split((1, self._slots))
        full = count == self._slots
        if isinstance(self._detector, GaussianSaturation):
            C = self._smooth(B, ω)
            change = C - smoothed
            smoothed = torch.where(seen & full, C, smoothed)
        else:
            change = (ω - oldest.squeeze()) / self._slots
        # nan, which is below nothing, where there is no angle or none before it.
        degrees = change * _DEGREES
        saturated = full & ((degrees.abs() if self._absolute else degrees) < θ)
        angles = torch.where(seen, rest, before)
        count = (count + seen.double()).clamp(max=float(self._slots))
        if not isinstance(self._detector, ThresholdSaturation):
            count = count.masked_fill(saturated, 0.0)
            smoothed = smoothed.masked_fill(saturated, math.nan)

        idle = ((waited > 0) | saturated).logical_not()
        waited = (waited + 1.0).masked_fill(idle, 0.0)
        numbers = torch.stack((known, waited, θ, ω, lost, count, smoothed))
        torch.cat((numbers, angles), out=self._state)

    @torch.no_grad()
    def act(self, rates: Sequence[torch.Tensor]) -> torch.Tensor:
        """Lower the rates in place if the waiting time is over; the record, see `DeviceRecord`.

        rates: for each group its rate α, a tensor without dimensions. Each becomes
        max(min_lr, factor·α) if it was above its min_lr, computed in float64. Returns a new
        float64 tensor of shape (3 + 2·groups,) on the device, for `DeviceRecord.unpack`.

        Groups may share one tensor, as those that take the optimizer's default do.

        Raises TypeError or ValueError unless rates are as many such tensors on this device, and
        for a shared one with several floors.
        """
        self._check(rates)
        policy = self.rule.policy
        (_, waited, θ, ω, lost, _, _), _ = self._parts()
        drop = waited >= max(policy.wait, 1)

        old = _stacked(rates)
        lower = drop & (old > self._floors)
        new = torch.where(lower, torch.maximum(self._floors, self._factor * old), old)
        for α, lowered in zip(rates, new.unbind(), strict=True):
            α.fill_(lowered)
        # Read again: a rate of a narrower dtype has rounded what it was given.
        record = torch.cat((torch.stack((ω, lost, drop.double())), old, _stacked(rates)))

        if policy.max_threshold is not None:
            grown = (θ / self._factor).clamp(max=policy.max_threshold)
            θ.fill_(torch.where(drop, grown, θ))
        waited.masked_fill_(drop, 0.0)
        return record

    def forget(self, groups: int) -> None:
        """As before any window, but for a threshold that has grown; the rates are now `groups`.

        Raises ValueError unless there is a floor for each.
        """
        self._set_groups(groups)
        self.load(self.rule.forget(self.export()[0]))

    def export(self) -> tuple[RuleState, int, float | None]:
        """The host's state, how many windows are remembered (0, 1, 2), the last window's angle.

        The angle is in radians, None if that window had none.
        """
        numbers = self._state.tolist()
        angles = tuple(numbers[len(numbers) - int(numbers[_COUNT]) :])
        memory: Any
        if isinstance(self._detector, GaussianSaturation):
            memory = GaussianState(angles, _or_none(numbers[_SMOOTHED]))
        elif isinstance(self._detector, MovingAverageSaturation):
            memory = MovingAverageState(angles)
        else:
            memory = ThresholdState(*angles)
        grows = self.rule.policy.max_threshold is not None
        threshold = numbers[_THRESHOLD] if grows else None
        state = RuleState(memory, threshold, int(numbers[_WAITED]))
        return state, int(numbers[_KNOWN]), _or_none(numbers[_ANGLE])

    def load(self, state: RuleState, known: int = 0, angle: float | None = None) -> None:
        """Go on from a state of the same rule, on the host or from `export`.

        known: how many windows are remembered, 0, 1 or 2. angle: of the last window, in radians,
        for the record alone.

        Raises TypeError for another detector's memory, ValueError for one that is too long and for
        known out of range.
        """
        memory = state.memory
        if type(memory) is not type(self._detector.init()):
            raise TypeError(
                f"memory must be a {type(self._detector.init()).__name__}, got {memory!r}"
            )
        if isinstance(memory, ThresholdState):
            angles = () if memory.previous is None else (memory.previous,)
        else:
            angles = memory.angles
        if len(angles) > self._slots:
            raise ValueError(f"memory must hold at most {self._slots} angles, got {len(angles)}")
        if known not in (0, 1, 2):
            raise ValueError(f"known must be 0, 1 or 2, got {known!r}")
        θ = self._detector.threshold if state.threshold is None else state.threshold
        smoothed = getattr(memory, "smoothed", None)
        numbers = [
            float(known),
            float(state.waited),
            θ,
            _or_nan(angle),
            0.0,
            float(len(angles)),
            _or_nan(smoothed),
        ]
        padding = [0.0] * (self._slots - len(angles))
        self._state.copy_(torch.tensor([*numbers, *padding, *angles], dtype=torch.float64))

    def _parts(self) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Views of the state's numbers and of its angles; not kept, since a pickle parts them."""
        numbers, angles = self._state.split((_NUMBERS, self._slots))
        return numbers.unbind(), angles

    def _set_groups(self, groups: int) -> None:
        self._floor_of = self.rule.policy.floors(groups)
        self._floors = torch.tensor(self._floor_of, dtype=torch.float64, device=self._state.device)

    def _smooth(self, B: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """`GaussianSaturation.smooth`."""
        m = len(B)
        D = B - last
        std = (D - D.mean()).square().mean().sqrt() * _DEGREES
        σ = std.clamp(max=m / 2)
        d = (self._ages if self._detector.smoothing == "time" else D * _DEGREES) / σ
        K = torch.exp(-0.5 * d * d)
        # 0/0 at σ = 0, whose limit is the last angle.
        return last + ((K * D).sum() / K.sum()).masked_fill(σ == 0, 0.0)

    def _check(self, rates: Sequence[torch.Tensor]) -> None:
        if len(rates) != len(self._floor_of):
            raise ValueError(f"rates must be of {len(self._floor_of)} groups, got {len(rates)}")
        first: dict[int, int] = {}
        for i, α in enumerate(rates):
            if not isinstance(α, torch.Tensor):
                raise TypeError(f"rate {i} must be a tensor, got {α!r}")
            if α.dim() or not α.is_floating_point():
                raise ValueError(
                    f"rate {i} must be floating point without dimensions, got shape "
                    f"{tuple(α.shape)}, {α.dtype}"
                )
            if α.device != self._state.device:
                raise ValueError(
                    f"rate {i} must be on {self._state.device}, where it is decided, got {α.device}"
                )
            j = first.setdefault(id(α), i)
            if self._floor_of[i] != self._floor_of[j]:
                raise ValueError(
                    f"rates {j} and {i} must be two tensors to have two floors, got one for "
                    f"{self._floor_of[j]!r} and {self._floor_of[i]!r}"
                )


def _angle(c: torch.Tensor) -> torch.Tensor:
    """`angle_from_products`."""
    c = c.clamp(-1.0, 1.0)
    ω = 2.0 * torch.atan2((2.0 - 2.0 * c).sqrt(), (2.0 + 2.0 * c).sqrt())
    return ω.clamp(max=math.pi)  # the rounding of a device's atan2 may lead beyond


def _stacked(rates: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([α.detach().double() for α in rates])


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number


def _or_nan(number: float | None) -> float:
    return math.nan if number is None else number
