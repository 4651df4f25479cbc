"""Contexts, outcomes and the registry: what cannot be built, and what is derived."""

from __future__ import annotations

import json

import numpy as np
import pytest

from paper_checks.claim import (
    Claim,
    Context,
    Fact,
    Kind,
    Outcome,
    Route,
    Table,
    Verdict,
    claim,
    registry,
)
from paper_checks.outcome import execute

ROUTES = (Route("closed form", "0.5"), Route("recursion", "0.5"))
FACTS = (Fact("equal", True, "0.5 = 0.5"),)


def outcome(verdict: Verdict = Verdict.HOLDS, **changes: object) -> Outcome:
    fields: dict[str, object] = {"routes": ROUTES, "facts": FACTS, "cases": 3}
    return Outcome(verdict, "Found.", **(fields | changes))  # type: ignore[arg-type]


def register(into: dict[str, Claim], **changes: object) -> None:
    fields: dict[str, object] = {
        "id": "eq-4",
        "place": "eq. (4), p. 3606",
        "title": "A title",
        "statement": "A statement.",
        "kind": Kind.IDENTITY,
        "hypotheses": "0 < αa < 2",
        "expected": Verdict.HOLDS,
    }
    claim(**(fields | changes), into=into)(lambda context: outcome())  # type: ignore[arg-type]


class TestContext:
    def test_seeds_depend_on_the_seed_and_the_name_alone(self) -> None:
        names = [f"claim-{i}" for i in range(200)]
        seeds = {(seed, n): Context(seed=seed).rng_seed(n) for seed in (0, 1) for n in names}
        assert len(set(seeds.values())) == 400
        assert all(0 <= value < 2**63 for value in seeds.values())
        # Drawing for one claim does not move another's stream.
        context = Context(seed=1)
        context.rng("claim-0").normal(size=10)
        assert context.rng_seed("claim-7") == seeds[1, "claim-7"]

    def test_seed_is_stable_across_versions(self) -> None:
        # Pinned: a change here changes every simulated number of the report.
        assert Context(seed=0).rng_seed("eq-4") == 8_634_215_101_158_425_176

    def test_neighbouring_streams_are_uncorrelated(self) -> None:
        draws = np.array([Context().rng(f"claim-{i}").normal(size=4096) for i in range(12)])
        correlations = np.corrcoef(draws)[np.triu_indices(12, 1)]
        # 66 pairs, each N(0, 1/4096): 5.6 sigma is a false alarm of 1.4e-6 in all.
        assert np.abs(correlations).max() < 5.6 / 64

    def test_picks_by_level(self) -> None:
        assert Context("quick").pick(1, 2) == 1
        assert Context("full").pick(1, 2) == 2

    def test_rejects_unknown_level_and_negative_seed(self) -> None:
        with pytest.raises(ValueError, match=r"level must be one of .*'slow'"):
            Context("slow")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="seed must be >= 0, got -1"):
            Context(seed=-1)


class TestOutcome:
    def test_a_complete_one_is_accepted(self) -> None:
        assert outcome().failed == ()
        refuted = outcome(
            Verdict.REFUTED, correction="Otherwise.", counterexample="x = 1\nassert x > 0"
        )
        assert refuted.verdict is Verdict.REFUTED

    @pytest.mark.parametrize(
        ("verdict", "changes", "message"),
        [
            (Verdict.HOLDS, {"routes": ROUTES[:1]}, ">= 2 independent routes, got 1"),
            (Verdict.HOLDS, {"routes": ROUTES[:1] * 2}, ">= 2 independent routes, got 1"),
            (Verdict.HOLDS, {"facts": ()}, ">= 1 fact"),
            (Verdict.HOLDS, {"facts": (Fact("planted", False, ""),)}, "failed facts: .*planted"),
            (Verdict.HOLDS, {"cases": 0}, "cases must be >= 1"),
            (Verdict.HOLDS, {"numbers": {"C*": float("nan")}}, r"'C\*' must be finite, got nan"),
            (Verdict.HOLDS, {"numbers": {"x": np.inf}}, "must be finite, got inf"),
            (Verdict.HOLDS, {"facts": (Fact("s", True, "", np.nan),)}, "'s' must be finite"),
            (
                Verdict.HOLDS,
                {"tables": (Table("T", ("a",), ((float("inf"),),)),)},
                "table 'T' must be finite",
            ),
            (Verdict.CORRECTED, {}, "must state its correction"),
            (Verdict.REFUTED, {"counterexample": "assert x"}, "must state its correction"),
            (Verdict.REFUTED, {"correction": "No."}, "runnable counterexample, got none"),
            (Verdict.UNDECIDED, {}, "must state its reason"),
        ],
    )
    def test_an_incomplete_one_cannot_be_built(
        self, verdict: Verdict, changes: dict[str, object], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            outcome(verdict, **changes)

    def test_table_rows_must_fit_the_columns(self) -> None:
        with pytest.raises(ValueError, match="row 1 must have 2 cells, got 1"):
            Table("T", ("a", "b"), ((1, 2), (3,)))


class TestCounterexample:
    @pytest.mark.parametrize(
        "code", ["", "x = 1", "assert True", "assert (1 > 2, 'always true')", "assert x\nprint(x)"]
    )
    def test_must_end_in_an_assert_that_can_fail(self, code: str) -> None:
        with pytest.raises(ValueError, match="must end in an assert"):
            execute(code)
        if code:
            with pytest.raises(ValueError, match="must end in an assert"):
                outcome(Verdict.REFUTED, correction="No.", counterexample=code)

    def test_runs_as_a_fresh_main_program(self, capsys: pytest.CaptureFixture[str]) -> None:
        # Functions see the module's names, as in a file; nothing of the caller is visible.
        execute(
            "scale = 2\ndef f(x):\n    return scale * x\nprint('seen')\n"
            "assert f(2) == 4 and __name__ == '__main__' and 'execute' not in globals()"
        )
        assert capsys.readouterr().out == ""

    def test_raises_what_it_raises(self) -> None:
        with pytest.raises(AssertionError):
            execute("x = 1\nassert x == 2")
        with pytest.raises(ZeroDivisionError):
            execute("x = 1 / 0\nassert x")


class TestRegistry:
    def test_duplicate_ids_are_rejected(self) -> None:
        known: dict[str, Claim] = {}
        register(known)
        with pytest.raises(ValueError, match="'eq-4' is taken by"):
            register(known)
        assert list(known) == ["eq-4"]

    @pytest.mark.parametrize("name", ["Eq4", "eq_4", "eq 4", "-eq", "", "eq--4", "../eq"])
    def test_ids_are_kebab_case(self, name: str) -> None:
        with pytest.raises(ValueError, match="kebab-case"):
            register({}, id=name)

    def test_texts_must_not_be_empty(self) -> None:
        with pytest.raises(ValueError, match="'eq-4': hypotheses must not be empty"):
            register({}, hypotheses=" ")

    def test_the_decorator_returns_the_check(self) -> None:
        def check(context: Context) -> Outcome:
            return outcome()

        known: dict[str, Claim] = {}
        decorate = claim(
            id="a", place="p", title="t", statement="s", kind=Kind.LIMIT, hypotheses="h",
            expected=Verdict.HOLDS, into=known,
        )  # fmt: skip
        assert decorate(check) is check
        assert known["a"].check is check

    @pytest.mark.parametrize(
        ("module", "section"),
        [
            ("paper_checks.claims.section3", "Section 3"),
            ("paper_checks.claims.section10_extra", "Section 10"),
            ("paper_checks.claims.appendix_b", "Appendix b"),
        ],
    )
    def test_section_comes_from_the_module(self, module: str, section: str) -> None:
        def check(context: Context) -> Outcome:
            return outcome()

        check.__module__ = module
        known: dict[str, Claim] = {}
        claim(
            id="a", place="p", title="t", statement="s", kind=Kind.LIMIT, hypotheses="h",
            expected=Verdict.HOLDS, into=known,
        )(check)  # fmt: skip
        assert known["a"].section == section

    def test_claims_of_the_paper_come_by_section(self) -> None:
        claims = registry()
        assert claims == registry()
        sections = [c.section for c in claims]
        # Each section is one run, so the report shows it under one heading.
        assert len(set(sections)) == sum(
            1 for i, s in enumerate(sections) if i == 0 or s != sections[i - 1]
        )
        json.dumps([c.statement for c in claims])
