"""Runner and command line: exit codes, errors, interruption, what lies on disk afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from paper_checks import runner, style
from paper_checks.__main__ import INTERRUPTED, OK, RED, USAGE, main
from paper_checks.claim import Check, Claim, Context, Evidence, Fact, Kind, Outcome, Route, Verdict


def make(id: str, check: Check, expected: Verdict = Verdict.HOLDS) -> Claim:
    return Claim(
        id, f"eq. (4), [{id}]", f"Title of {id}", "Statement.", Kind.IDENTITY, "0 < αa < 2",
        expected, check, "Section 3",
    )  # fmt: skip


def evidence(slack: float = 0.0) -> Evidence:
    found = Evidence()
    found.route("closed form", "1")
    found.route("recursion", "1")
    found.at_least("slack", slack, 0.0)
    return found


def holds(context: Context) -> Outcome:
    return evidence().outcome(Verdict.HOLDS, "True.", cases=1)


def drawn(context: Context) -> Outcome:
    """Holds, with random numbers, a table and a figure."""
    found = evidence()
    samples = context.rng("drawn").normal(size=300)
    found.equal("mean", samples.mean(), 0.0, 5 / 300**0.5, source="5 σ, false alarm 6e-7")
    found.number("mean", samples.mean())
    found.number("torch seed", context.rng_seed("drawn/torch"))
    found.table("Draws", ["i", "draw"], enumerate(samples[:3]))
    figure, (left, right) = style.new_figure(1, 2)
    left.plot(samples, label="draws")
    left.legend()
    right.hist(samples)
    found.figure("Draws", "What was drawn.", figure)
    return found.outcome(Verdict.HOLDS, "True.", cases=300)


def refuted(context: Context) -> Outcome:
    return evidence().outcome(
        Verdict.REFUTED, "False.", cases=1, correction="x > 1", counterexample="x = 2\nassert x > 1"
    )


def undecided(context: Context) -> Outcome:
    return evidence().outcome(Verdict.UNDECIDED, "Open.", cases=1, reason="Too few samples.")


def planted(context: Context) -> Outcome:
    return evidence(slack=-1.0).outcome(Verdict.HOLDS, "True.", cases=1)


def crashes(context: Context) -> Outcome:
    raise RuntimeError("the check broke")


def read(out: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in results.json")

    text = (out / runner.RESULTS).read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return document


def audit(out: Path, *claims: Claim, options: tuple[str, ...] = ()) -> int:
    return main([*options, "--out", str(out)], claims)


class TestExitStatus:
    def test_ok_when_every_verdict_is_expected(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        claims = (
            make("a", holds),
            make("b", refuted, Verdict.REFUTED),
            make("c", undecided, Verdict.UNDECIDED),
        )
        assert audit(tmp_path, *claims) == OK
        entries = read(tmp_path)["claims"]
        assert [entry["verdict"] for entry in entries] == ["holds", "refuted", "undecided-here"]
        assert all(entry["matched"] and entry["status"] == "ok" for entry in entries)
        assert read(tmp_path)["complete"]
        printed = capsys.readouterr().out
        assert "eq. (4), [b]" in printed  # brackets are text, not the table's own markup
        assert "3 of 3 claims as expected" in printed
        assert "\x1b" not in printed

    @pytest.mark.parametrize(
        ("check", "expected"),
        [
            (holds, Verdict.REFUTED),
            (refuted, Verdict.HOLDS),
            (planted, Verdict.HOLDS),
            # "undecided-here" from failed facts is not the undecided that was expected
            (planted, Verdict.UNDECIDED),
        ],
    )
    def test_red_on_an_unexpected_verdict(
        self,
        check: Check,
        expected: Verdict,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert audit(tmp_path, make("a", holds), make("b", check, expected)) == RED
        first, second = read(tmp_path)["claims"]
        assert first["matched"]
        assert not second["matched"]
        assert "1 of 2 claims as expected" in capsys.readouterr().out

    def test_a_failed_fact_is_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert audit(tmp_path, make("a", planted)) == RED
        (entry,) = read(tmp_path)["claims"]
        assert entry["verdict"] == "undecided-here"
        assert entry["reason"] == "slack: −1 not ≥ 0"
        assert "slack: −1 not ≥ 0" in capsys.readouterr().out

    def test_an_error_is_red_and_the_others_still_run(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert audit(tmp_path, make("a", crashes), make("b", holds)) == RED
        broken, fine = read(tmp_path)["claims"]
        assert broken["status"] == "error"
        assert broken["verdict"] is None
        assert "RuntimeError: the check broke" in broken["error"]
        assert fine["matched"]
        assert "RuntimeError: the check broke" in capsys.readouterr().out


class TestErrors:
    """What a check may not do; each must end as an error of that claim alone."""

    @staticmethod
    def one_route(context: Context) -> Outcome:
        found = Evidence()
        found.route("closed form", "1")
        found.equal("a", 1.0, 1.0, 0.0)
        return found.outcome(Verdict.HOLDS, "True.", cases=1)

    @staticmethod
    def no_counterexample(context: Context) -> Outcome:
        return evidence().outcome(Verdict.REFUTED, "False.", cases=1, correction="x > 1")

    @staticmethod
    def failing_counterexample(context: Context) -> Outcome:
        return evidence().outcome(
            Verdict.REFUTED, "False.", cases=1, correction="No.", counterexample="assert 1 > 2"
        )

    @staticmethod
    def exiting_counterexample(context: Context) -> Outcome:
        code = "raise SystemExit(0)\nassert 1 < 2, 1"
        return evidence().outcome(
            Verdict.REFUTED, "False.", cases=1, correction="No.", counterexample=code
        )

    @staticmethod
    def a_text(context: Context) -> Outcome:
        return "holds"  # type: ignore[return-value]

    @staticmethod
    def huge_figure(context: Context) -> Outcome:
        found = evidence()
        figure, ax = style.new_figure()
        ax.scatter(*context.rng("huge").normal(size=(2, 12_000)))
        found.figure("Huge", "One element a point.", figure)
        return found.outcome(Verdict.HOLDS, "True.", cases=1)

    @staticmethod
    def unprintable_figure(context: Context) -> Outcome:
        found = evidence()
        figure, ax = style.new_figure()
        ax.set_title(r"$\frac{1$")
        found.figure("Broken", "Its title is no formula.", figure)
        return found.outcome(Verdict.HOLDS, "True.", cases=1)

    @staticmethod
    def no_json(context: Context) -> Outcome:
        fact = Fact("slack", True, "1 ≥ 0", slack=1.0)
        routes = (Route("a", "1"), Route("b", "1"))
        numbers = {"set": {1, 2}}
        return Outcome(Verdict.HOLDS, "True.", routes, (fact,), 1, numbers)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("check", "message"),
        [
            ("one_route", ">= 2 independent routes, got 1"),
            ("no_counterexample", "must carry a runnable counterexample"),
            ("failing_counterexample", "AssertionError"),
            ("exiting_counterexample", "SystemExit"),
            ("a_text", "must return an Outcome, got 'holds'"),
            ("unprintable_figure", "ValueError: \n"),
            ("huge_figure", "'Huge' must take <= 300000 bytes"),
            ("no_json", "set is not JSON serializable"),
        ],
    )
    def test_ends_as_that_claims_error(self, check: str, message: str, tmp_path: Path) -> None:
        claims = make("a", getattr(self, check), Verdict.REFUTED), make("b", holds)
        assert audit(tmp_path, *claims) == RED
        broken, fine = read(tmp_path)["claims"]
        assert broken["status"] == "error"
        assert broken["verdict"] is None
        assert message in broken["error"]
        assert fine["matched"]
        assert (tmp_path / "index.html").exists()


class TestInterruption:
    def test_keyboard_interrupt_keeps_what_was_finished(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def interrupted(context: Context) -> Outcome:
            raise KeyboardInterrupt

        claims = make("a", drawn), make("b", interrupted), make("c", holds)
        assert audit(tmp_path, *claims) == INTERRUPTED
        results = read(tmp_path)
        assert [entry["id"] for entry in results["claims"]] == ["a"]
        assert results["planned"] == 3
        assert not results["complete"]
        page = (tmp_path / "index.html").read_text(encoding="utf-8")
        assert "1 of 3 claims were checked" in page
        assert "Interrupted after 1 of 3 claims" in capsys.readouterr().out

    def test_a_result_is_on_disk_before_the_next_claim_begins(self, tmp_path: Path) -> None:
        seen: list[list[str]] = []

        def looks(context: Context) -> Outcome:
            seen.append([entry["id"] for entry in read(tmp_path)["claims"]])
            assert (tmp_path / "figures" / "a-1.svg").exists()
            return holds(context)

        assert audit(tmp_path, make("a", drawn), make("b", looks), make("c", looks)) == OK
        assert seen == [["a"], ["a", "b"]]
        assert not list(tmp_path.rglob("*.part"))

    @pytest.mark.skipif(os.name == "nt", reason="SIGINT and SIGKILL are POSIX")
    @pytest.mark.parametrize(
        ("signalled", "status"),
        [(signal.SIGINT, INTERRUPTED), (signal.SIGKILL, -signal.SIGKILL)],
        ids=["Ctrl-C", "killed"],
    )
    def test_a_signalled_process_leaves_what_it_had_finished(
        self, signalled: signal.Signals, status: int, tmp_path: Path
    ) -> None:
        script = tmp_path / "audit.py"
        script.write_text(
            textwrap.dedent("""
            import signal, sys, time
            from paper_checks.__main__ import main
            from paper_checks.claim import Evidence, Kind, Verdict, claim

            # A test runner in the background may hand down an ignored SIGINT.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            known = {}

            def add(id, seconds):
                @claim(id=id, place="p", title="t", statement="s", kind=Kind.LIMIT,
                       hypotheses="h", expected=Verdict.HOLDS, into=known)
                def check(context):
                    time.sleep(seconds)
                    evidence = Evidence()
                    evidence.route("a", "1")
                    evidence.route("b", "1")
                    evidence.exact("one", 1, 1)
                    return evidence.outcome(Verdict.HOLDS, "True.", cases=1)

            add("first", 0)
            add("second", 600)
            sys.exit(main(sys.argv[1:], list(known.values())))
            """),
            encoding="utf-8",
        )
        out = tmp_path / "report"
        process = subprocess.Popen([sys.executable, str(script), "--out", str(out)])
        try:
            deadline = time.monotonic() + 120
            while not (out / runner.RESULTS).exists() or not read(out)["claims"]:
                assert process.poll() is None
                assert time.monotonic() < deadline, "the first claim never finished"
                time.sleep(0.02)
            process.send_signal(signalled)
            assert process.wait(timeout=120) == status
        finally:
            process.kill()
            process.wait()
        results = read(out)
        assert [entry["id"] for entry in results["claims"]] == ["first"]
        assert not results["complete"]
        if signalled == signal.SIGINT:
            assert (out / "index.html").exists()


class TestReproducibility:
    @staticmethod
    def contents(out: Path, *options: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        claims = make("drawn", drawn), make("b", refuted, Verdict.REFUTED), make("c", crashes)
        assert audit(out, *claims, options=options) == RED
        results = read(out)
        results.pop("started")
        for entry in results["claims"]:
            assert entry.pop("seconds") >= 0
        return results, {path.name: path.read_bytes() for path in (out / "figures").iterdir()}

    def test_same_seed_gives_the_same_results_and_figures(self, tmp_path: Path) -> None:
        first = self.contents(tmp_path / "one", "--seed", "7")
        assert first == self.contents(tmp_path / "two", "--seed", "7")
        assert first[1].keys() == {"drawn-1.svg"}

    def test_another_seed_gives_others(self, tmp_path: Path) -> None:
        one, two = (self.contents(tmp_path / seed, "--seed", seed)[0] for seed in ("1", "2"))
        assert one["claims"][0]["numbers"] != two["claims"][0]["numbers"]

    def test_header_says_what_ran(self, tmp_path: Path) -> None:
        results, _ = self.contents(tmp_path, "--level", "full", "--seed", "3")
        assert results["schema"] == runner.SCHEMA
        assert (results["level"], results["seed"], results["device"]) == ("full", 3, "cpu")
        assert {"python", "numpy", "scipy", "torch", "sympy"} <= results["versions"].keys()


class TestWriteJson:
    def test_refuses_what_is_not_json_and_keeps_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "results.json"
        runner.write_json({"x": 1.0}, path)
        with pytest.raises(ValueError, match="Out of range float values"):
            runner.write_json({"x": float("nan")}, path)
        assert json.loads(path.read_text(encoding="utf-8")) == {"x": 1.0}


class TestCommandLine:
    CLAIMS = (make("eq-4", holds), make("eq-20", holds), make("window-law", crashes))

    def usage(self, capsys: pytest.CaptureFixture[str], *options: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(options, self.CLAIMS)
        assert stopped.value.code == USAGE
        return capsys.readouterr().err

    def test_only_runs_those_in_the_registrys_order(self, tmp_path: Path) -> None:
        options = ("--only", "eq-20", "--only", "eq-4")
        assert audit(tmp_path, *self.CLAIMS, options=options) == OK
        assert [entry["id"] for entry in read(tmp_path)["claims"]] == ["eq-4", "eq-20"]
        assert audit(tmp_path, *self.CLAIMS, options=("--only", "eq-4", "window-law")) == RED
        assert [entry["id"] for entry in read(tmp_path)["claims"]] == ["eq-4", "window-law"]

    def test_only_leaves_the_report_on_all_claims(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main([], self.CLAIMS) == RED
        full = (tmp_path / "report" / "index.html").read_bytes()
        assert main(["--only", "eq-4"], self.CLAIMS) == OK
        assert (tmp_path / "report" / "index.html").read_bytes() == full
        assert [entry["id"] for entry in read(tmp_path / "report-only")["claims"]] == ["eq-4"]
        assert "<code>report-only/</code>" in full.decode()
        assert main(["--only", "eq-4", "--out", "report"], self.CLAIMS) == OK
        assert [entry["id"] for entry in read(tmp_path / "report")["claims"]] == ["eq-4"]
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(["--help"], self.CLAIMS)
        assert "report-only" in capsys.readouterr().out.replace("report-\n", "report-")

    def test_unknown_ids_name_their_neighbours(self, capsys: pytest.CaptureFixture[str]) -> None:
        error = self.usage(capsys, "--only", "eq-4", "windowlaw")
        assert "no claim has the id 'windowlaw'; did you mean window-law?" in error
        assert "did you mean window-law?" in self.usage(capsys, "--only", "window")
        assert "--list shows them all" in self.usage(capsys, "--only", "zzz")

    def test_list_runs_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["--list"], self.CLAIMS) == OK
        printed = capsys.readouterr().out
        assert all(claim.id in printed and claim.title in printed for claim in self.CLAIMS)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--level", "slow"), "invalid choice: 'slow'"),
            (("--seed", "-1"), "--seed must be >= 0, got -1"),
            (("--device", "tpu"), "--device must be cpu, cuda or cuda:N, got 'tpu'"),
            (("--device", "cuda:x"), "--device must be cpu, cuda or cuda:N, got 'cuda:x'"),
        ],
    )
    def test_wrong_usage_is_explained(
        self, options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert message in self.usage(capsys, *options)

    def test_a_missing_gpu_is_explained(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        error = self.usage(capsys, "--device", "cuda")
        assert "--device cuda: torch finds 0 CUDA devices here" in error

    def test_out_must_not_be_a_file(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "report"
        path.write_text("mine", encoding="utf-8")
        assert "--out must be a directory" in self.usage(capsys, "--out", str(path))
        assert path.read_text(encoding="utf-8") == "mine"

    def test_no_claims_is_not_success(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            main([], ())
        assert stopped.value.code == USAGE
        assert "there are no claims to check" in capsys.readouterr().err
