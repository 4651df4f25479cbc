"""Whether an optimizer really made an update, in spite of overflow, accumulation and wrappers."""

from __future__ import annotations

import weakref
from typing import Any, Literal, get_args

from torch.optim import Optimizer

from autodrop.warning import warn

__all__ = ["CallCounter", "Count", "UpdateCounter", "make_counter"]

Count = Literal["updates", "calls"]


def make_counter(optimizer: Optimizer, count: Count) -> UpdateCounter | CallCounter:
    """The counter of that name; ValueError for another name."""
    if count not in get_args(Count):
        raise ValueError(f"count must be one of {get_args(Count)}, got {count!r}")
    return UpdateCounter(optimizer) if count == "updates" else CallCounter()


class CallCounter:
    """Every call counts: for steps that no hook sees, such as replays of a CUDA graph."""

    def take(self, optimizer: Optimizer) -> bool:
        """True."""
        return True


class UpdateCounter:
    """Sees `optimizer.step` through a hook; `take` says whether it moved since the last `take`.

    A step that `torch.amp.GradScaler` skips does not count: it does not reach the optimizer, or,
    for fused optimizers, arrives with `found_inf` set, which is then read (a wait for the device,
    with fused optimizers under a scaler only). Steps that were gradients' accumulation have no
    `optimizer.step`, and several of them before one `take` count once.

    Hooks are lost when an optimizer is pickled or copied; `take` notices, renews the hook, warns
    (RuntimeWarning) and counts.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._moved = False
        self._attach(optimizer)

    def _attach(self, optimizer: Optimizer) -> None:
        this = weakref.ref(self)

        def note(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[Any, Any]) -> None:
            counter = this()
            if counter is not None:
                found_inf = getattr(optimizer, "found_inf", None)
                counter._moved |= found_inf is None or not bool(found_inf)

        # The id alone: the handle itself cannot be pickled along with a scheduler.
        self._hook = optimizer.register_step_post_hook(note).id

    def take(self, optimizer: Optimizer) -> bool:
        """Whether the optimizer made an update since the last call; then it starts to look anew."""
        if self._hook not in optimizer._optimizer_step_post_hooks:
            warn(
                "the optimizer has lost AutoDrop's hook, as copies and pickles do: it is renewed, "
                "and this call counts as an update"
            )
            self._attach(optimizer)
            return True
        moved, self._moved = self._moved, False
        return moved
