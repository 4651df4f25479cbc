"""What a benchmark leaves behind."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paper_checks.overhead.statistics import Estimate

__all__ = ["LoopRow", "Result", "Row"]


@dataclass(frozen=True)
class Row:
    """One call that was timed. Ratios are medians over the rounds of quotients within a round.

    samples: seconds in each round, on CUDA of the device; seconds: their median.
    launch: seconds of the host, median; on the CPU the same.
    ratio: to the floor, a bare `torch._foreach_add_` of the same tensors.
    share: of a training step, which is forward and backward and the optimizer's step.
    window_ratio, window_share: ratio and share of the mean call over a window, its end included;
        None for what knows no windows.
    traffic: bytes that it has to read and write at least; bandwidth: traffic per second over that
        of an in-place addition in one large buffer.
    memory: bytes of its state on the device of the parameters; held: of all that it keeps, scratch
        included; peak: of what exists on top of that at some time during the call. All in copies
        of the parameters.
    moved: what its operations read and write, in copies of the parameters.
    operations: calls of torch's kernels; read_backs: times that the host reads a tensor; waits:
        times that the host waits for a GPU, on CUDA.
    faults: page faults, median; None on CUDA and on Windows.
    """

    name: str
    label: str
    seconds: float
    launch: float
    ratio: Estimate
    share: Estimate
    window_ratio: Estimate | None
    window_share: Estimate | None
    traffic: int | None
    bandwidth: float | None
    memory: float | None
    held: float | None
    peak: float
    moved: float
    operations: int
    read_backs: int
    waits: int | None
    faults: float | None
    samples: tuple[float, ...]


@dataclass(frozen=True)
class LoopRow:
    """One training loop.

    seconds: per iteration, at windows of the setup's length; ratio: of an iteration to one of the
        first loop, paired. The rest: see `loops.Times`.
    """

    name: str
    label: str
    seconds: float
    ratio: Estimate
    ordinary: tuple[float, ...]
    ends: tuple[float, ...]
    end_share: float


@dataclass(frozen=True)
class Result:
    """A finished benchmark.

    setup: what it was asked for; device: the device's name; threads: of torch on the CPU.
    parameters: how many, in `tensors` tensors.
    bandwidth: bytes read and written per second by an in-place addition in one large buffer.
    """

    setup: dict[str, Any]
    device: str
    torch: str
    threads: int
    batch: str
    parameters: int
    tensors: int
    bandwidth: float
    rows: tuple[Row, ...]
    loops: tuple[LoopRow, ...]

    @property
    def device_kind(self) -> str:
        """cpu or cuda."""
        return str(self.setup["device"]).partition(":")[0]

    def row(self, name: str) -> Row:
        """The row of that name; KeyError if there is none."""
        return {row.name: row for row in self.rows}[name]

    def loop(self, name: str) -> LoopRow:
        """The loop of that name; KeyError if there is none."""
        return {loop.name: loop for loop in self.loops}[name]

    def write_json(self, path: Path) -> None:
        """Write it; the file is never half written, and NaN is an error."""
        temporary = path.with_name(path.name + ".part")
        text = json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)

    @classmethod
    def read_json(cls, path: Path) -> Result:
        """The result that `write_json` wrote."""
        saved = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(_restored(Row, row) for row in saved["rows"])
        loops = tuple(_restored(LoopRow, row) for row in saved["loops"])
        return cls(**{**saved, "rows": rows, "loops": loops})


def _restored(kind: type[Any], saved: dict[str, Any]) -> Any:
    """A row from its JSON: lists were tuples, and objects estimates."""
    fields = {
        name: tuple(value)
        if isinstance(value, list)
        else Estimate(**value)
        if isinstance(value, dict)
        else value
        for name, value in saved.items()
    }
    return kind(**fields)
