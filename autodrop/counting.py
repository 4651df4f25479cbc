"""Whether an optimizer really made an update, in spite of overflow, accumulation and wrappers."""

from __future__ import annotations

import weakref
from typing import Any, Literal, get_args

import torch
from torch.optim import Optimizer

from autodrop.warning import warn

__all__ = ["CallCounter", "Count", "UpdateCounter", "make_counter"]

Count = Literal["updates", "calls"]


def make_counter(optimizer: Optimizer, count: Count) -> UpdateCounter | CallCounter:
    """The counter of that name; ValueError for another name."""
    if count not in get_args(Count):
        raise ValueError(f"count must be one of {get_args(Count)}, got {count!r}")
    return UpdateCounter(optimizer) if count == "updates" else CallCounter()


_NEVER, _CROWDED = 200, 3  # calls

# Where reading a number waits for nothing.
_AT_HAND = ("cpu",)


class CallCounter:
    """Counts every call: for updates that reach no hook, as those that a CUDA graph replays.

    Whoever calls must see to it that each call follows one update: a step that a `GradScaler`
    skips counts as well.
    """

    def take(self, optimizer: Optimizer) -> bool:
        """True."""
        return True


class UpdateCounter:
    """Sees `optimizer.step` through a hook; `take` says whether it moved since the last `take`.

    A step that `torch.amp.GradScaler` skips does not count: it does not reach the optimizer, or,
    for fused optimizers, arrives with `found_inf` set. Where that number is on another device it is
    handed on instead of read. Steps that were gradients' accumulation have no `optimizer.step`, and
    several of them before one `take` count once.

    The optimizer may be a wrapper that holds torch's own as `.optimizer`, as Accelerate's does.

    Hooks are lost when an optimizer is pickled or copied; `take` notices, renews the hook, warns
    (RuntimeWarning) and counts. It warns once of several updates at each of three calls in a row,
    which is what a call for each epoch looks like, and of an optimizer that made none in 200 calls.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._moved = False
        self._found: torch.Tensor | None = None
        self._steps = 0  # since the last call
        self._crowded = 0  # calls in a row with several of them
        self._idle: int | None = 0  # calls before the first update
        self._attach(optimizer)

    def _attach(self, optimizer: Optimizer) -> None:
        this = weakref.ref(self)

        def note(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[Any, Any]) -> None:
            counter = this()
            if counter is not None:
                counter._note(getattr(optimizer, "found_inf", None))

        # Not traced by torch.compile, which would recompile when the flag changes. The id alone:
        # the handle itself cannot be pickled along with a scheduler.
        untraced = torch.compiler.disable(note)
        self._hook = _hooked(optimizer).register_step_post_hook(untraced).id

    def _note(self, found_inf: torch.Tensor | None) -> None:
        self._steps += 1
        if found_inf is None:
            self._moved = True
        elif found_inf.device.type in _AT_HAND:
            self._moved |= not bool(found_inf)
        else:
            # Skipped only if every step was; found_inf counts infinities.
            skipped = found_inf.detach().reshape(()).clamp(max=1.0)
            self._found = skipped if self._found is None else self._found * skipped

    def take(self, optimizer: Optimizer) -> bool | torch.Tensor:
        """Whether the optimizer made an update since the last call; then it starts to look anew.

        A tensor of one element, on another device, where only that knows: 1 if it made none, 0 if
        it made one.
        """
        if self._hook not in _hooked(optimizer)._optimizer_step_post_hooks:
            warn(
                "the optimizer has lost AutoDrop's hook, as copies and pickles do: it is renewed, "
                "and this call counts as an update"
            )
            self._attach(optimizer)
            return True
        self._watch(optimizer)
        moved, self._moved = self._moved, False
        found, self._found = self._found, None
        return moved if moved or found is None else found

    def _watch(self, optimizer: Optimizer) -> None:
        """Warn of two ways to call that are hardly meant."""
        steps, self._steps = self._steps, 0
        if steps:
            self._idle = None
        elif self._idle is not None:
            self._idle += 1
            if self._idle == _NEVER:
                warn(
                    f"step was called {_NEVER} times without an update of its optimizer, a "
                    f"{type(optimizer).__name__}: was another one made after the scheduler?"
                )
        if self._crowded < _CROWDED:
            self._crowded = self._crowded + 1 if steps > 1 else 0
            if self._crowded == _CROWDED:
                warn(
                    f"{steps} updates of the optimizer between two calls of step, and several "
                    "before: AutoDrop counts them as one; call step after every update, not once "
                    "an epoch"
                )


def _hooked(optimizer: Any) -> Optimizer:
    """The optimizer that has hooks: wrappers are Optimizers by class, but were never set up."""
    while not hasattr(optimizer, "_optimizer_step_post_hooks"):
        optimizer = optimizer.optimizer
    return optimizer
