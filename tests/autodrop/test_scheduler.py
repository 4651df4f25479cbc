"""AutoDrop on small real training runs, against the array loop and the literal rules."""

import copy
import inspect
import io
import linecache
import math
import pickle
import re
import warnings
from dataclasses import dataclass

import pytest
import torch
from torch.optim import lr_scheduler

from autodrop import AutoDrop, DropPolicy, Rule, rules, run
from autodrop.detectors import MovingAverageSaturation, ThresholdSaturation
from autodrop.scheduler import Options
from tests.autodrop import reference

OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.02),
}


class Training:
    """A network of two layers on noisy data in mini-batches; the second layer learns half as fast.

    Halving is exact in binary: group rates stay in this proportion through every drop.
    """

    def __init__(self, optimizer="sgd"):
        g = torch.Generator().manual_seed(1)
        self.x = torch.randn(64, 3, generator=g, dtype=torch.float64)
        noise = torch.randn(64, 1, generator=g, dtype=torch.float64)
        self.y = torch.sin(self.x.sum(1, keepdim=True)) + 0.3 * noise
        self.model = torch.nn.Sequential(
            torch.nn.Linear(3, 4, dtype=torch.float64),
            torch.nn.Tanh(),
            torch.nn.Linear(4, 1, dtype=torch.float64),
        )
        with torch.no_grad():
            for p in self.model.parameters():
                p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64))
        layers = [self.model[0], self.model[2]]
        self.optimizer = OPTIMIZERS[optimizer]([{"params": m.parameters()} for m in layers])
        self.optimizer.param_groups[1]["lr"] /= 2

    def step(self, t):
        batch = slice(8 * (t % 8), 8 * (t % 8) + 8)
        self.optimizer.zero_grad()
        torch.nn.functional.mse_loss(self.model(self.x[batch]), self.y[batch]).backward()
        self.optimizer.step()

    def flat(self):
        return torch.nn.utils.parameters_to_vector(self.model.parameters()).detach()

    def update(self, t, learning_rate):
        """The update of the array loop."""
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.param_groups[1]["lr"] = learning_rate / 2
        self.step(t)
        return self.flat()

    def assign(self, x):
        x = torch.as_tensor(x, dtype=torch.float64)
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(x, self.model.parameters())

    @property
    def rate(self):
        return self.optimizer.param_groups[0]["lr"]


RULES = {
    "uai": rules.uai2024(4, 0.7, (0.004, 0.002)),
    "by value": rules.uai2024(
        3, 0.5, (0.004, 0.002), threshold=1.0, buffer=6, smoothing="value", test="absolute"
    ),
    "section 3": Rule(2, MovingAverageSaturation(0.7, 12), DropPolicy(0.5, (0.002, 0.001))),
    "arxiv": rules.arxiv2021(5, 0.5, (0.002, 0.001), threshold=3.0, max_threshold=20.0, wait=3),
    "arxiv, averaging": rules.arxiv2021(
        5, 0.5, (0.002, 0.001), threshold=3.0, max_threshold=20.0, wait=3, average=True
    ),
}
DECIDE = {
    "uai": lambda a: reference.uai_drops(a),
    "by value": lambda a: reference.uai_drops(a, 1.0, 6, "value", "absolute"),
    "section 3": lambda a: reference.nqm_drops(a, 0.7, 12),
}
T = 400


def one_group(rule):
    """The rule with the first group's floor."""
    policy = rule.policy
    return Rule(
        rule.window,
        rule.detector,
        DropPolicy(
            policy.factor, policy.min_lr[0], policy.wait, policy.max_threshold, policy.average
        ),
        rule.observation,
    )


def scheduled(training, rule, steps=T):
    """Train; the scheduler and the rate of each update."""
    scheduler = AutoDrop.from_rule(training.optimizer, rule)
    rates = []
    for t in range(steps):
        rates.append(training.rate)
        training.step(t)
        scheduler.step()
        assert scheduler.get_last_lr() == [g["lr"] for g in training.optimizer.param_groups]
    return scheduler, rates


def literal(training, name):
    """The same run by the slow reference: rates, angles, drops."""
    rule, rate = RULES[name], training.rate

    def update(t, learning_rate):
        return training.update(t, learning_rate).tolist()

    start, factor, floor = training.flat().tolist(), rule.policy.factor, rule.policy.min_lr[0]
    if name in DECIDE:
        return reference.train(update, start, rate, T, rule.window, DECIDE[name], factor, floor)
    policy = rule.policy
    return reference.train_by_epochs(
        update,
        training.assign,
        start,
        rate,
        T // rule.window,
        rule.window,
        factor,
        floor,
        rule.detector.threshold,
        policy.max_threshold,
        policy.wait,
        policy.average,
    )[:3]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", RULES)
def test_scheduler_is_the_array_loop_and_the_literal_rule(name, optimizer):
    rule = RULES[name]
    scheduler, rates = scheduled(Training(optimizer), rule)
    training = Training(optimizer)
    loop = run(
        training.update, training.flat(), training.rate, T, one_group(rule), assign=training.assign
    )
    slow_rates, slow_angles, slow_drops = literal(Training(optimizer), name)

    assert len(slow_drops) >= 3
    assert rates == loop.learning_rates[0].tolist() == slow_rates
    # The cosine is known to n·eps; at the smallest angles here, about 1°, products leave 1e-11°,
    # and window sums k·‖x‖·eps over steps > 1e-4.
    angles = loop.angles[0][~torch.from_numpy(loop.angles[0]).isnan().numpy()]
    assert scheduler.angular_velocities == pytest.approx(slow_angles, abs=1e-7)
    assert angles == pytest.approx(slow_angles, abs=1e-7)
    assert [(e.step, e.old_lr[0], e.new_lr[0]) for e in scheduler.drops] == slow_drops
    for event, same in zip(scheduler.drops, loop.drops[0], strict=True):
        assert (event.step, event.window) == (same.step, same.window)
        assert event.angle == pytest.approx(same.angle, abs=1e-7)
        assert event.new_lr[1] == event.new_lr[0] / 2


def test_control_the_rules_differ_on_this_run():
    drops = {name: scheduled(Training(), rule)[0].drops for name, rule in RULES.items()}
    steps = [tuple(e.step for e in events) for events in drops.values()]
    assert len(set(steps)) == len(RULES)


def saved(training, scheduler):
    file = io.BytesIO()
    state = {
        "model": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "rule",
    [
        rules.uai2024(4, 0.7, threshold=3.0, buffer=3),
        rules.uai2024(3, 0.7, threshold=3.0, buffer=3, smoothing="value"),
        Rule(3, MovingAverageSaturation(3.0, 3), DropPolicy(0.5)),
        rules.arxiv2021(5, 0.5, 1e-3, threshold=5.0, max_threshold=60.0, wait=3),
        rules.arxiv2021(4, 0.5, 1e-3, threshold=5.0, max_threshold=60.0, wait=3, average=True),
    ],
    ids=["time", "value", "moving average", "arxiv", "averaging"],
)
def test_resuming_at_every_offset_changes_nothing(rule, optimizer):
    steps = 84
    training = Training(optimizer)
    scheduler = AutoDrop.from_rule(training.optimizer, rule)
    states, rates = [saved(training, scheduler)], []
    for t in range(steps):
        rates.append(training.rate)
        training.step(t)
        scheduler.step()
        states.append(saved(training, scheduler))
    assert len(scheduler.drops) >= 2

    # 7 is prime to the windows of 3, 4 and 5: every offset within each.
    for cut in range(0, steps, 7):
        state = states[cut]
        second = Training(optimizer)
        resumed = AutoDrop.from_rule(second.optimizer, rule)
        second.model.load_state_dict(state["model"])
        second.optimizer.load_state_dict(state["optimizer"])
        resumed.load_state_dict(state["scheduler"])
        for t in range(cut, steps):
            assert second.rate == rates[t]
            second.step(t)
            resumed.step()
        assert resumed.angular_velocities == scheduler.angular_velocities
        assert resumed.drops == scheduler.drops
        assert torch.equal(second.flat(), training.flat())
        assert resumed.get_last_lr() == scheduler.get_last_lr()


def test_the_state_can_be_copied_and_pickled():
    training = Training()
    scheduler, _ = scheduled(training, RULES["uai"], 50)
    state = scheduler.state_dict()
    for same in (copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        other = AutoDrop.from_rule(training.optimizer, RULES["uai"])
        other.load_state_dict(same)
        assert other.angular_velocities == scheduler.angular_velocities
        assert other.drops == scheduler.drops


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"factor": 0.9}, r"factor = 0\.95 \(here 0\.9\)$"),
        ({"window": 8, "min_lr": 0.01}, r"min_lr = 0\.0 \(here 0\.01\), window = 4 \(here 8\)$"),
        (
            {"detector": ThresholdSaturation()},
            r"detector = 'GaussianSaturation' \(here 'ThresholdSaturation'\), detector\.buffer",
        ),
        ({"lag": 1, "factor": 0.9}, r"factor = 0\.95 \(here 0\.9\), lag = 0 \(here 1\)$"),
    ],
)
def test_another_scheduler_s_state_is_refused(options, words):
    training = Training()
    state = AutoDrop(training.optimizer, 4).state_dict()
    other = AutoDrop(training.optimizer, **{"window": 4, **options})
    before = other.state_dict()
    with pytest.raises(ValueError, match=words):
        other.load_state_dict(state)
    after = other.state_dict()
    before.pop("tracker"), after.pop("tracker")
    assert after == before


def test_a_foreign_state_is_refused():
    optimizer = Training().optimizer
    foreign = lr_scheduler.StepLR(optimizer, 3).state_dict()
    with pytest.raises(ValueError, match="state_dict must be AutoDrop's, got keys"):
        AutoDrop(optimizer).load_state_dict(foreign)


class Walk:
    """One parameter tensor that walks at random whatever the rate, in an optimizer."""

    def __init__(self, lr=1.0, seed=0):
        self.p = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
        self.optimizer = torch.optim.SGD([self.p], lr=lr)
        self.generator = torch.Generator().manual_seed(seed)

    def step(self):
        self.optimizer.step()
        noise = torch.randn(4, generator=self.generator, dtype=torch.float64)
        with torch.no_grad():
            self.p += noise


@dataclass(frozen=True)
class Every:
    """A user's detector: saturated at every `n`-th angle."""

    n: int = 1

    def init(self):
        return 0

    def update(self, state, angle):
        return (state + 1) % self.n, (state + 1) % self.n == 0


def test_x0_is_in_the_first_window_and_the_first_angle_comes_after_three():
    """The hand-made path of the tracker's test: means (1, 0), (4, 0), (4, 3)."""
    path = [(0, -1), (2, 1), (3, -2), (5, 2), (2, 1), (6, 5), (100, -50), (7, 7)]
    path = torch.tensor(path, dtype=torch.float64)
    p = torch.nn.Parameter(path[0].clone())
    optimizer = torch.optim.SGD([p], lr=1.0)
    scheduler = AutoDrop(optimizer, window=2, factor=0.5, detector=Every())
    seen = []
    for x in path[1:]:
        optimizer.step()
        p.data.copy_(x)
        scheduler.step()
        seen.append((len(scheduler.angular_velocities), optimizer.param_groups[0]["lr"]))
    assert seen == [(0, 1.0)] * 5 + [(1, 0.5)] * 2
    assert scheduler.angular_velocities == [90.0]
    (event,) = scheduler.drops
    assert (event.step, event.window, event.angle) == (6, 2, 90.0)
    assert (event.old_lr, event.new_lr) == ((1.0,), (0.5,))


def test_averages_by_hand():
    """Weights 1, 2, 3 for the iterates after the second updates of the three waiting epochs."""
    walk = Walk(lr=1.0)
    scheduler = AutoDrop(
        walk.optimizer,
        4,
        0.5,
        0.0,
        Every(),
        wait=3,
        average=True,
        observation="snapshot",
    )
    momentum = {"count": 7}
    walk.optimizer.state[walk.p] = momentum
    seen = {}
    for t in range(1, 19):
        walk.step()
        seen[t] = walk.p.detach().clone()
        scheduler.step()
    # The first angle is that of epoch 2, t = 9; epochs 2, 3, 4 wait, and t = 18 drops.
    expected = (1 * seen[10] + 2 * seen[14] + 3 * seen[18]) / 6
    # A handful of roundings of numbers of order 10.
    assert torch.allclose(walk.p.detach(), expected, rtol=0, atol=1e-14)
    assert not torch.equal(seen[18], expected)
    assert [e.step for e in scheduler.drops] == [18]
    assert walk.optimizer.state[walk.p] is momentum
    # The replacement is no step: the next angle needs three snapshots, at t = 21, 25, 29.
    count = len(scheduler.angular_velocities)
    counts = []
    for _ in range(19, 30):
        walk.step()
        scheduler.step()
        counts.append(len(scheduler.angular_velocities) - count)
    assert counts == [0] * 10 + [1]


def test_the_floor_ends_the_drops_and_their_record():
    walk = Walk(lr=1.0)
    scheduler = AutoDrop(walk.optimizer, 1, 0.5, 0.2, Every())
    for _ in range(20):
        walk.step()
        scheduler.step()
    assert [(e.old_lr, e.new_lr) for e in scheduler.drops] == [
        ((1.0,), (0.5,)),
        ((0.5,), (0.25,)),
        ((0.25,), (0.2,)),
    ]
    assert scheduler.get_last_lr() == [0.2]


def test_rates_below_their_floors_are_told_of_once():
    walk = Walk(lr=1.0)
    scheduler = AutoDrop(walk.optimizer, 1, 0.5, 2.0, Every())
    for t in range(1, 9):
        walk.step()
        if t == 3:
            with pytest.warns(RuntimeWarning, match=r"rates \[1\.0\], min_lr = 2\.0"):
                scheduler.step()
        else:
            scheduler.step()
    assert scheduler.drops == []


def test_a_tensor_rate_is_filled_in_place():
    rate = torch.tensor(1.0)
    walk = Walk(lr=rate)
    held = walk.optimizer.param_groups[0]["lr"]
    scheduler = AutoDrop(walk.optimizer, 1, 0.1, 0.01, Every())
    for _ in range(8):
        walk.step()
        scheduler.step()
    assert walk.optimizer.param_groups[0]["lr"] is held
    assert [e.new_lr for e in scheduler.drops] == [
        (float(torch.tensor(0.1)),),
        (float(torch.tensor(0.01)),),
    ]
    (last,) = scheduler.get_last_lr()
    assert last is not held
    assert last == held


@pytest.mark.parametrize("options", [{"per_group": True}, {"min_lr": [0.1, 0.2]}], ids=str)
def test_groups_that_drop_apart_have_rates_of_their_own(options):
    """An optimizer hands its default rate, one tensor, to every group."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(2)]
    optimizer = torch.optim.SGD(groups, lr=torch.tensor(1.0), momentum=0.9)
    with pytest.raises(ValueError, match="groups 0 and 1 must have rates of their own"):
        AutoDrop(optimizer, **options)
    AutoDrop(optimizer, min_lr=0.1)
    for group in optimizer.param_groups:
        group["lr"] = group["lr"].clone()
    AutoDrop(optimizer, **options)


@pytest.mark.parametrize("order", ["warm-up first", "AutoDrop first"])
def test_it_chains_with_a_warm_up(order):
    walk = Walk(lr=1.0)

    def warm_up():
        return lr_scheduler.LinearLR(walk.optimizer, 0.5, total_iters=4)

    def auto():
        return AutoDrop(walk.optimizer, 1, 0.5, 0.0, Every(3))

    schedulers = [warm_up(), auto()] if order == "warm-up first" else [auto(), warm_up()]
    chain = lr_scheduler.ChainedScheduler(schedulers, optimizer=walk.optimizer)
    rates = []
    for _ in range(8):
        rates.append(walk.optimizer.param_groups[0]["lr"])
        walk.step()
        chain.step()
    # Angles from t = 3 on, a drop with each third: at t = 5 and t = 8.
    assert rates == pytest.approx([0.5, 0.625, 0.75, 0.875, 1.0, 0.5, 0.5, 0.5], rel=1e-15)
    assert chain.get_last_lr() == pytest.approx([0.25], rel=1e-15)


# Older torch warns of the epoch that its own SequentialLR passes.
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_it_takes_its_turn_after_a_warm_up():
    """In a SequentialLR, x_0 is the iterate at the turn, and the rate the initial one."""
    walk = Walk(lr=1.0)
    warm_up = lr_scheduler.LinearLR(walk.optimizer, 0.25, total_iters=4)
    auto = AutoDrop(walk.optimizer, 2, 0.5, 0.0, Every())
    both = lr_scheduler.SequentialLR(walk.optimizer, [warm_up, auto], milestones=[4])
    path, rates = [], []
    for _ in range(12):
        rates.append(walk.optimizer.param_groups[0]["lr"])
        walk.step()
        path.append(walk.p.detach().tolist())
        both.step()
    assert rates[4:10] == [1.0] * 6
    assert rates[10:] == [0.5] * 2
    assert [(e.step, e.window) for e in auto.drops] == [(6, 2), (8, 3)]
    exact = reference.window_angle(path[3:], 2, 2)
    assert auto.angular_velocities[0] == pytest.approx(exact, abs=1e-9)


def test_it_takes_its_turn_first():
    walk = Walk(lr=1.0)
    auto = AutoDrop(walk.optimizer, 2, 0.5, 0.0, Every())
    tail = lr_scheduler.ExponentialLR(walk.optimizer, 0.9)
    both = lr_scheduler.SequentialLR(walk.optimizer, [auto, tail], milestones=[7])
    for _ in range(6):
        walk.step()
        both.step()
    assert [e.step for e in auto.drops] == [6]


def test_added_parameters_restart_the_tracking_and_are_tracked():
    walk = Walk()
    scheduler = AutoDrop(walk.optimizer, 2, 0.5, 0.0, ThresholdSaturation(180.0))
    extra = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    g = torch.Generator().manual_seed(5)
    path = []
    counts = []
    for t in range(1, 23):
        if t == 8:
            walk.optimizer.add_param_group({"params": [extra], "lr": 0.125})
        walk.step()
        with torch.no_grad():
            extra += torch.randn(2, generator=g, dtype=torch.float64)
        path.append(torch.cat([walk.p.detach(), extra.detach()]).tolist())
        if t == 8:
            with pytest.warns(RuntimeWarning, match="now has 2 parameter tensors, 1 before"):
                scheduler.step()
        else:
            scheduler.step()
        counts.append(len(scheduler.angular_velocities))
    # Angles at t = 6, then, from windows 4, 5, 6 (t = 8 … 13), at t = 14.
    assert counts[:14] == [0] * 5 + [1] * 8 + [2]
    exact = reference.window_angle([[0.0] * 6, *path], 6, 2)
    assert scheduler.angular_velocities[1] == pytest.approx(exact, abs=1e-9)
    # The detector forgot the angle at t = 6: its first comparison is at t = 16.
    assert scheduler.drops[0].step == 16
    assert scheduler.drops[0].old_lr == (1.0, 0.125)
    assert scheduler.drops[0].new_lr == (0.5, 0.0625)


def test_floors_that_no_longer_fit_are_an_error():
    walk = Walk()
    scheduler = AutoDrop(walk.optimizer, 2, min_lr=[0.1])
    walk.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))]})
    walk.step()
    with (
        pytest.warns(RuntimeWarning, match="2 parameter tensors"),
        pytest.raises(ValueError, match="1 floors for 2 groups"),
    ):
        scheduler.step()


def test_a_window_without_movement_warns_and_training_goes_on():
    training = Training()
    for group in training.optimizer.param_groups:
        group["lr"] = 0.0
    scheduler = AutoDrop(training.optimizer, 3)
    for t in range(9):
        training.step(t)
        if t == 5:  # two windows make a step; the third starts afresh
            with pytest.warns(RuntimeWarning, match="the parameters did not move"):
                scheduler.step()
        else:
            scheduler.step()
    assert scheduler.angular_velocities == []
    for group in training.optimizer.param_groups:
        group["lr"] = 0.01
    for t in range(9, 24):
        training.step(t)
        scheduler.step()
    assert len(scheduler.angular_velocities) >= 2


def test_a_wait_can_end_at_a_window_without_an_angle():
    walk = Walk()
    scheduler = AutoDrop(walk.optimizer, 1, 0.5, 0.0, Every(), wait=2)
    for t in range(1, 5):
        walk.optimizer.step()
        if t < 3:
            with torch.no_grad():
                walk.p[t] += 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            scheduler.step()
    # x_0, x_1, x_2 give the angle at t = 3, x_3 = x_2 none at t = 4.
    (event,) = scheduler.drops
    assert (event.step, event.angle) == (4, None)
    other = AutoDrop(walk.optimizer, 1, 0.5, 0.0, Every(), wait=2)
    other.load_state_dict(scheduler.state_dict())
    assert other.drops == scheduler.drops


def test_it_is_a_torch_scheduler():
    walk = Walk()
    scheduler = AutoDrop(walk.optimizer)
    assert isinstance(scheduler, lr_scheduler.LRScheduler)
    assert scheduler.get_last_lr() == [1.0]
    assert walk.optimizer.param_groups[0]["initial_lr"] == 1.0
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()
    assert scheduler.last_epoch == 1
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer, got a"):
        AutoDrop(walk.p)
    with pytest.raises(KeyError, match="initial_lr"):
        AutoDrop(Walk().optimizer, last_epoch=3)


@pytest.mark.parametrize("argument", [3, 0.3, 0.0, False, torch.tensor(0), torch.tensor(0.3)])
def test_step_takes_neither_an_epoch_nor_a_metric(argument):
    walk = Walk()
    scheduler = AutoDrop(walk.optimizer)
    walk.step()
    words = f"neither an epoch nor a metric.* step() without arguments, got {argument!r}"
    with pytest.raises(ValueError, match=re.escape(words).replace(r"\.\*", ".*")):
        scheduler.step(argument)
    assert scheduler.last_epoch == 0


@pytest.mark.parametrize("through", ["alone", "sequence"])
def test_warnings_point_at_the_line_that_steps(through):
    walk = Walk()
    scheduler = AutoDrop(walk.optimizer, 1, detector=Every())
    if through == "sequence":
        tail = lr_scheduler.ExponentialLR(walk.optimizer, 0.9)
        stepped = lr_scheduler.SequentialLR(walk.optimizer, [scheduler, tail], milestones=[9])
    else:
        stepped = scheduler
    walk.step()
    stepped.step()
    walk.optimizer.add_param_group({"params": [torch.full((2,), math.nan)]})
    for words in ("now has 2 parameter tensors", "parameters are not finite"):
        walk.step()
        with pytest.warns(RuntimeWarning, match=words) as caught:
            stepped.step()
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert "stepped.step()" in linecache.getline(__file__, caught[0].lineno)
    for _ in range(4):
        walk.step()
        stepped.step()  # silent, though still lost: warnings are errors in these tests


def test_the_defaults_drop_first_after_update_832_and_then_every_eleventh_window():
    """On a straight line every angle is 0 and each comparison a drop: the fastest there can be."""
    p = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = torch.optim.SGD([p], lr=1.0)
    scheduler = AutoDrop(optimizer)
    for t in range(1, 1601):
        optimizer.step()
        with torch.no_grad():
            p += 1.0
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] >= 0.95 ** (t / (11 * 64))
    assert [e.step for e in scheduler.drops] == [13 * 64, 24 * 64] == [832, 1536]


def test_last_epoch_is_torch_s():
    optimizer = Walk().optimizer
    optimizer.param_groups[0].update(initial_lr=2.0, lr=0.5)
    scheduler = AutoDrop(optimizer, last_epoch=7)
    assert scheduler.last_epoch == 8
    assert scheduler.base_lrs == [2.0]
    assert scheduler.get_last_lr() == [0.5]


def test_repr():
    walk = Walk()
    scheduler = AutoDrop(walk.optimizer, 1, 0.5, 0.125, ThresholdSaturation(180.0))
    for _ in range(4):
        walk.step()
        scheduler.step()
    assert repr(scheduler) == (
        "AutoDrop(window=1, factor=0.5, min_lr=0.125, detector=ThresholdSaturation("
        "threshold=180.0), updates=4, lr=[0.5], drops=1)"
    )


def test_presets_take_the_rule_s_parameters():
    optimizer = Walk().optimizer
    assert AutoDrop(optimizer).rule == AutoDrop.uai2024(optimizer).rule == rules.uai2024()
    assert AutoDrop.arxiv2021(optimizer, 391).rule == rules.arxiv2021(391)
    assert AutoDrop.uai2024(
        optimizer, 640, 0.9, 1e-3, threshold=0.2, buffer=5, smoothing="value", test="absolute"
    ).rule == rules.uai2024(
        640, 0.9, 1e-3, threshold=0.2, buffer=5, smoothing="value", test="absolute"
    )
    assert AutoDrop.arxiv2021(
        optimizer, 5, 0.1, 1e-3, threshold=0.1, max_threshold=2.0, wait=7, average=True
    ).rule == rules.arxiv2021(5, 0.1, 1e-3, threshold=0.1, max_threshold=2.0, wait=7, average=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0}, "window must be an integer >= 1 .* got 0"),
        ({"factor": 1.5}, r"factor must be in \(0, 1\), got 1.5"),
        ({"min_lr": -1e-3}, "min_lr must be finite and >= 0, got -0.001"),
        ({"min_lr": [0.1, 0.2]}, "2 floors for 1 groups"),
        ({"lag": 64}, "lag must be < window = 64, got 64"),
        (
            {"observation": "snapshot", "average": True, "wait": 2, "lag": 1},
            "average needs lag = 0, got 1",
        ),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        AutoDrop(Walk().optimizer, **options)


def test_the_class_of_a_detector_is_no_detector():
    with pytest.raises(TypeError, match=r"an instance, such as ThresholdSaturation\(\)"):
        AutoDrop(Walk().optimizer, detector=ThresholdSaturation)


def test_angles_are_degrees_at_the_surface():
    scheduler, _ = scheduled(Training(), RULES["uai"], 100)
    assert all(0.0 <= angle <= 180.0 for angle in scheduler.angular_velocities)
    assert max(scheduler.angular_velocities) > math.pi


def test_the_options_of_the_presets_are_the_constructor_s():
    parameters = inspect.signature(AutoDrop.__init__).parameters
    rule = {"self", "optimizer", "window", "factor", "min_lr", "detector", "wait"}
    rule |= {"max_threshold", "average", "observation"}
    assert set(Options.__annotations__) == set(parameters) - rule
    given = {"lag": 1, "stride": 2, "seed": 3, "dry_run": True, "per_group": True}
    scheduler = AutoDrop.uai2024(Walk().optimizer, 4, **given)
    assert (scheduler._tracker.lag, scheduler._tracker.stride, scheduler._tracker.seed) == (1, 2, 3)
    assert (scheduler.dry_run, scheduler.per_group) == (True, True)
