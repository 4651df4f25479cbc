"""The benchmark of the oracle, run small: it prints every row, and its rows stand in order."""

import re
import sys

import pytest

from benchmarks import oracle as benchmark


def test_it_prints_a_risk_for_every_schedule_and_a_ratio_for_every_horizon(monkeypatch, capsys):
    options = ["--steps", "20", "--stages", "2", "--horizons", "10", "20"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.oracle", *options])
    benchmark.main()
    first, second = capsys.readouterr().out.split("\n\n")
    risks = {
        name.strip(): float(risk)
        for name, risk in re.findall(r"^(\S.*?)  +(\d+\.\d{6}) +\d+\.\d\d$", first, re.MULTILINE)
    }
    assert len(risks) == 6 + len(benchmark.FAMILIES) + 2
    bound, every, free, equal, *_ = risks.values()
    assert bound < every <= free <= equal
    assert equal < risks["oracle, 2 equal, rates ≤ 0.06"]
    assert all(risk >= every for name, risk in risks.items() if not name.startswith("no schedule"))
    lines = re.findall(r"^ +(\d+) +(\S+) +(\S+) +(\S+)$", second, re.MULTILINE)
    rows = [[float(cell) for cell in line] for line in lines]
    assert [row[0] for row in rows] == [10, 20]
    for _, risk, best, ratio in rows:
        assert ratio == pytest.approx(risk / best, abs=6e-4)
        assert ratio >= 1
    # The same search as in the first table, but for the starts that one schedule for all adds.
    assert rows[1][2] <= free + 1e-6
