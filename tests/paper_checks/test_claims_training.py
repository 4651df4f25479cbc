"""The claims that rest on training runs notice a wrong pattern and a broken resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from paper_checks.claim import Context, Verdict
from paper_checks.claims import section3_4_networks as networks
from paper_checks.claims import section4_4_training as training
from paper_checks.training import Config, Record, Run, load_digits, train

# What the exploration saw: level (degrees) and epoch of the rise, for α = 0.4, 0.2, 0.1.
SHUFFLED, INDEPENDENT, RISE = (114.0, 117.0, 116.0), (95.0, 91.0, 88.0), (15.0, 30.0, 58.0)


@pytest.fixture(scope="module")
def record() -> Record:
    """One epoch of a real run, to be given other angles."""
    return train(Config(epochs=1, schedule="constant", batch_size=64), load_digits())


def curves(record: Record, levels: Sequence[float], rise: Sequence[float]) -> tuple[Record, ...]:
    """Records whose angle goes from 20° to the level around the epoch `rise`."""
    epochs = np.arange(198)
    made = []
    for rate, level, time in zip(networks.RATES, levels, rise, strict=True):
        angles = 20 + (level - 20) / (1 + np.exp(np.clip(5 - 5 * epochs / time, -50, 50)))
        config = dataclasses.replace(record.config, learning_rate=rate)
        made.append(
            dataclasses.replace(
                record,
                config=config,
                angles=tuple(angles),
                angle_iterations=tuple((3 + epochs) * record.epoch_length),
            )
        )
    return tuple(made)


@pytest.mark.parametrize(
    ("shuffled", "independent", "rise", "rises", "ordered"),
    [
        pytest.param(SHUFFLED, INDEPENDENT, RISE, True, True, id="as seen"),
        pytest.param(SHUFFLED, INDEPENDENT, RISE[::-1], False, True, id="small rates faster"),
        pytest.param(
            SHUFFLED, INDEPENDENT, (100.0, 200.0, 400.0), False, False, id="no saturation"
        ),
        pytest.param(SHUFFLED, INDEPENDENT, (1e-9,) * 3, False, True, id="no rise"),
        pytest.param(SHUFFLED, INDEPENDENT[::-1], RISE, True, False, id="order turned"),
        pytest.param(SHUFFLED, SHUFFLED, RISE, True, False, id="sampling without effect"),
        pytest.param((130.0,) * 3, INDEPENDENT, RISE, True, False, id="out of range"),
    ],
)
def test_figure_3_follows_the_pattern_it_is_given(
    record: Record,
    shuffled: Sequence[float],
    independent: Sequence[float],
    rise: Sequence[float],
    rises: bool,
    ordered: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    levels = {"shuffled": shuffled, "independent": independent}

    def given(seeds: tuple[int, ...], sampling: str, device: str) -> networks.Runs:
        return tuple(curves(record, levels[sampling], rise) for _ in seeds)

    monkeypatch.setattr(networks, "runs", given)
    expected = {True: Verdict.HOLDS, False: Verdict.UNDECIDED}
    assert networks.figure_3_rise(Context()).verdict is expected[rises]
    expected[True] = Verdict.CORRECTED
    assert networks.figure_3_levels(Context()).verdict is expected[ordered]


def failed(context: Context) -> set[str]:
    return {fact.name for fact in training.digits_training(context).facts if not fact.ok}


def test_a_resume_that_loses_the_order_of_samples_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = Run.load_state_dict

    def forgetful(self: Run, state: dict) -> None:
        load(self, {**state, "generator": self._generator.get_state()})

    monkeypatch.setattr(Run, "load_state_dict", forgetful)
    assert failed(Context()) == {"fields that resuming changes, by update"}


def test_a_rule_that_drops_elsewhere_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    replayed = training.replayed

    def one_window_late(record: Record) -> tuple[tuple[int, ...], float]:
        shifted = (record.angles[0], *record.angles[:-1])
        return replayed(dataclasses.replace(record, angles=shifted))

    monkeypatch.setattr(training, "replayed", one_window_late)
    assert "replaying the angles gives the drops" in failed(Context())
