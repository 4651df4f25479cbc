"""AutoDrop in Accelerate, as its documentation treats any torch scheduler, beside a plain loop."""

import types

import accelerate.scheduler
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import nn

import autodrop.integrations
from autodrop import AutoDrop
from autodrop.counting import UpdateCounter
from tests.autodrop.integrations import documented
from tests.autodrop.integrations.digits import (
    BATCH,
    EPOCHS,
    WINDOW,
    X,
    Y,
    check_same,
    network,
    plain,
    rates,
    sgd,
)


def reset():
    """Accelerate keeps its state in the process."""
    GradientState._reset_state()
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def _no_state_from_other_tests():
    yield
    reset()


class Run:
    """A training run in Accelerate.

    made: of which optimizer the scheduler is made: the "wrapped" one that `prepare` returned,
    torch's "own" in it, or the one "before" `prepare`.
    """

    def __init__(self, accumulate=1, made="wrapped", scaler=None, **options):
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate, **options)
        self.accelerator.scaler = scaler
        self.network = network()
        data = torch.utils.data.TensorDataset(X, Y)
        loader = torch.utils.data.DataLoader(data, batch_size=BATCH)
        optimizer = sgd(self.network)
        before = AutoDrop(optimizer, window=WINDOW) if made == "before" else None
        self.model, self.optimizer, self.loader = self.accelerator.prepare(
            self.network, optimizer, loader
        )
        own = self.optimizer if made == "wrapped" else self.optimizer.optimizer
        self.autodrop = before or AutoDrop(own, window=WINDOW)
        self.scheduler = self.accelerator.prepare(self.autodrop)

    def train(self, epochs, loss_function=nn.functional.cross_entropy):
        for _ in range(epochs):
            for x, y in self.loader:
                with self.accelerator.accumulate(self.model):
                    self.accelerator.backward(loss_function(self.model(x), y))
                    self.optimizer.step()
                    self.scheduler.step()
                    self.optimizer.zero_grad()
        return self


@pytest.mark.parametrize(
    ("accumulate", "made"), [(1, "wrapped"), (4, "wrapped"), (4, "own"), (4, "before")]
)
def test_a_prepared_scheduler_follows_a_plain_loop(accumulate, made):
    run = Run(accumulate, made).train(EPOCHS)
    check_same(run.autodrop, run.network, *plain(accumulate))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, accumulate):
    """Seven epochs are 203 updates, or 56: both end within a window."""
    half = Run(accumulate).train(7)
    half.accelerator.save_state(tmp_path)
    torch.load(tmp_path / "scheduler.bin", weights_only=True)
    reset()
    run = Run(accumulate)
    run.accelerator.load_state(tmp_path)
    run.train(EPOCHS - 7)
    check_same(run.autodrop, run.network, *plain(accumulate))


def two_processes(monkeypatch):
    """Accelerate's scheduler makes one call for each process, since a batch counts as so many."""
    state = types.SimpleNamespace(num_processes=2)
    monkeypatch.setattr(accelerate.scheduler, "AcceleratorState", lambda: state)


def test_calls_repeated_for_each_process_do_not_count(monkeypatch):
    two_processes(monkeypatch)
    run = Run().train(EPOCHS)
    assert run.autodrop.last_epoch == 2 * 29 * EPOCHS  # torch's count of calls
    check_same(run.autodrop, run.network, *plain())


def test_they_would_count_by_calls(monkeypatch):
    """The mistake that the test above is there for."""
    two_processes(monkeypatch)
    monkeypatch.setattr(UpdateCounter, "take", lambda self, optimizer: True)
    run = Run().train(EPOCHS)
    assert len(run.autodrop.angle_steps) > len(plain()[0].angle_steps)


@pytest.mark.parametrize("made", ["wrapped", "own", "before"])
def test_updates_that_overflow_do_not_count(made):
    """A gradient scaler on the CPU; in each epoch two batches of 29 have an infinite loss."""
    calls = iter(range(10**6))

    def loss_function(z, y):
        return nn.functional.cross_entropy(z, y) * (torch.inf if next(calls) % 29 in (3, 20) else 1)

    run = Run(made=made, scaler=torch.amp.GradScaler("cpu", init_scale=2.0))
    if made == "own":  # Accelerate swaps its step; torch warns of that for any scheduler
        with pytest.warns(UserWarning, match="`optimizer.step.*has been overridden"):
            run.train(8, loss_function)
    else:
        run.train(8, loss_function)
    updates = 8 * 27
    assert run.autodrop.angle_steps == list(range(3 * WINDOW, updates + 1, WINDOW))
    assert all(torch.isfinite(p).all() for p in run.network.parameters())


@pytest.mark.parametrize("made", ["own", "wrapped"])
@pytest.mark.filterwarnings("ignore:.*optimizer.step.*has been overridden:UserWarning")
def test_one_of_two_optimizers_skips_updates(made):
    """Every third of 30: with the wrapped optimizers, Accelerate skips the other's scheduler."""
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    models = accelerator.prepare(network(0), network(1))
    optimizers = accelerator.prepare(*(sgd(model) for model in models))
    pairs = [
        AutoDrop(each if made == "wrapped" else each.optimizer, window=1) for each in optimizers
    ]
    schedulers = accelerator.prepare(*pairs)
    for t in range(30):
        for model, optimizer, scale in zip(
            models, optimizers, (torch.inf if t % 3 == 2 else 1.0, 1.0), strict=True
        ):
            x, y = X[:BATCH], Y[:BATCH]
            accelerator.backward(scale * nn.functional.cross_entropy(model(x), y))
            optimizer.step()
            optimizer.zero_grad()
        for scheduler in schedulers:
            scheduler.step()
    counts = [pair.angle_steps[-1] for pair in pairs]
    assert counts == ([20, 30] if made == "own" else [20, 20])


def test_bfloat16():
    run = Run(mixed_precision="bf16")
    seen = []
    run.train(EPOCHS, lambda z, y: (seen.append(z.dtype), nn.functional.cross_entropy(z, y))[1])
    assert run.network[0].weight.dtype == torch.float32
    assert run.autodrop.angle_steps == plain()[0].angle_steps
    assert run.autodrop.angular_velocities != plain()[0].angular_velocities
    assert run.autodrop.drops != []
    assert rates(run.autodrop) == [pytest.approx(0.2 * 0.95 ** len(run.autodrop.drops), rel=1e-12)]


def test_the_documented_example_runs():
    accelerator, model = Accelerator(cpu=True), network()
    data = torch.utils.data.TensorDataset(X, Y)
    names = {
        "accelerator": accelerator,
        "AutoDrop": AutoDrop,
        "model": model,
        "optimizer": sgd(model),
        "loader": torch.utils.data.DataLoader(data, batch_size=BATCH),
        "loss_function": nn.functional.cross_entropy,
    }
    _, example = documented.examples(autodrop.integrations)
    exec(example.replace("64", "4"), names)  # 29 updates
    assert names["scheduler"].scheduler.angle_steps == [12, 16, 20, 24, 28]
    assert names["scheduler"].optimizers == [names["optimizer"]]
