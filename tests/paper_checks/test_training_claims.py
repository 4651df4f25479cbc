"""The claims of Section 6.2: planted mistakes take the verdict away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from paper_checks.claim import Context, Outcome, Verdict
from paper_checks.claims import section3_4_networks
from paper_checks.claims import section6_2_training as claims
from paper_checks.outcome import execute
from paper_checks.training import Config, Record, decide, load_digits, train
from paper_checks.training.decide import Decision
from paper_checks.training.reset import Around, angles_around_drop


def failed(outcome: Outcome) -> set[str]:
    return {fact.name for fact in outcome.facts if not fact.ok}


def test_table_2_as_printed() -> None:
    outcome = claims.table_2(Context())
    assert outcome.verdict is Verdict.CORRECTED
    assert not failed(outcome)


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        ("ResNet18, CIFAR10", "AutoDrop", (4.79, 0.099)),  # were 0.99 a slip for 0.099
        ("WRN40x10, CIFAR100", "AutoDrop", (18.96, 0.10)),
        ("WRN28x10, CIFAR10", "OneCycle", (3.00, 0.16)),
        ("ResNet34, CIFAR100", "SOTA", (21.00, 0.34)),
    ],
)
def test_other_numbers_in_table_2_are_seen(
    model: str, name: str, value: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(claims.TABLE_2[model], name, value)
    assert claims.table_2(Context()).verdict is Verdict.UNDECIDED


def test_welch_by_scipy() -> None:
    from scipy import stats

    got = claims.welch((4.79, 0.99), (4.86, 0.12))
    interval = stats.ttest_ind_from_stats(4.79, 0.99, 4, 4.86, 0.12, 4, equal_var=False)
    # The p-value of the difference that touches the interval's end is 5 %.
    shifted = stats.ttest_ind_from_stats(4.79 - got.high, 0.99, 4, 4.86, 0.12, 4, equal_var=False)
    assert shifted.pvalue == pytest.approx(0.05, rel=1e-9)
    assert interval.pvalue > 0.05
    assert got.low < 0 < got.high


def test_table_16_and_an_autodrop_that_leads() -> None:
    outcome = claims.table_16(Context())
    assert outcome.verdict is Verdict.REFUTED
    assert outcome.counterexample is not None
    execute(outcome.counterexample)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(claims.TABLE_16[50], "AutoDrop", 6.0)
        patch.setitem(claims.TABLE_16[100], "AutoDrop", 5.0)
        assert claims.table_16(Context()).verdict is Verdict.UNDECIDED


@pytest.fixture(scope="module")
def record() -> Record:
    """One epoch of a real run, to be given other angles and losses."""
    return train(Config(epochs=1, schedule="constant", batch_size=64), load_digits())


def pretended(
    record: Record, scatter: float = 6.0, rise: int = 60, fall: int = 8
) -> Callable[..., Any]:
    """Runs whose angle rises in `rise` epochs with that scatter and whose loss falls in `fall`."""
    angles, losses = [], []
    for epoch in range(1, 201):
        wave = scatter * (1.4 if epoch % 2 else -1.4) / 1.4
        angles.append(min(100.0, 20 + 80 * epoch / rise) + wave)
        losses.append(0.1 + max(0.0, 1 - epoch / fall))
    changed = replace(
        record,
        angles=tuple(angles[2:]),
        angle_iterations=tuple(record.epoch_length * e for e in range(3, 201)),
        curves=replace(record.curves, train_loss=tuple(losses)),
    )
    return lambda seeds, sampling, device: tuple((changed,) * 3 for _ in seeds)


@pytest.mark.parametrize(
    ("changes", "scatters", "late"),
    [
        ({}, True, True),
        ({"scatter": 0.2}, False, True),
        ({"rise": 8}, True, False),
        ({"fall": 100}, True, False),
    ],
    ids=["as seen", "hardly any scatter", "angle at once", "loss late"],
)
def test_angles_follow_what_they_are_given(
    record: Record,
    changes: dict[str, Any],
    scatters: bool,
    late: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(section3_4_networks, "runs", pretended(record, **changes))
    for check, ok in ((claims.table_6, scatters), (claims.angle_before_loss, late)):
        assert check(Context()).verdict is (Verdict.REFUTED if ok else Verdict.UNDECIDED)


def around(default: float, strong: float, momentum_strong: float) -> Callable[..., Any]:
    """Angles of 90° that a drop by 0.95, by 0.1, and by 0.1 with momentum changes by so much."""

    def given(seeds: tuple[int, ...], momentum: float, device: str) -> Any:
        change = {1.0: 0.0, 0.95: default, 0.5: strong / 2, 0.1: strong}
        if momentum:
            change[0.1] = momentum_strong
        return tuple(
            tuple(Around(ρ, (90.0,) * 20, (90.0 + change[ρ],) * 60) for ρ in claims.RESET_FACTORS)
            for _ in seeds
        )

    return given


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ((0.2, -15.0, -33.0), Verdict.REFUTED),
        ((-30.0, -15.0, -33.0), Verdict.UNDECIDED),  # the default resets
        ((0.2, 0.0, -33.0), Verdict.UNDECIDED),  # ρ = 0.1 does not
        ((0.2, -15.0, -15.0), Verdict.UNDECIDED),  # momentum plays no role
        ((0.2, -85.0, -89.0), Verdict.UNDECIDED),  # down to nothing
    ],
)
def test_reset_follows_what_it_is_given(
    changes: tuple[float, float, float], verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "resets", around(*changes))
    assert claims.reset_networks(Context()).verdict is verdict


def test_angles_around_a_drop() -> None:
    config = Config(epochs=1, schedule="constant", batch_size=64, window=4, hidden=(8,))
    data = load_digits()
    none, half = angles_around_drop(config, data, (1.0, 0.5), 3, 2)
    assert none.before == half.before
    assert none.after[1:] != half.after[1:]
    # The control is the run that was never touched.
    whole = train(replace(config, epochs=5), data)
    assert none.before + none.after == whole.angles
    with pytest.raises(ValueError, match="schedule must be 'constant', got 'autodrop'"):
        angles_around_drop(Config(), data, (0.5,), 1, 1)
    for factor in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"factors must be in \(0, 1\]"):
            angles_around_drop(config, data, (factor,), 1, 1)
