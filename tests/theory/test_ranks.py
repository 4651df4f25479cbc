"""Work on several ranks: the same bits as in one process, and an error of one is one of all."""

import hashlib
from fractions import Fraction
from functools import cache
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist

from tests.ranks import run_ranks
from theory import (
    NoisyQuadratic,
    StepwiseSchedule,
    TorchMomentum,
    UnifiedMomentum,
    problems,
    ranks,
    simulate,
    simulate_convex,
)

QUADRATIC = NoisyQuadratic([0.3, 0.8, 2.0, 5.0, 9.0], [0.5, 0.02, 1.0, 0.3, 0.1], 2.0)
SCHEDULE = StepwiseSchedule([0.11, 0.05], [7, 6])
NOISY = problems.AdditiveNoise(problems.AbsoluteValue(1.5, 0.2, 1.0), problems.GaussianNoise(0.9))
DATA = np.random.default_rng(0).standard_normal((11, 3))
REGRESSION = problems.l1_regression(DATA, DATA[:, 0] + 1, batch=2, start=1.0)


def quadratic(trajectories, *, problem=QUADRATIC, schedule=SCHEDULE, seed=1, **how):
    how = {"trajectories": trajectories, "window": 2} | how
    return simulate.run(problem, UnifiedMomentum(0.6, 1), schedule, seed=seed, **how)


def convex(trajectories, *, problem=REGRESSION, schedule=SCHEDULE, seed=2, **how):
    how = {"trajectories": trajectories} | how
    return simulate_convex.run(problem, TorchMomentum(0.8), schedule, seed=seed, **how)


def bits(run):
    """Name, shape and a digest of the bytes of every array of an ensemble."""
    return {
        name: None if part is None else (part.shape, hashlib.sha256(part.tobytes()).hexdigest())
        for name, part in vars(run).items()
    }


def all_bits(group):
    """Of several runs: some of blocks of the usual size, some of blocks of four trajectories."""
    runs = [
        quadratic(8000, group=group),
        quadratic(8000, group=group, dtype=torch.float32, from_stationary=True),
        convex(600_000, problem=NOISY, group=group),
        convex(20_000, group=group, dtype=torch.float32),
    ]
    with (
        mock.patch.object(simulate, "block_entries", return_value=20),
        mock.patch.object(simulate_convex, "_block_rows", return_value=4),
    ):
        for trajectories in (1, 4, 5, 11, 30):
            runs.append(quadratic(trajectories, group=group))
            runs.append(convex(trajectories, problem=NOISY, group=group))
            runs.append(convex(trajectories, group=group, record_every=3))
            runs.append(convex(trajectories, group=group, weights=np.arange(13.0)))
    return [bits(run) for run in runs]


@cache
def bits_of_one_process():
    return all_bits(None)


def all_bits_on_every_rank():
    return all_bits(dist.group.WORLD)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_bits_do_not_depend_on_the_number_of_ranks(world, tmp_path):
    """Three ranks are more than some of the runs have blocks."""
    alone = bits_of_one_process()
    assert len({str(run) for run in alone}) == len(alone)
    assert run_ranks(all_bits_on_every_rank, world, tmp_path) == [alone] * world


def test_the_bits_do_not_depend_on_the_number_of_threads():
    """torchrun gives each rank one thread. Enough rows for torch to use them all."""
    schedule, before, runs = StepwiseSchedule.constant(0.1, 4), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            runs.append(
                (
                    bits(quadratic(8000, schedule=schedule, window=1, dtype=torch.float32)),
                    bits(convex(100_000, problem=NOISY, schedule=schedule)),
                )
            )
    finally:
        torch.set_num_threads(before)
    assert runs[0] == runs[1] == runs[2]


def test_without_initialization_the_world_is_this_process():
    assert dist.group.WORLD is None
    assert bits(quadratic(5, group=dist.group.WORLD)) == bits(quadratic(5))


def groups():
    """Runs of ranks 0 and 2, of rank 1 alone, and one that rank 1 has no part in."""
    pair = dist.new_group([0, 2])
    mine = bits(quadratic(8000, group=None if dist.get_rank() == 1 else pair))
    try:
        simulate.run(QUADRATIC, UnifiedMomentum(), SCHEDULE, trajectories=1, seed=0, group=pair)
    except ValueError as error:
        return mine, str(error)
    return mine, "ran"


def test_a_group_of_some_of_the_ranks_and_a_rank_alone(tmp_path):
    alone, refusal = bits(quadratic(8000)), "group must contain this process: only its members"
    first, other, last = run_ranks(groups, 3, tmp_path)
    assert first == last == (alone, "ran")
    assert other[0] == alone
    assert other[1].startswith(refusal)


@pytest.mark.parametrize("wrong", [0, "WORLD", [0, 1]])
def test_a_group_is_a_process_group(wrong):
    with pytest.raises(TypeError, match=r"must be a torch\.distributed.ProcessGroup or None, got"):
        quadratic(2, group=wrong)


class NotToBeSent(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def spreads():
    """What `spread` gives and who did it, then what it raises when some items raise."""
    group, done = dist.group.WORLD, []

    def work(i):
        done.append(i)
        return i, np.arange(i)

    def fails(i):
        if i >= 4:
            raise LookupError(f"item {i}")
        if i == 3:
            raise NotToBeSent("item", i)

    values = [(i, part.tolist()) for i, part in ranks.spread(work, 7, group)]
    errors = []
    for failing in (fails, lambda i: fails(i + 4)):
        try:
            ranks.spread(failing, 7, group)
        except Exception as error:
            errors.append((type(error).__name__, str(error), getattr(error, "__notes__", [])))
    return values, done, errors, ranks.spread(work, 0, group)


def test_spread_shares_the_items_out_and_raises_the_first_error(tmp_path):
    everywhere = run_ranks(spreads, 2, tmp_path)
    expected = [(i, list(range(i))) for i in range(7)]
    for rank, (values, done, (unsent, sent), nothing) in enumerate(everywhere):
        assert values == expected
        assert done == list(range(rank, 7, 2))
        assert nothing == []
        # Item 3 fails first, on rank 1; then item 0, on rank 0, though rank 1 fails as well.
        assert unsent[:2] == (
            ("NotToBeSent", "item 3") if rank == 1 else ("RuntimeError", "NotToBeSent: item 3")
        )
        assert sent[:2] == ("LookupError", "item 4")
        assert len(unsent[2]) == (rank != 1)
        assert len(sent[2]) == (rank != 0)
        for note in unsent[2] + sent[2]:
            assert note.startswith(f"raised on rank {1 - rank} of the group:\nTraceback")
            assert "in fails" in note


REFUSED = {
    "trajectories": (ValueError, "trajectories must be a positive integer, got 0"),
    "type": (TypeError, "problem must be a NoisyQuadratic, got None"),
    "unstable": (ValueError, "for stability"),
    "overflow": (OverflowError, "an iterate is not finite"),
    "other seed": (ValueError, "seed must be the same on every rank of the group, got 0 on rank 0"),
    "other function": (ValueError, "function must be the same on every rank of the group"),
    "other weights": (ValueError, "weights must be the same on every rank of the group"),
    "one has weights": (ValueError, "record_every must be 1, got 2"),
}


def refusals():
    """What each of the calls raises on this rank; rank 1 calls otherwise than rank 0."""
    group, first = dist.group.WORLD, dist.get_rank() == 0
    unstable = StepwiseSchedule.constant(3.0, 400)
    every, ones = {"group": group}, np.ones(13)
    calls = {
        "trajectories": lambda: quadratic(5 if first else 0, **every),
        "type": lambda: quadratic(5, problem=QUADRATIC if first else None, **every),
        "unstable": lambda: quadratic(5, schedule=unstable, from_stationary=True, **every),
        "overflow": lambda: quadratic(5, schedule=unstable, **every),
        "other seed": lambda: quadratic(5, seed=dist.get_rank(), **every),
        "other function": lambda: (quadratic if first else convex)(5, **every),
        "other weights": lambda: convex(
            5, weights=ones if first else 2 * ones + DATA[0, 0], **every
        ),
        "one has weights": lambda: convex(
            5, weights=None if first else ones, record_every=2, **every
        ),
    }
    raised = {}
    for name, call in calls.items():
        try:
            call()
        except Exception as error:
            raised[name] = (type(error), str(error))
    return raised, bits(quadratic(5, group=group))


def test_what_is_refused_is_refused_on_every_rank(tmp_path):
    """And the next call is in step again."""
    alone = bits(quadratic(5))
    everywhere = run_ranks(refusals, 2, tmp_path)
    assert everywhere[0] == everywhere[1]
    raised, after = everywhere[0]
    assert after == alone
    assert raised.keys() == REFUSED.keys()
    for name, (kind, message) in REFUSED.items():
        assert raised[name][0] is kind
        assert message in raised[name][1]
    assert "on rank 0 and 1 on rank 1" in raised["other seed"][1]


def nudged(problem):
    return NoisyQuadratic(
        problem.curvature, problem.noise_variance, np.nextafter(problem.start, 3.0)
    )


HALF = Fraction(1, 2)
SAME = [
    (QUADRATIC, NoisyQuadratic(list(QUADRATIC.curvature), QUADRATIC.noise_variance, 2)),
    (REGRESSION, problems.l1_regression(DATA.copy(), DATA[:, 0] + 1, batch=2, start=1.0)),
    (StepwiseSchedule([HALF, HALF], [1, 1]), StepwiseSchedule([HALF, Fraction(2, 4)], [1, 1])),
    (np.array([HALF, 1], dtype=object), np.array([Fraction(1, 2), 1], dtype=object)),
    (object(), object()),
    (torch.float32, torch.float32),
    (NoisyQuadratic, NoisyQuadratic),
    (float("nan"), float("nan")),
]
OTHER = [
    (QUADRATIC, nudged(QUADRATIC)),
    (REGRESSION, problems.l1_regression(DATA, DATA[:, 0] + 1, batch=3, start=1.0)),
    (REGRESSION, problems.huber_regression(DATA, DATA[:, 0] + 1, batch=2, start=1.0)),
    (NOISY, problems.AdditiveNoise(NOISY.problem, problems.TwoPointNoise(0.9))),
    (TorchMomentum(0.5), TorchMomentum(0.5, nesterov=True)),
    (UnifiedMomentum(0, 0), UnifiedMomentum(0, 1)),
    (StepwiseSchedule([0.1], [2]), StepwiseSchedule([0.1, 0.1], [1, 1])),
    (np.zeros(2), np.zeros((1, 2))),
    (np.zeros(2), np.zeros(2, dtype=np.float32)),
    (np.array([HALF, 1], dtype=object), np.array([HALF, 2], dtype=object)),
    ((1, (2, 3)), (1, 2, 3)),
    (torch.float32, torch.float64),
    (NoisyQuadratic, UnifiedMomentum),
    (0, False),
]


def agreements(pairs):
    """Whether each pair's entry for this rank agrees with the other rank's."""
    agreed = []
    for pair in pairs:
        try:
            with ranks.agreement(dist.group.WORLD) as same:
                same["argument"] = pair[dist.get_rank()]
            agreed.append(True)
        except ValueError:
            agreed.append(False)
    return agreed


def test_arguments_are_compared_by_value(tmp_path):
    expected = [True] * len(SAME) + [False] * len(OTHER)
    assert run_ranks(agreements, 2, tmp_path, SAME + OTHER) == [expected] * 2
