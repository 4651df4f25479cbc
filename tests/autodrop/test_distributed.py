"""DDP, FSDP2, HSDP and tensor parallel on gloo: one angle, one sum a window, the same drops."""

import functools

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from autodrop import AngularVelocity
from tests.autodrop.ranks_training import WINDOW, train
from tests.ranks import run_ranks


@functools.cache
def alone(dtype):
    return train("one process", dtype)


@pytest.mark.parametrize(
    ("kind", "world"), [("ddp", 2), ("fsdp", 2), ("fsdp", 4), ("hsdp", 4), ("tp x fsdp", 4)]
)
def test_ranks_see_the_angles_of_one_process_and_drop_together(kind, world, tmp_path):
    ranks = run_ranks(train, world, tmp_path, kind)
    one = alone(torch.float64)
    assert len(one["drops"]) >= 3
    assert len(one["angles"]) == 10
    for seen in ranks:
        # One sum over ranks at the end of each window, and nothing else.
        ends = [(t + 1) % WINDOW == 0 for t in range(len(seen["counts"]))]
        assert seen["counts"] == [int(end) for end in ends]
        # Sums in another order; the angles are between 1° and 179°.
        assert seen["angles"] == pytest.approx(seen["exact"], abs=1e-9)
        # Gradients that were averaged over ranks round differently.
        assert seen["angles"] == pytest.approx(one["angles"], abs=1e-6)
        assert seen["drops"] == ranks[0]["drops"] == one["drops"]
        assert seen["rates"] == one["rates"]
        assert seen["angles"] == ranks[0]["angles"]


def test_anchored_sums_with_a_lag_on_shards(tmp_path):
    options = {"lag": 3}
    ranks = run_ranks(functools.partial(train, **options), 2, tmp_path, "fsdp", torch.float32)
    for seen in ranks:
        assert seen["angles"] == pytest.approx(seen["exact"][: len(seen["angles"])], abs=1e-4)
        assert len(seen["angles"]) == 9  # the tenth is on its way
        assert seen["drops"] == ranks[0]["drops"]
        assert seen["drops"]
        assert all(step % WINDOW == 3 for step, _ in seen["drops"])


def sampled():
    torch.manual_seed(dist.get_rank())
    mesh = init_device_mesh("cpu", (2,))
    whole = torch.zeros(4000, dtype=torch.float64)
    p = distribute_tensor(whole, mesh, [Shard(0)])
    velocity = AngularVelocity([p], 1, fraction=0.1)
    angles, errors = [], []
    g = torch.Generator().manual_seed(3)
    for _ in range(12):
        p.to_local().add_(
            torch.randn(4000, generator=g, dtype=torch.float64).chunk(2)[dist.get_rank()]
        )
        angle = velocity.update()
        if angle is not None:
            angles.append(angle)
            errors.append(velocity.error)
    assert "copies" not in velocity.state_dict()
    return angles, errors


def test_samples_of_shards_give_one_angle_and_one_error(tmp_path):
    (angles, errors), other = run_ranks(sampled, 2, tmp_path)
    assert (angles, errors) == other
    assert len(angles) == 10
    # Independent steps are at 90°, with an error of 1/√400 radians from the sample.
    assert errors == pytest.approx([400**-0.5] * 10, rel=0.2)
    assert angles == pytest.approx([torch.pi / 2] * 10, abs=6 * 400**-0.5)


def refusals():
    """What each of these raises, on this rank."""
    mesh = init_device_mesh("cpu", (2,))
    whole = torch.ones(4)
    shards = distribute_tensor(whole, mesh, [Shard(0)])
    flat = torch.ones(4)
    flat._is_flat_param = True
    found = []
    for params, group in (
        ([DTensor.from_local(whole, mesh, [Partial()])], "auto"),
        ([shards], None),
        ([torch.ones(3 + dist.get_rank())], "auto"),
        ([flat], "auto"),
        ([whole], "all"),
    ):
        try:
            AngularVelocity(params, process_group=group)
        except (TypeError, ValueError) as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def test_what_cannot_be_followed_is_an_error_on_every_rank(tmp_path):
    expected = [
        "ValueError: parameter '0' must be sharded or replicated, got Partial",
        "ValueError: parameter '0' is split over ranks: its angle needs their process_group",
        "ValueError: all ranks of process_group must track the same parameters in the same order",
        "ValueError: parameter '0' is FSDP1's",
        "TypeError: process_group must be 'auto', None or a ProcessGroup, got 'all'",
    ]
    for found in run_ranks(refusals, 2, tmp_path):
        assert [message[: len(words)] for message, words in zip(found, expected, strict=True)] == (
            expected
        )
        assert "got 1 on rank 0 and 1 on rank 1, where '0' has shape [4]" in found[2]


def corner(p, group, turns):
    """The angle of a path along the first axis that then turns, or not, to another one."""
    velocity = AngularVelocity([p], 1, process_group=group)
    for axis in (0, int(turns), 0):
        p[axis] += 1.0
        angle = velocity.update()
    return angle


def own_models():
    """Rank 0 goes straight on, ranks 1 and 2 turn: alone, and with 0 and 1 as replicas."""
    rank = dist.get_rank()
    replica = distribute_tensor(torch.zeros(2), init_device_mesh("cpu", (3,)), [Replicate()])
    AngularVelocity([replica], 1, process_group=None)  # whole on each rank
    pair = dist.new_group([0, 1])
    alone = corner(torch.zeros(2 + rank, dtype=torch.float64), None, rank > 0)
    group = pair if rank < 2 else None
    return alone, corner(torch.zeros(2, dtype=torch.float64), group, rank > 0)


def test_ranks_that_hold_models_of_their_own(tmp_path):
    alone, in_groups = zip(*run_ranks(own_models, 3, tmp_path), strict=True)
    right = torch.pi / 2
    assert alone == pytest.approx((0.0, right, right))
    # Of replicas that disagree the first one counts.
    assert in_groups == pytest.approx((0.0, 0.0, right))
