"""Real training runs with AutoDrop; ``python -m paper_checks.training`` for the command line."""

from paper_checks.training.config import Config
from paper_checks.training.data import Dataset, load_digits, load_npz
from paper_checks.training.fixed_rates import angle_at_fixed_rates
from paper_checks.training.record import Curves, Record
from paper_checks.training.resume import resume_differences, resume_is_identical
from paper_checks.training.run import Diverged, Run, train

__all__ = [
    "Config",
    "Curves",
    "Dataset",
    "Diverged",
    "Record",
    "Run",
    "angle_at_fixed_rates",
    "load_digits",
    "load_npz",
    "resume_differences",
    "resume_is_identical",
    "train",
]
