"""Evidence: which facts hold, what is kept of them, and what a failed one does to the verdict."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch

from paper_checks.claim import Evidence, Outcome, Verdict

NAN, INF = float("nan"), float("inf")


def two_routes() -> Evidence:
    evidence = Evidence()
    evidence.route("closed form", "1")
    evidence.route("recursion", "1")
    return evidence


def finish(evidence: Evidence, verdict: Verdict = Verdict.HOLDS) -> Outcome:
    return evidence.outcome(verdict, "Found.", cases=1, reason="Too few samples.")


class TestVerdict:
    def test_is_granted_when_every_fact_held(self) -> None:
        evidence = two_routes()
        assert evidence.equal("level", 1.0, 1.0, 0.0)
        assert finish(evidence).verdict is Verdict.HOLDS

    @pytest.mark.parametrize("asked", list(Verdict))
    def test_one_failed_fact_withdraws_it(self, asked: Verdict) -> None:
        evidence = two_routes()
        evidence.equal("level", 1.0, 1.0, 0.0)
        assert not evidence.at_most("slack", 3.0, 2.0)
        assert not evidence.holds
        found = finish(evidence, asked)
        assert found.verdict is Verdict.UNDECIDED
        assert found.reason == "slack: 3 not ≤ 2"
        assert [fact.name for fact in found.failed] == ["slack"]
        assert "1 of 2 facts" in found.summary

    def test_needs_a_fact(self) -> None:
        with pytest.raises(ValueError, match=">= 1 fact"):
            finish(two_routes())


class TestComparisons:
    def test_equal_keeps_the_worst_element(self) -> None:
        evidence = two_routes()
        assert evidence.equal("a", [1.0, 2.25, 3.0], [1, 2, 3], 0.5, source="false alarm 1e-6")
        (fact,) = finish(evidence).facts
        assert fact.slack == 0.25
        assert fact.tolerance == 0.5
        assert fact.source == "false alarm 1e-6"
        assert "2.25" in fact.detail
        assert "worst of 3, at 1" in fact.detail

    def test_worst_is_by_slack_when_tolerances_differ(self) -> None:
        evidence = two_routes()
        assert not evidence.equal("a", [1.5, 0.2], [0.0, 0.0], [2.0, 0.1], source="rounding")
        (fact,) = finish(evidence).failed
        assert "at 1" in fact.detail
        assert fact.slack == pytest.approx(-0.1, rel=4e-16)  # one rounded subtraction

    @pytest.mark.parametrize(
        ("method", "got", "want", "ok"),
        [
            ("equal", 1.5, 1.0, True),
            ("equal", 1.5625, 1.0, False),
            ("equal", 0.4375, 1.0, False),
            ("at_most", 1.5, 1.0, True),
            ("at_most", 1.5625, 1.0, False),
            ("at_most", -9.0, 1.0, True),
            ("at_least", 0.5, 1.0, True),
            ("at_least", 0.4375, 1.0, False),
            ("at_least", 9.0, 1.0, True),
        ],
    )
    def test_tolerance_is_the_edge(self, method: str, got: float, want: float, ok: bool) -> None:
        assert getattr(Evidence(), method)("a", got, want, 0.5, source="rounding") is ok

    @pytest.mark.parametrize(
        ("other", "ok"), [(0.5, True), (1.5, True), (0.75, False), (1.0, False)]
    )
    def test_apart_needs_the_margin(self, other: float, ok: bool) -> None:
        assert Evidence().apart("a", 1.0, other, by=0.5, source="ten standard errors") is ok

    @pytest.mark.parametrize("method", ["equal", "at_most", "at_least"])
    @pytest.mark.parametrize("got", [NAN, INF, -INF, [0.0, NAN], [INF, 0.0]])
    @pytest.mark.parametrize("want", [0.0, INF, -INF, NAN])
    def test_what_is_not_finite_never_holds(self, method: str, got: object, want: float) -> None:
        evidence = two_routes()
        assert getattr(evidence, method)("a", got, want, 1.0, source="rounding") is False
        assert getattr(evidence, method)("a", want, got, 1.0, source="rounding") is False
        assert "not finite" in finish(evidence).failed[0].detail

    @pytest.mark.parametrize("got", [NAN, INF, [1.0, NAN]])
    def test_apart_of_what_is_not_finite_does_not_hold(self, got: object) -> None:
        assert not Evidence().apart("a", got, 0.0, by=0.1, source="margin")

    def test_takes_fractions_sympy_and_tensors(self) -> None:
        evidence = Evidence()
        assert evidence.equal("a", Fraction(1, 2), sympy.Rational(1, 2), 0.0)
        assert evidence.equal("b", torch.tensor([0.5, 0.5]), 0.5, 0.0)

    def test_a_tolerance_needs_its_source(self) -> None:
        with pytest.raises(ValueError, match=r"'a': the tolerance 0\.1 needs its source"):
            Evidence().equal("a", 1.0, 1.0, 0.1)
        with pytest.raises(ValueError, match="the margin needs its source"):
            Evidence().apart("a", 1.0, 2.0, by=0.1, source="")

    @pytest.mark.parametrize("tolerance", [-1.0, NAN, INF])
    def test_bad_tolerances_are_rejected(self, tolerance: float) -> None:
        with pytest.raises(ValueError, match="finite and >= 0"):
            Evidence().equal("a", 1.0, 1.0, tolerance, source="rounding")

    @pytest.mark.parametrize("by", [0.0, -1.0, NAN])
    def test_a_margin_is_positive(self, by: float) -> None:
        with pytest.raises(ValueError, match="by must be > 0"):
            Evidence().apart("a", 1.0, 2.0, by=by, source="margin")

    def test_comparing_nothing_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="got must not be empty"):
            Evidence().equal("a", [], 1.0, 0.0)


class TestExact:
    @pytest.mark.parametrize(
        ("got", "want", "ok"),
        [
            (Fraction(1, 3), Fraction(2, 6), True),
            (Fraction(1, 3), Fraction(1, 3) + Fraction(1, 10**40), False),
            (sympy.Symbol("x") + 1, 1 + sympy.Symbol("x"), True),
            (10**400, 10**400, True),
            ("α", "α", True),
            ([1, 2], [1, 3], False),
            (INF, INF, False),
            (sympy.nan, sympy.nan, False),
            ([NAN], [NAN], False),
        ],
    )
    def test_compares_without_tolerance(self, got: object, want: object, ok: bool) -> None:
        assert Evidence().exact("a", got, want) is ok

    def test_long_values_are_shortened_in_the_middle(self) -> None:
        evidence = two_routes()
        evidence.exact("a", tuple(range(500)), tuple(range(500)))
        (fact,) = finish(evidence).facts
        assert fact.detail.startswith("(0, 1, 2, ")
        assert fact.detail.endswith("498, 499)")
        assert " … " in fact.detail
        assert len(fact.detail) <= 160

    @pytest.mark.parametrize("at", [0, 250, 499])
    def test_long_values_that_differ_show_where(self, at: int) -> None:
        changed = list(range(500))
        changed[at] = -77
        evidence = two_routes()
        evidence.exact("a", list(range(500)), changed)
        (fact,) = finish(evidence).facts
        got, want = fact.detail.split(" is not ")
        assert f"{at}" in got
        assert "-77" in want
        assert len(fact.detail) <= 160

    def test_what_fits_is_left_whole(self) -> None:
        evidence = two_routes()
        evidence.exact("a", "x" * 76, "x" * 76)
        assert finish(evidence).facts[0].detail == f"{'x' * 76} = {'x' * 76}"


class TestRequire:
    def test_records_a_condition(self) -> None:
        evidence = two_routes()
        assert evidence.require("monotone", np.bool_(True), "400 rates")
        assert not evidence.require("convex", False, "at 0.3")
        assert [fact.ok for fact in finish(evidence).facts] == [True, False]

    @pytest.mark.parametrize("ok", [NAN, 1, "yes", None, np.array([True])])
    def test_takes_only_a_bool(self, ok: object) -> None:
        with pytest.raises(TypeError, match="ok must be a bool"):
            Evidence().require("a", ok, "")  # type: ignore[arg-type]


def test_numbers_and_tables_hold_python_values() -> None:
    evidence = two_routes()
    evidence.equal("a", 1.0, 1.0, 0.0)
    evidence.number("level", np.float32(0.5))
    evidence.number("count", np.int64(3))
    evidence.number("rational", Fraction(1, 3))
    evidence.table("T", ["a", "b"], np.eye(2))
    found = finish(evidence)
    assert found.numbers == {"level": 0.5, "count": 3, "rational": "1/3"}
    cells = [*found.numbers.values(), *(cell for row in found.tables[0].rows for cell in row)]
    assert {type(cell) for cell in cells} == {float, int, str}
