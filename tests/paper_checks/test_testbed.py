"""The test bed's command: the same numbers twice, whatever the processes; and what it adds up."""

import json

import numpy as np
import pytest

from paper_checks.testbed import __main__ as command
from paper_checks.testbed import plan, summary, table
from paper_checks.testbed import work as working
from theory.testbed.bench import Outcome, Timing, open_loop_names
from theory.testbed.oracles import Oracle
from theory.testbed.roster import ROSTER

TINY = plan.Level("quick", 4, (60, 120), (1.0, 2.0), 150, 10)
FILES = ("results.json", "regret.svg", "timing.svg", "equivariance.svg", "sensitivity.svg")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a tiny run in this process."""
    out = tmp_path_factory.mktemp("testbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plan.LEVELS, "quick", TINY)
        assert command.main(["--jobs", "1", "--out", str(out)]) == command.OK
    return out


def test_two_processes_give_the_same_numbers(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(plan.LEVELS, "quick", TINY)
    assert command.main(["--jobs", "2", "--out", str(tmp_path)]) == command.OK
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes(), name
    printed = capsys.readouterr().out
    for family in ROSTER:
        assert family.name in printed
    assert "peeks at the future" in printed


def test_a_second_run_computes_nothing(finished, monkeypatch):
    def refuse(*_):
        raise AssertionError("a finished task was computed again")

    before = (finished / "results.json").read_bytes()
    monkeypatch.setitem(plan.LEVELS, "quick", TINY)
    monkeypatch.setattr(working, "work", refuse)
    assert command.main(["--jobs", "1", "--out", str(finished)]) == command.OK
    assert (finished / "results.json").read_bytes() == before
    # Results of other code are not reused.
    monkeypatch.setattr(working, "_code", lambda: "other")
    with pytest.raises(RuntimeError, match="failed"):
        command.main(["--jobs", "1", "--out", str(finished)])


def test_a_task_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    def some(task, level, seed):
        if task.kind == "audit":
            raise ArithmeticError("not today")
        return task.name

    planned = plan.tasks(TINY)
    monkeypatch.setattr(working, "work", some)
    options = {"jobs": 1, "seed": 0, "out": tmp_path}
    done = []
    with pytest.raises(RuntimeError, match="failed: audit; what is finished is kept") as raised:
        done.extend(name for _, name in working.run(planned, TINY, **options))
    assert isinstance(raised.value.__cause__, ArithmeticError)
    monkeypatch.setattr(working, "work", lambda task, *_: "again")
    again = {task.name: name for task, name in working.run(planned, TINY, **options)}
    assert again == {task.name: task.name for task in planned} | {"audit": "again"}


def test_results_are_strict_json_with_every_setting(finished):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    results = json.loads((finished / "results.json").read_text(), parse_constant=refuse)
    names = [name for row in results["rows"] for name in row["settings"]]
    assert names == [*(each.name for each in plan.settings()), *open_loop_names()]
    assert results["controls"]["leak of the rule that peeks"] == 640
    assert results["controls"]["miscalibration exposed"]
    assert results["below_the_oracle"] == []


def test_usage(tmp_path, capsys):
    assert command.main(["--jobs", "0", "--out", str(tmp_path)]) == command.USAGE
    assert "jobs must be >= 1, got 0" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert command.main(["--out", str(tmp_path / "file")]) == command.USAGE


def test_plans_hold_out_by_name_and_begin_with_the_longest():
    full = plan.tasks(plan.LEVELS["full"])
    assert [task.cost for task in full] == sorted((task.cost for task in full), reverse=True)
    assert len({task.name for task in full}) == len(full)
    assert {task.method for task in full} == {"sgd", "heavy ball 0.9", "nesterov 0.9"}
    quick = {task.name for task in plan.tasks(plan.LEVELS["quick"])}
    assert quick < {task.name for task in full}


def outcome(name, held_out, regrets, method="sgd", horizons=(10, 100)):
    """With these regrets (H,) by setting, 1000 where none is given; the oracle's risk is T⁻¹."""
    oracle = 1 / np.array(horizons)
    contenders = [each.name for each in plan.settings()]
    value = {each: np.full(len(horizons), 1000.0) for each in (*contenders, *open_loop_names())}
    value |= {each: np.asarray(given, dtype=float) for each, given in regrets.items()}
    risk = np.array([np.tile(value[each] * oracle, (4, 1)) for each in contenders])
    return Outcome(
        name, name, held_out, method, horizons, Oracle(tuple(oracle), None, "oracle"),
        tuple(contenders), risk, np.array([value[each] * oracle for each in open_loop_names()]),
        tuple(Timing(1.0, 0.5, float("nan")) for _ in contenders),
    )  # fmt: skip


def test_the_best_setting_is_chosen_on_the_tuned_spectra_alone():
    first, second = (each.name for each in ROSTER[0].settings[:2])
    outcomes = [
        outcome("a", False, {first: [2, 8], second: [3, 3]}),
        outcome("b", False, {first: [2, 2], second: [3, 3]}),
        outcome("c", True, {first: [9, 9], second: [1.5, 1.5]}),
    ]
    found = summary.groups(outcomes)
    row = summary.rows(found)[0]
    assert (row.recommended, row.best) == (first, first)
    tuned, held = found[summary.TUNED], found[summary.HELD_OUT]
    assert tuned.summary(first).geometric.value == pytest.approx(64**0.25)
    assert held.summary(row.best).geometric.value == pytest.approx(9.0)
    assert tuned.tuned(row.settings).geometric.value == pytest.approx((3 * 3 * 2 * 2) ** 0.25)
    assert [each.median.value for each in tuned.by_horizon(first)] == pytest.approx([2, 5])


def test_momentum_and_other_noise_are_reported_apart():
    outcomes = [
        outcome("a", False, {}),
        outcome("b", True, {}),
        outcome("a", False, {}, method="nesterov 0.9"),
    ]
    assert set(summary.groups(outcomes)) == {summary.TUNED, summary.HELD_OUT, "nesterov 0.9"}


def test_a_rule_below_the_oracle_is_reported():
    good, bad = (each.name for each in ROSTER[0].settings[:2])
    found = summary.violations([outcome("a", False, {good: [1.0, 1.01], bad: [1.2, 0.9]})])
    assert found == [f"{bad} on a, sgd, T = 100"]
    label = open_loop_names()[0]
    assert summary.violations([outcome("a", False, {label: [0.9, 1]})]) == [
        f"{label} on a, sgd, T = 10"
    ]


def test_numbers_in_the_table():
    shown = [table._number(each) for each in (1.234, 12.34, 123.4, 3.2e5, float("nan"), 1e13)]
    assert shown == ["1.23", "12.3", "123", "3e5", "-", "1e13"]
