"""Nothing waits for the device: on fake CUDA tensors, and by counting operations."""

from collections import Counter

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autodrop import AngularVelocity, AutoDrop, accumulation, tracker
from autodrop.detectors import ThresholdSaturation
from autodrop.motion import Plan
from autodrop.products import WIDTH

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16


class Operations(TorchDispatchMode):
    """The names of all operations, but for views and allocations without a value."""

    FREE = ("detach", "view", "as_strided", "split", "narrow", "slice", "empty", "alias")

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if not name.startswith(self.FREE):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


class StaysOnDevice(TorchDispatchMode):
    """Refuses copies from CUDA to the host, which FakeTensorMode lets pass."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        came = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if any(x.device.type == "cuda" for x in came):
            went = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
            assert all(x.device.type == "cuda" for x in went), func
        return result


class Sent:
    """Stands for `Readout`, which needs CUDA for its pinned memory and events."""

    copies = 0

    def __init__(self, vector):
        Sent.copies += 1
        assert vector.device.type == "cuda"
        assert vector.dtype == F64
        assert WIDTH <= vector.numel() <= 2 * WIDTH + 10
        self.vector = vector

    def read(self):
        return self.vector.tolist()


@pytest.fixture
def sent(monkeypatch):
    monkeypatch.setattr(tracker, "Readout", Sent)
    # The method alone, of all operations, wants a CUDA build for fake tensors.
    monkeypatch.setattr(
        torch.Tensor,
        "copy_",
        lambda self, other, non_blocking=False: torch.ops.aten.copy_(self, other, non_blocking),
    )
    monkeypatch.setattr(Sent, "copies", 0)
    return Sent


def fake_parameters(*dtypes):
    return [
        *(torch.nn.Parameter(torch.ones(5, 3, device="cuda", dtype=dtype)) for dtype in dtypes),
        torch.ones(2, 4, 3, 3, device="cuda").to(memory_format=torch.channels_last),
        torch.ones(24, device="cuda").as_strided((4, 3), (6, 2)),
        torch.ones(0, device="cuda"),
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulation": "plain"},
        {"direction": BF16},
        {"stride": 2},
        {"observation": "snapshot"},
        {"motion": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtypes", [[F32], [F64], [BF16], [F32, F64, BF16]], ids=str)
def test_nothing_is_read_before_the_lag_is_over(dtypes, options, sent):
    """FakeTensorMode raises where a value must be known on the host."""
    with FakeTensorMode(), StaysOnDevice():
        params = fake_parameters(*dtypes)
        velocity = AngularVelocity(params, 4, lag=3, **options)
        velocity.plan(Plan(compare=0, store=1, restart=True))
        first = 1 if velocity.observation == "snapshot" else 4
        for t in range(1, first + 3):
            assert velocity.update() is None
            assert sent.copies == (t >= first)
        with pytest.raises(DataDependentOutputException):
            velocity.update()


def test_control_copies_to_the_host_are_seen():
    with FakeTensorMode(), StaysOnDevice():
        x = torch.ones(2, device="cuda")
        with pytest.raises(AssertionError, match="_to_copy"):
            x.cpu()


def test_control_a_lag_of_0_reads_at_the_end_of_the_window(sent):
    with FakeTensorMode(), StaysOnDevice():
        velocity = AngularVelocity(fake_parameters(F32), 4)
        for _ in range(3):
            velocity.update()
        with pytest.raises(DataDependentOutputException):
            velocity.update()


@pytest.mark.parametrize("tensor_rate", [False, True])
def test_a_scheduler_reads_nothing_before_the_lag_is_over(tensor_rate, sent):
    with FakeTensorMode(), StaysOnDevice():
        p = torch.nn.Parameter(torch.ones(5, 3, device="cuda"))
        optimizer = torch.optim.Adam([p], lr=0.1, capturable=tensor_rate, foreach=True)
        if tensor_rate:  # here and not above: the constructor of Adam reads it
            optimizer.param_groups[0]["lr"] = torch.full((), 0.1, device="cuda")
        scheduler = AutoDrop(optimizer, 4, lag=2, detector=ThresholdSaturation())
        for t in range(1, 6):
            p.grad = torch.ones_like(p)
            optimizer.step()
            scheduler.step()
            assert sent.copies == (t >= 4)
        p.grad = torch.ones_like(p)
        optimizer.step()
        with pytest.raises(DataDependentOutputException):
            scheduler.step()


class Fused(torch.optim.SGD):
    """A step that a scaler may skip; torch's own fused ones need CUDA even for fake tensors."""

    def step(self, closure=None):
        pass


def test_an_overflow_flag_is_read_only_where_a_window_may_end(sent):
    """Of a fused optimizer under a scaler: `found_inf` is on the device."""
    with FakeTensorMode(), StaysOnDevice():
        p = torch.nn.Parameter(torch.ones(5, 3, device="cuda"))
        optimizer = Fused([p], lr=0.1)
        scheduler = AutoDrop(optimizer, 4, lag=2)
        for t in range(1, 5):
            optimizer.found_inf = torch.zeros(1, device="cuda")
            p.grad = torch.ones_like(p)
            optimizer.step()
            if t in (2, 4):  # lag updates after a window's end, and at one
                with pytest.raises(DataDependentOutputException):
                    scheduler.step()
                scheduler._tracker._skipped = None
            else:
                scheduler.step()


@pytest.mark.parametrize("per_group", [False, True])
def test_a_device_that_decides_is_never_waited_for(per_group, sent):
    with FakeTensorMode(), StaysOnDevice():
        groups = [[torch.nn.Parameter(torch.ones(n, device="cuda"))] for n in (3, 4)]
        optimizer = torch.optim.Adam([{"params": group} for group in groups], capturable=True)
        for group in optimizer.param_groups:  # the constructor of Adam reads it
            group["lr"] = torch.full((), 0.1, device="cuda")
        scheduler = AutoDrop(
            optimizer,
            4,
            decide="device",
            lag=3,
            per_group=per_group,
            momentum="rescale",
            count="calls",
            detector=ThresholdSaturation(),
        )
        for t in range(1, 7):  # the device decides at t = 4
            for (p,) in groups:
                p.grad = torch.ones_like(p)
            optimizer.step()
            scheduler.step()
            assert sent.copies == (t >= 4)
        with pytest.raises(DataDependentOutputException):
            scheduler.step()


def ordinary_step(params, **options):
    velocity = AngularVelocity(params, 8, **options)
    with Operations() as operations:
        velocity.update()
    return operations.names


def test_an_ordinary_step_of_plain_sums_is_one_operation_for_each_dtype():
    params = [torch.ones(3), torch.ones(4, 2), torch.ones(2, dtype=F64), torch.ones(2, dtype=BF16)]
    names = ordinary_step(params, accumulation="plain")
    assert names == ["_foreach_add_"] * 3
    assert ordinary_step(params[:2], accumulation="plain") == ["_foreach_add_"]


def test_an_ordinary_step_of_anchored_sums_is_two_operations_for_each_chunk(monkeypatch):
    params = [torch.ones(3), torch.ones(4, 2), torch.ones(2, 4, 3, 3)]
    params[2] = params[2].to(memory_format=torch.channels_last)
    assert ordinary_step(params) == ["cat", "sub", "add_"]  # small ones together
    monkeypatch.setattr(accumulation, "_SMALL", 12)
    assert ordinary_step(params) == ["cat"] + ["sub", "add_"] * 2
    monkeypatch.setattr(accumulation, "_CHUNK", 7)
    assert ordinary_step(params) == ["sub", "add_"] * (1 + 2 + 11)


def test_where_launches_cost_an_ordinary_step_is_two_operations_for_each_batch(monkeypatch):
    params = [torch.ones(3), torch.ones(4, 2), torch.ones(0), torch.ones(2, dtype=BF16)]
    monkeypatch.setattr(accumulation, "_ONE_BY_ONE", ())
    pair = ["_foreach_sub", "_foreach_add_"]
    assert ordinary_step(params) == ["_foreach_add_", *pair]  # bfloat16 is summed plainly
    monkeypatch.setattr(accumulation, "_CHUNK", 4)
    monkeypatch.setattr(accumulation, "_BATCH", 7)
    # The tensor of 8 elements is larger than a batch: one by one, in chunks.
    assert ordinary_step(params) == ["_foreach_add_", *["sub", "add_"] * 2, *pair]


def test_steps_between_strides_and_snapshots_are_no_operations():
    assert ordinary_step([torch.ones(3)], stride=2) == []
    velocity = AngularVelocity([torch.ones(3)], 8, "snapshot")
    velocity.update()
    with Operations() as operations:
        for _ in range(7):
            velocity.update()
    assert operations.names == []


@pytest.mark.parametrize("kind", ["plain", "anchored"])
def test_a_window_s_end_allocates_chunks_not_copies(kind, monkeypatch):
    """Nothing that the end of a window makes is larger than a chunk, but for one extra for x."""
    monkeypatch.setattr(accumulation, "_CHUNK", 32)
    params = [torch.ones(200), *(torch.ones(10) for _ in range(20))]
    velocity = AngularVelocity(params, 1, accumulation=kind, lag=0)
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            name = func.overloadpacket.__name__
            if isinstance(result, torch.Tensor) and not name.startswith(Operations.FREE):
                sizes.append(result.numel())
            return result

    with Sizes():
        velocity.update()
    # The tensor of 200 elements in chunks, the others by threes; at last the products of all 21.
    assert sizes.count(21 * WIDTH) == 1
    assert max(size for size in sizes if size != 21 * WIDTH) == 32


@pytest.mark.parametrize("launches_cost", [False, True])
@pytest.mark.parametrize("kind", ["plain", "anchored"])
def test_the_end_of_a_window_is_three_operations_more_for_one_more_small_tensor(
    kind, launches_cost, monkeypatch
):
    """Its products; the rest is of all of them together."""
    if launches_cost:
        monkeypatch.setattr(accumulation, "_ONE_BY_ONE", ())

    def end(tensors):
        velocity = AngularVelocity([torch.ones(3) for _ in range(tensors)], 1, accumulation=kind)
        with Operations() as operations:
            velocity.update()
        return operations.names

    few, many = Counter(end(2)), Counter(end(12))
    assert many - few == Counter({"dot": 30})
    assert few - many == Counter()


def test_memory_is_what_is_said():
    """Copies of the parameters in float32: plain 3, anchored 3.5; half a one less with a bfloat16
    direction."""
    n = 2**12

    def held(**options):
        velocity = AngularVelocity([torch.ones(n)], 8, **options)
        state = velocity.state_dict()["copies"]
        tensors = [t for copies in state.values() for t in copies.values()]
        return sum(t.nbytes for t in tensors) / (4 * n)

    assert held(accumulation="plain") == 3.0
    assert held() == 3.5
    assert held(direction=BF16) == 3.0
    assert held(accumulation="plain", direction=BF16) == 2.5
