"""Drop rules on the test bed: verdicts, and mistakes in the stored results and in the rules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from autodrop.detectors import VarianceRatio
from paper_checks.claim import Context, Verdict
from paper_checks.claims import section4_6_rules as rules
from paper_checks.outcome import execute
from paper_checks.testbed import stored
from paper_checks.testbed.summary import HELD_OUT, TUNED
from theory.testbed import published

EXPECTED = {
    rules.no_tuning_on_quadratics: Verdict.REFUTED,
    rules.variance_ratio_senses: Verdict.HOLDS,
}
SETTING = "variance ratio k=16 ρ=0.25"


@pytest.mark.parametrize("check", EXPECTED, ids=lambda check: check.__name__)
def test_verdict_at_another_seed(check: Any) -> None:
    outcome = check(Context(seed=1))
    assert outcome.failed == ()
    assert outcome.verdict is EXPECTED[check]
    if outcome.counterexample is not None:
        execute(outcome.counterexample)


def failed(monkeypatch: pytest.MonkeyPatch, check: Any, change: Callable[[Any], Any]) -> list[str]:
    """The facts that fail where the stored results are changed."""
    results = copy.deepcopy(stored.read(rules.RESULTS))
    change(results)
    monkeypatch.setattr(rules, "_results", lambda: results)
    return failing(monkeypatch, check)


def failing(monkeypatch: pytest.MonkeyPatch, check: Any) -> list[str]:
    seen: list[str] = []
    evidence = rules.Evidence

    class Recording(evidence):  # type: ignore[misc,valid-type]
        def outcome(self, *args: Any, **kwargs: Any) -> Any:
            seen.extend(fact.name for fact in self._facts if not fact.ok)

    monkeypatch.setattr(rules, "Evidence", Recording)
    check(Context(seed=0))
    return seen


def _row(results: Any, name: str) -> Any:
    return next(row for row in results["rows"] if row["name"] == name)


def _worse(group: str, name: str) -> Callable[[Any], None]:
    def change(results: Any) -> None:
        _row(results, rules.OURS)["by_setting"][group][SETTING][name]["value"] *= 10

    return change


@pytest.mark.parametrize("group", [TUNED, HELD_OUT])
@pytest.mark.parametrize("name", ["geometric", "median", "percentile90"])
def test_a_worse_score_is_noticed(group: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = failed(monkeypatch, rules.variance_ratio_senses, _worse(group, name))
    assert f"{group}: {name}" in found


def test_a_stored_number_that_the_code_does_not_give_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def change(results: Any) -> None:
        for each in results["instances"]:
            if SETTING in each["regret"]:
                each["regret"][SETTING][0] *= 1.01

    found = failed(monkeypatch, rules.variance_ratio_senses, change)
    assert any("computed anew" in name for name in found)


def test_a_clock_in_its_place_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(results: Any) -> None:
        clock = _row(results, "clock dressed as a sensor")
        (seen,) = clock["senses"].values()
        _row(results, rules.OURS)["senses"]["variance ratio k=4 ρ=0.25"] = seen

    found = failed(monkeypatch, rules.variance_ratio_senses, change)
    assert any(name.startswith("slope") for name in found)


def test_a_rule_that_leaks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(results: Any) -> None:
        _row(results, "Pflug")["senses"]["Pflug burn-in=100 ρ=0.5"]["leak"] = 640

    found = failed(monkeypatch, rules.variance_ratio_senses, change)
    assert any("past alone" in name for name in found)


def test_another_rule_under_the_same_name_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VarianceRatio, "span", 400)
    found = failing(monkeypatch, rules.variance_ratio_senses)
    assert any("computed anew" in name for name in found)


def test_a_wrong_level_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = VarianceRatio.threshold
    monkeypatch.setattr(VarianceRatio, "threshold", lambda self, *args: 2 * right(self, *args))
    found = failing(monkeypatch, rules.variance_ratio_senses)
    assert any(name.startswith("false drops per test") for name in found)


def test_another_algorithm_1_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = published.lowered
    monkeypatch.setattr(
        published, "lowered", lambda drop, factor, *rest: right(drop, factor**2, *rest)
    )
    found = failing(monkeypatch, rules.no_tuning_on_quadratics)
    assert any("computed anew" in name for name in found)


def test_defaults_as_good_as_any_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(results: Any) -> None:
        row = _row(results, rules.PUBLISHED)
        for group in (TUNED, HELD_OUT):
            row["by_setting"][group][row["recommended"]] = row["by_setting"][group][row["best"]]

    found = failed(monkeypatch, rules.no_tuning_on_quadratics, change)
    assert [name for name in found if "default over the best" in name]


def test_what_is_stored_comes_back(tmp_path: Any) -> None:
    results = {"a": [1.25, float("inf"), None], "leak": None, "n": 3, "s": "x", "b": True}
    stored.write(results, tmp_path / "r.json")
    found = stored.read(tmp_path / "r.json")
    assert found["a"][:2] == [1.25, float("inf")]
    assert found["a"][2] != found["a"][2]
    assert found["leak"] is None
    assert (found["n"], found["s"], found["b"]) == (3, "x", True)
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(ValueError, match="must be a result of the test bed"):
        stored.read(tmp_path / "r.json")
