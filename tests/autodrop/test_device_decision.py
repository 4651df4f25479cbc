"""Rates that the device lowers by itself, against the same scheduler deciding on the host."""

import io
import math

import pytest
import torch

from autodrop import AutoDrop, DropPolicy, Rule, rules
from autodrop.detectors import MovingAverageSaturation, ThresholdSaturation

F64 = torch.float64

RULES = {
    "uai": rules.uai2024(4, 0.7, (0.004, 0.002), threshold=3.0, buffer=4),
    "by value": rules.uai2024(
        3, 0.5, (0.004, 0.002), threshold=3.0, buffer=4, smoothing="value", test="absolute"
    ),
    "section 3": Rule(2, MovingAverageSaturation(2.0, 5), DropPolicy(0.5, (0.002, 0.001))),
    "waiting": Rule(3, ThresholdSaturation(5.0), DropPolicy(0.5, 0.001, 3, 40.0)),
}
OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9, fused=True),
    "adam": lambda groups: torch.optim.AdamW(groups, fused=True),
}
T = 240


class Training:
    """Two layers in two groups, rates that are float64 tensors, the second half of the first."""

    def __init__(self, rule, optimizer="sgd", **options):
        g = torch.Generator().manual_seed(1)
        self.x = torch.randn(64, 3, generator=g, dtype=F64)
        self.y = torch.sin(self.x.sum(1, keepdim=True)) + 0.3 * torch.randn(
            64, 1, generator=g, dtype=F64
        )
        self.model = torch.nn.Sequential(
            torch.nn.Linear(3, 4, dtype=F64), torch.nn.Tanh(), torch.nn.Linear(4, 1, dtype=F64)
        )
        with torch.no_grad():
            for p in self.model.parameters():
                p.copy_(torch.randn(p.shape, generator=g, dtype=F64))
        rates = {"sgd": (0.1, 0.05), "adam": (0.02, 0.01)}[optimizer]
        self.optimizer = OPTIMIZERS[optimizer](
            [
                {"params": layer.parameters(), "lr": torch.tensor(α, dtype=F64)}
                for layer, α in zip((self.model[0], self.model[2]), rates, strict=True)
            ]
        )
        self.scheduler = AutoDrop.from_rule(self.optimizer, rule, **options)
        self.rates = []

    def step(self, t):
        batch = slice(8 * (t % 8), 8 * (t % 8) + 8)
        self.optimizer.zero_grad()
        torch.nn.functional.mse_loss(self.model(self.x[batch]), self.y[batch]).backward()
        self.rates.append([float(group["lr"]) for group in self.optimizer.param_groups])
        self.optimizer.step()
        self.scheduler.step()

    def run(self, steps=T, start=0):
        for t in range(start, steps):
            self.step(t)
        return self

    def state(self):
        file = io.BytesIO()
        parts = ("model", "optimizer", "scheduler")
        torch.save({part: getattr(self, part).state_dict() for part in parts}, file)
        file.seek(0)
        return torch.load(file, weights_only=True)


def params(training):
    return torch.nn.utils.parameters_to_vector(training.model.parameters())


@pytest.mark.parametrize("options", [{}, {"per_group": True}, {"momentum": "rescale"}], ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", RULES)
def test_the_device_decides_as_the_host_does(name, optimizer, options):
    host = Training(RULES[name], optimizer, **options).run()
    device = Training(RULES[name], optimizer, decide="device", **options).run()
    assert len(host.scheduler.drops) >= 3
    assert device.rates == host.rates
    assert torch.equal(params(device), params(host))
    assert device.scheduler.drops == host.scheduler.drops
    assert device.scheduler.angular_velocities == host.scheduler.angular_velocities
    assert device.scheduler.angle_steps == host.scheduler.angle_steps
    assert device.scheduler.group_angular_velocities == host.scheduler.group_angular_velocities


@pytest.mark.parametrize("momentum", ["rescale", "zero"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_momentum_at_a_drop_of_the_device(optimizer, momentum):
    options = {"momentum": momentum, "per_group": True}
    host = Training(RULES["waiting"], optimizer, **options).run()
    device = Training(RULES["waiting"], optimizer, decide="device", **options).run()
    kept = Training(RULES["waiting"], optimizer, per_group=True).run()
    assert torch.equal(params(device), params(host))
    assert not torch.equal(params(kept), params(host))  # control: there is something to change


@pytest.mark.parametrize("lag", [1, 2])
def test_a_lag_delays_the_record_and_not_the_drop(lag):
    rule = RULES["waiting"]
    now = Training(rule, decide="device").run()
    later = Training(rule, decide="device", lag=lag).run()
    assert later.rates == now.rates
    assert later.scheduler.drops == now.scheduler.drops[: len(later.scheduler.drops)]
    assert len(later.scheduler.drops) >= len(now.scheduler.drops) - 1
    assert all(event.step == event.observed for event in later.scheduler.drops)


@pytest.mark.parametrize("options", [{}, {"lag": 2}, {"per_group": True, "lag": 1}], ids=str)
def test_resuming_at_every_offset_changes_nothing(options):
    rule = RULES["waiting"]
    steps = 84
    training = Training(rule, decide="device", **options)
    states = [training.state()]
    for t in range(steps):
        training.step(t)
        states.append(training.state())
    assert len(training.scheduler.drops) >= 2
    for cut in range(0, steps, 7):
        resumed = Training(rule, decide="device", **options).run(5)
        for part, state in states[cut].items():
            getattr(resumed, part).load_state_dict(state)
        resumed.rates = training.rates[:cut]
        resumed.run(steps, cut)
        assert resumed.rates == training.rates
        assert torch.equal(params(resumed), params(training))
        assert resumed.scheduler.drops == training.scheduler.drops
        assert resumed.scheduler.angular_velocities == training.scheduler.angular_velocities


def test_a_dry_run_on_the_device_changes_nothing():
    rule = RULES["waiting"]
    plain = Training(rule, dry_run=True).run()
    device = Training(rule, decide="device", dry_run=True).run()
    assert device.rates == plain.rates == [device.rates[0]] * T
    assert torch.equal(params(device), params(plain))
    assert len(device.scheduler.drops) >= 3
    assert device.scheduler.drops == plain.scheduler.drops


def test_a_rate_stays_the_tensor_that_it_was():
    training = Training(RULES["waiting"], decide="device")
    held = [group["lr"] for group in training.optimizer.param_groups]
    training.run()
    now = [group["lr"] for group in training.optimizer.param_groups]
    assert all(a is b for a, b in zip(held, now, strict=True))
    assert training.scheduler.drops[-1].new_lr == tuple(map(float, now))


def test_lost_windows_are_warned_of_and_drop_nothing():
    rule = Rule(2, ThresholdSaturation(180.0), DropPolicy(0.5))
    training = Training(rule, decide="device").run(10)
    before = len(training.scheduler.drops)
    assert before >= 1
    with torch.no_grad():
        kept = params(training).clone()
        training.model[0].weight[0, 0] = math.nan
    with pytest.warns(RuntimeWarning, match="are not finite"):
        training.run(14, 10)
    assert len(training.scheduler.drops) == before
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(kept, training.model.parameters())
    for state in training.optimizer.state.values():
        state["momentum_buffer"].zero_()
    training.run(30, 14)
    assert len(training.scheduler.drops) > before


def test_added_groups_are_decided_on_the_device_too():
    training = Training(RULES["waiting"], decide="device").run(60)
    extra = torch.nn.Parameter(torch.zeros(2, dtype=F64))
    training.optimizer.add_param_group({"params": [extra], "lr": torch.tensor(0.2, dtype=F64)})
    with pytest.warns(RuntimeWarning, match="now has 5 parameter tensors"):
        training.run(61, 60)
    before = len(training.scheduler.drops)
    training.run(T, 61)
    event = training.scheduler.drops[before]
    assert event.old_lr[2] == 0.2
    assert event.new_lr[2] == 0.1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"decide": "gpu"}, ValueError, "decide must be 'host' or 'device', got 'gpu'"),
        ({"decide": "device", "fraction": 0.5}, ValueError, "fraction = 1, got False"),
        (
            {"decide": "device", "observation": "snapshot"},
            ValueError,
            "observation = 'mean'",
        ),
    ],
)
def test_what_the_device_cannot_decide_is_an_error(options, error, words):
    optimizer = Training(RULES["uai"]).optimizer
    with pytest.raises(error, match=words):
        AutoDrop(optimizer, 4, **options)


def test_a_rate_that_is_a_number_is_an_error():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(TypeError, match=r"lr.* tensor"):
        AutoDrop(optimizer, decide="device")


def test_a_host_s_state_is_not_a_device_s():
    host, device = (Training(RULES["uai"], decide=where) for where in ("host", "device"))
    with pytest.raises(ValueError, match=r"decide = 'host' \(here 'device'\)"):
        device.scheduler.load_state_dict(host.scheduler.state_dict())
