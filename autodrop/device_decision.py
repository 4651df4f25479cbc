"""The learning rates of an optimizer, lowered by the device itself at the end of a window."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch.optim import Optimizer

from autodrop.device_rules import DeviceRecord, DeviceRule
from autodrop.momentum import Momentum, change_momentum
from autodrop.rules import Rule, RuleState
from autodrop.tensor_rates import check_tensor_rates

__all__ = ["DeviceDecision"]


class DeviceDecision:
    """One `DeviceRule` for all parameter groups, or one for each with per_group.

    rule: for windows that are means. device: that of the products, and of the rates. momentum: what
    a drop does to it.

    Raises TypeError or ValueError for rules and for optimizers that cannot: see `DeviceRule` and
    `check_tensor_rates`.
    """

    def __init__(
        self,
        rule: Rule,
        optimizer: Optimizer,
        device: torch.device,
        per_group: bool,
        momentum: Momentum,
    ) -> None:
        check_tensor_rates(optimizer)
        self._optimizer, self._momentum = optimizer, momentum
        groups = range(len(optimizer.param_groups))
        floors = rule.policy.floors(len(groups))
        self._rules: list[tuple[DeviceRule, Sequence[int]]] = [
            (DeviceRule(rule, len(groups), device), groups)
        ]
        if per_group:
            self._rules = [
                (
                    DeviceRule(
                        dataclasses.replace(
                            rule, policy=dataclasses.replace(rule.policy, min_lr=floors[number])
                        ),
                        1,
                        device,
                    ),
                    [number],
                )
                for number in groups
            ]

    def decide(self, products: torch.Tensor) -> torch.Tensor:
        """A window ended with these products of each rule's parameters: (rules, ≥ 3), float64.

        Observes, acts, lowers the rates and changes the momentum; the records, end to end.
        """
        records = []
        for (rule, numbers), row in zip(self._rules, products.unbind(), strict=True):
            groups = [self._optimizer.param_groups[number] for number in numbers]
            rates = [group["lr"] for group in groups]
            rule.observe(row.narrow(0, 0, 3))
            record = rule.act(rates)
            records.append(record)
            if self._momentum != "keep":
                old, new = record.split((3, len(groups), len(groups)))[1:]
                for group, ratio in zip(groups, (old / new).unbind(), strict=True):
                    change_momentum(self._optimizer, group, self._momentum, ratio)
        return torch.cat(records)

    def told(
        self, numbers: Sequence[float]
    ) -> Iterator[tuple[int, tuple[float, ...], tuple[float, ...]]]:
        """For each rule its number and all rates before and after it, from `decide`'s vector."""
        records, start = [], 0
        for _, groups in self._rules:
            end = start + 3 + 2 * len(groups)
            records.append(DeviceRecord.unpack(numbers[start:end]))
            start = end
        rates = [α for record in records for α in record.old_lr]
        for i, ((_, groups), record) in enumerate(zip(self._rules, records, strict=True)):
            old = tuple(rates)
            for number, α in zip(groups, record.new_lr, strict=True):
                rates[number] = α
            yield i, old, tuple(rates)

    def states(self) -> list[RuleState]:
        """The state of each rule as the host has it. Waits for the device."""
        return [rule.export()[0] for rule, _ in self._rules]

    def known(self) -> list[int]:
        """How many windows each rule remembers. Waits for the device."""
        return [rule.export()[1] for rule, _ in self._rules]

    def load(self, states: Sequence[RuleState], known: Sequence[int]) -> None:
        """Go on from `states` and `known`."""
        for (rule, _), state, windows in zip(self._rules, states, known, strict=True):
            rule.load(state, windows)
