"""The rule on the device beside the rule on the host, on the same windows."""

import copy
import itertools
import math
import pickle
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import event, given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autodrop import AutoDrop, DropPolicy, Rule, angle_from_products, rules
from autodrop.detectors import (
    GaussianSaturation,
    GaussianState,
    MovingAverageSaturation,
    MovingAverageState,
    ThresholdSaturation,
    ThresholdState,
)
from autodrop.device_rules import DeviceRecord, DeviceRule

F32, F64 = torch.float32, torch.float64
EPS = sys.float_info.epsilon


class Host:
    """What `AngularVelocity` and `Rule` make of the same products, with the rates."""

    def __init__(self, rule, rates, dtype):
        self.rule, self.rates, self.dtype = rule, tuple(map(dtype, rates)), dtype
        self.state, self.known, self.angle = rule.init(), 0, None

    def observe(self, products):
        """Returns why there is no angle, and whether the decision is clear of its threshold."""
        uu, vv, uv = products
        self.angle, lost = None, None
        if not math.isfinite(uu):
            lost = "not finite"
        elif self.known and not uu > 2.0**-970:
            lost = "still"
        elif self.known == 2:
            self.angle = angle_from_products(uu, vv, uv)
        self.known = 0 if lost else min(self.known + 1, 2)
        before, θ = self.state, self.state.threshold or self.rule.detector.threshold
        near = [
            self.rule.observe(replace(before, threshold=θ + ε), self.angle) for ε in (-1e-9, 1e-9)
        ]
        self.state = self.rule.observe(before, self.angle)
        clear = all((s.memory, s.waited) == (self.state.memory, self.state.waited) for s in near)
        return lost, clear

    def act(self):
        self.state, decision = self.rule.act(self.state)
        old = self.rates
        if decision.drop:
            lowered = self.rule.policy.lowered([float(α) for α in old])
            self.rates = tuple(map(self.dtype, lowered))
        return decision.drop, tuple(map(float, old)), tuple(map(float, self.rates))


def same_state(device, host):
    """Equal but for rounding: an angle by some of its last digits, a smoothed one by 64 m of them.

    The latter as in the test of `smooth` against the reference.
    """
    state, known, angle = device.export()
    assert known == host.known
    assert (state.waited, state.threshold) == (host.state.waited, host.state.threshold)
    assert type(state.memory) is type(host.state.memory)
    assert same(angle, host.angle)
    memory, expected = vars(state.memory).copy(), vars(host.state.memory).copy()
    C, D = memory.pop("smoothed", None), expected.pop("smoothed", None)
    assert same(C, D, 64 * getattr(host.rule.detector, "buffer", 1) * math.pi * EPS)
    (angles,), (others,) = memory.values(), expected.values()
    if isinstance(others, tuple):
        assert len(angles) == len(others)
        assert all(map(same, angles, others))
    else:
        assert same(angles, others)


def same(a, b, tolerance=8 * math.pi * EPS):
    return a is b is None or (None not in (a, b) and abs(a - b) <= tolerance)


GRID = 16


@st.composite
def streaks(draw):
    """Windows about a level, in degrees, with a squared length from near the least to 1e300.

    Angles are known to a few eps/sin ω: not near 0 and π.
    """
    level = draw(st.integers(30 * GRID, 150 * GRID) | st.just(90 * GRID))
    pattern = draw(st.lists(st.integers(-3, 3) | st.just(0), min_size=1, max_size=4))
    uu = draw(st.sampled_from([1.0, 3e-7, 2e-292, 1e300]))
    length = draw(st.integers(1, 24))
    return [((level + pattern[i % len(pattern)]) / GRID, uu) for i in range(length)]


losses = st.lists(st.sampled_from(["inf", "nan", "zero", "tiny"]), min_size=1, max_size=2)
sequences = st.lists(streaks() | streaks() | losses, max_size=6).map(
    lambda x: [*itertools.chain(*x)]
)
smoothings, kinds = st.sampled_from(["time", "value"]), st.sampled_from(["signed", "absolute"])
thresholds = st.sampled_from([0.01, 0.1, 1 / 16, 0.3, 1.0])
detectors = st.one_of(
    st.builds(GaussianSaturation, thresholds, st.integers(2, 7), smoothings, kinds),
    st.builds(MovingAverageSaturation, thresholds, st.integers(1, 7), kinds),
    st.builds(ThresholdSaturation, thresholds),
)


@st.composite
def policies(draw, threshold, groups):
    floor = st.sampled_from([0.0, 0.02, 0.1, 0.5])
    return DropPolicy(
        draw(st.sampled_from([0.95, 0.5, 0.2, 0.1])),
        draw(floor | st.tuples(*[floor] * groups)),
        draw(st.sampled_from([0, 1, 2, 5])),
        draw(st.none() | st.sampled_from([1.0, 7.3, 30.0]).map(lambda f: f * threshold)),
    )


def products(window):
    if isinstance(window, str):
        uu = {"inf": math.inf, "nan": math.nan, "zero": 0.0, "tiny": 2.0**-970}[window]
        return uu, 1.0, math.nan if window == "nan" else 0.0
    ω, uu = window
    return uu, 2.0, math.sqrt(uu) * math.sqrt(2.0) * math.cos(math.radians(ω))


@given(
    sequences,
    detectors,
    st.integers(1, 3),
    st.sampled_from([(np.float64, F64), (np.float32, F32)]),
    st.data(),
)
def test_the_device_decides_as_the_host_does(seen, detector, groups, dtypes, data):
    policy = data.draw(policies(detector.threshold, groups), label="policy")
    rates = data.draw(st.tuples(*[st.sampled_from([1.0, 0.1, 0.3])] * groups), label="rates")
    swap = data.draw(st.sets(st.integers(0, 60), max_size=3), label="states change places at")
    rule = Rule(4, detector, policy)
    host = Host(rule, rates, dtypes[0])
    device = DeviceRule(rule, groups, "cpu")
    tensors = [torch.tensor(α, dtype=dtypes[1]) for α in rates]
    drops = 0
    for i, window in enumerate(seen):
        if i in swap:
            state, known, angle = device.export()
            device.load(host.state, host.known, host.angle)
            host.state, host.known, host.angle = state, known, angle
        lost, clear = host.observe(products(window))
        device.observe(torch.tensor(products(window), dtype=F64))
        if not clear:  # rounding may decide: both go on from one answer
            event("a change equals its threshold")
            device.load(host.state, host.known, host.angle)
            lost = None
        same_state(device, host)
        drop, old, new = host.act()
        record = DeviceRecord.unpack(device.act(tensors).tolist())
        assert same(record.angle, host.angle)
        assert record[1:] == (lost, drop, old, new)
        same_state(device, host)
        assert tuple(map(float, tensors)) == new
        drops += drop
    event(f"drops: {min(drops, 3)}")


@pytest.mark.parametrize("ω", [0.0, 1e-6, 1e-3, 1.0, 179.0, 179.999, 180.0])
def test_angles_near_0_and_π(ω):
    """Known to the root of the cosine's rounding, and within [0, π]."""
    device = DeviceRule(Rule(1), 1, "cpu")
    for _ in range(3):
        device.observe(torch.tensor(products((ω, 3.0)), dtype=F64))
    angle = device.export()[2]
    assert 0.0 <= angle <= math.pi
    assert angle == pytest.approx(angle_from_products(*products((ω, 3.0))), abs=math.sqrt(8 * EPS))


def run(rule, degrees, rate=1.0):
    """The windows at which a rule on the device drops; the first angle is that of window 2."""
    device, rates, found = DeviceRule(rule, 1, "cpu"), [torch.tensor(rate, dtype=F64)], []
    for i, ω in enumerate([90.0, 90.0, *degrees]):
        device.observe(torch.tensor(products((ω, 1.0)), dtype=F64))
        if DeviceRecord.unpack(device.act(rates).tolist()).drop:
            found.append(i)
    return found, rates[0].item()


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        # Algorithm 1: three windows for an angle, eleven angles for a comparison.
        (rules.uai2024(), [12, 23, 34]),
        (rules.uai2024(smoothing="value", test="absolute"), [12, 23, 34]),
        (rules.nqm2024(), [22]),
        # Armed by the second angle, window 3, which counts as the first of twenty.
        (rules.arxiv2021(5, min_lr=0.0), [22]),
    ],
)
def test_equal_angles_by_hand(rule, found):
    got, rate = run(rule, [90.0] * 38)
    assert got == found
    expected = 1.0
    for _ in found:
        expected = rule.policy.factor * expected
    assert rate == expected


@pytest.mark.parametrize("smoothing", ["time", "value"])
@pytest.mark.parametrize("ω", [0.0, 0.01, 90.0, 180.0])
def test_equal_angles_smooth_to_themselves(smoothing, ω):
    """σ = 0, where the kernel is 0/0."""
    rule = Rule(1, GaussianSaturation(buffer=4, smoothing=smoothing))
    device = DeviceRule(rule, 1, "cpu")
    for _ in range(6):
        device.observe(torch.tensor(products((ω, 1.0)), dtype=F64))
    state, _, angle = device.export()
    assert state.memory == GaussianState((angle,) * 3, angle)


# A step of the mean at every window but those that the names say.
PATHS = {
    "moving": {},
    "still": {7: "still", 8: "still", 20: "still"},
    "not finite": {5: math.nan, 15: math.inf, 16: math.nan},
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("test", ["signed", "absolute"])
def test_the_device_follows_the_scheduler(path, test):
    """Products of numpy's window means in float64, beside AutoDrop on the same parameters."""
    k, W = 3, 60
    generator = np.random.default_rng(1)
    x = generator.normal(size=(k * W + 1, 5)).cumsum(axis=0)
    for window, what in PATHS[path].items():
        # Window i is x_{ik} … x_{(i+1)k−1}; two equal ones leave the second without movement.
        at = slice(window * k, (window + 1) * k)
        x[at] = x[(window - 1) * k : window * k] if what == "still" else what
    p = torch.nn.Parameter(torch.tensor(x[0]))
    optimizer = torch.optim.SGD([p], lr=1.0)
    detector = GaussianSaturation(5.0, 4, test=test)
    scheduler = AutoDrop(optimizer, k, 0.5, 0.1, detector)
    device = DeviceRule(scheduler.rule, 1, "cpu")
    rate, before, d = [torch.tensor(1.0, dtype=F64)], np.zeros(5), np.zeros(5)
    records, lost = [], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for t in range(1, k * W + 1):
            optimizer.step()
            with torch.no_grad():
                p.copy_(torch.tensor(x[t]))
            scheduler.step()
            if t % k:
                continue
            y = x[t - k : t].mean(axis=0)
            s = y - before
            device.observe(torch.tensor([s @ s, d @ d, s @ d]))
            before, d = (np.nan_to_num(a, nan=0.0, posinf=0.0, neginf=0.0) for a in (y, s))
            record = DeviceRecord.unpack(device.act(rate).tolist())
            assert rate[0].item() == optimizer.param_groups[0]["lr"]
            lost += [record.lost] * (record.lost is not None)
            records.append(record)
    angles = [math.degrees(r.angle) for r in records if r.angle is not None]
    # Sums of a few numbers, in another order: the angles are between 5 and 175 degrees.
    assert angles == pytest.approx(scheduler.angular_velocities, abs=1e-10)
    drops = [(i, r) for i, r in enumerate(records) if r.old_lr != r.new_lr]
    assert len(drops) == len(scheduler.drops) == 4
    for (i, record), drop in zip(drops, scheduler.drops, strict=True):
        assert (i, record.old_lr, record.new_lr) == (drop.window, drop.old_lr, drop.new_lr)
    expected = {"moving": 0, "still": 2, "not finite": 3}[path]
    assert (len(lost), len(caught) > 0) == (expected, expected > 0)


class OnDevice(TorchDispatchMode):
    """Refuses every tensor that is not on CUDA: one on the host would have to be copied."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        assert all(x.device.type == "cuda" for x in tensors), func
        return result


ALL = [
    GaussianSaturation(),
    GaussianSaturation(smoothing="value", test="absolute"),
    MovingAverageSaturation(),
    ThresholdSaturation(),
]


def fake(monkeypatch, rule, groups=2):
    """A rule on fake CUDA tensors, under FakeTensorMode."""
    # The method alone, of all operations, wants a CUDA build for fake tensors.
    monkeypatch.setattr(
        torch.Tensor, "copy_", lambda self, other: torch.ops.aten.copy_(self, other)
    )
    rates = [torch.ones((), device="cuda"), torch.ones((), device="cuda", dtype=F64)][:groups]
    return DeviceRule(rule, groups, "cuda"), rates


@pytest.mark.parametrize("detector", ALL, ids=str)
def test_nothing_is_read_and_nothing_is_sent(detector, monkeypatch):
    """FakeTensorMode raises where a value must be known on the host."""
    rule = Rule(1, detector, DropPolicy(0.5, (0.1, 0.2), wait=3, max_threshold=1.0))
    with FakeTensorMode():
        device, rates = fake(monkeypatch, rule)
        window = torch.ones(3, device="cuda", dtype=F64)
        with OnDevice():
            for _ in range(3):
                device.observe(window)
                record = device.act(rates)
        assert (record.shape, record.dtype, record.device.type) == ((7,), F64, "cuda")


def test_control_a_decision_that_is_read_is_seen(monkeypatch):
    def act(self, rates):
        return bool(self._parts()[0][0] > 1)

    with FakeTensorMode():
        device, rates = fake(monkeypatch, Rule(1))
        monkeypatch.setattr(DeviceRule, "act", act)
        with pytest.raises(DataDependentOutputException):
            device.act(rates)
        with OnDevice(), pytest.raises(AssertionError):
            torch.where(rates[0] > 0, rates[0], torch.tensor(0.0))


@pytest.mark.parametrize("detector", ALL, ids=str)
def test_the_state_keeps_its_address(detector):
    """What a captured graph writes must be what the next replay reads."""
    device = DeviceRule(Rule(1, detector, DropPolicy(max_threshold=2.0)), 1, "cpu")
    rate, address = torch.tensor(0.1), device._state.data_ptr()
    for _ in range(3):
        device.observe(torch.ones(3, dtype=F64))
        device.act([rate])
    device.forget(1)
    device.load(device.rule.init(), 2)
    assert device._state.data_ptr() == address


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_goes_on_by_itself(clone):
    rule, window = rules.nqm2024(length=3), torch.tensor([1.0, 1.0, 0.5], dtype=F64)
    device = DeviceRule(rule, 1, "cpu")
    for _ in range(5):
        device.observe(window)
    seen = device.export()
    twin = clone(device)
    twin.observe(window)
    assert device.export() == seen
    assert DeviceRecord.unpack(twin.act([torch.tensor(1.0)]).tolist()).drop
    device.observe(window)
    device.act([torch.tensor(1.0)])
    assert device.export() == twin.export()


def test_a_grown_threshold_is_not_forgotten():
    rule = rules.arxiv2021(5, wait=1)
    device = DeviceRule(rule, 1, "cpu")
    for _ in range(5):
        device.observe(torch.tensor([1.0, 1.0, 0.0], dtype=F64))
        device.act([torch.tensor(1.0)])
    state, known, angle = device.export()
    assert (state.threshold, known, angle) == (0.01 / 0.2 / 0.2, 2, math.pi / 2)
    assert state.memory == ThresholdState(math.pi / 2)
    device.forget(2)
    forgotten = replace(rule.init(), threshold=0.01 / 0.2 / 0.2)
    assert device.export() == (forgotten, 0, None)
    rates = [torch.tensor(1.0), torch.tensor(2.0)]
    record = DeviceRecord.unpack(device.act(rates).tolist())
    assert record == (None, None, False, (1.0, 2.0), (1.0, 2.0))


def test_groups_that_share_a_rate_lower_it_once():
    """Torch gives the groups that take its default one tensor."""
    device = DeviceRule(rules.nqm2024(0.5, (0.1, 0.1), length=1), 2, "cpu")
    shared = torch.tensor(1.0, dtype=F64)
    for _ in range(4):
        device.observe(torch.tensor([1.0, 1.0, 0.5], dtype=F64))
    record = DeviceRecord.unpack(device.act([shared, shared]).tolist())
    assert record[2:] == (True, (1.0, 1.0), (0.5, 0.5))
    assert shared.item() == 0.5
    device = DeviceRule(Rule(1, policy=DropPolicy(min_lr=(0.1, 0.2, 0.1))), 3, "cpu")
    other = torch.tensor(1.0)
    device.act([shared, other, shared])
    with pytest.raises(ValueError, match=r"rates 0 and 1 must be two .* one for 0.1 and 0.2"):
        device.act([shared, shared, other])


def test_a_checkpoint_between_observation_and_action_keeps_the_angle():
    """As for snapshots, which are observed one update before the rule acts."""
    rule = rules.arxiv2021(5, wait=1)
    first, second = (DeviceRule(rule, 1, "cpu") for _ in range(2))
    for _ in range(4):
        first.observe(torch.tensor([1.0, 1.0, 0.5], dtype=F64))
    second.load(*first.export())
    record = DeviceRecord.unpack(second.act([torch.tensor(1.0, dtype=F64)]).tolist())
    assert record == (first.export()[2], None, True, (1.0,), (0.2,))
    assert record.angle == pytest.approx(math.pi / 3, abs=8 * EPS)


def test_a_device_s_rounding_does_not_lead_beyond_π(monkeypatch):
    monkeypatch.setattr(
        torch, "atan2", lambda y, x: torch.full_like(y, math.nextafter(math.pi / 2, 4.0))
    )
    device = DeviceRule(Rule(1), 1, "cpu")
    for _ in range(3):
        device.observe(torch.tensor([1.0, 1.0, -1.0], dtype=F64))
    assert device.export()[2] == math.pi


# Products that no two vectors have; the host's `angle_from_products` refuses them as well.
@pytest.mark.parametrize(
    "products", [(1.0, 1.0, 1.1), (1.0, 0.0, 0.0), (1.0, 1.0, math.nan), (1.0, math.inf, 0.0)]
)
def test_products_that_are_none(products):
    device = DeviceRule(Rule(1), 1, "cpu")
    for _ in range(2):
        device.observe(torch.tensor([1.0, 1.0, 0.0], dtype=F64))
    device.observe(torch.tensor(products, dtype=F64))
    with pytest.raises(ValueError, match=r"\|uv\| <= sqrt\(uu \* vv\), got products on the device"):
        DeviceRecord.unpack(device.act([torch.tensor(1.0)]).tolist())
    with pytest.raises(ValueError, match="must"):
        angle_from_products(*products)
    assert device.export()[1] == 0


@pytest.mark.parametrize("uv", [1.0 + 2.0**-30, -1.0 - 2.0**-30])
def test_rounding_of_products_is_none_of_these(uv):
    device = DeviceRule(Rule(1), 1, "cpu")
    for _ in range(3):
        device.observe(torch.tensor([1.0, 1.0, uv], dtype=F64))
    assert device.export()[2] == angle_from_products(1.0, 1.0, uv) == (0.0 if uv > 0 else math.pi)


class Own(ThresholdSaturation):
    def update(self, state, angle):
        return state, True


def act(*rates):
    return lambda: DeviceRule(Rule(1), 2, "cpu").act(rates)


def load(*args):
    return lambda: DeviceRule(Rule(1, MovingAverageSaturation(length=2)), 1, "cpu").load(*args)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: DeviceRule(Rule(1, Own()), 1, "cpu"), TypeError, "detector must be .* got Own"),
        (
            lambda: DeviceRule(rules.arxiv2021(2, average=True), 1, "cpu"),
            ValueError,
            "average must be False",
        ),
        (
            lambda: DeviceRule(Rule(1, policy=DropPolicy(min_lr=(0.1, 0.2))), 3, "cpu"),
            ValueError,
            "2 floors for 3 groups",
        ),
        (act(torch.tensor(0.1)), ValueError, "rates must be of 2 groups, got 1"),
        (act(torch.tensor(0.1), 0.1), TypeError, "rate 1 must be a tensor, got 0.1"),
        (act(torch.ones(1), torch.tensor(0.1)), ValueError, r"rate 0 .* got shape \(1,\)"),
        (act(torch.tensor(1), torch.tensor(0.1)), ValueError, "rate 0 .* torch.int64"),
        (
            act(torch.tensor(1.0), torch.tensor(0.1, device="meta")),
            ValueError,
            "rate 1 must be on cpu, where it is decided, got meta",
        ),
        (load(rules.RuleState(ThresholdState())), TypeError, "memory must be a MovingAverageSta"),
        (
            load(rules.RuleState(MovingAverageState((1.0, 2.0, 3.0)))),
            ValueError,
            "at most 2 angles, got 3",
        ),
        (load(rules.RuleState(MovingAverageState()), 3), ValueError, "known must be .* got 3"),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words):
        make()
