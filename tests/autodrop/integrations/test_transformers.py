"""AutoDrop in the Trainer of transformers, beside a plain loop."""

import importlib
import math
import sys

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from autodrop import AutoDrop
from autodrop.integrations.transformers import AutoDropTrainer
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

DATA = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
OPTIONS = {"window": WINDOW}


class Digits(nn.Module):
    """The network with its loss, as the Trainer asks for it."""

    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, x, labels):
        return {"loss": nn.functional.cross_entropy(self.network(x), labels)}


def arguments(directory, accumulate=1, **options):
    """Plain SGD's arguments: batches in their order, no clipping, the defaults' schedule."""
    return TrainingArguments(
        **{
            "output_dir": str(directory),
            "num_train_epochs": EPOCHS,
            "per_device_train_batch_size": BATCH,
            "gradient_accumulation_steps": accumulate,
            "learning_rate": 0.2,
            "optim": "sgd",
            "optim_args": "momentum=0.9",
            "max_grad_norm": 0.0,
            "train_sampling_strategy": "sequential",
            "dataloader_pin_memory": False,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "logging_steps": 10,
            **options,
        }
    )


def autodrop_trainer(directory, accumulate=1, autodrop=OPTIONS, **options):
    args = arguments(directory, accumulate, **options)
    return AutoDropTrainer(Digits(), args, train_dataset=DATA, autodrop=autodrop)


def check_follows(trainer, accumulate=1, groups=2):
    """The Trainer divides the gradients of a shorter last update by its number of micro-batches."""
    expected = plain(accumulate, whole=False, groups=groups)
    check_same(trainer.lr_scheduler, trainer.model.network, *expected)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_trainer_follows_a_plain_loop(tmp_path, accumulate):
    trainer = autodrop_trainer(tmp_path, accumulate)
    trainer.train()
    check_follows(trainer, accumulate)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_plain_trainer_takes_a_scheduler_in_optimizers(tmp_path, accumulate):
    model = Digits()
    optimizer = sgd(model)
    trainer = Trainer(
        model,
        arguments(tmp_path, accumulate),
        train_dataset=DATA,
        optimizers=(optimizer, AutoDrop(optimizer, window=WINDOW)),
    )
    trainer.train()
    check_follows(trainer, accumulate, groups=1)


def test_the_trainers_own_schedule_overwrites_drops(tmp_path):
    """Why AutoDrop has to be the Trainer's scheduler, and no other may be beside it."""
    model = Digits()
    optimizer = sgd(model)
    scheduler = AutoDrop(optimizer, window=WINDOW)
    optimizer.register_step_post_hook(lambda *_: scheduler.step())
    args = arguments(tmp_path, lr_scheduler_type="constant")
    Trainer(model, args, train_dataset=DATA, optimizers=(optimizer, None)).train()
    assert len(scheduler.drops) >= 2
    assert rates(scheduler) == [0.2]


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, accumulate):
    """The checkpoint lies within an epoch and within a window."""
    at = 50 if accumulate == 4 else 170
    saving = {"save_strategy": "steps", "save_steps": at, "save_total_limit": 9}
    assert at % WINDOW != 0
    autodrop_trainer(tmp_path, accumulate, **saving, max_steps=at + 1).train()
    state = torch.load(tmp_path / f"checkpoint-{at}" / "scheduler.pt", weights_only=True)
    assert state["drops"] != []
    trainer = autodrop_trainer(tmp_path, accumulate, **saving)
    trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{at}"))
    check_follows(trainer, accumulate)


def test_updates_that_overflow_do_not_count(tmp_path):
    """A gradient scaler on the CPU; two of each 29 batches have an infinite loss."""

    class Overflowing(Digits):
        def forward(self, x, labels):
            self.calls = getattr(self, "calls", -1) + 1
            loss = super().forward(x, labels)["loss"]
            return {"loss": loss * (torch.inf if self.calls % 29 in (3, 20) else 1.0)}

    args = arguments(tmp_path, num_train_epochs=8)
    trainer = AutoDropTrainer(Overflowing(), args, train_dataset=DATA, autodrop=OPTIONS)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    trainer.train()
    assert trainer.state.global_step == 8 * 29
    assert trainer.lr_scheduler.angle_steps == list(range(3 * WINDOW, 8 * 27 + 1, WINDOW))


def test_what_is_logged(tmp_path):
    trainer = autodrop_trainer(tmp_path, logging_steps=5)
    trainer.train()
    scheduler = trainer.lr_scheduler
    logs = [row for row in trainer.state.log_history if "loss" in row]
    assert [row["step"] for row in logs] == list(range(5, 29 * EPOCHS + 1, 5))
    angles = dict(zip(scheduler.angle_steps, scheduler.angular_velocities, strict=True))
    for row in logs:
        last = max((t for t in angles if t <= row["step"]), default=None)
        assert row.get("angular_velocity") == angles.get(last)
        assert row["drops"] == sum(event.step <= row["step"] for event in scheduler.drops)
        # The rate with which the update of that step was made.
        later = [event.old_lr[0] for event in scheduler.drops if event.step >= row["step"]]
        assert row["learning_rate"] == (later or rates(scheduler))[0]
    assert "angular_velocity" not in trainer.state.log_history[-1]


def test_the_optimizer_is_the_trainers(tmp_path):
    """With its parameter groups, those with weight decay and those without."""
    trainer = autodrop_trainer(tmp_path, max_steps=1, weight_decay=0.1)
    trainer.train()
    groups = trainer.lr_scheduler.optimizer.param_groups
    assert groups is trainer.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def test_a_second_call_of_train_goes_on(tmp_path):
    trainer = autodrop_trainer(tmp_path, num_train_epochs=3)
    trainer.train()
    scheduler, before = trainer.lr_scheduler, list(trainer.lr_scheduler.angle_steps)
    trainer.train()
    assert trainer.lr_scheduler is scheduler
    assert scheduler.angle_steps == [*before, *range(87 + WINDOW, 2 * 87 + 1, WINDOW)]


def test_it_combines_with_other_trainers(tmp_path):
    class Other(Trainer):
        def __init__(self, *args, temperature, **kwargs):
            super().__init__(*args, **kwargs)
            self.temperature = temperature

    class Mine(AutoDropTrainer, Other):
        pass

    args = arguments(tmp_path)
    trainer = Mine(Digits(), args, train_dataset=DATA, autodrop=OPTIONS, temperature=2.0)
    trainer.train()
    check_follows(trainer)


def test_warmup_by_composition(tmp_path):
    """A SequentialLR in optimizers: AutoDrop's updates begin after the warmup."""
    model = Digits()
    optimizer = sgd(model)
    autodrop = AutoDrop(optimizer, window=WINDOW)
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=20)
    both = lr_scheduler.SequentialLR(optimizer, [warmup, autodrop], milestones=[20])
    trainer = AutoDropTrainer(
        model, arguments(tmp_path), train_dataset=DATA, optimizers=(optimizer, both)
    )
    trainer.train()
    assert autodrop.angle_steps[-1] == 3 * ((29 * EPOCHS - 20) // 3)
    assert rates(autodrop) == [pytest.approx(0.2 * 0.95 ** len(autodrop.drops), rel=1e-12)]
    assert autodrop.drops != []


def test_a_warmup_that_would_be_ignored(tmp_path):
    trainer = autodrop_trainer(tmp_path, warmup_steps=20)
    with pytest.raises(ValueError, match=r"warmup must be 0 steps .* got 20"):
        trainer.train()


def test_options_that_would_be_ignored(tmp_path):
    model = Digits()
    optimizer = sgd(model)
    with pytest.raises(ValueError, match=r"autodrop must be left out .* and AutoDrop"):
        AutoDropTrainer(
            model,
            arguments(tmp_path),
            train_dataset=DATA,
            optimizers=(optimizer, AutoDrop(optimizer)),
            autodrop=OPTIONS,
        )


def test_without_transformers_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "autodrop.integrations.transformers")
    with pytest.raises(ModuleNotFoundError, match=r"the extra autodrop\[transformers\]"):
        importlib.import_module("autodrop.integrations.transformers")


def test_the_documented_example_trains_a_language_model(tmp_path):
    """A small Llama learns n, n + s, n + 2s, … modulo 17, with AdamW and clipping."""
    generator = torch.Generator().manual_seed(0)
    starts, strides = torch.randint(17, (2, 448, 1), generator=generator)
    tokens = (starts + strides * torch.arange(8)) % 17
    config = LlamaConfig(
        vocab_size=17,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    names = {
        "AutoDropTrainer": AutoDropTrainer,
        "model": model,
        "data": [{"input_ids": row, "labels": row} for row in tokens],
        "args": arguments(
            tmp_path,
            num_train_epochs=5,
            learning_rate=1e-2,
            optim="adamw_torch",
            optim_args=None,
            max_grad_norm=1.0,
        ),
    }
    (example,) = documented.examples(AutoDropTrainer)
    exec(example.replace("64", "4"), names)  # few updates
    trainer = names["trainer"]
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < 2.5 < math.log(17)
    assert trainer.lr_scheduler.angle_steps == list(range(12, 140 + 1, 4))
    assert trainer.lr_scheduler.drops != []
