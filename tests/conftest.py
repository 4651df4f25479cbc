"""Hypothesis profiles: HYPOTHESIS_PROFILE=dev (default), ci (the same examples every time), or
nightly (random, 5000 examples for each property)."""

import os

from hypothesis import settings

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("nightly", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
