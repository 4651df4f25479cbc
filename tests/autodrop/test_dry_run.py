"""Watching without touching; and what happens around a drop: averages, statistics, callbacks."""

import copy
import dataclasses
import functools

import pytest
import torch
from torch.optim.swa_utils import update_bn

from autodrop import AutoDrop, DropPolicy, Rule, replay, rules
from autodrop.detectors import ThresholdSaturation

F64 = torch.float64
OPTIMIZERS = {
    "sgd": lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.8, nesterov=True),
    "adam": lambda params, lr: torch.optim.Adam(params, lr=lr),
}
RULES = {
    "uai": rules.uai2024(3, 0.7, threshold=10.0, buffer=3),
    "waiting": Rule(2, ThresholdSaturation(5.0), DropPolicy(0.7, wait=3, max_threshold=40.0)),
    "averaging": rules.arxiv2021(
        3, 0.7, 0.0, threshold=20.0, max_threshold=60.0, wait=2, average=True
    ),
}


class Training:
    """A network with batch normalisation on noisy mini-batches."""

    def __init__(self, optimizer="sgd", tensor=False, lr=0.05):
        g = torch.Generator().manual_seed(1)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Tanh(), torch.nn.Linear(5, 1)
        ).double()
        with torch.no_grad():
            for p in self.model.parameters():
                p.copy_(torch.randn(p.shape, generator=g, dtype=F64))
        self.x = torch.randn(48, 3, generator=g, dtype=F64)
        self.y = self.x.sum(1, keepdim=True) + torch.randn(48, 1, generator=g, dtype=F64)
        layers = [self.model[0], torch.nn.ModuleList(self.model[1:])]
        groups = [
            {"params": list(m.parameters()), "lr": torch.tensor(α, dtype=F64) if tensor else α}
            for m, α in zip(layers, (lr, lr / 2), strict=True)
        ]
        self.optimizer = OPTIMIZERS[optimizer](groups, lr)

    @property
    def batches(self):
        return self.x.split(8)

    def step(self, t):
        batch = slice(8 * (t % 6), 8 * (t % 6) + 8)
        self.optimizer.zero_grad()
        torch.nn.functional.mse_loss(self.model(self.x[batch]), self.y[batch]).backward()
        self.optimizer.step()

    def everything(self):
        """All that training depends on, copied."""
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "state": list(self.optimizer.state_dict()["state"].values()),
                "rates": [group["lr"] for group in self.optimizer.param_groups],
            }
        )


def same(a, b):
    """Whether two nests of dicts, lists, tensors and numbers are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


OPTIONS = [
    {"per_group": True},
    {"momentum": "zero"},
    {"momentum": "rescale", "lag": 1},
    {"fraction": 0.5},
]


@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_is_what_it_is_without_a_scheduler(optimizer, tensor, options):
    watched, bare = Training(optimizer, tensor), Training(optimizer, tensor)
    held = [group["lr"] for group in watched.optimizer.param_groups]
    told = []
    scheduler = AutoDrop.from_rule(
        watched.optimizer, RULES["uai"], dry_run=True, on_drop=told.append, **options
    )
    for t in range(60):
        watched.step(t)
        bare.step(t)
        scheduler.step()
        assert same(watched.everything(), bare.everything())
    assert len(scheduler.drops) >= 3
    assert told == scheduler.drops
    if tensor:
        assert all(
            group["lr"] is lr
            for group, lr in zip(watched.optimizer.param_groups, held, strict=True)
        )


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_control_a_run_that_is_not_dry_is_another(optimizer, tensor):
    run, bare = Training(optimizer, tensor), Training(optimizer, tensor)
    scheduler = AutoDrop.from_rule(run.optimizer, RULES["uai"], momentum="zero")
    t = 0
    while not scheduler.drops:
        run.step(t)
        bare.step(t)
        assert same(run.everything(), bare.everything())
        scheduler.step()
        t += 1
    a, b = run.everything(), bare.everything()
    assert [same(a[part], b[part]) for part in ("model", "state", "rates")] == [True, False, False]


@pytest.mark.parametrize("name", RULES)
def test_the_drops_are_those_that_a_replay_predicts(name):
    training = Training()
    scheduler = AutoDrop.from_rule(training.optimizer, RULES[name], dry_run=True)
    for t in range(120):
        training.step(t)
        scheduler.step()
    predicted = replay(scheduler.angular_velocities, RULES[name], 0.05, steps=scheduler.angle_steps)
    assert len(predicted) >= 3
    first_group = [
        dataclasses.replace(e, old_lr=e.old_lr[:1], new_lr=e.new_lr[:1]) for e in scheduler.drops
    ]
    assert first_group == list(predicted)
    assert len({e.old_lr for e in predicted}) == len(predicted)
    for event in scheduler.drops:  # halving is exact
        assert event.new_lr[1] == event.new_lr[0] / 2


def test_a_dry_run_ends_at_the_floor_and_knows_each_group_s():
    training = Training()
    policy = DropPolicy(0.5, (0.02, 0.01))
    rule = Rule(2, ThresholdSaturation(90.0), policy)
    scheduler = AutoDrop.from_rule(training.optimizer, rule, dry_run=True, per_group=True)
    for t in range(80):
        training.step(t)
        scheduler.step()
    for number, α in enumerate((0.05, 0.025)):
        events = [e for e in scheduler.drops if e.group == number]
        rates = [(e.old_lr[number], e.new_lr[number]) for e in events]
        assert rates == [(α, α / 2), (α / 2, policy.min_lr[number])]


def test_a_dry_run_follows_what_another_scheduler_does_to_the_rate():
    """A warm-up from a half while the rule watches: drops start from its rate, in proportion."""
    training = Training()
    rule = Rule(2, ThresholdSaturation(180.0), DropPolicy(0.5))
    warm_up = torch.optim.lr_scheduler.LinearLR(training.optimizer, 0.5, total_iters=16)
    scheduler = AutoDrop.from_rule(training.optimizer, rule, dry_run=True)
    for t in range(20):
        training.step(t)
        warm_up.step()
        scheduler.step()
    for count, event in enumerate(scheduler.drops):
        real = 0.05 * (0.5 + 0.5 * min(event.step, 16) / 16)
        assert event.old_lr[0] == pytest.approx(real * 0.5**count, rel=1e-14)
        assert event.new_lr[0] == event.old_lr[0] / 2
    assert [e.step for e in scheduler.drops] == list(range(8, 21, 2))


def test_a_dry_run_writes_no_average_and_updates_no_statistics():
    watched, bare = Training(), Training()
    called = []
    scheduler = AutoDrop.from_rule(
        watched.optimizer,
        RULES["averaging"],
        dry_run=True,
        update_bn=lambda: called.append(None),
    )
    for t in range(60):
        watched.step(t)
        bare.step(t)
        scheduler.step()
        assert same(watched.everything(), bare.everything())
    assert len(scheduler.drops) >= 3
    assert called == []
    assert scheduler.state_dict()["average"] is None
    # Nothing was replaced, hence tracking has not started afresh: each window has its angle.
    assert scheduler.angle_steps == list(range(7, 60, 3))


def test_resuming_a_dry_run_changes_nothing():
    def made():
        training = Training()
        return training, AutoDrop.from_rule(training.optimizer, RULES["waiting"], dry_run=True)

    training, scheduler = made()
    states = []
    for t in range(60):
        states.append((training.everything(), scheduler.state_dict()))
        training.step(t)
        scheduler.step()
    assert len(scheduler.drops) >= 3
    for cut in range(0, 60, 7):
        second, resumed = made()
        second.model.load_state_dict(states[cut][0]["model"])
        state = second.optimizer.state_dict()
        state["state"] = dict(enumerate(states[cut][0]["state"]))
        second.optimizer.load_state_dict(state)
        resumed.load_state_dict(states[cut][1])
        for t in range(cut, 60):
            second.step(t)
            resumed.step()
        assert resumed.drops == scheduler.drops
        assert same(second.everything(), training.everything())


def averaged(training, bn, **options):
    """A scheduler that averages, and what happened in order."""
    log = []

    def note(name, action=None):
        def called(*args):
            if action is not None:
                action()
            log.append((name, training.everything(), *args))

        return called

    scheduler = AutoDrop.from_rule(
        training.optimizer,
        RULES["averaging"],
        update_bn=note("update_bn", bn),
        on_drop=note("on_drop"),
        **options,
    )
    return scheduler, log


def literal_average(waiting):
    """Σ w x_w / Σ w over the second updates of the waiting epochs, weights 1, 2, …"""
    total = dict.fromkeys(waiting[0], 0.0)
    for w, x in enumerate(waiting, start=1):
        for key, value in x.items():
            total[key] = total[key] + w * value
    weight = len(waiting) * (len(waiting) + 1) / 2
    return {key: value / weight for key, value in total.items()}


def test_statistics_are_updated_once_per_average_after_it_and_before_the_callback():
    training = Training()
    scheduler, log = averaged(training, lambda: update_bn(training.batches, training.model))
    params = dict(training.model.named_parameters())
    names = ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    k, wait = 3, 2
    after_second, averages = [], 0
    for t in range(60):
        training.step(t)
        if (t + 1) % k == 2:
            after_second.append({key: p.detach().clone() for key, p in params.items()})
        before, count = training.everything(), len(log)
        scheduler.step()
        if len(log) == count:
            assert same(training.everything(), before)
            continue
        averages += 1
        assert (t + 1) % k == 2
        assert [entry[0] for entry in log[count:]] == ["update_bn", "on_drop"]
        # The average, by hand; a few roundings of numbers of order 1.
        expected = literal_average(after_second[-wait:])
        for key, p in params.items():
            assert torch.allclose(p.detach(), expected[key], rtol=0.0, atol=1e-14)
        # The statistics of the averaged parameters, on a twin; not those of training.
        twin = Training()
        twin.model.load_state_dict(training.model.state_dict())
        twin.model[1].reset_running_stats()
        update_bn(twin.batches, twin.model)
        now, fresh = training.model.state_dict(), twin.model.state_dict()
        assert all(torch.equal(now[name], fresh[name]) for name in names)
        assert not torch.allclose(now[names[0]], before["model"][names[0]], rtol=1e-3)
        assert int(now[names[2]]) == len(training.batches)
        # on_drop comes last: it sees all of it, lowered rates too.
        _, seen, event = log[-1]
        assert same(seen, training.everything())
        assert event is scheduler.drops[-1]
        assert seen["rates"] == list(event.new_lr)
        assert training.model.training
    assert averages == len(scheduler.drops) >= 3
    # No angle sees the replacement: three snapshots after a drop, at t + 2, t + 5, t + 8.
    for event in scheduler.drops:
        following = [t for t in scheduler.angle_steps if t > event.step]
        assert not following or following[0] == event.step + 2 * k + (k - 1)


def test_without_update_bn_the_statistics_stay_stale():
    """What it is for: statistics of the iterates do not fit their average."""
    training = Training()
    scheduler = AutoDrop.from_rule(training.optimizer, RULES["averaging"])
    t = 0
    while not scheduler.drops:
        training.step(t)
        before = training.everything()["model"]
        scheduler.step()
        t += 1
    after = training.everything()["model"]
    assert torch.equal(after["1.running_mean"], before["1.running_mean"])
    assert not torch.equal(after["0.weight"], before["0.weight"])


def test_the_documented_partial_does():
    training = Training()
    scheduler = AutoDrop.from_rule(
        training.optimizer,
        RULES["averaging"],
        update_bn=functools.partial(update_bn, training.batches, training.model),
    )
    t = 0
    while not scheduler.drops:
        training.step(t)
        scheduler.step()
        t += 1
    assert int(training.model[1].num_batches_tracked) == len(training.batches)


def test_an_average_at_the_floor_is_one_too():
    """The parameters are replaced and the statistics follow; no rate changed, so no event."""
    training = Training()
    called, told = [], []
    policy = DropPolicy(0.7, (0.05, 0.025), wait=2, average=True)
    scheduler = AutoDrop.from_rule(
        training.optimizer,
        Rule(3, ThresholdSaturation(60.0), policy, "snapshot"),
        update_bn=lambda: called.append(None),
        on_drop=told.append,
    )
    replaced = 0
    for t in range(40):
        training.step(t)
        before = training.everything()
        scheduler.step()
        replaced += not same(training.everything(), before)
    assert replaced == len(called) >= 2
    assert told == scheduler.drops == []


def test_on_drop_may_stop_the_run_and_the_record_is_complete():
    training = Training()

    def stop(event):
        raise StopIteration(event.step)

    scheduler = AutoDrop.from_rule(training.optimizer, RULES["uai"], on_drop=stop)

    def train():
        for t in range(60):
            training.step(t)
            scheduler.step()

    with pytest.raises(StopIteration) as stopped:
        train()
    (event,) = scheduler.drops
    assert stopped.value.value == event.step == scheduler.last_epoch < 60
    assert training.everything()["rates"] == list(event.new_lr)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"update_bn": print}, ValueError, "update_bn is for averages, got average = False"),
        ({"update_bn": "bn"}, TypeError, "update_bn must be callable or None, got 'bn'"),
        ({"on_drop": 3}, TypeError, "on_drop must be callable or None, got 3"),
        (
            {"average": True, "wait": 2, "observation": "snapshot", "lag": 1},
            ValueError,
            "average needs lag = 0, got 1",
        ),
    ],
)
def test_bad_options(options, error, words):
    with pytest.raises(error, match=words):
        AutoDrop(Training().optimizer, **options)


def test_a_light_state_begins_its_average_afresh():
    """Also where the scheduler that loads it has begun one: it goes back to what it had saved."""

    def made():
        training = Training()
        return training, AutoDrop.from_rule(training.optimizer, RULES["averaging"])

    training, used = made()
    t = 0
    while not used._average._weight:
        training.step(t)
        used.step()
        t += 1
    state = used.state_dict(light=True)
    assert used._states[0].waited == 1
    other, fresh = made()
    other.model.load_state_dict(training.everything()["model"])
    for scheduler in (used, fresh):
        scheduler.load_state_dict(state)
        assert scheduler._states[0].waited == 0
        assert scheduler._average._weight == 0
        assert not any(total.any() for total in scheduler._average._sum.values())


def test_a_dry_run_is_not_a_hyperparameter():
    """A run may be watched first and steered from there on."""
    training = Training()
    scheduler = AutoDrop.from_rule(training.optimizer, RULES["averaging"], dry_run=True)
    for t in range(20):
        training.step(t)
        scheduler.step()
    assert scheduler.drops
    steered = AutoDrop.from_rule(training.optimizer, RULES["averaging"])
    steered.load_state_dict(scheduler.state_dict())
    assert steered.drops == scheduler.drops
    before = [group["lr"] for group in training.optimizer.param_groups]
    for t in range(20, 60):
        training.step(t)
        steered.step()
    assert [group["lr"] for group in training.optimizer.param_groups] < before
