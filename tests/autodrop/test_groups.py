"""per_group: each parameter group has its own angle, its own rule, and its own drops."""

import dataclasses
import io
import math

import pytest
import torch

from autodrop import AngularVelocity, AutoDrop, DropPolicy, Rule, replay, rules
from autodrop.detectors import MovingAverageSaturation, ThresholdSaturation

F32, F64 = torch.float32, torch.float64


class Training:
    """Three layers, a parameter group each, on noisy mini-batches, with names."""

    RATES = (0.1, 0.05, 0.02)

    def __init__(self, dtype=F64, optimizer="sgd"):
        g = torch.Generator().manual_seed(1)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 5), torch.nn.Tanh()
        ).append(torch.nn.Linear(5, 1))
        self.model.to(dtype)
        with torch.no_grad():
            for p in self.model.parameters():
                p.copy_(0.7 * torch.randn(p.shape, generator=g, dtype=F64))
        self.x = torch.randn(64, 4, generator=g, dtype=F64).to(dtype)
        noise = torch.randn(64, 1, generator=g, dtype=F64).to(dtype)
        self.y = torch.sin(self.x.sum(1, keepdim=True)) + 0.5 * noise
        groups = [
            {"params": list(self.model[i].named_parameters(prefix=str(i))), "lr": α}
            for i, α in zip((0, 2, 4), self.RATES, strict=True)
        ]
        make = {
            "sgd": lambda groups: torch.optim.SGD(groups, lr=1.0, momentum=0.8),
            "adam": lambda groups: torch.optim.Adam(groups, lr=1.0),
        }[optimizer]
        self.optimizer = make(groups)

    def step(self, t):
        batch = slice(8 * (t % 8), 8 * (t % 8) + 8)
        self.optimizer.zero_grad()
        torch.nn.functional.mse_loss(self.model(self.x[batch]), self.y[batch]).backward()
        self.optimizer.step()

    @property
    def groups(self):
        """The parameters of each group, under their names."""
        return [
            list(zip(group["param_names"], group["params"], strict=True))
            for group in self.optimizer.param_groups
        ]

    @property
    def rates(self):
        return tuple(group["lr"] for group in self.optimizer.param_groups)

    def flat(self):
        return torch.nn.utils.parameters_to_vector(self.model.parameters()).detach()


# Rules that drop often.
RULES = {
    "gaussian": rules.uai2024(4, 0.8, threshold=0.5, buffer=4),
    "moving average": Rule(3, MovingAverageSaturation(2.0, 3), DropPolicy(0.8)),
    "waiting": Rule(3, ThresholdSaturation(5.0), DropPolicy(0.8, wait=3, max_threshold=20.0)),
    "snapshots, waiting": rules.arxiv2021(5, 0.8, 0.0, threshold=8.0, max_threshold=20.0, wait=2),
}


def scheduled(rule, training, steps=200, **options):
    """Train per group; the scheduler, and the rates of every update."""
    scheduler = AutoDrop.from_rule(training.optimizer, rule, per_group=True, **options)
    history = []
    for t in range(steps):
        history.append(training.rates)
        training.step(t)
        scheduler.step()
    return scheduler, [*history, training.rates]


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (F64, {}),
        (F32, {}),
        (F32, {"accumulation": "plain", "lag": 3}),
        (F32, {"stride": 2, "direction": torch.bfloat16}),
        (F32, {"observation": "snapshot", "lag": 1}),
        (F64, {"fraction": 0.6, "seed": 3, "dry_run": True}),
    ],
    ids=str,
)
def test_each_group_has_the_angles_of_a_tracker_of_its_own(dtype, options):
    training = Training(dtype)
    k = 4
    scheduler = AutoDrop(
        training.optimizer, k, 0.9, detector=ThresholdSaturation(3.0), per_group=True, **options
    )
    options = {name: value for name, value in options.items() if name != "dry_run"}
    alone = [AngularVelocity(members, k, **options) for members in training.groups]
    every = AngularVelocity([p for members in training.groups for p in members], k, **options)
    seen, errors, whole, steps = [[], [], []], [], [], []
    for t in range(1, 81):
        training.step(t)
        scheduler.step()
        for found, velocity in zip(seen, alone, strict=True):
            angle = velocity.update()
            found += [] if angle is None else [math.degrees(angle)]
        angle = every.update()
        if angle is not None:
            whole.append(math.degrees(angle))
            steps.append(t - every.lag)
            errors.append(scheduler._tracker.group_errors == tuple(v.error for v in alone))
    assert len(whole) >= 17
    assert scheduler.group_angular_velocities == seen
    assert scheduler.group_angle_steps == [steps] * 3
    assert all(errors)
    # Products in another order: of cosines known to n·eps, at angles above 1°.
    assert scheduler.angular_velocities == pytest.approx(whole, abs=1e-9)
    assert scheduler.angle_steps == steps
    # The control: the four are not alike.
    for i, found in enumerate(seen):
        for other in (*seen[:i], scheduler.angular_velocities):
            assert found != pytest.approx(other, abs=1.0)


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("name", RULES)
def test_each_rule_sees_its_group_and_drops_its_rate_alone(name, lag):
    """By replaying each group's recorded angles with a rule of its own."""
    rule = RULES[name]
    training = Training()
    scheduler, history = scheduled(rule, training, lag=lag)
    for number, first in enumerate(Training.RATES):
        events = [e for e in scheduler.drops if e.group == number]
        assert len(events) >= 3
        expected = replay(
            scheduler.group_angular_velocities[number],
            rule,
            first,
            steps=scheduler.group_angle_steps[number],
        )
        expected = [e for e in expected if e.step + lag <= 200]
        assert [(e.observed, e.window, e.angle) for e in events] == [
            (e.observed, e.window, e.angle) for e in expected
        ]
        assert [(e.old_lr[number], e.new_lr[number]) for e in events] == [
            (*e.old_lr, *e.new_lr) for e in expected
        ]
        assert [e.step - e.observed for e in events] == [lag] * len(events)
    # Every event changes one rate, and what it says is what the update after it trains with.
    rates = Training.RATES
    for event in scheduler.drops:
        assert event.old_lr == rates
        lowered = [i for i in range(3) if event.old_lr[i] != event.new_lr[i]]
        assert lowered == [event.group]
        rates = event.new_lr
        last = [e for e in scheduler.drops if e.step == event.step][-1]
        assert history[event.step] == last.new_lr
    changed = [t for t in range(1, 201) if history[t] != history[t - 1]]
    assert changed == sorted({e.step for e in scheduler.drops})
    times = [tuple(e.step for e in scheduler.drops if e.group == i) for i in range(3)]
    assert len(set(times)) == 3  # the control: the groups do not drop together


def test_control_one_angle_for_all_drops_together():
    rule = RULES["gaussian"]
    training = Training()
    scheduler = AutoDrop.from_rule(training.optimizer, rule)
    for t in range(200):
        training.step(t)
        scheduler.step()
    assert scheduler.drops
    assert scheduler.group_angular_velocities == scheduler.group_angle_steps == []
    for event in scheduler.drops:
        assert event.group is None
        assert all(new < old for old, new in zip(event.old_lr, event.new_lr, strict=True))


@pytest.mark.parametrize("name", RULES)
def test_one_group_is_the_whole(name):
    def train(per_group):
        training = Training()
        members = [pair for group in training.groups for pair in group]
        training.optimizer = torch.optim.SGD(members, lr=0.05)
        scheduler = AutoDrop.from_rule(training.optimizer, RULES[name], per_group=per_group)
        for t in range(120):
            training.step(t)
            scheduler.step()
        return scheduler

    one, whole = train(True), train(False)
    assert one.group_angular_velocities == [one.angular_velocities] == [whole.angular_velocities]
    assert one.group_angle_steps == [one.angle_steps] == [whole.angle_steps]
    assert whole.drops
    assert one.drops == [dataclasses.replace(event, group=0) for event in whole.drops]


class Walks:
    """Groups of one tensor each, which go straight on, turn at random, or stay where they are."""

    def __init__(self, *rates):
        self.params = [torch.nn.Parameter(torch.zeros(4, dtype=F64)) for _ in rates]
        self.optimizer = torch.optim.SGD(
            [{"params": [p], "lr": α} for p, α in zip(self.params, rates, strict=True)], lr=1.0
        )
        self.generator = torch.Generator().manual_seed(0)

    def step(self, how):
        """how: one letter for each group, "s"traight, "r"andom or "-"."""
        for p, way in zip(self.params, how, strict=True):
            noise = torch.randn(4, generator=self.generator, dtype=F64)
            with torch.no_grad():
                p += {"s": torch.ones(4, dtype=F64), "r": noise, "-": 0.0}[way]
        self.optimizer.step()

    @property
    def rates(self):
        return [group["lr"] for group in self.optimizer.param_groups]


def test_groups_that_saturate_in_one_window_drop_one_after_the_other():
    """Straight on: every angle is 0, and each but the first saturates."""
    walks = Walks(1.0, 0.1)
    told = []
    scheduler = AutoDrop(
        walks.optimizer,
        2,
        0.5,
        detector=ThresholdSaturation(),
        per_group=True,
        on_drop=lambda event: told.append((event, walks.rates)),
    )
    for _ in range(8):
        walks.step("ss")
        scheduler.step()
    assert [(e.step, e.group, e.old_lr, e.new_lr, e.angle) for e in scheduler.drops] == [
        (8, 0, (1.0, 0.1), (0.5, 0.1), 0.0),
        (8, 1, (0.5, 0.1), (0.5, 0.05), 0.0),
    ]
    # Each is told when it is done, before the next group's.
    assert told == [(event, list(event.new_lr)) for event in scheduler.drops]


def test_floors_are_each_group_s_own():
    """Four drops to the floor, none to a floor that is above the rate, one cut short."""
    walks = Walks(1.0, 0.1, 0.3)
    scheduler = AutoDrop(
        walks.optimizer,
        1,
        0.5,
        (0.0625, 0.2, 0.25),
        detector=ThresholdSaturation(),
        per_group=True,
    )
    for _ in range(12):
        walks.step("sss")
        scheduler.step()
    assert [e.group for e in scheduler.drops] == [0, 2, 0, 0, 0]
    assert walks.rates == [0.0625, 0.1, 0.25]
    assert scheduler.drops[-1].new_lr == (0.0625, 0.1, 0.25)
    assert [e.step for e in scheduler.drops] == [4, 4, 5, 6, 7]


def test_a_group_that_does_not_move_leaves_the_others_alone():
    walks = Walks(1.0, 1.0)
    scheduler = AutoDrop(walks.optimizer, 1, 0.5, detector=ThresholdSaturation(1.0), per_group=True)
    for t in range(1, 15):
        walks.step("s-" if t < 9 else "ss")
        if t == 2:  # the window of x_1, which is x_0
            with pytest.warns(RuntimeWarning, match="the parameters of group 1 did not move"):
                scheduler.step()
        else:
            scheduler.step()
    assert [len(angles) for angles in scheduler.group_angular_velocities] == [12, 4]
    # x_9 is its first step; windows 8, 9, 10, the last of which ends with update 11.
    assert scheduler.group_angle_steps == [list(range(3, 15)), [11, 12, 13, 14]]
    assert scheduler.angle_steps == list(range(3, 15))
    drops = {i: [e.step for e in scheduler.drops if e.group == i] for i in (0, 1)}
    assert drops == {0: list(range(4, 15)), 1: [12, 13, 14]}


def test_a_group_that_is_not_finite_leaves_the_others_alone():
    walks = Walks(1.0, 1.0)
    scheduler = AutoDrop(walks.optimizer, 1, 0.5, detector=ThresholdSaturation(1.0), per_group=True)
    for t in range(1, 13):
        walks.step("ss")
        if t == 5:
            walks.params[1].data[2] = math.inf
        if t == 6:
            with pytest.warns(RuntimeWarning) as caught:
                scheduler.step()
            words = [str(w.message) for w in caught]
            assert len(words) == 2
            assert "the parameters are not finite" in words[0]
            assert "the parameters of group 1 are not finite" in words[1]
            walks.params[1].data[2] = 0.0
        else:
            scheduler.step()
    lost = [6, 7, 8, 9]  # x_5 and x_6
    expected = [t for t in range(3, 13) if t not in lost]
    assert scheduler.group_angle_steps == [list(range(3, 13)), expected]
    assert scheduler.angle_steps == expected
    assert [e.step for e in scheduler.drops if e.group == 0] == list(range(4, 13))


def test_groups_that_are_added_later_join():
    """The third one within window 3: all start afresh with window 4, and it has a rule too."""
    k = 2
    walks = Walks(1.0, 0.5)
    scheduler = AutoDrop(walks.optimizer, k, 0.5, detector=ThresholdSaturation(1.0), per_group=True)
    extra = torch.nn.Parameter(torch.zeros(4, dtype=F64))
    alone, found = None, []
    for t in range(1, 20):
        if t == 3 * k + 1:
            walks.params.append(extra)
            walks.optimizer.add_param_group({"params": [extra], "lr": 0.25})
        walks.step("rs" if t <= 3 * k else "rsr" if t < 6 * k else "rss")
        if t == 3 * k + 1:
            with pytest.warns(RuntimeWarning, match="now has 3 parameter tensors, 2 before"):
                scheduler.step()
        else:
            scheduler.step()
        if alone is not None:
            angle = alone.update()
            found += [] if angle is None else [math.degrees(angle)]
        if t == 4 * k:
            alone = AngularVelocity([extra], k)
    assert scheduler.group_angle_steps == [[6, 14, 16, 18], [6, 14, 16, 18], [14, 16, 18]]
    assert scheduler.group_angular_velocities[2] == found
    # Straight on since x_12 the third one's angle at 18 is 0, but the one before it was not.
    drops = [(e.step, e.group, e.old_lr, e.new_lr) for e in scheduler.drops]
    assert drops == [
        (16, 1, (1.0, 0.5, 0.25), (1.0, 0.25, 0.25)),
        (18, 1, (1.0, 0.25, 0.25), (1.0, 0.125, 0.25)),
    ]
    for _ in range(2 * k):
        walks.step("rss")
        scheduler.step()
    drops = [(e.step, e.old_lr[2], e.new_lr[2]) for e in scheduler.drops if e.group == 2]
    assert drops == [(20, 0.25, 0.125), (22, 0.125, 0.0625)]
    assert [scheduler.base_lrs, len(scheduler._states)] == [[1.0, 0.5, 0.25], 3]


def test_a_restart_forgets_every_group():
    """Within window 3, which ends without a word; windows 4, 5, 6 give the next angles."""
    g = torch.Generator().manual_seed(3)
    params = [torch.zeros(4, dtype=F64), torch.zeros(3, dtype=F64)]
    velocity = AngularVelocity([{"params": [p]} for p in params], 2)
    seen = {}
    for t in range(1, 17):
        for p in params:
            p += torch.randn(p.shape, generator=g, dtype=F64)
        if velocity.advance():
            seen[t] = [angle is not None for angle in velocity.group_angles]
        if t == 7:
            velocity.restart()
            assert velocity.group_angles == (None, None)
            assert velocity.angle is None
    assert seen == {t: [t in (6, 14, 16)] * 2 for t in (2, 4, 6, 10, 12, 14, 16)}


def test_a_light_state_keeps_each_group_s_rule_and_record():
    training = Training()
    rule = RULES["waiting"]
    scheduler, _ = scheduled(rule, training, 61)
    again = AutoDrop.from_rule(training.optimizer, rule, per_group=True)
    again.load_state_dict(scheduler.state_dict(light=True))
    assert again._states == scheduler._states
    assert len({state.threshold for state in again._states}) > 1
    assert again.group_angular_velocities == scheduler.group_angular_velocities
    assert again.drops == scheduler.drops
    for t in range(61, 71):
        training.step(t)
        again.step()
    # The window of updates 60 … 62 is no whole one; 21, 22, 23 end with 72.
    assert again.group_angle_steps == scheduler.group_angle_steps
    training.step(71)
    again.step()
    assert [steps[-1] for steps in again.group_angle_steps] == [72] * 3


def saved(training, scheduler):
    file = io.BytesIO()
    state = {
        "model": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    torch.save(state, file)
    return file


@pytest.mark.parametrize(
    ("name", "optimizer", "options"),
    [
        ("gaussian", "sgd", {}),
        ("moving average", "adam", {"momentum": "rescale"}),
        ("waiting", "sgd", {"lag": 2, "momentum": "zero"}),
        ("snapshots, waiting", "sgd", {}),
        ("snapshots, waiting", "adam", {"lag": 1}),
    ],
)
def test_resuming_at_every_offset_changes_nothing(name, optimizer, options):
    steps, rule = 77, RULES[name]

    def made():
        training = Training(F32, optimizer)
        scheduler = AutoDrop.from_rule(training.optimizer, rule, per_group=True, **options)
        return training, scheduler

    training, scheduler = made()
    files = []
    for t in range(steps):
        files.append(saved(training, scheduler))
        training.step(t)
        scheduler.step()
    assert {e.group for e in scheduler.drops} == {0, 1, 2}
    # 11 is prime to the windows of 3, 4 and 5: every offset within each.
    for cut in range(0, steps, 11):
        files[cut].seek(0)
        state = torch.load(files[cut], weights_only=True)
        second, resumed = made()
        second.model.load_state_dict(state["model"])
        second.optimizer.load_state_dict(state["optimizer"])
        resumed.load_state_dict(state["scheduler"])
        for t in range(cut, steps):
            second.step(t)
            resumed.step()
        assert torch.equal(second.flat(), training.flat())
        assert resumed.group_angular_velocities == scheduler.group_angular_velocities
        assert resumed.group_angle_steps == scheduler.group_angle_steps
        assert resumed.angular_velocities == scheduler.angular_velocities
        assert resumed.drops == scheduler.drops
        assert second.rates == training.rates


def test_a_state_of_another_grouping_is_refused():
    def made(per_group, sizes):
        walks = Walks(*[1.0] * sizes)
        return AutoDrop(walks.optimizer, 2, per_group=per_group)

    state = made(True, 2).state_dict()
    with pytest.raises(ValueError, match=r"per_group = True \(here False\)"):
        made(False, 2).load_state_dict(state)
    walks = Walks(1.0, 1.0)
    one = torch.optim.SGD(walks.params, lr=1.0)
    with pytest.raises(ValueError, match="must have 1 angles, the whole's and the groups', got 3"):
        AutoDrop(one, 2, per_group=True).load_state_dict(state)


def test_what_groups_exclude():
    walks = Walks(1.0)
    words = "average needs per_group = False"
    with pytest.raises(ValueError, match=words):
        AutoDrop(walks.optimizer, 4, per_group=True, average=True, wait=2, observation="snapshot")
