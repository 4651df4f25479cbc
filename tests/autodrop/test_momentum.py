"""What a drop does to momentum: torch's velocity falls, the paper's does not, or it starts at 0."""

import numpy as np
import pytest
import torch

from autodrop import AutoDrop
from autodrop.detectors import ThresholdSaturation
from autodrop.momentum import change_momentum

F64 = torch.float64
CURVATURE = np.array([0.2, 1.0, 3.0, 0.5])
START = np.array([2.0, -1.0, 0.5, 3.0])
MOMENTUM = 0.8
METHODS = {"heavy ball": 0.0, "nesterov": 1.0}  # s of the paper's eq. (9)
T = 60


def noise():
    return np.random.default_rng(0).standard_normal((T, len(START)))


def unified_momentum(rates, s, momentum=MOMENTUM):
    """UAI 2024, eq. (9), as it is printed; rates: (T, n). The iterates, (T + 1, n)."""
    x = START.copy()
    before = x  # yˢ_0 = x_0
    path = [x]
    for α, ξ in zip(rates, noise(), strict=True):
        G = CURVATURE * x + ξ
        y = x - α * G
        ys = x - s * α * G
        x = y + momentum * (ys - before)
        before = ys
        path.append(x)
    return np.array(path)


class Quadratic:
    """½ Σ a_i x_i² with noise in the gradient, by torch; the first two coordinates are a group."""

    def __init__(self, make, rates=(0.1, 0.05), tensor=False):
        self.params = [torch.nn.Parameter(torch.from_numpy(x.copy())) for x in np.split(START, 2)]
        groups = [
            {"params": [p], "lr": torch.tensor(α, dtype=F64) if tensor else α}
            for p, α in zip(self.params, rates, strict=True)
        ]
        self.optimizer = make(groups)
        self.noise = noise()

    @property
    def x(self):
        return np.concatenate([p.detach().numpy() for p in self.params])

    @property
    def rates(self):
        return np.repeat([float(group["lr"]) for group in self.optimizer.param_groups], 2)

    def gradient(self, t):
        return CURVATURE * self.x + self.noise[t]

    def step(self, t):
        for p, g in zip(self.params, np.split(self.gradient(t), 2), strict=True):
            p.grad = torch.from_numpy(g)
        self.optimizer.step()

    def state(self, i):
        return self.optimizer.state[self.params[i]]


def sgd(nesterov=False, **options):
    return lambda groups: torch.optim.SGD(
        groups, lr=0.1, momentum=MOMENTUM, nesterov=nesterov, **options
    )


def scheduled(problem, momentum, **options):
    """A rule that drops often, on windows of two updates."""
    detector = ThresholdSaturation(30.0)
    return AutoDrop(problem.optimizer, 2, 0.6, detector=detector, momentum=momentum, **options)


def trained(problem, momentum, **options):
    """(iterates, rates of the updates, scheduler)."""
    scheduler = scheduled(problem, momentum, **options)
    path, rates = [problem.x], []
    for t in range(T):
        rates.append(problem.rates)
        problem.step(t)
        scheduler.step()
        path.append(problem.x)
    return np.array(path), np.array(rates), scheduler


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("per_group", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_rescaled_momentum_is_the_paper_s(method, per_group, tensor):
    problem = Quadratic(sgd(method == "nesterov"), tensor=tensor)
    path, rates, scheduler = trained(problem, "rescale", per_group=per_group)
    assert len(scheduler.drops) >= 4
    assert len({tuple(α) for α in rates}) >= 5
    # T updates, each with a few roundings of numbers below 10, in a stable recursion.
    exact = unified_momentum(rates, METHODS[method])
    assert np.abs(path - exact).max() < 100 * T * np.finfo(float).eps
    # The control: another s is another method.
    assert np.abs(path - unified_momentum(rates, 0.5)).max() > 1e-2


@pytest.mark.parametrize("method", METHODS)
def test_kept_momentum_is_the_paper_s_up_to_the_first_drop(method):
    path, rates, scheduler = trained(Quadratic(sgd(method == "nesterov")), "keep")
    exact = unified_momentum(rates, METHODS[method])
    apart = np.abs(path - exact).max(axis=1)
    first = scheduler.drops[0].step
    assert apart[: first + 1].max() < 100 * T * np.finfo(float).eps
    assert apart[first + 1] > 1e-2
    # The velocity has fallen with the rate: what torch's own schedulers do.
    assert apart.max() < 10.0


def test_keeping_is_torch_s_own_schedulers():
    problem, same = Quadratic(sgd()), Quadratic(sgd())
    path, rates, _ = trained(problem, "keep")
    for t in range(T):
        assert np.array_equal(same.x, path[t])
        for group, α in zip(same.optimizer.param_groups, rates[t][::2], strict=True):
            group["lr"] = float(α)
        same.step(t)
    assert np.array_equal(same.x, path[T])


@pytest.mark.parametrize(("nesterov", "factor"), [(False, 1.0), (True, 1.0 + MOMENTUM)])
def test_after_zeroing_the_next_step_is_along_the_gradient(nesterov, factor):
    problem = Quadratic(sgd(nesterov))
    scheduler = scheduled(problem, "zero")
    checked = 0
    for t in range(T):
        dropped = bool(scheduler.drops) and scheduler.drops[-1].step == t
        x, α, g = problem.x, problem.rates, problem.gradient(t)
        problem.step(t)
        scheduler.step()
        moved = problem.x - x
        along = np.allclose(moved, -factor * α * g, rtol=1e-12, atol=1e-15)
        assert along == (dropped or (t == 0))
        checked += dropped
    assert checked >= 4


ADAMS = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Adamax": torch.optim.Adamax,
}


@pytest.mark.parametrize("per_group", [False, True])
@pytest.mark.parametrize("momentum", ["keep", "rescale", "zero"])
@pytest.mark.parametrize("name", ADAMS)
def test_of_adam_the_mean_changes_and_nothing_else(name, momentum, per_group):
    problem = Quadratic(ADAMS[name])
    scheduler = scheduled(problem, momentum, per_group=per_group)
    seen = set()
    for t in range(T):
        problem.step(t)
        before = [{k: v.clone() for k, v in problem.state(i).items()} for i in range(2)]
        count = len(scheduler.drops)
        scheduler.step()
        ratios = [1.0, 1.0]
        for event in scheduler.drops[count:]:
            seen.add(event.group)
            for i in range(2):
                ratios[i] *= event.old_lr[i] / event.new_lr[i]
        for i, ratio in enumerate(ratios):
            after = problem.state(i)
            assert after.keys() == before[i].keys()
            for key, value in before[i].items():
                if key != "exp_avg" or ratio == 1.0 or momentum == "keep":
                    assert torch.equal(after[key], value)
                elif momentum == "zero":
                    assert not after[key].any()
                else:
                    assert torch.allclose(after[key], ratio * value, rtol=1e-15, atol=0.0)
                    assert ratio == pytest.approx(1 / 0.6)
    assert seen == ({0, 1} if per_group else {None})


def test_the_other_buffers_that_torch_has():
    """RMSprop's with momentum, and SGD's that are None before the first step."""
    problem = Quadratic(lambda groups: torch.optim.RMSprop(groups, momentum=0.5))
    problem.step(0)
    held = [problem.state(i)["momentum_buffer"].clone() for i in range(2)]
    squares = problem.state(0)["square_avg"].clone()
    change_momentum(problem.optimizer, problem.optimizer.param_groups[0], "rescale", 2.0)
    assert torch.equal(problem.state(0)["momentum_buffer"], 2 * held[0])
    assert torch.equal(problem.state(1)["momentum_buffer"], held[1])
    assert torch.equal(problem.state(0)["square_avg"], squares)
    fresh = Quadratic(sgd())
    change_momentum(fresh.optimizer, fresh.optimizer.param_groups[0], "rescale", 2.0)
    assert not fresh.optimizer.state  # no entry was made for what has none
    plain = Quadratic(lambda groups: torch.optim.SGD(groups, lr=0.1))
    plain.step(0)
    change_momentum(plain.optimizer, plain.optimizer.param_groups[0], "zero", 2.0)


def test_parameters_without_a_gradient_have_no_momentum_to_change():
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch.optim.SGD([used, unused], lr=0.1, momentum=0.5)
    used.grad = torch.ones(2)
    optimizer.step()
    change_momentum(optimizer, optimizer.param_groups[0], "rescale", 3.0)
    assert torch.equal(optimizer.state[used]["momentum_buffer"], torch.full((2,), 3.0))
    assert unused not in optimizer.state


RATIO = 1 / 0.7


@pytest.mark.parametrize("momentum", ["keep", "rescale", "zero"])
@pytest.mark.parametrize("ratio", [1.0, RATIO])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_ratio_that_is_a_tensor_does_the_same(momentum, ratio, shape):
    """For decisions on the device, where the ratio is 1 unless there was a drop."""

    def changed(ratio):
        g = torch.Generator().manual_seed(0)
        params = [
            torch.nn.Parameter(torch.randn(5, generator=g).to(dtype))
            for dtype in (torch.bfloat16, torch.float32, F64)
        ]
        optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.5)
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        change_momentum(optimizer, optimizer.param_groups[0], momentum, ratio)
        return [optimizer.state[p]["momentum_buffer"] for p in params]

    tensors = changed(torch.full(shape, ratio, dtype=F64))
    numbers = changed(ratio)
    ones = changed(1.0)
    assert [b.dtype for b in tensors] == [torch.bfloat16, torch.float32, F64]
    for by_tensor, by_number, one in zip(tensors, numbers, ones, strict=True):
        # The tensor is rounded to the buffer's dtype first.
        assert torch.allclose(by_tensor, by_number, rtol=2 * torch.finfo(one.dtype).eps, atol=0.0)
        assert torch.equal(one, torch.ones_like(one))
        expected = {"keep": 1.0, "rescale": ratio, "zero": float(ratio == 1.0)}[momentum]
        assert float(by_tensor[0]) == pytest.approx(expected, rel=2 * torch.finfo(one.dtype).eps)


@pytest.mark.parametrize("momentum", ["rescale", "zero"])
def test_a_drop_that_the_rate_s_dtype_rounds_away_changes_nothing(momentum):
    """0.999·0.1 is 0.1 in bfloat16."""
    p = torch.nn.Parameter(torch.zeros(3))
    rate = torch.tensor(0.1, dtype=torch.bfloat16)
    optimizer = torch.optim.SGD([p], lr=rate, momentum=0.9)
    scheduler = AutoDrop(
        optimizer, 1, 0.999, detector=ThresholdSaturation(180.0), momentum=momentum
    )
    g = torch.Generator().manual_seed(0)
    for _ in range(8):
        p.grad = torch.randn(3, generator=g)
        optimizer.step()
        before = optimizer.state[p]["momentum_buffer"].clone()
        scheduler.step()
        assert torch.equal(optimizer.state[p]["momentum_buffer"], before)
    assert scheduler.drops == []
    assert len(scheduler.angular_velocities) == 6


def test_a_velocity_is_kept_by_the_rates_as_they_are_rounded():
    """A float32 rate of a float64 model: αb is what it was, to float64."""
    p = torch.nn.Parameter(torch.zeros(3, dtype=F64))
    optimizer = torch.optim.SGD([p], lr=torch.tensor(0.1), momentum=0.9)
    scheduler = AutoDrop(optimizer, 1, 0.7, detector=ThresholdSaturation(180.0), momentum="rescale")
    g = torch.Generator().manual_seed(0)
    for _ in range(8):
        p.grad = torch.randn(3, generator=g, dtype=F64)
        optimizer.step()
        before = float(optimizer.param_groups[0]["lr"]) * optimizer.state[p]["momentum_buffer"]
        scheduler.step()
        after = float(optimizer.param_groups[0]["lr"]) * optimizer.state[p]["momentum_buffer"]
        assert torch.allclose(after, before, rtol=1e-15, atol=0.0)
    assert len(scheduler.drops) == 5


def test_at_its_floor_a_rate_leaves_the_momentum_alone():
    problem = Quadratic(sgd(), rates=(0.1, 0.05))
    scheduler = scheduled(problem, "zero", min_lr=(0.1, 0.05))
    for t in range(20):
        problem.step(t)
        before = [problem.state(i)["momentum_buffer"].clone() for i in range(2)]
        scheduler.step()
        for i in range(2):
            assert torch.equal(problem.state(i)["momentum_buffer"], before[i])
    assert scheduler.drops == []


WITHOUT = {
    "SGD": lambda groups: torch.optim.SGD(groups, lr=0.1),
    "RMSprop": lambda groups: torch.optim.RMSprop(groups),
    "Adagrad": lambda groups: torch.optim.Adagrad(groups),
    "Adadelta": lambda groups: torch.optim.Adadelta(groups),
    "Rprop": lambda groups: torch.optim.Rprop(groups),
}


@pytest.mark.parametrize("momentum", ["rescale", "zero"])
@pytest.mark.parametrize("name", WITHOUT)
def test_optimizers_without_momentum_are_refused(name, momentum):
    problem = Quadratic(WITHOUT[name])
    words = f"momentum = {momentum!r} needs an optimizer with momentum or betas, got {name} without"
    with pytest.raises(ValueError, match=words):
        AutoDrop(problem.optimizer, momentum=momentum)
    AutoDrop(problem.optimizer, momentum="keep")


def test_momentum_in_one_group_is_enough():
    problem = Quadratic(lambda groups: torch.optim.SGD(groups, lr=0.1))
    problem.optimizer.param_groups[1]["momentum"] = 0.5
    path, _, scheduler = trained(problem, "rescale")
    assert scheduler.drops
    assert np.isfinite(path).all()


def test_an_unknown_word_is_refused():
    with pytest.raises(ValueError, match=r"momentum must be one of .* got 'reset'"):
        scheduled(Quadratic(sgd()), "reset")


def test_a_state_knows_what_happens_to_momentum():
    problem = Quadratic(sgd())
    state = scheduled(problem, "zero").state_dict()
    with pytest.raises(ValueError, match=r"momentum = 'zero' \(here 'rescale'\)"):
        scheduled(problem, "rescale").load_state_dict(state)
