"""What is needed at the ends of windows only waits in the host's memory, and comes as a copy.

Fake CUDA tensors show what lies where and which operations touch it; their numbers are unknown.
That the numbers stay the same is shown on the CPU, where transfers are replaced by copies.
"""

import io

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autodrop import AngularVelocity, AutoDrop, accumulation, tracker
from autodrop.products import WIDTH

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
K = 4
OPTIONS = {
    "anchored": (F32, {}),
    "anchored, bfloat16 direction": (F32, {"direction": BF16}),
    "plain": (F32, {"accumulation": "plain"}),
    "float64": (F64, {}),
    "half precision": (BF16, {"stride": 2}),
    "sampled": (F32, {"fraction": 0.5}),
    "snapshots": (F32, {"observation": "snapshot"}),
}
every_option = pytest.mark.parametrize("name", OPTIONS)


def angles_on_the_cpu(name, offload, cut=None, then=None):
    """Angles and errors of six windows; from update `cut` on in a second tracker (`then`)."""
    dtype, options = OPTIONS[name]
    g = torch.Generator().manual_seed(0)
    p = torch.randn(5, 20, generator=g).to(dtype)
    velocity = AngularVelocity([p], K, offload=offload, **options)
    seen = []
    for t in range(6 * K):
        if t == cut:
            file = io.BytesIO()
            torch.save(velocity.state_dict(), file)
            file.seek(0)
            velocity = AngularVelocity([p], K, offload=then, **options)
            velocity.load_state_dict(torch.load(file, weights_only=True))
        p += torch.randn(p.shape, generator=g).to(dtype)
        angle = velocity.update()
        seen += [] if angle is None else [(t, angle, velocity.error)]
    assert len(seen) >= 4
    return seen


@every_option
def test_on_the_cpu_it_changes_nothing(name):
    assert angles_on_the_cpu(name, True) == angles_on_the_cpu(name, False)


@every_option
def test_a_state_is_the_same_with_it_and_without(name):
    whole = angles_on_the_cpu(name, False)
    for before, after in ((True, False), (False, True)):
        assert angles_on_the_cpu(name, before, 3 * K + 1, after) == whole


@every_option
def test_numbers_that_travel_are_the_same_numbers(name, monkeypatch):
    """Every `to` makes a copy, as between devices, instead of the alias that the CPU makes."""
    whole = angles_on_the_cpu(name, False)
    to, copies = torch.Tensor.to, []

    def travels(self, *args, **kwargs):
        if kwargs.get("non_blocking"):
            copies.append(self.numel())
            return to(self, *args, **kwargs).clone()
        return to(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", travels)
    assert angles_on_the_cpu(name, True) == whole
    assert copies


def test_the_scheduler_passes_it_on():
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([p], lr=0.1)
    assert AutoDrop(optimizer, offload=True)._tracker.offload
    assert not AutoDrop(optimizer)._tracker.offload


class Sent:
    """Stands for `Readout`, which needs CUDA for its events."""

    def __init__(self, vector):
        assert vector.device.type == "cuda"

    def read(self):
        return [1.0, 1.0, 0.0, *[0.0] * (WIDTH - 3)]


class Log(TorchDispatchMode):
    """Every operation as (name, whether it touches the host's memory, whether it waits).

    With a whole vector or a piece of one: numbers of dimension 0 are no vectors.
    """

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        devices = {x.device.type for x in tensors if x.dim() > 0}
        name = func.overloadpacket.__name__
        positional = len(args) > 2 and args[2] is True and name == "copy_"
        waits = devices == {"cpu", "cuda"} and not (kwargs.get("non_blocking") or positional)
        self.seen.append((name, "cpu" in devices, waits))
        return result

    def host(self):
        return [name for name, touches, _ in self.seen if touches]


@pytest.fixture
def fake(monkeypatch):
    """Fake CUDA: no read-out, no stream to wait for, and a record of what was allocated pinned."""
    monkeypatch.setattr(tracker, "Readout", Sent)
    # The method alone, of all operations, wants a CUDA build for fake tensors.
    monkeypatch.setattr(
        torch.Tensor,
        "copy_",
        lambda self, other, non_blocking=False: torch.ops.aten.copy_(self, other, non_blocking),
    )
    zeros, pinned = torch.zeros, []

    def allocate(*size, **kwargs):
        result = zeros(*size, **kwargs)
        if kwargs.get("pin_memory"):
            pinned.append(result)
        return result

    monkeypatch.setattr(torch, "zeros", allocate)
    with FakeTensorMode():
        yield pinned


def followed(name, offload=True, lag=2, n=1000):
    dtype, options = OPTIONS[name]
    params = [torch.ones(n // 10, 10, device="cuda", dtype=dtype), torch.ones(7, device="cuda")]
    return AngularVelocity(params, K, offload=offload, lag=lag, **options)


def where(velocity):
    """The names of the state's vectors, by where they lie."""
    found = {"cpu": set(), "cuda": set()}
    for sums in velocity._sums:
        for copy in sums.copies:
            devices = {t.device.type for t in getattr(sums, copy)}
            assert len(devices) == 1
            found[devices.pop()].add(f"{type(sums).__name__}.{copy}")
    return found


@every_option
def test_the_vectors_of_windows_ends_are_pinned_in_the_host_s_memory(name, fake):
    velocity = followed(name)
    found = where(velocity)
    kinds = {type(sums).__name__ for sums in velocity._sums}
    expected = {
        "cpu": {"PlainSums.previous", "PlainSums.direction"}
        | {"AnchoredSums.residual", "AnchoredSums.direction"},
        "cuda": {"PlainSums.sum", "AnchoredSums.sum", "AnchoredSums.anchor"},
    }
    assert found == {
        device: {name for name in names if name.partition(".")[0] in kinds}
        for device, names in expected.items()
    }
    held = [
        t
        for sums in velocity._sums
        for copy in sums.copies
        for t in getattr(sums, copy)
        if t.device.type == "cpu"
    ]
    assert held
    storages = {StorageWeakRef(p.untyped_storage()) for p in fake}
    assert all(StorageWeakRef(t.untyped_storage()) in storages for t in held)
    fake.clear()
    assert where(followed(name, offload=False))["cpu"] == set()  # the control
    assert fake == []


@pytest.mark.parametrize(
    ("options", "copies"), [({}, 2.0), ({"accumulation": "plain"}, 1.0), ({"direction": BF16}, 2.0)]
)
def test_memory_on_the_device_is_what_is_said(options, copies, fake):
    n = 2**12
    velocity = AngularVelocity([torch.ones(n, device="cuda")], K, offload=True, **options)
    held = [t for sums in velocity._sums for copy in sums.copies for t in getattr(sums, copy)]
    assert sum(t.nbytes for t in held if t.device.type == "cuda") == copies * 4 * n


def test_parameters_on_the_cpu_need_no_pinned_memory(fake):
    p = torch.ones(5)
    velocity = AngularVelocity([p, torch.ones(3, device="cuda")], K, offload=True)
    assert len(fake) == 2
    assert {t.numel() for t in fake} == {3}
    assert [t.device.type for t in velocity._sums[0].anchor] == ["cpu", "cuda"]


@every_option
def test_ordinary_steps_touch_none_of_them_and_nothing_waits(name, fake):
    velocity = followed(name)
    first = 1 if velocity.observation == "snapshot" else K
    for t in range(1, 3 * K + 1):
        with Log() as log:
            velocity.update()
        assert not any(waits for _, _, waits in log.seen)
        if t % K == first % K:  # the control: an end of a window takes them in and writes them
            host = log.host()
            assert host.count("_to_copy") == host.count("copy_") > 0
        else:
            assert log.host() == []
    # Without offload there is nothing in the host's memory to be touched.
    velocity = followed(name, offload=False)
    for _ in range(3 * K):
        with Log() as log:
            velocity.update()
        assert log.host() == []


def test_they_come_piece_by_piece(fake, monkeypatch):
    """A transfer is never longer than a chunk."""
    monkeypatch.setattr(accumulation, "_CHUNK", 64)
    monkeypatch.setattr(accumulation, "_BATCH", 100)
    velocity = followed("anchored")
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if func.overloadpacket.__name__ == "_to_copy" and args[0].device.type == "cpu":
                sizes.append(result.numel())
            return result

    with Sizes():
        for _ in range(K):
            velocity.update()
    # ρ and d: 1000 elements in pieces of 100, and 7.
    assert sizes == [100] * 20 + [7] * 2


class Streams:
    """Stands for torch.cuda.current_stream: logs a wait among the operations."""

    def __init__(self, log):
        self.log = log

    def __call__(self, device):
        assert device.type == "cuda"
        return self

    def synchronize(self):
        self.log.seen.append(("wait", False, False))


@pytest.mark.parametrize("act", ["state_dict", "load_state_dict", "restart"])
@pytest.mark.parametrize("name", ["anchored", "plain"])
def test_the_host_waits_before_it_reads_or_writes_them_itself(name, act, fake, monkeypatch):
    """What is on its way from the device must have arrived."""
    velocity = followed(name, lag=0)
    log = Log()
    monkeypatch.setattr(torch.cuda, "current_stream", Streams(log))
    state = velocity.state_dict()
    log.seen.clear()
    with log:
        velocity.load_state_dict(state) if act == "load_state_dict" else getattr(velocity, act)()
    names = [entry[0] for entry in log.seen]
    if log.host():
        first = next(i for i, (_, touches, _) in enumerate(log.seen) if touches)
        assert "wait" in names[:first]
    # Plain sums start afresh without a word to what is in the host's memory.
    assert bool(log.host()) == ((name, act) != ("plain", "restart"))


def test_without_offload_it_does_not_wait(fake, monkeypatch):
    velocity = followed("anchored", offload=False, lag=0)
    log = Log()
    monkeypatch.setattr(torch.cuda, "current_stream", Streams(log))
    with log:
        velocity.load_state_dict(velocity.state_dict())
        velocity.restart()
    assert "wait" not in [entry[0] for entry in log.seen]
