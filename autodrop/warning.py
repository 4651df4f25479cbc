"""Warnings that point at the line of the user's program."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]

# torch stands between where its SequentialLR or ChainedScheduler calls AutoDrop.
_SKIPPED = ("autodrop", "torch")


def warn(message: str) -> None:
    """A RuntimeWarning at the innermost line outside of autodrop and torch.

    A constant stacklevel cannot tell direct use of `AngularVelocity` from use through `AutoDrop`.
    """
    level, frame = 1, sys._getframe().f_back
    while frame is not None:
        level += 1
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _SKIPPED:
            break
        frame = frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)
