"""Which calls count as updates: AMP's skipped steps, accumulation, wrappers, copied optimizers."""

import copy
import gc
import math
import pickle
import warnings
import weakref

import pytest
import torch
from torch.optim import lr_scheduler

from autodrop import AutoDrop, accumulation, counting
from autodrop.counting import UpdateCounter, make_counter
from autodrop.detectors import ThresholdSaturation


class Loop:
    """Eight parameters pulled to random targets."""

    def __init__(self, seed=0, optimizer=None, window=2, **options):
        self.generator = torch.Generator().manual_seed(seed)
        self.p = torch.nn.Parameter(torch.zeros(8, dtype=torch.float32))
        make = optimizer or (lambda params: torch.optim.SGD(params, lr=0.1))
        self.optimizer = make([self.p])
        self.scheduler = AutoDrop(
            self.optimizer, window, detector=ThresholdSaturation(180.0), **options
        )

    def loss(self):
        return ((self.p - torch.randn(8, generator=self.generator)) ** 2).sum()

    def backward(self):
        self.optimizer.zero_grad()
        self.loss().backward()

    @property
    def updates(self):
        return self.scheduler.updates


SKIPPED = {3, 4, 9}


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_a_scaler_skips_do_not_count(fused):
    """Unfused they do not reach the optimizer, fused they arrive with found_inf."""

    def train(skipped):
        loop = Loop(optimizer=lambda params: torch.optim.SGD(params, lr=0.1, fused=fused))
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        counts = []
        for t in range(12 + len(skipped)):
            loop.optimizer.zero_grad()
            if t in skipped:
                scaler.scale(loop.p.sum()).backward()
                loop.p.grad[0] = math.inf
            else:
                scaler.scale(loop.loss()).backward()
            scaler.step(loop.optimizer)
            scaler.update()
            loop.scheduler.step()
            counts.append(loop.updates)
        return loop, counts

    whole, _ = train(set())
    loop, counts = train(SKIPPED)
    assert counts == [1, 2, 3, 3, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11, 12]
    assert len(loop.scheduler.drops) >= 2
    assert torch.equal(loop.p, whole.p)
    assert loop.scheduler.angular_velocities == whole.scheduler.angular_velocities
    assert loop.scheduler.drops == whole.scheduler.drops


def overflowing(skipped, steps, options, cut=None):
    """Fused SGD under a scaler; what is skipped overflows. Saved and loaded again after `cut`."""

    def make(params):
        return torch.optim.SGD(params, lr=0.1, fused=True)

    loop = Loop(optimizer=make, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for t in range(steps):
        loop.optimizer.zero_grad()
        if t in skipped:
            scaler.scale(loop.p.sum()).backward()
            loop.p.grad[0] = math.inf
        else:
            scaler.scale(loop.loss()).backward()
        scaler.step(loop.optimizer)
        scaler.update()
        loop.scheduler.step()
        if t == cut:
            state = copy.deepcopy(loop.scheduler.state_dict())
            loop.scheduler = AutoDrop(
                loop.optimizer, detector=ThresholdSaturation(180.0), **options
            )
            loop.scheduler.load_state_dict(state)
    return loop


@pytest.mark.parametrize(
    "options",
    [
        {"window": 2},
        {"window": 4, "lag": 2},
        {"window": 4, "accumulation": "plain", "lag": 3},
        {"window": 4, "stride": 2},
        {"window": 4, "observation": "snapshot", "lag": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "skipped",
    [{3, 4, 9}, {0, 1, 2, 3, 4, 5}, {7}, {8}, set(range(8, 17)), {3, 7, 11, 15, 19, 23}],
    ids=str,
)
@pytest.mark.parametrize("launches_cost", [False, True])
def test_skipped_steps_that_only_the_device_knows_do_not_count(
    options, skipped, launches_cost, monkeypatch
):
    """found_inf as on a GPU, where reading it would wait: the same angles, drops and updates."""
    if launches_cost:
        monkeypatch.setattr(accumulation, "_ONE_BY_ONE", ())
    clean = overflowing(set(), 40, options)
    monkeypatch.setattr(counting, "_AT_HAND", ())
    for cut in (None, 6, 13):
        loop = overflowing(skipped, 40 + len(skipped), options, cut)
        assert torch.equal(loop.p, clean.p)
        assert loop.scheduler.angular_velocities == clean.scheduler.angular_velocities
        assert loop.scheduler.drops == clean.scheduler.drops
        loop.scheduler.state_dict()  # puts the count right
        assert loop.updates == 40
    assert len(clean.scheduler.drops) >= 3


def test_control_counting_skipped_steps_moves_the_windows(monkeypatch):
    clean = overflowing(set(), 40, {"window": 4})
    monkeypatch.setattr(
        counting.UpdateCounter, "_note", lambda self, found: setattr(self, "_moved", True)
    )
    loop = overflowing({3, 4, 9}, 43, {"window": 4})
    assert loop.scheduler.angular_velocities != clean.scheduler.angular_velocities


def test_accumulated_gradients_count_once():
    """scheduler.step() with every micro-batch, optimizer.step() with every fourth."""
    loop, counts = Loop(), []
    for t in range(1, 25):
        loop.loss().backward()
        if t % 4 == 0:
            loop.optimizer.step()
            loop.optimizer.zero_grad()
        if t == 1:  # torch's own opinion of a first call without an update
            with pytest.warns(UserWarning, match="before `optimizer.step"):
                loop.scheduler.step()
        else:
            loop.scheduler.step()
        counts.append(loop.updates)
    assert counts == [t // 4 for t in range(1, 25)]
    assert len(loop.scheduler.angular_velocities) == 1


def test_several_steps_of_the_optimizer_before_one_of_the_scheduler_count_once():
    loop = Loop()
    for t in range(1, 9):
        for _ in range(3):
            loop.backward()
            loop.optimizer.step()
        if t == 3:  # in a row: that is how a call for each epoch looks
            with pytest.warns(RuntimeWarning, match="3 updates of the optimizer between two calls"):
                loop.scheduler.step()
        else:
            loop.scheduler.step()
        assert loop.updates == t


def test_an_optimizer_that_never_steps_is_told_of():
    loop = Loop()
    other = torch.optim.SGD([loop.p], lr=0.1)
    loop.optimizer.step = lambda: None  # torch warns of its own accord where nothing steps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", RuntimeWarning)
        for _ in range(199):
            other.step()
            loop.scheduler.step()
        with pytest.raises(RuntimeWarning, match="200 times without an update of its optimizer"):
            loop.scheduler.step()
        loop.scheduler.step()
    assert loop.updates == 0


def test_a_closure_counts_once():
    loop = Loop(optimizer=lambda params: torch.optim.LBFGS(params, lr=0.1, max_iter=4))
    target = torch.arange(8.0)

    def closure():
        loop.optimizer.zero_grad()
        loss = ((loop.p - target) ** 4).sum()
        loss.backward()
        return loss

    for t in range(1, 4):
        loop.optimizer.step(closure)
        loop.scheduler.step()
        assert loop.updates == t


def step(scheduler, p):
    scheduler.optimizer.zero_grad()
    (p**2).sum().backward()
    scheduler.optimizer.step()
    scheduler.step()


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copied_scheduler_mends_the_hook_of_its_copied_optimizer(clone):
    loop = Loop()
    for _ in range(3):
        loop.backward()
        loop.optimizer.step()
        loop.scheduler.step()
    twin = clone(loop.scheduler)
    (p,) = twin.optimizer.param_groups[0]["params"]
    assert p is not loop.p
    with pytest.warns(RuntimeWarning, match="lost AutoDrop's hook") as caught:
        step(twin, p)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert twin.updates == 4
    twin.step()  # silent, and no update
    assert twin.updates == 4
    step(twin, p)
    assert twin.updates == 5
    assert loop.updates == 3


def test_hooks_that_were_cleared_are_renewed():
    loop = Loop()
    loop.optimizer._optimizer_step_post_hooks.clear()
    loop.backward()
    loop.optimizer.step()
    with pytest.warns(RuntimeWarning, match="lost AutoDrop's hook"):
        loop.scheduler.step()
    loop.scheduler.step()
    assert loop.updates == 1
    loop.backward()
    loop.optimizer.step()
    loop.scheduler.step()
    assert loop.updates == 2


def test_the_hook_survives_load_state_dict():
    loop = Loop()
    loop.optimizer.load_state_dict(loop.optimizer.state_dict())
    loop.backward()
    loop.optimizer.step()
    loop.scheduler.step()
    assert loop.updates == 1


def test_the_hook_keeps_no_scheduler_alive():
    loop = Loop()
    gone = weakref.ref(loop.scheduler._counter)
    del loop.scheduler
    gc.collect()
    assert gone() is None
    loop.backward()
    loop.optimizer.step()  # a hook of nobody


def test_two_schedulers_of_one_optimizer_count_apart():
    loop = Loop()
    other = AutoDrop(loop.optimizer, 2)
    for t in range(1, 4):
        loop.backward()
        loop.optimizer.step()
        loop.scheduler.step()
        other.step()
        assert (loop.updates, other.updates) == (t, t)


class Silent(torch.optim.SGD):
    """Moves its parameters without its hooks, as a replayed CUDA graph does."""

    def replay(self):
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.sub_(p.grad, alpha=0.1)


def test_calls_are_counted_where_no_hook_sees_the_updates():
    loop = Loop(optimizer=lambda params: Silent(params, lr=0.1))
    calls, updates = make_counter(loop.optimizer, "calls"), make_counter(loop.optimizer, "updates")
    assert isinstance(updates, UpdateCounter)
    for _ in range(3):
        loop.backward()
        loop.optimizer.replay()
        assert calls.take(loop.optimizer)
        assert not updates.take(loop.optimizer)
    loop.optimizer.step()
    assert updates.take(loop.optimizer)
    # A counter of calls leaves no trace in the optimizer, and is its own copy.
    assert len(loop.optimizer._optimizer_step_post_hooks) == 2
    assert pickle.loads(pickle.dumps(calls)).take(loop.optimizer)


@pytest.mark.parametrize("count", ["steps", "", None, True])
def test_counts_that_are_none(count):
    with pytest.raises(ValueError, match=r"count must be one of \('updates', 'calls'\), got"):
        make_counter(Loop().optimizer, count)


# Older torch warns of the epoch that its own SequentialLR passes.
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_updates_before_its_turn_do_not_count():
    loop = Loop()
    warm_up = lr_scheduler.LinearLR(loop.optimizer, 0.5, total_iters=2)
    both = lr_scheduler.SequentialLR(loop.optimizer, [warm_up, loop.scheduler], milestones=[2])
    for _ in range(2):
        loop.backward()
        loop.optimizer.step()
        both.step()
    both.step()  # AutoDrop's turn has come; this one is skipped
    assert loop.updates == 0
    loop.backward()
    loop.optimizer.step()
    both.step()
    assert loop.updates == 1


@pytest.mark.parametrize("lag", [1, 3])
def test_a_lag_applies_the_same_windows_later(lag):
    """The rate is too small to move where the path goes: angles and windows are the same."""

    def train(lag):
        loop = Loop(optimizer=lambda params: torch.optim.SGD(params, lr=1e-30), window=4, lag=lag)
        rates = []
        for _ in range(40):
            loop.backward()
            loop.optimizer.step()
            with torch.no_grad():
                loop.p += torch.randn(8, generator=loop.generator)
            loop.scheduler.step()
            rates.append(loop.optimizer.param_groups[0]["lr"])
        return loop.scheduler, rates

    (now, at_once), (later, delayed) = train(0), train(lag)
    assert len(now.drops) == 7
    assert len(later.drops) == 6  # the last one is still on its way
    assert delayed == [1e-30] * lag + at_once[:-lag]
    assert later.angular_velocities == now.angular_velocities[:-1]
    for a, b in zip(now.drops, later.drops, strict=False):
        assert (a.step - a.observed, b.step - b.observed) == (0, lag)
        assert (b.observed, b.window, b.angle) == (a.observed, a.window, a.angle)
        assert (b.old_lr, b.new_lr) == (a.old_lr, a.new_lr)


class Wrapper(torch.optim.Optimizer):
    """As Accelerate's: an Optimizer by class, never set up as one."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    def step(self, closure=None):
        return self.optimizer.step(closure)


def test_a_wrapped_optimizer_counts_as_the_one_in_it():
    loop = Loop()
    plain = Loop()
    outer = Wrapper(Wrapper(loop.optimizer))
    scheduler = AutoDrop(outer, 2, detector=ThresholdSaturation(180.0))
    for _ in range(12):
        for each, optimizer in ((loop, outer), (plain, plain.optimizer)):
            each.backward()
            optimizer.step()
        for _ in range(2):
            scheduler.step()
        plain.scheduler.step()
    assert scheduler.angular_velocities == plain.scheduler.angular_velocities
    assert scheduler.drops == plain.scheduler.drops != []
    assert torch.equal(loop.p, plain.p)
