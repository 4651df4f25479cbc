"""Command line of the audit: ``python -m paper_checks``, or with ``torchrun -m paper_checks``."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from paper_checks import ranks, report, runner, terminal
from paper_checks.claim import Claim, Context, Level, registry

OK, RED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None, claims: Sequence[Claim] | None = None) -> int:
    """Run the audit and return its exit status.

    0: every verdict is the expected one; 1: some is not; 130: interrupted, the report shows what
    was finished. Exits with 2 on wrong usage. ``claims`` defaults to the paper's.

    Under torchrun the claims are shared out among its ranks: rank 0 writes the report and prints,
    the others are silent, and all return the same status.
    """
    shared = ranks.of_torchrun()
    if shared is None or shared.rank == 0:
        return _audit(argv, claims, shared)
    with contextlib.redirect_stdout(io.StringIO()):
        return _audit(argv, claims, shared)


def _audit(
    argv: Sequence[str] | None, claims: Sequence[Claim] | None, shared: ranks.Ranks | None
) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    known = registry() if claims is None else claims
    console = terminal.console()
    if options.list:
        console.print(terminal.claim_table(known))
        return OK
    chosen = _choose(parser, known, options.only)
    if options.seed < 0:
        parser.error(f"--seed must be >= 0, got {options.seed}")
    _require_device(parser, options.device)
    out = options.out or Path(report.PARTIAL if options.only else report.FOLDER)
    if (shared is None or shared.rank == 0) and out.exists() and not out.is_dir():
        parser.error(f"--out must be a directory, got the file {str(out)!r}")

    context = Context(options.level, options.device, options.seed)
    spread: runner.Spread = runner.one_by_one
    if shared:
        if different := shared.differences(runner.plan(chosen, context)):
            parser.error(f"rank {shared.rank} is to do another audit: {'; '.join(different)}")
        if options.device == "cuda":
            _use_device(shared.local)
        if shared.rank:
            return shared.serve(lambda i: runner.check(chosen[i], context), len(chosen))
        spread = shared.spread

    with terminal.AuditProgress(console, len(chosen)) as progress:
        results, interrupted = runner.run(chosen, context, out, progress, spread)
    page = report.render(results, out)

    entries = results["claims"]
    console.print(terminal.verdict_table(results))
    for complaint in terminal.complaints(results):
        console.print(complaint)
    matched = sum(entry["matched"] for entry in entries)
    seconds = sum(entry["seconds"] for entry in entries)
    console.print(f"{matched} of {len(chosen)} claims as expected, {seconds:.0f} s. Report: {page}")
    status = OK if matched == len(chosen) else RED
    if interrupted:
        console.print(f"Interrupted after {len(entries)} of {len(chosen)} claims.")
        status = INTERRUPTED
    if shared:
        shared.finish(status)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paper_checks",
        description="Check the claims of the AutoDrop paper and write a report with figures. "
        "Exit status 0 when every verdict is the expected one.",
        epilog="torchrun --nproc-per-node N -m paper_checks shares the claims out among N "
        "processes, to the same report.",
    )
    parser.add_argument(
        "--level",
        choices=get_args(Level),
        default="quick",
        help="quick: two minutes on two cores; full: more cases and samples (default: %(default)s)",
    )
    parser.add_argument(
        "--only", nargs="+", action="extend", metavar="ID", help="check only these claims"
    )
    parser.add_argument(
        "--device",
        default="cpu",
        help="cpu, cuda or cuda:N (default: %(default)s); with cuda, the ranks of torchrun take "
        "the GPUs of their machine in turn",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the audit (default: 0)")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"directory of the report (default: {report.FOLDER}; with --only {report.PARTIAL}, "
        "so that a few claims do not replace the report on all)",
    )
    parser.add_argument("--list", action="store_true", help="list the claims and stop")
    return parser


def _choose(
    parser: argparse.ArgumentParser, known: Sequence[Claim], only: Sequence[str] | None
) -> list[Claim]:
    """Return the claims asked for, in the registry's order."""
    if not known:
        parser.error("there are no claims to check")
    if only is None:
        return list(known)
    ids = [claim.id for claim in known]
    for name in only:
        if name not in ids:
            near = difflib.get_close_matches(name, ids) or [i for i in ids if name in i]
            hint = f"did you mean {' or '.join(near)}?" if near else "--list shows them all"
            parser.error(f"no claim has the id {name!r}; {hint}")
    return [claim for claim in known if claim.id in only]


def _require_device(parser: argparse.ArgumentParser, device: str) -> None:
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        parser.error(f"--device must be cpu, cuda or cuda:N, got {device!r}")
    if kind == "cuda":
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            parser.error(f"--device {device}: torch finds {count} CUDA devices here")


def _use_device(local: int) -> None:
    """Give the ranks of a machine its GPUs in turn, as torch's current device."""
    import torch

    torch.cuda.set_device(local % torch.cuda.device_count())


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a pipe may lack the letters of the formulas
    sys.exit(main())
