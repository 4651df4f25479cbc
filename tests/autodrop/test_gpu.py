"""What only a CUDA device can show: replayed graphs, and that nothing waits for the device."""

import contextlib
import math

import pytest
import torch

from autodrop import AngularVelocity, AutoDrop, DropPolicy, Rule
from autodrop.detectors import GaussianSaturation, MovingAverageSaturation, ThresholdSaturation
from autodrop.device_rules import DeviceRecord, DeviceRule
from autodrop.motion import Plan
from autodrop.tensor_rates import check_tensor_rates
from tests.autodrop.test_tensor_rates import FOLLOWING, choices, torch_s

pytestmark = [
    pytest.mark.gpu,
    # Torch's own, of the streams that its recipe for graphs warms up and captures on.
    pytest.mark.filterwarnings("ignore:.*AccumulateGrad:UserWarning"),
]

F64 = torch.float64


@contextlib.contextmanager
def no_wait():
    """Waiting for the device is an error: `.item()`, `.cpu()`, copies from pageable memory."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def test_control_waiting_is_seen():
    rate = torch.tensor(0.1, device="cuda")
    with no_wait(), pytest.raises(RuntimeError, match="synchroniz"):
        rate.item()
    with no_wait(), pytest.raises(RuntimeError, match="synchroniz"):
        torch.tensor(0.1, device="cuda")


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator).cuda())
        for shape in (7, (5, 3), (2, 4, 3))
    ]


@pytest.mark.parametrize(
    "detector",
    [
        GaussianSaturation(1.01, 4),
        GaussianSaturation(1.01, 4, "value", "absolute"),
        MovingAverageSaturation(1.01, 3),
        ThresholdSaturation(1.01),
    ],
    ids=str,
)
def test_the_rule_decides_as_on_the_cpu_and_waits_for_nothing(detector):
    rule = Rule(1, detector, DropPolicy(0.5, (0.0, 0.02), wait=2, max_threshold=3.03))
    generator = torch.Generator().manual_seed(0)
    # Small changes about 60°, every ninth window lost; on a grid of 1/16°, or 1/48° for the mean of
    # three changes, off which the thresholds are, so that rounding decides nothing.
    ω = 60.0 + torch.randint(-24, 25, (200,), generator=generator, dtype=F64) / 16.0
    products = torch.stack((torch.ones_like(ω), torch.ones_like(ω), ω.deg2rad().cos()), dim=1)
    products[::9, 0] = math.inf
    records = {}
    for device in ("cpu", "cuda"):
        decider = DeviceRule(rule, 2, device)
        rates = [torch.tensor(α, device=device) for α in (1.0, 0.1)]
        windows, found = products.to(device).unbind(), []
        with no_wait():
            for window in windows:
                decider.observe(window)
                found.append(decider.act(rates))
        records[device] = [DeviceRecord.unpack(record.tolist()) for record in found]
        assert [rate.item() for rate in rates] == list(records[device][-1].new_lr)
    assert sum(record.drop for record in records["cpu"]) >= 3
    for a, b in zip(*records.values(), strict=True):
        assert a[1:] == b[1:]
        # A few units in the last place of the functions of either device.
        assert (a.angle is None) == (b.angle is None)
        assert a.angle is None or abs(a.angle - b.angle) < 1e-14


# Sparse gradients are counted on the host.
@pytest.mark.parametrize("name", [name for name in FOLLOWING if name != "SparseAdam"])
def test_the_check_of_rates_is_right_on_the_device_itself(name):
    """Beside the same on fake tensors; here the kernels run."""
    for options in choices(name):
        params = parameters()
        optimizer = torch_s(name)(params, lr=0.1, **options)
        rate = torch.tensor(0.1, device="cuda")
        optimizer.param_groups[0]["lr"] = rate
        try:
            check_tensor_rates(optimizer)
        except ValueError:
            continue
        for p in params:
            p.grad = torch.ones_like(p)
        # What is allocated at the first step may be sent from the host.
        try:
            optimizer.step()
        except RuntimeError as error:  # older torch has no fused Adagrad on CUDA
            if "`fused=True` requires" not in str(error):
                raise
            continue
        with no_wait():
            for _ in range(6):
                optimizer.step()
            rate.mul_(0.5)
            for _ in range(2):
                optimizer.step()
        twin_params = parameters()
        twin = torch_s(name)(twin_params, lr=0.1, **options)
        for p in twin_params:
            p.grad = torch.ones_like(p)
        for t in range(9):
            if t == 7:
                twin.param_groups[0]["lr"] = 0.05
            twin.step()
        for p, q in zip(params, twin_params, strict=True):
            # The rate is float32 in one and float64 in the other; nine steps of 0.1.
            assert torch.allclose(p, q, rtol=0.0, atol=2e-5), options


OPTIMIZERS = {
    "fused SGD": lambda params, lr: torch.optim.SGD(params, lr, momentum=0.9, fused=True),
    "capturable Adam": lambda params, lr: torch.optim.Adam(params, lr, capturable=True),
    "fused Adam": lambda params, lr: torch.optim.Adam(params, lr, fused=True),
}


class Training:
    """Parameters pulled to targets that change; every window with an angle before it drops.

    Elementwise but for one sum, so that a replayed step computes what an eager one does.
    """

    WINDOW = 4

    def __init__(self, optimizer, **options):
        self.params = parameters()
        self.targets = [torch.zeros_like(p) for p in self.params]
        self.lr = torch.tensor(0.1, device="cuda")
        self.optimizer = OPTIMIZERS[optimizer](self.params, self.lr)
        self.generator = torch.Generator("cuda").manual_seed(1)
        self.warm_up()
        self.scheduler = AutoDrop(
            self.optimizer, self.WINDOW, 0.5, detector=ThresholdSaturation(180.0), **options
        )
        self.rates = []

    def backward(self):
        pairs = zip(self.params, self.targets, strict=True)
        sum(((p - target) ** 2).sum() for p, target in pairs).backward()

    def warm_up(self):
        """As torch.cuda.graph asks for: some steps on another stream."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.optimizer.zero_grad(set_to_none=True)
                self.backward()
                self.optimizer.step()
        torch.cuda.current_stream().wait_stream(stream)

    def capture(self):
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            self.backward()
            self.optimizer.step()
        return graph

    def draw(self):
        for target in self.targets:
            target.normal_(generator=self.generator)

    def eager(self):
        self.draw()
        self.optimizer.zero_grad(set_to_none=True)
        self.backward()
        self.optimizer.step()
        self.finish()

    def replay(self, graph):
        self.draw()
        graph.replay()
        self.finish()

    def finish(self):
        self.scheduler.step()
        self.rates.append(self.lr.clone())

    def drops(self):
        return [(drop.window, drop.old_lr, drop.new_lr) for drop in self.scheduler.drops]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_replayed_training_step_follows_the_rule(name):
    """The graph reads the rate that the rule writes; the twin runs eagerly, decided on the host."""
    steps = 40
    twin = Training(name)
    for _ in range(steps):
        twin.eager()
    training = Training(name, decide="device", count="calls")
    graph = training.capture()
    for _ in range(steps):
        training.replay(graph)
    assert len(twin.drops()) >= 5
    assert training.drops() == twin.drops()
    assert training.scheduler.angle_steps == twin.scheduler.angle_steps
    assert training.scheduler.angular_velocities == pytest.approx(
        twin.scheduler.angular_velocities, abs=1e-3
    )
    assert sorted(set(torch.stack(training.rates).tolist())) == sorted(
        set(torch.stack(twin.rates).tolist())
    )
    assert training.lr is training.optimizer.param_groups[0]["lr"]


def test_control_a_graph_does_not_follow_a_rate_that_is_a_number():
    params = parameters()
    optimizer = torch.optim.SGD(params, lr=0.1, fused=True)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.0
    before = params[0].detach().clone()
    graph.replay()
    assert torch.allclose(before - params[0], torch.full_like(before, 0.1))


@pytest.mark.parametrize("count", ["updates", "calls"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rule_on_the_device_waits_for_nothing(name, count):
    """Ordinary steps, ends of windows and drops; eager, and replayed if calls are counted."""
    training = Training(name, decide="device", count=count, lag=2)
    graph = training.capture() if count == "calls" else None
    for _ in range(Training.WINDOW):  # what is allocated at first may be sent from the host
        training.eager()
    with no_wait():
        for _ in range(6 * Training.WINDOW):
            if graph is None:
                training.eager()
            else:
                training.replay(graph)
    assert len(set(torch.stack(training.rates).tolist())) >= 4


def test_control_a_rule_on_the_host_waits_where_it_drops():
    training = Training("fused SGD", lag=2)

    def train():
        for _ in range(8 * Training.WINDOW):
            training.eager()

    with no_wait(), pytest.raises(RuntimeError, match="synchroniz"):
        train()


def test_a_detector_of_motion_waits_for_nothing():
    """Ordinary steps, the probe's measurements and the ends of windows; it reads after the lag."""
    params = parameters()
    velocity = AngularVelocity(params, 4, lag=3, motion=True)
    path = [torch.randn_like(p) for p in params]
    with torch.no_grad():
        for _ in range(8):  # what is allocated at first may be sent from the host
            torch._foreach_add_(params, path)
            velocity.update()
    velocity.plan(Plan(compare=0, store=1, restart=True))
    with torch.no_grad(), no_wait():
        for _ in range(6):
            torch._foreach_add_(params, path)
            velocity.update()
    assert velocity.motion is not None
