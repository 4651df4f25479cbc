"""Section 6.1: what AutoDrop costs beside a training step, by the clock and by counting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from autodrop import AngularVelocity, AutoDrop
from paper_checks import style
from paper_checks.claim import Context, Evidence, Kind, Outcome, Verdict, claim
from paper_checks.networks import ResNet18
from paper_checks.overhead import (
    LOOPS,
    Estimate,
    Loop,
    Result,
    Setup,
    count,
    live_bytes,
    measure,
)

# Table 3, p. 3611: seconds per iteration at batch size 64, on a GTX 1080 Ti.
COLUMNS = ("HD", "TLR", "SOTA baseline", "AutoDrop")
TABLE_3 = {
    "WRN28x10, CIFAR10": ("0.21", "0.23", "0.20", "0.20"),
    "WRN40x10, CIFAR100": ("0.31", "0.31", "0.29", "0.30"),
    "ResNet50, ImageNet": ("0.42", "0.43", "0.38", "0.40"),
}
BATCH = 64
# What the text of Section 6.1 calls "practically the same": the largest excess in its table.
LIMIT = Fraction(1, 19)
# Medians of 14 pairs of iterations; on a machine with five other jobs single pairs scattered by a
# tenth, that is 4.5 standard errors. One more forward pass, the control, is twice as much.
SCATTER = 0.15
WINDOW, LAG = 4, 1  # of the scheduler whose operations are counted

After = Callable[[Optimizer, list[nn.Parameter]], Callable[[], object]]


def excess(row: tuple[str, ...]) -> Fraction:
    """AutoDrop's time over the SOTA baseline's, minus 1, of the printed decimals."""
    times = dict(zip(COLUMNS, map(Fraction, row), strict=True))
    return times["AutoDrop"] / times["SOTA baseline"] - 1


def setup_of(context: Context) -> Setup:
    """What is measured at a level, on a device."""
    if context.device != "cpu":
        repeats, windows = context.pick((20, 10), (50, 20))
        return Setup(context.device, batch=BATCH, repeats=repeats, windows=windows)
    # The share of a step hardly depends on the width at a given batch size: a convolution's work
    # and its parameters both grow with the square of it.
    width = context.pick(8, None)
    return Setup(width=width, batch=BATCH, repeats=8, windows=7, threads=1, clock="cpu")


def with_one_more_forward_pass(
    optimizer: Optimizer, window: int, loss: Callable[[], torch.Tensor]
) -> Callable[[], object]:
    """The control: a scheduler that looks at the loss after every update."""
    scheduler = MultiStepLR(optimizer, [10**6])

    def step() -> None:
        with torch.no_grad():
            loss()
        scheduler.step()

    return step


@lru_cache(maxsize=2)
def measured(setup: Setup) -> Result:
    """Calls one by one; whole loops with the baseline's scheduler, AutoDrop and the control."""
    known = {loop.name: loop for loop in LOOPS}
    control = Loop("control", "MultiStepLR and a forward pass", with_one_more_forward_pass)
    return measure(setup, loops=(known["multistep"], known["autodrop"], control))


def without_values() -> tuple[list[nn.Parameter], SGD]:
    """Parameters of ResNet-18 with gradients and no values, and an optimizer that has made a step.

    Without values nothing can be read: torch raises where the host needs a number.
    """
    with torch.device("meta"):
        params = list(ResNet18().parameters())
    for p in params:
        p.grad = torch.empty_like(p)
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    optimizer.step()
    return params, optimizer


@lru_cache(maxsize=1)
def operations_of_a_step() -> int:
    """Additions and multiplications of ResNet-18's forward and backward pass, one batch."""
    with torch.device("meta"):
        model = ResNet18()
        x, y = torch.zeros(BATCH, 3, 32, 32), torch.zeros(BATCH, dtype=torch.long)
    with FlopCounterMode(display=False) as flops:
        F.cross_entropy(model(x), y).backward()
    return flops.get_total_flops()


def autodrop(optimizer: Optimizer, params: list[nn.Parameter]) -> Callable[[], object]:
    return AutoDrop(optimizer, WINDOW, lag=LAG).step


def snapshots(optimizer: Optimizer, params: list[nn.Parameter]) -> Callable[[], object]:
    """A control: the parameters go to the host after every update."""
    return lambda: parameters_to_vector(params).cpu()


def norms(optimizer: Optimizer, params: list[nn.Parameter]) -> Callable[[], object]:
    """A control: one number is read after every update."""
    return lambda: params[0].norm().item()


def reads(after: After, updates: int = WINDOW + LAG - 1) -> bool:
    """Whether the host needs a number from the device in so many updates.

    They reach to just before the lag of the first window is over.
    """
    params, optimizer = without_values()
    step = after(optimizer, params)
    try:
        for _ in range(updates):
            optimizer.step()
            step()
    except RuntimeError as error:  # of tensors without values, which cannot be read
        if "meta" not in str(error):
            raise
        return True
    return False


@dataclass(frozen=True)
class Counted:
    """Counts for ResNet-18; bytes are in copies of the parameters.

    operations: of an ordinary step; pieces: of at most 2¹⁹ elements, in all tensors.
    state: in `state_dict`; scratch: what is held beyond it.
    moved: bytes read and written in one update, mean over a window of 64; by_sgd: by the step of
        SGD with momentum.
    flops: of forward and backward for each parameter.
    """

    operations: dict[str, int]
    pieces: int
    state: dict[str, Fraction]
    scratch: dict[str, float]
    moved: float
    by_sgd: float
    flops: float


SUMS: dict[str, dict] = {
    "plain": {"accumulation": "plain"},
    "anchored": {"accumulation": "anchored"},
    "anchored, bfloat16": {"accumulation": "anchored", "direction": torch.bfloat16},
}


def counted() -> Counted:
    params, optimizer = without_values()
    sizes = [p.numel() for p in params]
    copy = 4 * sum(sizes)  # bytes in float32
    operations, state, scratch = {}, {}, {}
    for name, options in SUMS.items():
        velocity, held = live_bytes(
            partial(AngularVelocity, params, WINDOW, **options), params[0].device
        )
        leaves = tree_leaves(velocity.state_dict())
        kept = sum(x.nbytes for x in leaves if isinstance(x, torch.Tensor))
        operations[name] = count(velocity.update).operations
        state[name] = Fraction(kept, copy)
        scratch[name] = (held - kept) / copy
    step = autodrop(optimizer, params)
    steps = []
    for _ in range(WINDOW):
        optimizer.step()
        steps.append(count(step).moved / copy)
    return Counted(
        operations,
        sum(-(-n // 2**19) for n in sizes),
        state,
        scratch,
        (63 * max(steps[:-1]) + steps[-1]) / 64,
        count(optimizer.step).moved / copy,
        operations_of_a_step() / sum(sizes),
    )


@claim(
    id="computationally-cheap",
    place="Abstract, p. 3603; Section 6.1 and Table 3, p. 3611",
    title="AutoDrop is computationally cheap",
    statement="AutoDrop is computationally cheap: the time of a training iteration is practically "
    "the same as with other schedulers.",
    kind=Kind.EMPIRICAL,
    hypotheses="ResNet-18 for 32×32 images (on the CPU, quick: an eighth of its channels), batch "
    "size 64 as in Table 3, SGD with momentum, window 64; one thread's CPU time on the CPU. "
    "“Practically the same” is at most 1/19 more, the largest excess in Table 3.",
    expected=Verdict.HOLDS,
)
def computationally_cheap(context: Context) -> Outcome:
    evidence = Evidence()
    _as_printed(evidence)
    result = measured(setup_of(context))
    share = _by_calls(evidence, result)
    loop = _by_loops(evidence, result, share)
    _by_counting(evidence)
    batch = BATCH * share.value / float(LIMIT)
    evidence.number("share of a step (%)", 100 * share.value)
    evidence.number("batch size from which it is at most 1/19, other things equal", batch)
    evidence.number(
        "an ordinary step over SGD's own step",
        result.row("autodrop").seconds / result.row("optimizer").seconds,
    )
    evidence.figure(
        "What one call takes of a training step",
        "Medians, logarithmic. AutoDrop with the ends of its windows spread over 64 updates (red) "
        "lies far left of the dotted line, the largest excess in the paper's Table 3; one more "
        "forward pass, the control, right of it.",
        shares_figure(result),
    )
    return evidence.outcome(
        Verdict.HOLDS,
        f"At batch size {BATCH} AutoDrop takes {share.value:.1%} of a training step, the ends of "
        f"its windows included; whole loops take {loop.value:.2f} of the time with MultiStepLR. "
        "The cost does not depend on the batch, so that below a batch of "
        f"{batch:.0f} or so the share is above 1/19. AutoDrop keeps three to three and a half "
        "copies of the parameters, which the paper does not mention, and with a lag of one update "
        "or more the host reads nothing before the lag is over.",
        cases=len(result.row("autodrop").samples)
        + sum(len(x.ordinary) + len(x.ends) for x in result.loops),
    )


def _as_printed(evidence: Evidence) -> None:
    excesses = [excess(row) for row in TABLE_3.values()]
    evidence.exact("largest excess over the baseline in Table 3", max(excesses), LIMIT)
    evidence.at_most(
        "Table 3: AutoDrop against HD and TLR",
        [[float(row[3])] * 2 for row in TABLE_3.values()],
        [[float(time) for time in row[:2]] for row in TABLE_3.values()],
    )
    evidence.route(
        "Table 3 as printed",
        f"excess over the baseline {', '.join(f'{float(x):.1%}' for x in excesses)}",
    )
    evidence.table(
        "Table 3 as printed (s)",
        ["model", *COLUMNS, "AutoDrop over baseline (%)"],
        [(model, *row, round(100 * float(excess(row)), 1)) for model, row in TABLE_3.items()],
    )


def _by_calls(evidence: Evidence, result: Result) -> Estimate:
    """AutoDrop's share of a step, the ends of its windows spread over 64 updates."""
    row, control, snapshot = map(result.row, ("autodrop", "forward", "snapshot"))
    share = row.window_share
    assert share is not None  # it knows windows
    evidence.at_most(
        "share of a step, window's end included: upper end of the 95 % interval",
        share.high, float(LIMIT),
    )  # fmt: skip
    evidence.at_least(
        "control, one more forward pass: lower end of the 95 % interval",
        control.share.low, float(LIMIT),
    )  # fmt: skip
    if row.waits is not None and snapshot.waits is not None:
        evidence.exact("waits for the GPU in an ordinary step", row.waits, 0)
        evidence.at_least("control: waits of a snapshot on the host", snapshot.waits, 1)
    evidence.route(
        "calls timed one by one", f"{share:.2%} of a step, {len(row.samples)} paired rounds"
    )
    return share


def _by_loops(evidence: Evidence, result: Result, share: Estimate) -> Estimate:
    """The time of an iteration with AutoDrop over one with MultiStepLR."""
    ratio, control = result.loop("autodrop").ratio, result.loop("control").ratio
    forward = result.row("forward").share
    evidence.at_most(
        "whole loops, AutoDrop over MultiStepLR: lower end of the 95 % interval",
        ratio.low, float(1 + LIMIT),
    )  # fmt: skip
    evidence.at_least(
        "control, the loop with one more forward pass", control.value, float(1 + 2 * LIMIT)
    )
    evidence.equal(
        "whole loops = single calls: AutoDrop, control",
        [ratio.value, control.value], [1 + share.value, 1 + forward.value], SCATTER,
        source="scatter of medians of whole iterations on a busy machine",
    )  # fmt: skip
    evidence.route("whole training loops", f"AutoDrop over MultiStepLR {ratio:.3f}")
    evidence.table(
        f"Seconds per iteration ({result.device}, {result.batch})",
        ["loop", "seconds", "over MultiStepLR", "95 % interval"],
        [
            (
                x.label,
                f"{x.seconds:.4f}",
                f"{x.ratio.value:.3f}",
                f"{x.ratio.low:.3f} – {x.ratio.high:.3f}",
            )
            for x in result.loops
        ],
    )
    return ratio


def _by_counting(evidence: Evidence) -> None:
    found = tuple(map(reads, (autodrop, snapshots, norms)))
    evidence.exact(
        "reads a number before the lag is over: AutoDrop; controls: a snapshot, a norm",
        found, (False, True, True),
    )  # fmt: skip
    if found[0]:  # what reads cannot run without values
        return
    counts = counted()
    evidence.exact("operations of an ordinary step, plain sums", counts.operations["plain"], 1)
    evidence.at_most(
        "operations of an ordinary step, anchored sums: two for each piece",
        [counts.operations[name] for name in SUMS if name != "plain"], 2 * counts.pieces,
    )  # fmt: skip
    evidence.exact(
        "copies of the parameters kept: plain, anchored, anchored with a bfloat16 direction",
        " ".join(str(counts.state[name]) for name in SUMS), "3 7/2 3",
    )  # fmt: skip
    evidence.at_most("scratch beyond them (copies)", list(counts.scratch.values()), 1 / 8)
    evidence.at_most(
        "bytes moved in an update against those of SGD's own step (copies)",
        counts.moved, counts.by_sgd,
    )  # fmt: skip
    evidence.at_most(
        "elements touched in an update against operations of forward and backward",
        counts.moved / counts.flops, 0.001,
    )  # fmt: skip
    evidence.route(
        "counting on the full ResNet-18, without values",
        f"{counts.moved:.1f} copies moved in an update, {counts.by_sgd:.0f} in SGD's step; "
        f"{counts.flops:,.0f} operations of forward and backward for each parameter",
    )


def shares_figure(result: Result) -> Figure:
    """Share of a step, call by call; ends of windows apart and spread."""
    rows = [
        (row.label, row.share.value, False)
        for row in result.rows
        if row.name not in ("stream", "copy")
    ]
    rows += [
        (f"{row.label}, mean over a window", row.window_share.value, True)
        for row in result.rows
        if row.window_share is not None
    ]
    rows.sort(key=lambda entry: entry[1])
    figure, ax = style.new_figure(height=4.6)
    for y, (_, share, mean) in enumerate(rows):
        ax.plot(share, y, "o", color=style.PALETTE["vermillion" if mean else "blue"])
    ax.axvline(float(LIMIT), color=style.PALETTE["grey"], ls=":", lw=1.2)
    ax.set(
        xscale="log",
        xlabel="share of a training step",
        yticks=range(len(rows)),
        yticklabels=[label for label, _, _ in rows],
    )
    return figure
