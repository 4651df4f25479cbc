"""The overhead benchmark at tiny sizes: what it counts and how it reports, never how fast."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from paper_checks.networks import ResNet18, Transformer
from paper_checks.overhead import Result, Setup, measure
from paper_checks.overhead.__main__ import OK, USAGE, main
from paper_checks.overhead.timing import read_backs

TRACKERS = ["plain", "anchored", "anchored_bfloat16", "autodrop"]
OTHERS = ["averaged", "averaged_multi", "snapshot"]
STEP = ["optimizer", "forward_backward"]
ROWS = ["foreach_add", *TRACKERS, *OTHERS, *STEP, "end_plain", "end_anchored", "copy"]
TINY = ["--width", "2", "--batch", "2", "--repeats", "4", "--threads", "1"]


@pytest.fixture(scope="module")
def result() -> Result:
    return measure(Setup(width=2, batch=2, repeats=4, threads=1))


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
        assert len(row.samples) == 4
        assert all(sample > 0 for sample in row.samples)
    assert result.parameters == sum(p.numel() for p in ResNet18(width=2).parameters())
    assert (result.tensors, result.threads) == (62, 1)


def test_medians_are_of_the_samples(result: Result) -> None:
    floor, copy, forward, optimizer = (
        result.row(name).samples
        for name in ("foreach_add", "copy", "forward_backward", "optimizer")
    )
    for row in result.rows:
        own = row.samples
        assert row.seconds == median(own)
        assert row.ratio == median(own[i] / floor[i] for i in range(4))
        assert row.share == median(own[i] / (forward[i] + optimizer[i]) for i in range(4))
        if row.traffic is not None:
            speeds = [row.traffic / own[i] / (2 * 2**27 / copy[i]) for i in range(4)]
            # Two products and quotients in another order.
            assert row.bandwidth == pytest.approx(median(speeds), rel=8 * sys.float_info.epsilon)
    assert result.row("foreach_add").ratio == result.row("copy").bandwidth == 1
    assert result.copy_bandwidth == 2 * 2**27 / median(copy)


def test_memory(result: Result) -> None:
    """Copies of the parameters, as the docstring of `AngularVelocity` states them."""
    copies = {"plain": 3, "anchored": 3.5, "anchored_bfloat16": 3, "autodrop": 3.5, "snapshot": 1}
    assert {name: result.row(name).memory for name in copies} == copies
    # AveragedModel keeps the buffers too: means and variances, a counter of 8 bytes for each norm.
    model = ResNet18(width=2)
    buffers = sum(b.nbytes for b in model.buffers()) + 8
    size = 4 * result.parameters
    assert result.row("averaged").memory == (size + buffers) / size
    assert result.row("forward_backward").memory is None


def test_read_backs(result: Result) -> None:
    for name in ("foreach_add", *TRACKERS):
        assert result.row(name).read_backs == 0, name
    # AveragedModel asks twice whether this is the first average.
    assert result.row("averaged").read_backs == result.row("averaged_multi").read_backs == 2


def test_read_backs_are_seen() -> None:
    x = torch.ones(3)
    assert read_backs(lambda: x + 1) == 0
    assert read_backs(lambda: [x[0].item(), float(x[1]), bool(x[2] > 0)]) == 3
    assert read_backs(lambda: x.cpu()) == 0


def test_copies_from_a_gpu_are_seen() -> None:
    """With fake tensors, which need no GPU."""
    with FakeTensorMode():
        x, host = torch.ones(3, device="cuda"), torch.empty(3)
        assert read_backs(lambda: x.cpu()) == 1
        assert read_backs(lambda: host.copy_(x)) == 1
        assert read_backs(lambda: x.add_(torch.ones_like(x))) == 0
        assert read_backs(lambda: torch.zeros(3)) == 0


def test_json_round_trip(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    result.write_json(path)
    assert Result.read_json(path) == result
    saved = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert saved["torch"] == torch.__version__
    assert saved["device"]
    assert saved["setup"] == dataclasses.asdict(Setup(width=2, batch=2, repeats=4, threads=1))
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_threads_are_put_back(result: Result) -> None:
    before = torch.get_num_threads()
    measured = measure(Setup(width=1, batch=1, repeats=1, threads=before + 1))
    assert measured.threads == before + 1
    assert torch.get_num_threads() == before


def test_transformer_and_progress() -> None:
    seen: list[int] = []
    setup = Setup(model="transformer", width=4, depth=1, batch=1, repeats=2, threads=1)
    result = measure(setup, seen.append)
    assert seen[-2:] == [1, 2]
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
    for row in result.rows:
        assert row.label in done.stdout
    anchored = result.row("anchored")
    line = next(line for line in done.stdout.splitlines() if f"{anchored.label}  " in line)
    assert f"{anchored.seconds * 1e3:.3f}" in line
    assert f"{anchored.ratio:.2f}" in line
    assert str(out) in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--repeats", "0"], "repeats must be an integer >= 1, got 0"),
        (["--batch", "-1"], "batch must be an integer >= 1, got -1"),
        (["--threads", "0"], "threads must be an integer >= 1, got 0"),
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
