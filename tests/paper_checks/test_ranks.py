"""The audit on several ranks: the same report as in one process, and every end of it is an end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch.distributed as dist

from paper_checks import ranks, runner, style
from paper_checks.__main__ import INTERRUPTED, OK, RED, USAGE, main
from paper_checks.claim import Check, Claim, Context, Evidence, Kind, Outcome, Verdict
from paper_checks.ranks import Ranks
from tests.ranks import run_ranks

ROOT = Path(__file__).parents[2]


def holds(context: Context) -> Outcome:
    """With random numbers, a table and a figure."""
    found = Evidence()
    found.route("closed form", "1")
    found.route("recursion", "1")
    draws = context.rng("draws").normal(size=50)
    found.at_least("draws", draws, -10.0)
    found.number("mean", draws.mean())
    found.table("Draws", ["i", "draw"], enumerate(draws[:3]))
    figure, ax = style.new_figure()
    ax.plot(draws)
    found.figure("Draws", "What was drawn.", figure)
    return found.outcome(Verdict.HOLDS, "True.", cases=50)


def refuted(context: Context) -> Outcome:
    found = Evidence()
    found.route("closed form", "1")
    found.route("recursion", "1")
    found.exact("one", 1, 1)
    return found.outcome(
        Verdict.REFUTED, "False.", cases=1, correction="x > 1", counterexample="x = 2\nassert x > 1"
    )


def crashes(context: Context) -> Outcome:
    raise RuntimeError("the check broke")


def interrupted(context: Context) -> Outcome:
    raise KeyboardInterrupt


def make(id: str, check: Check, expected: Verdict = Verdict.HOLDS) -> Claim:
    return Claim(id, "p. 1", id, "Statement.", Kind.IDENTITY, "None.", expected, check, "Section 3")


GREEN = [make(f"claim-{i}", refuted, Verdict.REFUTED) for i in range(5)]
AUDITS = {
    "red": [
        make("drawn", holds),
        *GREEN,
        make("crash", crashes),
        make("planted", refuted),
        make("drawn-again", holds),
    ],
    "one claim": GREEN[:1],
    "interrupted": [GREEN[0], make("a", interrupted), *GREEN[1:]],
}


def report(out: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Results without times, and the figures."""
    results = json.loads((out / runner.RESULTS).read_text(encoding="utf-8"))
    del results["started"]
    for entry in results["claims"]:
        assert entry.pop("seconds") >= 0
    return results, {path.name: path.read_bytes() for path in (out / runner.FIGURES).iterdir()}


@dataclass(frozen=True)
class Run:
    """An audit as one rank saw it: status, output, and how many checks it ran."""

    status: int
    printed: str
    complained: str
    checks: int


def audits(folder: Path) -> dict[str, Run]:
    """All of AUDITS on one of the ranks, each rank with a folder of its own."""
    rank, runs = dist.get_rank(), {}
    for name, claims in AUDITS.items():
        store = dist.PrefixStore(name, dist.distributed_c10d._get_default_store())
        printed, complained = io.StringIO(), io.StringIO()
        with (
            mock.patch.object(ranks, "of_torchrun", return_value=Ranks(store, rank, rank)),
            mock.patch.object(runner, "run_claim", wraps=runner.run_claim) as checks,
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(complained),
        ):
            status = main(["--out", str(folder / f"{name}-{rank}")], claims)
        runs[name] = Run(status, printed.getvalue(), complained.getvalue(), checks.call_count)
    return runs


@pytest.mark.parametrize("world", [2, 3])
def test_the_report_does_not_depend_on_the_number_of_ranks(
    world: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everywhere = run_ranks(audits, world, tmp_path, tmp_path)

    assert main(["--out", str(tmp_path / "alone")], AUDITS["red"]) == RED
    alone, red = capsys.readouterr().out, [runs["red"] for runs in everywhere]
    assert report(tmp_path / "red-0") == report(tmp_path / "alone")
    assert report(tmp_path / "alone")[1].keys() == {"drawn-1.svg", "drawn-again-1.svg"}
    assert [run.status for run in red] == [RED] * world
    assert sum(run.checks for run in red) == len(AUDITS["red"])
    for text in ("RuntimeError: the check broke", "7 of 9 claims as expected"):
        assert text in red[0].printed
        assert text in alone

    assert [runs["one claim"].status for runs in everywhere] == [OK] * world
    assert sum(runs["one claim"].checks for runs in everywhere) == 1
    assert report(tmp_path / "one claim-0")[0]["complete"]

    # Whichever rank meets the interrupt: it ends all, and what others finished is kept.
    assert [runs["interrupted"].status for runs in everywhere] == [INTERRUPTED] * world
    results, _ = report(tmp_path / "interrupted-0")
    assert not results["complete"]
    assert "a" not in [entry["id"] for entry in results["claims"]]
    assert (tmp_path / "interrupted-0" / "index.html").exists()
    assert "Interrupted after" in everywhere[0]["interrupted"].printed

    for rank, runs in enumerate(everywhere[1:], start=1):
        for name, run in runs.items():
            assert (run.printed, run.complained) == ("", "")
            assert not (tmp_path / f"{name}-{rank}").exists()


class TestTorchrun:
    """The real launcher, which passes on a failure as its own status 1."""

    @staticmethod
    @contextlib.contextmanager
    def launched(world: int, *command: str) -> Iterator[subprocess.Popen[str]]:
        """torchrun on the command; it is terminated at the end, and then ends its ranks itself."""
        run = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world))
        with subprocess.Popen(
            [sys.executable, *run, *command],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.terminate()

    def test_the_command_line_is_the_same(self, tmp_path: Path) -> None:
        options = ("--only", "eq-2-epsilon", "range-as-stated", "--seed", "3", "--out")
        command = ("-m", "paper_checks", *options, str(tmp_path / "ranks"))
        with self.launched(2, *command) as process:
            printed, complained = process.communicate(timeout=120)
        assert process.returncode == OK, complained
        assert printed.count("2 of 2 claims as expected") == 1
        assert main([*options, str(tmp_path / "alone")]) == OK
        assert report(tmp_path / "ranks") == report(tmp_path / "alone")
        assert len(report(tmp_path / "ranks")[1]) == 2

    @pytest.mark.skipif(os.name == "nt", reason="SIGINT is POSIX")
    def test_ctrl_c_leaves_what_was_finished(self, tmp_path: Path) -> None:
        """By whichever rank; torchrun hands the signal on to both, in the middle of a claim."""
        script = tmp_path / "audit.py"
        script.write_text(
            textwrap.dedent("""
            import os, pathlib, signal, sys, time
            from paper_checks.__main__ import main
            from tests.paper_checks.test_ranks import holds, make

            # A test runner in the background may hand down an ignored SIGINT.
            signal.signal(signal.SIGINT, signal.default_int_handler)

            def sleeps(context):
                pathlib.Path(__file__).with_name("sleeping-" + os.environ["RANK"]).touch()
                time.sleep(600)

            claims = [make("first", holds), make("second", sleeps), make("third", sleeps)]
            sys.exit(main(sys.argv[1:], claims))
            """),
            encoding="utf-8",
        )
        out = tmp_path / "report"
        with self.launched(2, str(script), "--out", str(out)) as process:
            deadline = time.monotonic() + 120
            while len(list(tmp_path.glob("sleeping-*"))) < 2:
                assert process.poll() is None
                assert time.monotonic() < deadline, "the ranks never came to the other claims"
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            printed, _ = process.communicate(timeout=120)
        assert process.returncode != OK
        assert "Interrupted after 1 of 3 claims." in printed
        results, figures = report(out)
        assert [entry["id"] for entry in results["claims"]] == ["first"]
        assert figures.keys() == {"first-1.svg"}
        assert not results["complete"]
        assert (out / "index.html").exists()


class TestStore:
    """Ranks on a store of this process."""

    @pytest.fixture(autouse=True)
    def an_error_after_a_minute(self) -> Iterator[None]:
        """Instead of waiting for a result that never comes."""

        def fail(*_: object) -> None:
            raise TimeoutError("a rank waited for a minute")

        before = signal.signal(signal.SIGALRM, fail)
        signal.alarm(60)
        yield
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

    def test_every_item_is_done_once(self) -> None:
        """By this thread and two others."""
        store, done = dist.HashStore(), []

        def work(i: int) -> int:
            done.append(i)
            time.sleep(0.01)
            return i * i

        served: list[int] = []
        threads = [
            threading.Thread(
                target=lambda n=n: served.append(Ranks(store, n, n).serve(work, 20)), daemon=True
            )
            for n in (1, 2)
        ]
        for thread in threads:
            thread.start()
        try:
            arrived = dict(Ranks(store, 0, 0).spread(work, 20))
        finally:
            Ranks(store, 0, 0).finish(7)
            for thread in threads:
                thread.join(timeout=60)
        assert served == [7, 7]
        assert sorted(done) == list(range(20))
        assert arrived == {i: i * i for i in range(20)}

    def test_a_large_value_arrives_whole(self) -> None:
        """Through a store like torchrun's, which takes 8 MiB at once."""
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=30))
        values = ["é" * 5_000_000, ""]
        Ranks(store, 0, 0).finish(OK)
        assert Ranks(store, 1, 1).serve(values.__getitem__, 2) == OK
        arrivals = Ranks(store, 0, 0).spread(lambda i: pytest.fail("nothing is left"), 2)
        assert dict(arrivals) == dict(enumerate(values))

    @staticmethod
    def until_interrupted(arrivals: Iterator[tuple[int, str]]) -> list[tuple[int, str]]:
        arrived = []
        try:
            for pair in arrivals:
                arrived.append(pair)
        except KeyboardInterrupt:
            return arrived
        pytest.fail(f"the end was no interrupt, after {arrived}")

    @pytest.mark.parametrize("how", ["interrupted", "terminated"])
    def test_a_rank_0_that_is_ended_keeps_what_others_finished(self, how: str) -> None:
        """And the others take nothing more. torchrun terminates all ranks when one has died."""
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        store = dist.HashStore()
        first, other = Ranks(store, 0, 0), Ranks(store, 1, 1)

        def work(i: int) -> str:
            if i == 1:
                first.finish(INTERRUPTED)  # so that serve returns at once
                assert other.serve(lambda i: f"other {i}", 4) == INTERRUPTED
                if how == "interrupted":
                    raise KeyboardInterrupt
                signal.raise_signal(signal.SIGTERM)
            return f"first {i}"

        assert self.until_interrupted(first.spread(work, 5)) == [
            (0, "first 0"),
            (2, "other 2"),
            (3, "other 3"),
        ]
        assert other.serve(lambda i: pytest.fail("taken after the end"), 5) == INTERRUPTED
        assert signal.signal(signal.SIGTERM, before) is signal.SIG_IGN

    def test_an_interrupted_other_rank_ends_rank_0(self) -> None:
        store = dist.HashStore()
        first, other = Ranks(store, 0, 0), Ranks(store, 1, 1)

        def interrupts(i: int) -> str:
            if i == 1:
                raise KeyboardInterrupt
            return f"other {i}"

        first.finish(INTERRUPTED)
        assert other.serve(interrupts, 3) == INTERRUPTED
        arrivals = first.spread(lambda i: pytest.fail("taken after the end"), 3)
        assert self.until_interrupted(arrivals) == [(0, "other 0")]

    def test_a_closed_iterator_ends_the_others(self) -> None:
        store = dist.HashStore()
        with contextlib.closing(Ranks(store, 0, 0).spread(str, 3)) as arrivals:
            assert next(arrivals) == (0, "0")
        Ranks(store, 0, 0).finish(RED)
        assert Ranks(store, 1, 1).serve(lambda i: pytest.fail("taken after the end"), 3) == RED

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--seed", "1"), "rank 1 is to do another audit: seed is 1, on rank 0 0"),
            (("--level", "full"), "level is 'full', on rank 0 'quick'"),
            (("--only", "claim-1"), "claims is ['claim-1'], on rank 0 ['claim-0', 'claim-1'"),
        ],
    )
    def test_other_arguments_are_refused(
        self,
        options: tuple[str, ...],
        message: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        store = dist.HashStore()
        assert Ranks(store, 0, 0).differences(runner.plan(GREEN, Context())) == []
        monkeypatch.setattr(ranks, "of_torchrun", lambda: Ranks(store, 1, 1))
        with pytest.raises(SystemExit) as stopped:
            main(options, GREEN)
        assert stopped.value.code == USAGE
        assert message in capsys.readouterr().err
        Ranks(store, 0, 0).finish(OK)
        assert main([], GREEN) == OK  # rank 1 does it all
        assert [i for i, _ in Ranks(store, 0, 0).spread(str, len(GREEN))] == list(range(5))

    def test_ranks_of_a_machine_take_its_gpus_in_turn(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, chosen = dist.HashStore(), []
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        monkeypatch.setattr("torch.cuda.set_device", chosen.append)
        context = Context(device="cuda")
        Ranks(store, 0, 0).differences(runner.plan(GREEN, context))
        Ranks(store, 0, 0).finish(OK)
        for local in (1, 2, 3):
            monkeypatch.setattr(ranks, "of_torchrun", lambda local=local: Ranks(store, 5, local))
            assert main(["--device", "cuda"], GREEN) == OK
        assert chosen == [1, 0, 1]


def test_results_keep_the_order_of_the_claims(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    class Watch:
        def started(self, claim: Claim) -> None:
            pass

        def finished(self, entry: Mapping[str, Any]) -> None:
            seen.append([entry["id"] for entry in report(tmp_path)[0]["claims"]])

    def backwards(work: Callable[[int], runner.Kept], count: int) -> Iterable[Any]:
        return ((i, work(i)) for i in reversed(range(count)))

    results, interrupted = runner.run(GREEN[:3], Context(), tmp_path, Watch(), backwards)
    ids = [claim.id for claim in GREEN[:3]]
    assert seen == [ids[2:], ids[1:], ids]
    assert [entry["id"] for entry in results["claims"]] == ids
    assert results["complete"]
    assert not interrupted


class TestOfTorchrun:
    @pytest.mark.parametrize(
        "variables",
        [
            {},
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "nowhere"},  # some cluster's own
            {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "1"},
        ],
    )
    def test_one_process_joins_nothing(
        self, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert ranks.of_torchrun() is None
        assert not dist.is_initialized()
