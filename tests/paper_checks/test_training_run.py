"""Training: determinism, resuming, what is recorded, what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autodrop import AngularVelocity, AutoDrop
from paper_checks.training import (
    Config,
    Dataset,
    Diverged,
    Record,
    Run,
    angle_at_fixed_rates,
    load_digits,
    resume_differences,
    resume_is_identical,
    train,
)
from paper_checks.training.data import split
from paper_checks.training.fixed_rates import epochs_to, level
from paper_checks.training.model import mlp
from paper_checks.training.record import write_json


def small(samples: int = 60) -> Dataset:
    """Two overlapping clouds, 48 samples to train, 12 to test."""
    rng = np.random.default_rng(1)
    y = np.arange(samples) % 2
    return split("clouds", rng.normal(size=(samples, 5)) + y[:, None], y)


# 7 updates an epoch, on 7, …, 7, 6 samples; 42 windows of 2.
SHORT = Config(epochs=12, batch_size=7, learning_rate=0.1, hidden=(6,), window=2)


def test_resuming_changes_no_bit_at_any_update() -> None:
    config = dataclasses.replace(SHORT, epochs=7)
    assert train(config, small()).drops  # the drops are among what is compared
    assert resume_is_identical(config, small(), range(7 * 7 + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adamw", "learning_rate": 0.01},
        {"schedule": "constant", "momentum": 0.0},
        {"rule": "arxiv2021", "window": 2},
        {"sampling": "independent", "factor": 0.5, "window": 3},
    ],
    ids=["adamw", "constant", "arxiv2021", "independent"],
)
def test_resuming_other_settings(change: dict[str, Any]) -> None:
    config = dataclasses.replace(SHORT, **change)
    # The middle of an epoch, of a window, the end of an epoch, the last updates.
    total = config.epochs * 7
    found = resume_differences(config, small(), (0, 1, 24, 45, 49, total - 1, total))
    assert all(different == () for different in found.values())


@pytest.mark.parametrize(
    "lost", ["model", "optimizer", "observer", "generator", "order", "angles", "curves"]
)
def test_a_checkpoint_that_lacks_anything_is_noticed(
    lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: with that part of the state left as in a new run, bits differ."""
    complete = Run.state_dict

    def incomplete(self: Run) -> dict[str, Any]:
        return {**complete(self), lost: complete(Run(self.config, self.data))[lost]}

    monkeypatch.setattr(Run, "state_dict", incomplete)
    # 31 updates: mid-window, mid-epoch.
    if lost == "order":  # an empty order is not even a mini-batch
        with pytest.raises(Diverged):
            resume_differences(SHORT, small(), [31])
    else:
        assert resume_differences(SHORT, small(), [31])[31]
        assert not resume_is_identical(SHORT, small(), [31])


def test_stops_outside_the_run() -> None:
    with pytest.raises(ValueError, match=r"stops must be in \[0, 84\], got 85"):
        resume_differences(SHORT, small(), [85])


def test_same_seed_same_run_and_other_seed_other_run() -> None:
    first, again = train(SHORT, small()), train(SHORT, small())
    assert first.differences(again) == ()
    other = train(dataclasses.replace(SHORT, seed=1), small())
    assert {"config", "curves", "angles", "weights"} <= set(first.differences(other))


def test_training_leaves_torch_as_it_was() -> None:
    torch_state, threads = torch.get_rng_state(), torch.get_num_threads()
    train(dataclasses.replace(SHORT, threads=2), small())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.get_num_threads() == threads


def test_it_is_the_loop_that_a_user_would_write() -> None:
    """The same run with nothing but torch and AutoDrop's one line."""
    data, config = small(), SHORT
    generator = torch.Generator().manual_seed(config.seed)
    model = mlp(data.features, 2, config.hidden, generator)
    optimizer = torch.optim.SGD(
        model.parameters(), config.learning_rate, config.momentum, weight_decay=config.weight_decay
    )
    scheduler = AutoDrop(optimizer, window=2)
    for _ in range(config.epochs):
        for batch in torch.randperm(len(data.train_x), generator=generator).split(7):
            optimizer.zero_grad()
            logits = model(data.train_x[batch])
            torch.nn.functional.cross_entropy(logits, data.train_y[batch]).backward()
            optimizer.step()
            scheduler.step()
    record = train(config, data)
    assert record.angles == tuple(scheduler.angular_velocities)
    assert record.drops == tuple(scheduler.drops)
    assert record.curves.learning_rate[-1] == scheduler.get_last_lr()[0]
    assert record.angle_iterations == tuple(range(6, 85, 2))
    accuracy = (model(data.test_x).argmax(1) == data.test_y).double().mean()
    assert record.curves.test_accuracy[-1] == float(accuracy)


def test_constant_rate_watches_and_does_nothing() -> None:
    config = dataclasses.replace(SHORT, schedule="constant")
    record, with_drops = train(config, small()), train(SHORT, small())
    assert record.drops == ()
    assert set(record.curves.learning_rate) == {0.1}
    # Until the first drop both runs are the same one; the angle that causes it included.
    common = with_drops.drops[0].window - 1
    assert record.angles[:common] == with_drops.angles[:common]
    assert len(record.angles) == len(with_drops.angles) == 84 // 2 - 2


def test_training_learns_the_digits() -> None:
    """Ten classes: guessing has 10 % ± 1.6 % on 359 samples; 80 % is 44 deviations away."""
    record = train(Config(epochs=3), load_digits())
    assert record.curves.test_accuracy[-1] > 0.8
    assert record.window == 8
    assert record.epoch_length == 45


def test_windows_by_default() -> None:
    assert Config().window_for(391) == 65
    assert Config().window_for(1) == 1
    assert Config(window=64).window_for(391) == 64
    assert Config(rule="arxiv2021").window_for(391) == 391


def test_record_as_json(tmp_path: Path) -> None:
    record = train(SHORT, small())
    write_json(tmp_path / "record.json", {"autodrop": record})
    read = json.loads((tmp_path / "record.json").read_text(), parse_constant=pytest.fail)
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    ((name, entry),) = read.items()
    assert name == "autodrop"
    assert entry["config"] == {**dataclasses.asdict(SHORT), "hidden": [6], "settings": []}
    assert entry["versions"]["torch"] == str(torch.__version__)
    assert entry["data"]["train"] == 48
    assert entry["angles"] == list(record.angles)
    assert entry["drops"][0]["step"] == record.drops[0].step
    assert all(len(curve) == 12 for curve in entry["curves"].values())
    assert entry["final"]["test_loss"] == record.curves.test_loss[-1]
    assert entry["final"]["drops"] == len(record.drops)


@pytest.mark.parametrize(("evaluate", "epochs"), [("test", slice(None)), ("end", slice(-1, None))])
def test_what_is_evaluated_changes_nothing_else(evaluate: str, epochs: slice) -> None:
    whole = train(SHORT, small())
    record = train(dataclasses.replace(SHORT, evaluate=evaluate), small())
    curves = dataclasses.asdict(record.curves)
    assert curves.pop("train_loss") == curves.pop("train_accuracy") == ()
    for name, values in curves.items():
        assert values == getattr(whole.curves, name)[epochs]
    assert set(record.differences(whole)) == {"config", "curves"}
    assert record.as_dict()["final"]["test_loss"] == whole.curves.test_loss[-1]


def test_evaluating_an_optimizer_that_has_a_mode() -> None:
    pytest.importorskip("schedulefree")
    config = dataclasses.replace(SHORT, schedule="schedule-free")
    whole, record = (
        train(config, small()),
        train(dataclasses.replace(config, evaluate="end"), small()),
    )
    # Going there and back rounds its weights.
    assert record.curves.test_loss == pytest.approx(whole.curves.test_loss[-1:], rel=1e-5)


def test_nan_is_never_written(tmp_path: Path) -> None:
    record = dataclasses.replace(train(SHORT, small()), seconds=math.nan)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "record.json", {"autodrop": record})
    assert list(tmp_path.iterdir()) == []


def test_divergence_is_an_error() -> None:
    with pytest.raises(Diverged, match=r"must stay finite, got (nan|inf) in update \d+ at learn"):
        train(dataclasses.replace(SHORT, learning_rate=1e12), small())


def test_checkpoints_of_other_runs(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    Run(SHORT, small()).save(path)
    with pytest.raises(ValueError, match=r"the same momentum, it has 0\.9 \(here 0\.5\)"):
        Run(dataclasses.replace(SHORT, momentum=0.5), small()).load(path)
    with pytest.raises(ValueError, match="must be of the same data"):
        Run(SHORT, small(80)).load(path)
    torch.save({"model": {}}, path)
    with pytest.raises(ValueError, match="it lacks angles, config"):
        Run(SHORT, small()).load(path)
    torch.save([1], path)
    with pytest.raises(ValueError, match="it holds a list"):
        Run(SHORT, small()).load(path)
    for content in (b"", b"no checkpoint", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="must be a checkpoint, it cannot be read as one"):
            Run(SHORT, small()).load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", True),
        ("batch_size", 1.5),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("momentum", 1.0),
        ("weight_decay", -1e-9),
        ("optimizer", "adam"),
        ("evaluate", "never"),
        ("schedule", "staircase"),
        ("sampling", "sorted"),
        ("rule", "uai"),
        ("window", 0),
        ("factor", 1.0),
        ("hidden", (8, 0)),
        ("seed", -1),
        ("seed", 2**63),
        ("threads", 0),
    ],
)
def test_config_refuses(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        Config(**{name: value})


def test_devices() -> None:
    for name in ("gpu", "cpu:0", "cuda:x", ""):
        with pytest.raises(ValueError, match="device must be cpu, cuda or cuda:N"):
            Run(dataclasses.replace(SHORT, device=name), small())
    with pytest.raises(ValueError, match="device 'cuda:99' must exist"):
        Run(dataclasses.replace(SHORT, device="cuda:99"), small())


def test_snapshots_need_two_updates_an_epoch() -> None:
    config = Config(batch_size=48, rule="arxiv2021")
    with pytest.raises(ValueError, match="window must be an integer >= 2"):
        Run(config, small())


def test_network_draws_from_its_generator_only() -> None:
    weights = [mlp(3, 2, (4, 5), torch.Generator().manual_seed(s)).state_dict() for s in (0, 0, 1)]
    assert [tuple(w.shape) for w in weights[0].values()] == [
        (4, 3),
        (4,),
        (5, 4),
        (5,),
        (2, 5),
        (2,),
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["0.weight"], weights[2]["0.weight"])
    # He's uniform law: |w| ≤ √(6/inputs).
    assert float(weights[0]["0.weight"].abs().max()) <= math.sqrt(6 / 3)


def test_angle_at_fixed_rates() -> None:
    config = dataclasses.replace(SHORT, schedule="constant")
    fast, slow = angle_at_fixed_rates((0.1, 0.01), config=config, seed=3, data=small())
    assert (fast.window, fast.epoch_length) == (7, 7)
    assert fast.config.seed == slow.config.seed == 3
    assert [record.config.learning_rate for record in (fast, slow)] == [0.1, 0.01]
    assert len(fast.angles) == config.epochs - 2
    # Against AngularVelocity on a run of its own.
    run = Run(dataclasses.replace(config, learning_rate=0.1, seed=3), small())
    velocity = AngularVelocity(run.model.parameters(), window=7)
    angles = []
    while not run.finished:
        run.advance()
        angle = velocity.update()
        angles += [] if angle is None else [math.degrees(angle)]
    assert fast.angles == tuple(angles)


def record_of(angles: list[float]) -> Record:
    return dataclasses.replace(
        train(SHORT, small()),
        angles=tuple(angles),
        angle_iterations=tuple(range(14, 14 + 7 * len(angles), 7)),
    )


def test_level_and_epochs_to() -> None:
    record = record_of([10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0])
    assert level(record) == 75.0
    assert level(record, 1) == 15.0
    assert epochs_to(record, 15.0, width=2) == 3.0
    assert epochs_to(record, 80.0, width=1) == 9.0
    assert epochs_to(record, 80.5, width=1) == math.inf
    with pytest.raises(ValueError, match="quarter must be 1, 2, 3 or 4, got 0"):
        level(record, 0)
    with pytest.raises(ValueError, match="at least 4 angles, got 3"):
        level(record_of([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match=r"width must be in \[1, 8\], got 9"):
        epochs_to(record, 10.0, width=9)
