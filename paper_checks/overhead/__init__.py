"""What watching the angular velocity costs; ``python -m paper_checks.overhead`` for the table."""

from paper_checks.overhead.result import Result, Row
from paper_checks.overhead.run import measure
from paper_checks.overhead.setup import Setup

__all__ = ["Result", "Row", "Setup", "measure"]
