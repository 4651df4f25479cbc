"""What watching the angular velocity costs; ``python -m paper_checks.overhead`` for the table."""

from paper_checks.overhead.counting import Counts, count, live_bytes
from paper_checks.overhead.loops import LOOPS, Loop
from paper_checks.overhead.result import LoopRow, Result, Row
from paper_checks.overhead.run import measure
from paper_checks.overhead.setup import Setup
from paper_checks.overhead.statistics import Estimate

__all__ = [
    "LOOPS",
    "Counts",
    "Estimate",
    "Loop",
    "LoopRow",
    "Result",
    "Row",
    "Setup",
    "count",
    "live_bytes",
    "measure",
]
