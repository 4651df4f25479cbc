"""The report and the figures' style: self-contained, escaped, reproducible, readable."""

from __future__ import annotations

import dataclasses
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from paper_checks import report, runner, style
from paper_checks.claim import Claim, Context, Evidence, Kind, Outcome, Verdict, registry
from paper_checks.report import markup

HOSTILE = "<script>alert('x')</script> & \"quotes\" <img src=http://example.org/x.png>"
# Elements that HTML closes by itself, and the self-closing ones of SVG as matplotlib writes them.
VOID = {"meta", "input", "br", "use", "path", "link", "img", "rect", "image"}


class Page(HTMLParser):
    """The page's elements; fails on a tag that is closed out of order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.elements if attribute in attrs]


def check(verdict: Verdict, text: str, slack: float = 1.0) -> Any:
    def run(context: Context) -> Outcome:
        evidence = Evidence()
        evidence.route(f"closed form {text}", text)
        evidence.route("recursion", text)
        evidence.at_least(f"slack {text}", slack, 0.0)
        evidence.number(f"level {text}", 0.25)
        evidence.number("text", text)
        evidence.table(text, [text, "n"], [[text, i] for i in range(3)])
        evidence.table("Long", ["i"], [[i] for i in range(40)])
        figure, ax = style.new_figure()
        ax.plot([0, 1], [0, 1], "o-", label="line")
        ax.set(title=text, xlabel="--> t")
        evidence.figure(text, text, figure)
        return evidence.outcome(
            verdict,
            f"Found {text}.",
            cases=7,
            correction=f"Truth {text}",
            reason=f"Because {text}",
            counterexample=f"x = 1\nassert x < 2, {text!r}",
        )

    return run


def make(id: str, run: Any, expected: Verdict, section: str, text: str) -> Claim:
    return Claim(id, text, text, text, Kind.TIGHT, text, expected, run, section)


def raw(html: str) -> list[str]:
    """The powers and indices that were left as typed, outside code."""
    return re.findall(r"\^|[^\W\d_]_[^\W\d_]", re.sub(r"<code>.*?</code>", "", html))


def crash(context: Context) -> Outcome:
    raise RuntimeError(HOSTILE)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with every verdict, an unexpected one and an error; hostile text in every place."""
    out = tmp_path_factory.mktemp("report")
    claims = [
        make("a", check(Verdict.HOLDS, HOSTILE), Verdict.HOLDS, "Section 1", HOSTILE),
        make("b", check(Verdict.CORRECTED, HOSTILE), Verdict.CORRECTED, "Section 1", HOSTILE),
        make("c", check(Verdict.REFUTED, HOSTILE), Verdict.REFUTED, "Section 3", HOSTILE),
        make("d", check(Verdict.UNDECIDED, HOSTILE), Verdict.UNDECIDED, "Section 3", HOSTILE),
        make("planted", check(Verdict.HOLDS, HOSTILE, -1.0), Verdict.HOLDS, "Section 4", HOSTILE),
        make("crash", crash, Verdict.HOLDS, HOSTILE, HOSTILE),
    ]
    results, _ = runner.run(claims, Context(), out)
    return report.render(results, out).read_text(encoding="utf-8")


class TestPage:
    def test_is_well_formed_and_hostile_text_stays_text(self, rendered: str) -> None:
        page = Page(rendered)
        tags = [tag for tag, _ in page.elements]
        assert tags.count("script") == 1  # the page's own
        assert "img" not in tags
        assert "alert('x')" in "".join(page.text)

    def test_needs_nothing_else(self, rendered: str) -> None:
        page = Page(rendered)
        links = page.all("href") + page.all("xlink:href")
        assert links
        assert all(link.startswith("#") for link in links)
        assert not page.all("src")
        assert not page.all("srcset")
        assert not {tag for tag, _ in page.elements} & {"link", "iframe", "object", "base"}
        styles = "".join(re.findall(r"<style>(.*?)</style>", rendered, re.DOTALL))
        assert "@import" not in styles
        assert "url(" not in styles
        assert all(u.startswith("url(#") for u in re.findall(r"url\([^)]*\)", rendered))

    def test_ids_are_unique_and_every_link_lands(self, rendered: str) -> None:
        page = Page(rendered)
        ids = page.all("id")
        assert len(ids) == len(set(ids))
        targets = {link[1:] for link in page.all("href") + page.all("xlink:href")}
        targets |= set(re.findall(r"url\(#([^)]*)\)", rendered))
        assert targets <= set(ids)
        assert {"a", "b", "c", "d", "planted", "crash"} <= targets

    def test_figures_are_named_for_screen_readers(self, rendered: str) -> None:
        page = Page(rendered)
        pictures = [attrs for tag, attrs in page.elements if tag == "svg"]
        assert len([p for p in pictures if p.get("aria-label") == HOSTILE]) == 5
        assert all("aria-label" in p or p.get("aria-hidden") == "true" for p in pictures)

    def test_headings_are_in_order(self, rendered: str) -> None:
        levels = [int(tag[1]) for tag, _ in Page(rendered).elements if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b <= a + 1 for a, b in itertools.pairwise(levels))

    def test_shows_verdicts_and_what_is_red(self, rendered: str) -> None:
        text = " ".join("".join(Page(rendered).text).split())
        assert "2 of 6 claims did not come out as expected." in text
        assert "Found: undecided-here. Expected: holds." in text
        assert "Found: error. Expected: holds." in text
        assert "1 holds as corrected" in text
        assert "2 undecided here" in text
        assert "assert x < 2" in text
        assert "Executed as it stands; its assertions held." in text
        assert "How to read the verdicts" in text

    def test_what_a_card_shows_and_what_it_folds(self, tmp_path: Path) -> None:
        claim = Claim(
            "a", "p. 1", "Title", "Statement.", Kind.TIGHT, "0 < α < 2", Verdict.REFUTED,
            check(Verdict.REFUTED, "x"), "Section 1",
        )  # fmt: skip
        results, _ = runner.run([claim], Context(), tmp_path)
        text = report.render(results, tmp_path).read_text(encoding="utf-8")
        folded = re.findall(r"<details.*?</details>", text, re.DOTALL)
        shown = "".join(Page(re.sub(r"<details.*?</details>", "", text, flags=re.DOTALL)).text)
        assert "Under: 0 < α < 2" in shown
        counterexample, evidence = ("".join(Page(part).text) for part in folded)
        assert "Counterexample (ran while this page was made)" in counterexample
        assert "x = 1\nassert x < 2" in counterexample
        assert "assert" not in shown + evidence

    def test_a_counterexample_that_failed_is_open(self, tmp_path: Path) -> None:
        def run(context: Context) -> Outcome:
            outcome: Outcome = check(Verdict.REFUTED, "x")(context)
            return dataclasses.replace(outcome, counterexample="assert 1 > 2")

        claims = [make("a", run, Verdict.REFUTED, "Section 1", "x")]
        results, _ = runner.run(claims, Context(), tmp_path)
        page = Page(report.render(results, tmp_path).read_text(encoding="utf-8"))
        assert "Counterexample (ran while this page was made; it failed)" in "".join(page.text)
        assert [attrs for tag, attrs in page.elements if tag == "details" and "open" in attrs]

    def test_a_green_page_raises_no_alarm(self, tmp_path: Path) -> None:
        claims = [make("a", check(Verdict.HOLDS, "x"), Verdict.HOLDS, "Section 1", "x")]
        results, _ = runner.run(claims, Context(), tmp_path)
        text = report.render(results, tmp_path).read_text(encoding="utf-8")
        assert 'role="alert"' not in text
        assert "unexpected" not in "".join(Page(text).all("class"))


class TestMath:
    @pytest.mark.parametrize(
        ("text", "html"),
        [
            ("s_t and x_{t+1}", "s<sub>t</sub> and x<sub>t+1</sub>"),
            ("α^3 Σ a_i^2v", "α<sup>3</sup> Σ a<sub>i</sub><sup>2</sup>v"),
            ("α^2A^2Σ.", "α<sup>2</sup>A<sup>2</sup>Σ."),
            ("E‖s_t‖^2 = x^2.", "E‖s<sub>t</sub>‖<sup>2</sup> = x<sup>2</sup>."),
            ("½Σa_iv_i", "½Σa<sub>i</sub>v<sub>i</sub>"),
            ("k_iα̂_iα̂_{i−1}", "k<sub>i</sub>α̂<sub>i</sub>α̂<sub>i−1</sub>"),
            ("(2κ_1n)", "(2κ<sub>1</sub>n)"),
            ("αa_iv_ix_i^2", "αa<sub>i</sub>v<sub>i</sub>x<sub>i</sub><sup>2</sup>"),
            ("a_iv^2/n^0.5", "a<sub>i</sub>v<sup>2</sup>/n<sup>0.5</sup>"),
            ("a_i^3v_i, n^slope", "a<sub>i</sub><sup>3</sup>v<sub>i</sub>, n<sup>slope</sup>"),
            ("E_g[G]", "E<sub>g</sub>[G]"),
            ("`a_iv_i^2`", "<code>a_iv_i^2</code>"),
            ("min_lr, step_size, a_is, x_in", "min_lr, step_size, a_is, x_in"),
            ("a_i^2 < a_max", "a<sub>i</sub><sup>2</sup> &lt; a<sub>max</sub>"),
            ("10^{−4}, T^−2", "10<sup>−4</sup>, T<sup>−2</sup>"),
            ("(1−αa)^2", "(1−αa)<sup>2</sup>"),
            ("`x_t < 1` holds", "<code>x_t &lt; 1</code> holds"),
            ("weight_decay, state_dict", "weight_decay, state_dict"),
            ("x_{<b>}", "x<sub>&lt;b&gt;</sub>"),
            ("one\n\ntwo", "one<br><br>two"),
        ],
    )
    def test_sets_formulas_and_escapes_the_rest(self, text: str, html: str) -> None:
        assert markup.math(text) == html

    @pytest.mark.parametrize("claim", registry(), ids=lambda claim: claim.id)
    def test_leaves_nothing_raw_in_the_claims(self, claim: Claim) -> None:
        for text in (claim.title, claim.statement, claim.hypotheses, claim.place):
            assert not raw(str(markup.math(text)))

    def test_raw_finds_what_is_not_set(self) -> None:
        assert raw("α^2A, a_iv, <code>x_t^2</code>, a<sub>i</sub>") == ["^", "a_i"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.25"), (-1 / 3, "−0.3333333"), (10**12, "1000000000000")]
)
def test_numbers_are_rounded_for_reading_only(value: float, text: str) -> None:
    assert markup.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.7, "1 min 0 s"), (125, "2 min 5 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert markup.duration(seconds) == text


class TestStyle:
    def test_svg_is_the_same_twice_and_small(self, tmp_path: Path) -> None:
        for name in ("one.svg", "two.svg"):
            figure, ax = style.new_figure()
            x = np.linspace(0, 1, 200_000)
            ax.plot(*style.decimate(x, np.random.default_rng(1).normal(size=x.size)))
            ax.fill_between([0, 1], [0, 1])
            ax.legend(["α = 0.06"])
            style.save_svg(figure, tmp_path / name)
        text = (tmp_path / "one.svg").read_text(encoding="utf-8")
        assert text == (tmp_path / "two.svg").read_text(encoding="utf-8")
        assert "<dc:date>" not in text
        assert len(text) < runner.MAX_SVG_BYTES / 3

    def test_leaves_matplotlibs_settings_alone(self, tmp_path: Path) -> None:
        before = dict(matplotlib.rcParams)
        figure, _ = style.new_figure(2, 2, sharex=True)
        style.save_svg(figure, tmp_path / "x.svg")
        assert dict(matplotlib.rcParams) == before

    def test_axes_come_as_asked(self) -> None:
        figure, axes = style.new_figure(2, 3)
        assert axes.shape == (2, 3)
        assert figure.get_figwidth() == style.WIDTH
        _, ax = style.new_figure(height=5)
        assert ax.figure.get_figheight() == 5

    def test_decimation_keeps_ends_and_peaks(self) -> None:
        x = np.arange(100_000.0)
        y = np.random.default_rng(2).uniform(-1, 1, x.size)
        y[31_415], y[27_182] = 9.0, -9.0
        few, values = style.decimate(x, y, points=50)
        assert 40 <= len(few) <= 50
        assert few[0] == x[0]
        assert few[-1] == x[-1]
        assert np.all(np.diff(few) > 0)
        np.testing.assert_array_equal(values, y[few.astype(int)])
        assert (values.max(), values.min()) == (9.0, -9.0)

    def test_short_lines_stay(self) -> None:
        x, y = style.decimate([1, 2, 3], [4, 5, 6])
        assert x.tolist() == [1, 2, 3]
        assert y.tolist() == [4, 5, 6]

    def test_bad_input_is_explained(self) -> None:
        with pytest.raises(ValueError, match=r"same shape \(n,\), got \(2,\) and \(3,\)"):
            style.decimate([1, 2], [1, 2, 3])
        with pytest.raises(ValueError, match="points must be >= 4, got 3"):
            style.decimate([1, 2], [1, 2], points=3)
