"""The overhead benchmark at tiny sizes: what it counts and how it reports, never how fast."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from autodrop import AutoDrop
from paper_checks.networks import ResNet18, Transformer
from paper_checks.overhead import LOOPS, Estimate, Loop, Result, Setup, cases, loops, measure
from paper_checks.overhead.__main__ import OK, USAGE, main
from paper_checks.overhead.counting import count, live_bytes, peak_on_cuda, waits_for_cuda
from paper_checks.overhead.statistics import median_of, mixture, paired
from paper_checks.overhead.timing import CLOCKS, on_cuda, on_host, threads

TRACKERS = ["plain", "anchored", "anchored_bfloat16", "autodrop"]
OTHERS = ["averaged", "averaged_multi", "snapshot"]
STEP = ["optimizer", "forward", "forward_backward"]
ROWS = [
    "foreach_add",
    *(f"{prefix}{name}" for name in TRACKERS for prefix in ("", "end_")),
    *OTHERS, *STEP, "stream", "copy",
]  # fmt: skip
SETUP = Setup(width=2, batch=2, repeats=7, windows=7, threads=1, clock="cpu")
TINY = ["--width", "2", "--batch", "2", "--repeats", "4", "--windows", "1", "--threads", "1"]
BUFFER = 2**12


@contextlib.contextmanager
def small_buffers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "_BUFFER", BUFFER)
        yield


@pytest.fixture(scope="module")
def result() -> Result:
    with small_buffers():
        return measure(SETUP)


def test_resnet18() -> None:
    model = ResNet18()
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
        # Three of the four stages halve the image: 4×4 before the average.
        assert model.layers[:-3](torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)


def test_transformer_size() -> None:
    with torch.device("meta"):
        model = Transformer()
    assert sum(p.numel() for p in model.parameters()) == 100_809_216


def test_transformer_is_causal() -> None:
    model = Transformer(vocabulary=11, width=8, depth=2, heads=2, context=6)
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6]])
    changed = tokens.clone()
    changed[0, 4] = 9
    with torch.no_grad():
        logits, others = model(tokens), model(changed)
    assert logits.shape == (1, 6, 11)
    same = (logits == others).all(dim=-1).squeeze(0)
    assert same.tolist() == [True] * 4 + [False] * 2


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="heads must divide width = 8, got 3"):
        Transformer(width=8, heads=3)


def test_rows(result: Result) -> None:
    assert [row.name for row in result.rows] == ROWS
    assert len({row.label for row in result.rows}) == len(ROWS)
    for row in result.rows:
        assert len(row.samples) == SETUP.repeats
        assert all(sample > 0 for sample in row.samples)
        assert row.seconds == row.launch
        assert row.waits is None
    assert result.parameters == sum(p.numel() for p in ResNet18(width=2).parameters())
    assert (result.tensors, result.threads) == (62, 1)


def test_medians_are_of_the_samples(result: Result) -> None:
    floor, stream, forward, optimizer = (
        result.row(name).samples
        for name in ("foreach_add", "stream", "forward_backward", "optimizer")
    )
    rounds = range(SETUP.repeats)
    step = [forward[i] + optimizer[i] for i in rounds]
    for row in result.rows:
        own = row.samples
        assert row.seconds == median(own)
        assert row.ratio.value == median(own[i] / floor[i] for i in rounds)
        assert row.share == paired(own, step)
        if row.traffic is not None:
            speeds = [row.traffic / own[i] / (12 * BUFFER / stream[i]) for i in rounds]
            # Two products and quotients in another order.
            assert row.bandwidth == pytest.approx(median(speeds), rel=8 * sys.float_info.epsilon)
        if row.name in TRACKERS:
            end = result.row(f"end_{row.name}").samples
            mean = [(63 * own[i] + end[i]) / 64 for i in rounds]
            assert row.window_ratio == paired(mean, floor)
            assert row.window_share == paired(mean, step)
        else:
            assert row.window_ratio is row.window_share is None
    assert result.row("foreach_add").ratio == Estimate(1.0, 1.0, 1.0)
    assert result.row("stream").bandwidth == 1
    assert result.bandwidth == median(12 * BUFFER / seconds for seconds in stream)


def test_memory(result: Result) -> None:
    """Copies of the parameters, as the docstring of `AngularVelocity` states them."""
    copies = {"plain": 3, "anchored": 3.5, "anchored_bfloat16": 3, "autodrop": 3.5}
    assert {name: result.row(name).memory for name in copies} == copies
    size = 4 * result.parameters
    for name in copies:
        held = result.row(name).held
        # Beyond the state there is scratch for the largest tensor at most.
        assert held is not None
        assert copies[name] <= held <= copies[name] + 16**2 * 9 * 4 / size
    # AveragedModel keeps the buffers too: means and variances, a counter of 8 bytes for each norm.
    model = ResNet18(width=2)
    buffers = sum(b.nbytes for b in model.buffers()) + 8
    assert result.row("averaged").memory == (size + buffers) / size
    assert result.row("averaged").held == result.row("averaged").memory
    assert result.row("forward_backward").memory is None
    assert [result.row(name).peak for name in ("foreach_add", "plain", "snapshot")] == [0, 0, 1]


def test_counts(result: Result) -> None:
    read = {name: result.row(name).read_backs for name in ("foreach_add", *TRACKERS)}
    assert set(read.values()) == {0}
    # AveragedModel asks twice whether this is the first average.
    assert result.row("averaged").read_backs == result.row("averaged_multi").read_backs == 2
    assert result.row("plain").operations == result.row("foreach_add").operations == 1
    # Tensors as small as these are copied together.
    assert result.row("anchored").operations == 3
    # x, S in and S out; x and its copy, this, a and x − a, then this, S and S; momentum 2 + 3,
    # update 3.
    moved = {"foreach_add": 3, "plain": 3, "anchored": 8, "autodrop": 8, "optimizer": 8}
    assert {name: result.row(name).moved for name in moved} == moved


def test_operations_and_bytes_are_counted() -> None:
    x, y, out = torch.ones(6), torch.ones(6), torch.empty(6)
    for call, operations, arrays in (
        (lambda: x.view(2, 3).narrow(0, 0, 1), 0, 0),
        (lambda: torch.empty(6), 0, 0),
        (lambda: x + y, 1, 3),
        (lambda: x.add_(y), 1, 3),
        (lambda: torch.sub(x, y, out=out), 1, 3),
        (lambda: x.copy_(y), 1, 2),
        (lambda: x.zero_(), 1, 1),
        (lambda: torch._foreach_add_([x, out], [y, y]), 1, 6),
    ):
        counts = count(call)
        assert (counts.operations, counts.moved) == (operations, 4 * 6 * arrays)


def test_the_peak_is_of_what_lives_at_once() -> None:
    x = torch.ones(1000)
    assert count(lambda: [x + 1, x + 2, x + 3]).peak == 12_000

    def one_by_one() -> None:
        for _ in range(3):
            x + 1

    assert count(one_by_one).peak == 4000
    assert count(lambda: x.add_(1)).peak == 0
    made, held = live_bytes(lambda: (x + (x + 1), x[:10], x.double()), x.device)
    assert (len(made), held) == (3, 12_000)


def test_read_backs_are_seen() -> None:
    x = torch.ones(3)
    assert count(lambda: x + 1).read_backs == 0
    assert count(lambda: [x[0].item(), float(x[1]), bool(x[2] > 0)]).read_backs == 3
    assert count(lambda: x.cpu()).read_backs == 0


def test_copies_from_a_gpu_are_seen() -> None:
    """With fake tensors, which need no GPU."""
    with FakeTensorMode():
        x, host = torch.ones(3, device="cuda"), torch.empty(3)
        assert count(lambda: x.cpu()).read_backs == 1
        assert count(lambda: host.copy_(x)).read_backs == 1
        assert count(lambda: x.add_(torch.ones_like(x))).read_backs == 0
        assert count(lambda: torch.zeros(3)).read_backs == 0


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A GPU that notes in which order it is told what; its events are a second apart."""
    told: list[Any] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            told.append("event")

        def synchronize(self) -> None:
            told.append("wait for event")

        def elapsed_time(self, end: Event) -> float:
            return 1000.0

    @contextlib.contextmanager
    def device(index: torch.device) -> Iterator[None]:
        told.append("device")
        yield

    for name, stand_in in (
        ("Event", Event),
        ("device", device),
        ("synchronize", lambda *device: told.append("synchronize")),
        ("_sleep", lambda ticks: told.append(ticks)),
        ("reset_peak_memory_stats", lambda device: told.append("reset")),
        ("memory_allocated", lambda device: 100),
        ("max_memory_allocated", lambda device: 100 + 7 * told.count("call")),
    ):
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return told


def test_on_cuda_the_device_is_busy_until_the_call_is_launched(gpu: list[Any]) -> None:
    prepare, call = (lambda word=word: gpu.append(word) for word in ("prepare", "call"))
    device = torch.device("cuda", 0)
    assert on_cuda(prepare, call, device, launch=0.25) == 1.0
    *order, event, end = [word for word in gpu if not isinstance(word, int)]
    assert order == ["device", "prepare", "synchronize", "event", "call"]
    assert (event, end) == ("event", "wait for event")
    ticks, where = next((word, i) for i, word in enumerate(gpu) if isinstance(word, int))
    assert ticks >= 0.25 * 3e9  # of a GPU of 3 GHz
    assert gpu[where - 1] == "synchronize"


def test_on_cuda_the_launch_is_timed_from_an_idle_device(gpu: list[Any]) -> None:
    prepare, call = (lambda word=word: gpu.append(word) for word in ("prepare", "call"))

    def clock() -> float:
        gpu.append("clock")
        return float(len(gpu))

    taken = on_host(prepare, call, torch.device("cuda", 0), clock)
    assert gpu == ["prepare", "synchronize", "clock", "call", "clock"]
    assert taken == (2.0, None)


def test_on_cuda_the_peak_is_the_allocator_s(gpu: list[Any]) -> None:
    assert peak_on_cuda(lambda: gpu.append("call"), torch.device("cuda", 0)) == 7
    assert gpu == ["synchronize", "reset", "call", "synchronize"]


def test_on_cuda_what_is_held_is_the_allocator_s(
    gpu: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 9 * gpu.count("call"))
    made, held = live_bytes(lambda: gpu.append("call"), torch.device("cuda", 0))
    assert (made, held) == (None, 9)


def test_waits_for_cuda_are_the_warnings_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[Any] = []

    def set_mode(mode: Any) -> None:
        modes.append(mode)
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)

    def call() -> None:
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    assert waits_for_cuda(call) == 3
    assert modes == ["warn", 1]
    with pytest.raises(ZeroDivisionError):
        waits_for_cuda(lambda: 1 / 0)
    assert modes == ["warn", 1] * 2


def test_on_cuda_a_block_is_a_window_between_two_waits(
    gpu: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(optimizer: Any, window: int, loss: Any) -> Callable[[], object]:
        assert window == 5
        return lambda: gpu.append("iteration")

    model = torch.nn.Linear(1, 1)
    setup: Any = SimpleNamespace(device="cuda", window=5, windows=2, clock="wall")
    monkeypatch.setitem(CLOCKS, "wall", lambda: float(gpu.count("iteration")))
    times = loops.run_loops(
        setup, model, lambda: model(torch.ones(1)).sum(), [Loop("a", "a", make)]
    )
    assert gpu == (["synchronize"] + ["iteration"] * 5 + ["synchronize"]) * 3
    assert times["a"].ordinary == ()
    assert times["a"].ends == (1.0, 1.0)  # per iteration
    assert times["a"].share == 1


def test_loops(result: Result) -> None:
    assert [loop.name for loop in result.loops] == [loop.name for loop in LOOPS]
    base = result.loop("constant")
    assert base.ratio == Estimate(1.0, 1.0, 1.0)
    for loop in result.loops:
        # Windows of three iterations on the CPU.
        assert (len(loop.ordinary), len(loop.ends)) == (14, 7)
        assert loop.end_share == 1 / 64
        ratios = [
            [a / b for a, b in zip(own, other, strict=True)]
            for own, other in ((loop.ordinary, base.ordinary), (loop.ends, base.ends))
        ]
        assert loop.ratio == mixture(*ratios, 1 / 64)
        seconds = (63 * median(loop.ordinary) + median(loop.ends)) / 64
        assert loop.seconds == pytest.approx(seconds, rel=4 * sys.float_info.epsilon)


def test_windows_end_where_the_loops_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which the n-th iteration takes n seconds."""
    now, made = [0.0], []

    def make(optimizer: Any, window: int, loss: Any) -> Callable[[], object]:
        scheduler = AutoDrop(optimizer, window)
        made.append(scheduler)

        def after() -> None:
            scheduler.step()
            now[0] += scheduler.last_epoch

        return after

    monkeypatch.setitem(CLOCKS, "wall", lambda: now[0])
    model = torch.nn.Linear(2, 1)
    x = torch.randn(99, 2, generator=torch.Generator().manual_seed(0)).unbind()
    inputs = iter(x)
    times = loops.run_loops(
        Setup(windows=4), model, lambda: model(next(inputs)).square().sum(), [Loop("a", "a", make)]
    )
    # The first window warms up.
    assert times["a"].ends == (6, 9, 12, 15)
    assert times["a"].ordinary == (4, 5, 7, 8, 10, 11, 13, 14)
    assert made[0].angle_steps == [9, 12, 15]


def test_the_interval_of_a_median_is_between_order_statistics() -> None:
    # P(Bin(20, 1/2) <= 5) = 0.0207, so that x_6 and x_15 leave out 2.1 % on each side.
    assert median_of([float(x) for x in range(1, 21)]) == Estimate(10.5, 6.0, 15.0)
    assert median_of([float(x) for x in range(1, 7)]) == Estimate(3.5, 1.0, 6.0)
    assert median_of([1.0, 2.0, 3.0, 4.0, 5.0]) == Estimate(3.0, None, None)
    assert median_of([3.0] * 6, 0.975) == Estimate(3.0, None, None)
    assert paired([2.0, 4.0, 9.0], [1.0, 2.0, 3.0]).value == 2.0
    assert f"{Estimate(1.5, 1.25, 2.0):.1f}" == "1.5 [1.2, 2.0]"
    assert f"{Estimate(1.5, None, None):.2f}" == "1.50"
    with pytest.raises(ValueError, match="at least one number, got none"):
        median_of([])
    with pytest.raises(ValueError, match="shorter"):
        paired([1.0, 2.0], [1.0])


def test_a_mixture_weighs_two_medians() -> None:
    often, seldom = [float(x) for x in range(1, 8)], [float(10 * x) for x in range(1, 8)]
    # At 0.975 seven values give their whole range.
    assert mixture(often, seldom, 0.25) == Estimate(0.75 * 4 + 10, 0.75 + 2.5, 0.75 * 7 + 17.5)
    assert mixture(often, seldom[:6], 0.25) == Estimate(0.75 * 4 + 0.25 * 35, None, None)
    assert mixture([], seldom, 1.0) == median_of(seldom)
    assert mixture(often, [], 0.0) == median_of(often)
    with pytest.raises(ValueError, match="0 <= share <= 1, got 2"):
        mixture(often, seldom, 2.0)


def test_json_round_trip(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    result.write_json(path)
    assert Result.read_json(path) == result
    saved = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert saved["torch"] == torch.__version__
    assert saved["device"]
    assert saved["setup"] == dataclasses.asdict(SETUP)
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()

    def broken() -> None:
        with threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert torch.get_num_threads() == before


def test_transformer_and_progress() -> None:
    seen: list[int] = []
    setup = Setup(
        model="transformer", width=4, depth=1, batch=1, repeats=2, windows=1, threads=1
    )  # fmt: skip
    with small_buffers():
        result = measure(setup, seen.append, loops=LOOPS[:1])
    assert seen[-3:] == [2, 2, 3]
    assert [row.name for row in result.rows] == ROWS
    with torch.device("meta"):
        model = Transformer(width=4, depth=1, heads=1)
    assert result.parameters == sum(p.numel() for p in model.parameters())
    assert result.batch == "1 sequences of 128 tokens"


def test_from_a_shell(tmp_path: Path) -> None:
    """As a user runs it; warnings are errors."""
    out = tmp_path / "new" / "r.json"
    command = [sys.executable, "-W", "error", "-m", "paper_checks.overhead", *TINY, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == OK, done.stderr
    assert done.stderr == ""
    result = Result.read_json(out)
    for row in (*result.rows, *result.loops):
        assert row.label in done.stdout
    anchored = result.row("anchored")
    lines = [line for line in done.stdout.splitlines() if f"{anchored.label}  " in line]
    times, counts = lines[:2]
    assert f"{anchored.seconds * 1e3:.3f}" in times
    assert f"{anchored.ratio:.2f}" in times
    assert f"{anchored.held:.2f}" in counts
    autodrop = result.loop("autodrop")
    assert f"{autodrop.seconds:.4f}" in done.stdout
    assert str(out) in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--repeats", "0"], "repeats must be an integer >= 1, got 0"),
        (["--batch", "-1"], "batch must be an integer >= 1, got -1"),
        (["--threads", "0"], "threads must be an integer >= 1, got 0"),
        (["--windows", "0"], "windows must be an integer >= 1, got 0"),
        (["--window", "1"], "window must be >= 2, got 1"),
        (["--clock", "cpu"], "clock 'cpu' needs device cpu and threads = 1"),
        (["--device", "gpu"], "device must be cpu, cuda or cuda:N, got 'gpu'"),
        (["--device", "meta"], "device must be cpu, cuda or cuda:N, got 'meta'"),
        (
            ["--model", "transformer", "--width", "200"],
            "width must be a multiple of width // 64 = 3",
        ),
    ],
)
def test_one_line_for_bad_options(arguments: list[str], words: str, capsys: Any) -> None:
    assert main(arguments) == USAGE
    assert re.fullmatch(rf"error: [^\n]*{re.escape(words)}[^\n]*\n", capsys.readouterr().err)


def test_no_cuda(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--device", "cuda"]) == USAGE
    complaint = capsys.readouterr().err
    assert complaint == "error: device 'cuda' must be present, but torch finds 0 CUDA devices\n"


def test_out_is_a_directory(tmp_path: Path, capsys: Any) -> None:
    assert main([*TINY, "--out", str(tmp_path)]) == USAGE
    assert capsys.readouterr().err.startswith("error: out must be a file, got the directory ")


def test_unknown_model() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--model", "vgg"])
    assert stopped.value.code == USAGE
    with pytest.raises(ValueError, match="model must be one of"):
        Setup(model="vgg")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="clock must be one of"):
        Setup(clock="sun")  # type: ignore[arg-type]
