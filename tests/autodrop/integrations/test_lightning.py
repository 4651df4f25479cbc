"""AutoDrop in Lightning, by the callback and from configure_optimizers, beside a plain loop."""

import importlib
import sys

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from torch import nn

from autodrop import AutoDrop
from autodrop.integrations import lightning as with_lightning
from autodrop.integrations import pytorch_lightning as with_pytorch_lightning
from tests.autodrop.integrations import documented
from tests.autodrop.integrations.digits import (
    EPOCHS,
    WINDOW,
    Batches,
    check_same,
    network,
    plain,
    sgd,
)

# Lightning's own use of a name that torch has deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"
)

both = pytest.mark.parametrize(
    ("pl", "adapter"),
    [(lightning.pytorch, with_lightning), (pytorch_lightning, with_pytorch_lightning)],
    ids=["lightning", "pytorch_lightning"],
)
AutoDropCallback = with_lightning.AutoDropCallback


def module(pl=lightning.pytorch, schedule=None, optimizer=sgd):
    """A LightningModule; configure_optimizers returns schedule(optimizer) too, if given."""

    class Digits(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network()

        def training_step(self, batch, index):
            x, y = batch
            loss = nn.functional.cross_entropy(self.network(x), y)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            opt = optimizer(self.network)
            if schedule is None:
                return opt
            return {"optimizer": opt, "lr_scheduler": schedule(opt)}

    return Digits()


def two_groups(model):
    return sgd(model, groups=2)


def by_step(optimizer):
    return {"scheduler": AutoDrop(optimizer, window=WINDOW), "interval": "step"}


def trainer(directory, pl=lightning.pytorch, epochs=EPOCHS, **options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    options = {"max_epochs": epochs, **quiet, **options}
    return pl.Trainer(accelerator="cpu", default_root_dir=directory, **options)


class Memory(lightning.pytorch.loggers.logger.DummyLogger):
    """Keeps what is logged, as (step, metrics)."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step):
        self.rows.append((step, metrics))

    def of(self, metric):
        return [(step, metrics[metric]) for step, metrics in self.rows if metric in metrics]


@both
@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_callback_follows_a_plain_loop(tmp_path, pl, adapter, accumulate):
    callback, digits = adapter.AutoDropCallback(window=WINDOW), module(pl)
    run = trainer(tmp_path, pl, callbacks=[callback], accumulate_grad_batches=accumulate)
    run.fit(digits, Batches())
    (scheduler,) = callback.schedulers
    check_same(scheduler, digits.network, *plain(accumulate=accumulate))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_scheduler_from_configure_optimizers_follows_a_plain_loop(tmp_path, accumulate):
    digits = module(schedule=by_step)
    run = trainer(tmp_path, accumulate_grad_batches=accumulate)
    run.fit(digits, Batches())
    (config,) = run.lr_scheduler_configs
    check_same(config.scheduler, digits.network, *plain(accumulate=accumulate))


def test_max_steps_ends_within_a_window(tmp_path):
    callback = AutoDropCallback(window=WINDOW)
    run = trainer(tmp_path, callbacks=[callback], epochs=-1, max_steps=100)
    run.fit(module(), Batches())
    expected, _ = plain()
    seen = sum(t <= 100 for t in expected.angle_steps)
    assert callback.schedulers[0].angular_velocities == expected.angular_velocities[:seen]
    assert callback.schedulers[0].drops == [e for e in expected.drops if e.step <= 100]


@both
@pytest.mark.parametrize(("accumulate", "configured"), [(1, False), (4, True)])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, pl, adapter, accumulate, configured):
    """Seven epochs are 203 updates, or 56: both end within a window."""

    logger = Memory()

    def start(epochs):
        digits = module(pl, by_step if configured else None)
        callback = adapter.AutoDropCallback(**({} if configured else {"window": WINDOW}))
        options = {"accumulate_grad_batches": accumulate, "log_every_n_steps": 1, "logger": logger}
        return digits, callback, trainer(tmp_path, pl, epochs, callbacks=[callback], **options)

    digits, callback, run = start(epochs=7)
    run.fit(digits, Batches())
    assert run.global_step % WINDOW != 0
    assert callback.schedulers[0].drops != []
    run.save_checkpoint(tmp_path / "half.ckpt")
    torch.load(tmp_path / "half.ckpt", weights_only=True)

    digits, callback, run = start(epochs=EPOCHS)
    run.fit(digits, Batches(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    (scheduler,) = callback.schedulers
    check_same(scheduler, digits.network, *plain(accumulate=accumulate))
    assert [s + 1 for s, _ in logger.of("angular_velocity")] == scheduler.angle_steps


def test_a_checkpoint_within_an_epoch_holds_the_state_of_its_step(tmp_path):
    saving = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path, every_n_train_steps=100, save_top_k=-1, filename="{step}"
    )
    callback = AutoDropCallback(window=WINDOW)
    callbacks = [saving, callback]
    run = trainer(tmp_path, epochs=4, callbacks=callbacks, enable_checkpointing=True)
    run.fit(module(), Batches())
    saved = torch.load(tmp_path / "step=100.ckpt", weights_only=True)
    (state,) = saved["callbacks"]["AutoDropCallback"]["schedulers"]
    scheduler = AutoDrop(sgd(network()), window=WINDOW)
    scheduler.load_state_dict(state)
    assert scheduler.angle_steps[-1] == 99
    rate = saved["optimizer_states"][0]["param_groups"][0]["lr"]
    assert scheduler.drops[-1].new_lr == (rate,)
    assert scheduler.drops == [e for e in callback.schedulers[0].drops if e.step <= 100]


def test_a_second_fit_starts_afresh(tmp_path):
    """Lightning makes new optimizers for it; its steps go on, and so does what is logged."""
    logger, callback, digits = Memory(), AutoDropCallback(window=WINDOW), module()
    run = trainer(tmp_path, epochs=2, callbacks=[callback], logger=logger, log_every_n_steps=1)
    run.fit(digits, Batches())
    (first,) = callback.schedulers
    run.fit_loop.max_epochs = 4
    run.fit(digits, Batches())
    (second,) = callback.schedulers
    assert second is not first
    for scheduler in (first, second):  # fit has let go of their optimizers
        scheduler.optimizer.step()
        assert scheduler.last_epoch == 2 * 29
    assert second.angle_steps == first.angle_steps
    steps = [t - 1 for t in first.angle_steps]
    assert [s for s, _ in logger.of("angular_velocity")] == steps + [58 + s for s in steps]


def test_updates_that_overflow_do_not_count(tmp_path):
    """A gradient scaler on the CPU, with a loss that is infinite at every tenth batch."""

    callback, digits = AutoDropCallback(window=WINDOW), module()
    finite = type(digits).training_step

    def training_step(self, batch, index):
        return finite(self, batch, index) * (torch.inf if index % 10 == 9 else 1.0)

    type(digits).training_step = training_step
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    plugin = lightning.pytorch.plugins.MixedPrecision("16-mixed", "cpu", scaler=scaler)
    run = trainer(tmp_path, epochs=8, callbacks=[callback], plugins=[plugin])
    run.fit(digits, Batches())
    (scheduler,) = callback.schedulers
    updates = 8 * (29 - 2)
    assert run.global_step == 8 * 29
    assert scheduler.angle_steps[-1] == updates - updates % WINDOW
    assert len(scheduler.angle_steps) == updates // WINDOW - 2


class Manual(lightning.pytorch.LightningModule):
    """Two networks under manual optimization: one steps twice a batch, one every other batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.networks = nn.ModuleList([network(0), network(1)])

    def configure_optimizers(self):
        return [sgd(each) for each in self.networks]

    def training_step(self, batch, index):
        x, y = batch
        for i in (0, 0, 1) if index % 2 else (0, 0):
            optimizer = self.optimizers()[i]
            optimizer.zero_grad()
            self.manual_backward(nn.functional.cross_entropy(self.networks[i](x), y))
            optimizer.step()


def test_manual_optimization_counts_each_optimizers_updates(tmp_path):
    callback = AutoDropCallback(window=WINDOW)
    run = trainer(tmp_path, callbacks=[callback], epochs=5)
    run.fit(Manual(), Batches())
    twice, seldom = callback.schedulers
    assert twice.angle_steps == list(range(3 * WINDOW, 5 * 29 * 2 + 1, WINDOW))
    assert seldom.angle_steps == list(range(3 * WINDOW, 5 * 14 + 1, WINDOW))
    assert len(twice.drops) > len(seldom.drops) >= 1


@pytest.mark.parametrize("configured", [False, True])
def test_what_is_logged(tmp_path, configured):
    """Batch s makes update s + 1; the rates agree with those that Lightning's monitor logs."""
    logger = Memory()
    callback = AutoDropCallback(**({} if configured else {"window": WINDOW}))
    monitor = lightning.pytorch.callbacks.LearningRateMonitor("step")
    callbacks = [callback, monitor]
    run = trainer(tmp_path, epochs=5, callbacks=callbacks, logger=logger, log_every_n_steps=1)
    run.fit(module(schedule=by_step if configured else None), Batches())
    (scheduler,) = callback.schedulers
    assert len(scheduler.drops) >= 3
    ends = [t - 1 for t in scheduler.angle_steps]
    angles = list(zip(ends, scheduler.angular_velocities, strict=True))
    assert logger.of("angular_velocity") == angles
    drops = [(event.step - 1, i) for i, event in enumerate(scheduler.drops, 1)]
    assert logger.of("drops") == drops
    rates = logger.of("learning_rate")
    assert [s for s, _ in rates] == sorted(ends + [s + 1 for s, _ in drops])
    assert set(rates) <= set(logger.of("lr-SGD"))


def test_several_optimizers_and_groups_are_logged_apart(tmp_path):
    logger = Memory()
    for digits in (Manual(), module(optimizer=two_groups)):
        callbacks = [AutoDropCallback(window=1)]
        run = trainer(tmp_path, epochs=2, callbacks=callbacks, logger=logger, log_every_n_steps=1)
        run.fit(digits, Batches())
    several = {"angular_velocity", "learning_rate", "drops"}
    assert set().union(*(metrics for _, metrics in logger.rows)) - {"loss", "epoch"} == {
        *(f"optimizer_{i}/{name}" for i in range(2) for name in several),
        *("angular_velocity", "drops", "learning_rate/group_0", "learning_rate/group_1"),
    }


def test_options_beside_a_scheduler_of_the_modules_own(tmp_path):
    run = trainer(tmp_path, callbacks=[AutoDropCallback(window=WINDOW)])
    with pytest.raises(ValueError, match=r"options must go to the AutoDrop .* \['window'\]"):
        run.fit(module(schedule=by_step), Batches())


def test_other_schedulers_beside_the_callback(tmp_path):
    def constant(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)

    run = trainer(tmp_path, callbacks=[AutoDropCallback(window=WINDOW)], max_steps=1)
    with pytest.warns(RuntimeWarning, match="returns LambdaLR, which acts beside AutoDrop"):
        run.fit(module(schedule=constant), Batches())


def test_a_scheduler_stepped_once_an_epoch(tmp_path):
    """Lightning's default; without the callback nobody says so."""
    callback = AutoDropCallback()
    run = trainer(tmp_path, callbacks=[callback], epochs=2)
    with pytest.warns(RuntimeWarning, match="once an epoch, so that windows count epochs"):
        run.fit(module(schedule=lambda optimizer: AutoDrop(optimizer, window=WINDOW)), Batches())
    assert callback.schedulers[0].angular_velocities == []


@pytest.mark.parametrize(
    ("name", "needed", "how"),
    [
        ("lightning", "lightning.pytorch", r"the extra autodrop\[lightning\]"),
        ("pytorch_lightning", "pytorch_lightning", "pip install pytorch-lightning"),
    ],
)
def test_without_lightning_the_error_names_the_extra(monkeypatch, name, needed, how):
    monkeypatch.setitem(sys.modules, needed, None)
    monkeypatch.delitem(sys.modules, f"autodrop.integrations.{name}")
    with pytest.raises(ModuleNotFoundError, match=how):
        importlib.import_module(f"autodrop.integrations.{name}")


def test_the_documented_examples_run(tmp_path):
    """The docstring's two examples, with a module and a loader of one's own."""
    digits = module()
    names = {
        "Trainer": lambda **options: trainer(tmp_path, epochs=2, **options),
        "module": digits,
        "loader": Batches(),
        "torch": torch,
        "AutoDrop": AutoDrop,
        "AutoDropCallback": AutoDropCallback,
    }
    first, second = documented.examples(AutoDropCallback)
    exec(first, names)
    (callback,) = (
        each for each in names["trainer"].callbacks if isinstance(each, AutoDropCallback)
    )
    assert callback.schedulers[0].optimizer is names["trainer"].optimizers[0]
    exec(second, names)
    type(digits).configure_optimizers = names["configure_optimizers"]
    run = trainer(tmp_path, epochs=1)
    run.fit(digits, Batches())
    (config,) = run.lr_scheduler_configs
    assert config.interval == "step"
    assert isinstance(config.scheduler, AutoDrop)
