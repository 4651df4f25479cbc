"""The tests' own helper for several ranks: values in order, and every failure is an error."""

import os
import re
import time
import warnings

import pytest
import torch
import torch.distributed as dist

from tests.ranks import RankError, run_ranks


def rank_and_sum(number):
    total = torch.tensor(number + dist.get_rank())
    dist.all_reduce(total)
    return dist.get_rank(), dist.get_world_size(), int(total), torch.get_num_threads()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_values_in_the_order_of_the_ranks(world, tmp_path):
    total = 10 * world + sum(range(world))
    expected = [(rank, world, total, 1) for rank in range(world)]
    assert run_ranks(rank_and_sum, world, tmp_path, 10) == expected
    assert run_ranks(rank_and_sum, world, tmp_path, 10) == expected  # a group of its own each time


def fails_on(failing, how):
    if dist.get_rank() == failing:
        if how == "raises":
            raise LookupError("rank-dependent")
        if how == "exits":
            raise SystemExit(0)
        if how == "warns":
            warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
        if how == "dies":
            os._exit(7)
        if how == "returns a function":
            return lambda: None
    dist.barrier()
    return None


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raises", r"rank 1 raised\n(.*\n)*.*LookupError: rank-dependent"),
        ("exits", r"rank 1 raised\n(.*\n)*.*SystemExit: 0"),
        ("warns", r"rank 1 raised\n(.*\n)*.*DeprecationWarning: deprecated"),
        ("dies", "rank 1 died with exit status 7"),
        ("returns a function", r"rank 1 raised\n(.*\n)*.*[Pp]ickl"),
    ],
)
def test_a_failure_of_one_rank(how, message, tmp_path):
    """The other rank's barrier fails with it, long before the group's timeout."""
    with pytest.raises(RankError, match=message):
        run_ranks(fails_on, 2, tmp_path, 1, how)


def sleeps_on(sleeping, error):
    dist.barrier()
    if dist.get_rank() == sleeping:
        time.sleep(600)
    elif error:
        raise LookupError("rank-dependent")


def test_a_rank_that_goes_on_after_a_failure_is_killed_and_says_where(tmp_path):
    with pytest.raises(RankError, match="LookupError: rank-dependent") as caught:
        run_ranks(sleeps_on, 2, tmp_path, 1, True)
    assert re.search(r"rank 1 had not ended.*\n(.*\n)*.*in sleeps_on", str(caught.value))


def test_a_deadlock_is_an_error(tmp_path):
    with pytest.raises(RankError, match="rank 1 had not ended, and was killed"):
        run_ranks(sleeps_on, 2, tmp_path, 1, False, timeout=3.0)


def test_an_argument_that_cannot_be_sent(tmp_path):
    with pytest.raises(Exception, match=r"[Pp]ickl"):
        run_ranks(rank_and_sum, 2, tmp_path, lambda: None)
