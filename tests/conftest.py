"""Hypothesis profiles: HYPOTHESIS_PROFILE=dev (default), ci (the same examples every time), or
nightly (random, 5000 examples for each property). Tests marked `gpu` are skipped without CUDA."""

import os

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # One worker a core: more threads would wait for each other. Before torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("nightly", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
