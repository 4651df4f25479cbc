"""What a benchmark leaves behind."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Result", "Row"]


@dataclass(frozen=True)
class Row:
    """One thing that was timed. Ratios are medians over the rounds of quotients within a round.

    samples: seconds in each round; seconds: their median.
    ratio: to the floor, a bare `torch._foreach_add_` of the same tensors.
    share: of a training step, which is forward and backward and the optimizer's step.
    traffic: bytes that it has to read and write at least; bandwidth: traffic per second over that
        of a plain copy.
    memory: bytes of state, in copies of the parameters.
    read_backs: times that the host reads a tensor in one call.
    """

    name: str
    label: str
    seconds: float
    ratio: float
    share: float
    traffic: int | None
    bandwidth: float | None
    memory: float | None
    read_backs: int
    samples: tuple[float, ...]


@dataclass(frozen=True)
class Result:
    """A finished benchmark.

    setup: what it was asked for; device: the device's name; threads: of torch on the CPU.
    parameters: how many, in `tensors` tensors.
    copy_bandwidth: bytes read and written per second by a copy of a large buffer.
    """

    setup: dict[str, Any]
    device: str
    torch: str
    threads: int
    batch: str
    parameters: int
    tensors: int
    copy_bandwidth: float
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row:
        """The row of that name; KeyError if there is none."""
        return {row.name: row for row in self.rows}[name]

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
        rows = tuple(Row(**{**row, "samples": tuple(row["samples"])}) for row in saved["rows"])
        return cls(**{**saved, "rows": rows})
