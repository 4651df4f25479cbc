"""A sample of the coordinates: its error is what it says, it is a sample, and no rule is misled.

Monte-Carlo tests draw a few hundred samples of one fixed path. Each states how far from the truth
chance alone would take it with a probability of 1e-6.
"""

import io
import math
import re

import numpy as np
import pytest
import torch
from scipy.stats import binom, chi2

from autodrop import AngularVelocity, AutoDrop, accumulation, angle_from_products
from autodrop.detectors import ThresholdSaturation
from autodrop.products import products, standard_error, summed
from autodrop.sources import Source
from tests.theory.chance import FALSE_ALARM, critical_z, z_scores

F32, F64 = torch.float32, torch.float64
DRAWS = 1000
SIZES = (4000, 1000, 800, 10)  # the last one is followed whole
SCALES = (1.0, 3.0, 0.3, 4.0)


def steps_at(degrees, dtype=F64, seed=0):
    """Two steps d, s of four tensors of different scales, at this angle as one vector."""
    rng = np.random.default_rng(seed)
    scale = np.repeat(SCALES, SIZES)
    d, e = rng.standard_normal((2, sum(SIZES))) * scale
    d /= np.linalg.norm(d)
    e -= e @ d * d
    e /= np.linalg.norm(e)
    s = math.cos(math.radians(degrees)) * d + math.sin(math.radians(degrees)) * e
    return [torch.from_numpy(x).to(dtype).split(SIZES) for x in (d, s)]


def row_of(steps, fraction, seed):
    """The nine numbers of one draw, summed over the tensors."""
    rows = []
    for i, (d, s) in enumerate(zip(*steps, strict=True)):
        p = torch.empty_like(d)
        source = Source(str(i), p, fraction=fraction, seed=(seed, i))
        v, u = (source.read().clone() for x in (d, s) if p.copy_(x) is p)
        rows.append(summed(source, products([u], [v], source.sampled)))
    return torch.stack(rows).sum(0).tolist()


def samples(steps, exact, fraction):
    """(θ̂ − θ, reported error) of each draw, in radians."""
    rows = [row_of(steps, fraction, seed) for seed in range(DRAWS)]
    angles = np.array([angle_from_products(*row[:3]) for row in rows])
    return angles - math.radians(exact), np.array([standard_error(row) for row in rows])


def spread_is_reported(deviations, errors, linear=0.1):
    """Whether Σ (θ̂ − θ)² fits Σ SE²: chance 1e-6 for normal deviations of variance SE².

    linear: the share of the variance that first order in the sums may miss.
    """
    ratio = (deviations**2).sum() / (errors**2).mean()
    low, high = chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], len(errors))
    return (1 - linear) * low <= ratio <= (1 + linear) * high


def covered(deviations, errors):
    """Whether |θ̂ − θ| ≤ 1.96·SE as often as 92 to 97 % would: chance 1e-6 at these two."""
    count = int((np.abs(deviations) <= 1.96 * errors).sum())
    low = binom.ppf(FALSE_ALARM / 2, len(errors), 0.92)
    high = binom.ppf(1 - FALSE_ALARM / 2, len(errors), 0.97)
    return low <= count <= high


@pytest.mark.parametrize(
    ("degrees", "fraction"),
    [(0.5, 0.1), (30.0, 0.6), (90.0, 0.1), (90.0, 0.6), (150.0, 0.1), (179.0, 0.6)],
)
def test_the_error_is_the_spread_of_the_angle_over_samples(degrees, fraction):
    """At 0.6 an error without the finite population's factor would be 1.6 times too large."""
    deviations, errors = samples(steps_at(degrees), degrees, fraction)
    assert spread_is_reported(deviations, errors)
    assert covered(deviations, errors)
    # The controls.
    for wrong in (errors * math.sqrt(1.6), errors / math.sqrt(1.6)):
        assert not spread_is_reported(deviations, wrong)
    for wrong in (errors * 1.6, errors / 1.6):
        assert not covered(deviations, wrong)


@pytest.mark.parametrize("degrees", [0.0, 1e-3, 0.05, 179.9, 180.0])
def test_near_0_and_180_degrees_the_error_falls_with_the_angle(degrees):
    """SE ∝ sin θ down to where rounding takes over, from where on it is too large and small."""
    deviations, errors = samples(steps_at(degrees), degrees, 0.1)
    many = range(0, DRAWS, 20)
    ten = np.mean([standard_error(row_of(steps_at(10.0), 0.1, seed)) for seed in many])
    proportional = ten * math.sin(math.radians(degrees)) / math.sin(math.radians(10.0))
    if 0.05 <= degrees <= 179.95:
        assert spread_is_reported(deviations, errors)
        assert covered(deviations, errors)
        assert errors.mean() == pytest.approx(proportional, rel=0.1)
    else:
        assert errors.mean() > proportional
        assert math.degrees(errors.max()) < 0.01
        # 2e-8: products in float64 tell no smaller angle from 0.
        assert (np.abs(deviations) <= 2 * errors + 2e-8).all()


def population(steps, fraction):
    """The literal expectations of the nine numbers: sums, and covariances of their estimates."""
    sums, covariance = np.zeros(3), np.zeros((3, 3))
    for old, new in zip(*steps, strict=True):
        terms = np.stack([new.numpy() ** 2, old.numpy() ** 2, (new * old).numpy()])
        sums += terms.sum(1)
        n = terms.shape[1]
        m = max(math.ceil(fraction * n), 16)
        if m < n:
            # Var(n·mean of m) = n²·(1 − m/n)·S²/m, S² with n − 1.
            covariance += n**2 * (1 - m / n) / m * np.cov(terms, ddof=1)
    pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    return np.array([*sums, *(covariance[pair] for pair in pairs)])


@pytest.mark.parametrize("degrees", [20.0, 90.0, 140.0])
def test_the_sums_and_their_covariances_are_unbiased(degrees):
    """Nine means over the draws against their expectations; chance 1e-6 for any of them."""
    steps = steps_at(degrees)
    rows = np.array([row_of(steps, 0.2, seed) for seed in range(DRAWS)]).T
    expected = population(steps, 0.2)
    assert np.abs(z_scores(rows, expected)).max() < critical_z(9)
    # The controls: sums 2 % too small, covariances as of draws with replacement.
    assert np.abs(z_scores(0.98 * rows[:2], expected[:2])).min() > critical_z(9)
    assert np.abs(z_scores(rows[3:] / 0.8, expected[3:])).max() > critical_z(9)


def observed(steps, dtype=F64, **options):
    """(tracker, its products) after windows at 0 and at the end of each step."""
    params = [torch.zeros(size, dtype=dtype) for size in SIZES]
    velocity = AngularVelocity(params, 1, **options)
    seen = []

    def note(products):
        seen.append(products[0].tolist())
        return products.new_zeros(0)

    velocity.on_close = note
    for step in steps:
        for p, x in zip(params, step, strict=True):
            p += x
        velocity.update()
    velocity.update()  # ends the window of the last step
    return velocity, seen[-1]


@pytest.mark.parametrize(
    ("dtype", "options"), [(F64, {}), (F32, {}), (F32, {"accumulation": "plain"})], ids=str
)
@pytest.mark.parametrize("chunk", [None, 37])
def test_a_tracker_s_numbers_are_those_of_its_sample(dtype, options, chunk, monkeypatch):
    """The tracker's coordinates, found by what it reads of 0, 1, 2, …; then the literal sums."""
    if chunk:
        monkeypatch.setattr(accumulation, "_CHUNK", chunk)
    steps = steps_at(60.0, dtype)
    velocity, row = observed(steps, dtype, fraction=0.1, **options)
    sums, covariance = np.zeros(3), np.zeros((3, 3))
    sources = {source.key: source for sums_ in velocity._sums for source in sums_.sources}
    for i, (d, s) in enumerate(zip(*steps, strict=True)):
        n = len(d)
        source = sources[str(i)]
        source.parameter.copy_(torch.arange(n))
        chosen = source.read().long()
        m = len(chosen)
        assert m == {4000: 400, 1000: 100, 800: 80, 10: 10}[n]
        v, u = d[chosen].double().numpy(), s[chosen].double().numpy()
        terms = np.stack([u * u, v * v, u * v])
        sums += n / m * terms.sum(1)
        covariance += n * (n - m) / m * np.cov(terms)
    expected = [*sums, *covariance.diagonal(), *covariance[[0, 0, 1], [1, 2, 2]]]
    # Sums of the float32 steps: rounded by 2⁻²⁴ of the parameters, which are as large.
    tolerance = 1e-12 if dtype is F64 else 1e-5
    assert row == pytest.approx(expected, rel=tolerance, abs=tolerance * 1e-3)
    assert velocity.angle == angle_from_products(*row[:3])
    assert velocity.error == standard_error(row)


def test_the_error_of_numbers_that_no_sample_made():
    assert standard_error([1.0, 1.0, 0.5, *[0.0] * 6]) == 0.0
    assert standard_error([1.0, 1.0, 0.5, math.inf, 0.0, -math.inf, 0.0, 0.0, math.nan]) == math.inf
    # ⟨s,d⟩ alone uncertain, at 90°: dθ = −d⟨s,d⟩/√(⟨s,s⟩⟨d,d⟩).
    assert standard_error([4.0, 1.0, 0.0, 0, 0, 0.01, 0, 0, 0]) == pytest.approx(0.05, rel=1e-12)
    # ⟨s,s⟩ alone at 60°: dc = −(c/2)·d⟨s,s⟩/⟨s,s⟩.
    error = standard_error([4.0, 1.0, 1.0, 0.04, 0, 0, 0, 0, 0])
    assert error == pytest.approx(0.25 * 0.2 / 4.0 / math.sin(math.pi / 3), rel=1e-12)
    # A step that may be longer or shorter as a whole, ⟨s,d⟩ in proportion: the angle is certain.
    assert standard_error([1.0, 1.0, 0.3, 4.0, 0.0, 0.09, 0.0, 0.6, 0.0]) < 1e-6


def test_a_fraction_of_1_is_no_sample():
    steps = steps_at(40.0)
    whole, _ = observed(steps)
    same, row = observed(steps, seed=5, fraction=1.0)
    assert same.angle == whole.angle
    assert same.error == whole.error == 0.0
    assert row[3:] == [0.0] * 6
    assert observed(steps, fraction=0.99)[0].error > 0.0


def followed(size, fraction):
    copies = AngularVelocity([torch.zeros(size)], 1, fraction=fraction).state_dict()["copies"]
    (found,) = {t.numel() for tensors in copies.values() for t in tensors.values()}
    return found


def test_how_many_coordinates_are_followed():
    assert [followed(n, 0.1) for n in (1, 15, 16, 17, 159, 161, 1000)] == [
        1,
        15,
        16,
        16,
        16,
        17,
        100,
    ]
    assert followed(1001, 0.1) == 101
    assert followed(1000, 0.999) == 999


def test_tensors_of_at_most_16_elements_are_followed_whole():
    rng = torch.Generator().manual_seed(0)
    path = [[torch.randn(n, generator=rng, dtype=F64) for n in (3, 16)] for _ in range(5)]
    found = []
    for options in ({}, {"fraction": 1e-3}):
        params = [torch.zeros(3, dtype=F64), torch.zeros(16, dtype=F64)]
        velocity = AngularVelocity(params, 1, **options)
        for values in path:
            for p, x in zip(params, values, strict=True):
                p.copy_(x)
            velocity.update()
        found.append((velocity.angle, velocity.error))
    assert found[0] == found[1]
    assert found[1][1] == 0.0


@pytest.mark.parametrize(
    ("options", "copies"),
    [({}, 3.5), ({"accumulation": "plain"}, 3.0), ({"direction": torch.bfloat16}, 3.0)],
)
def test_memory_is_the_fraction_of_the_copies_and_of_indices(options, copies):
    n, fraction = 2**16, 1 / 64
    velocity = AngularVelocity([torch.zeros(n)], 4, fraction=fraction, **options)
    state = velocity.state_dict()["copies"]
    held = sum(t.nbytes for tensors in state.values() for t in tensors.values())
    assert held == copies * 4 * fraction * n
    (indices,) = (source._sample for sums in velocity._sums for source in sums.sources)
    assert indices.nbytes == 4 * fraction * n


def drawn(seed, n=1000, key="w"):
    """Which coordinates move the tracker: those that its sums have seen."""
    p = torch.arange(1.0, n + 1)
    velocity = AngularVelocity([(key, p)], 2, fraction=0.1, seed=seed, accumulation="plain")
    return velocity.state_dict()["copies"]["PlainSums.sum"][key].tolist()


def test_the_same_seed_draws_the_same_coordinates():
    one = drawn(0)
    assert len(set(one)) == 100
    assert one == sorted(one) == drawn(0)
    assert 3 < len(set(one) & set(drawn(1))) < 30  # 10 on average; chance below 1e-6 either way
    assert 3 < len(set(one) & set(drawn(0, key="v"))) < 30


def test_every_coordinate_may_be_drawn():
    """1000 coordinates, each in one of ten of 300 samples; chance of a deviation 1e-6."""
    counts = np.zeros(1000)
    for seed in range(300):
        counts[np.array(drawn(seed), dtype=int) - 1] += 1
    low, high = binom.ppf([FALSE_ALARM / 2000, 1 - FALSE_ALARM / 2000], 300, 0.1)
    assert counts.min() >= low
    assert counts.max() <= high


LAYOUTS = {
    "contiguous": lambda x: x.clone(),
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "every other column": lambda x: torch.stack([x, x], -1).flatten(-2)[..., ::2],
}


@pytest.mark.parametrize("accumulation", ["plain", "anchored"])
@pytest.mark.parametrize("after", LAYOUTS)
@pytest.mark.parametrize("before", LAYOUTS)
def test_a_sample_goes_by_index_through_any_memory_layout(before, after, accumulation):
    g = torch.Generator().manual_seed(0)
    path = [torch.randn(4, 5, 3, 3, generator=g) for _ in range(12)]

    def follow(layout, values, start, state=None):
        p = LAYOUTS[layout](start)
        velocity = AngularVelocity([p], 2, fraction=0.3, accumulation=accumulation)
        if state is not None:
            velocity.load_state_dict(state)
        seen = []
        for value in values:
            p.copy_(value)
            angle = velocity.update()
            seen += [] if angle is None else [angle]
        return seen, velocity

    whole, _ = follow("contiguous", path[1:], path[0])
    begun, first = follow(before, path[1:8], path[0])
    ended, _ = follow(after, path[8:], path[7], first.state_dict())
    assert len(whole) == 3
    assert [*begun, *ended] == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (F64, {}),
        (F32, {}),
        (F32, {"accumulation": "plain", "lag": 2}),
        (torch.bfloat16, {"stride": 2}),
        (F32, {"observation": "snapshot", "lag": 1}),
    ],
    ids=str,
)
def test_resuming_anywhere_changes_nothing(dtype, options):
    k, steps = 4, 24
    g = torch.Generator().manual_seed(4)
    path = [torch.randn(8, 30, generator=g).to(dtype) for _ in range(steps + 1)]

    def run(velocity, p, start, stop):
        seen = []
        for t in range(start + 1, stop + 1):
            p.copy_(path[t])
            angle = velocity.update()
            seen += [] if angle is None else [(t, angle, velocity.error)]
        return seen

    def made(seed=3):
        p = path[0].clone()
        return p, AngularVelocity([p], k, fraction=0.25, seed=seed, **options)

    p, velocity = made()
    whole = run(velocity, p, 0, steps)
    assert len(whole) >= 3
    assert all(error > 0.0 for _, _, error in whole)
    for cut in range(steps):
        p, first = made()
        run(first, p, 0, cut)
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        q, second = made()
        second.load_state_dict(torch.load(file, weights_only=True))
        assert (second.angle, second.error) == (first.angle, first.error)
        q.copy_(path[cut])
        assert run(second, q, cut, steps) == [seen for seen in whole if seen[0] > cut]
    p, other = made(seed=4)
    assert run(other, p, 0, steps) != whole  # the control
    for change, words in (
        ({"seed": 4}, r"seed = 3 \(here 4\)$"),
        ({"fraction": 0.5}, r"fraction = 0\.25 \(here 0\.5\)$"),
    ):
        kept = {"fraction": 0.25, "seed": 3, **options, **change}
        with pytest.raises(ValueError, match=words):
            AngularVelocity([p], k, **kept).load_state_dict(first.state_dict())


class Turning:
    """An optimizer over two tensors whose steps turn by a given angle from one to the next.

    With a window of 1 the angle of a step is seen one update later, when its window has ended.
    """

    def __init__(self, seed=0, n=600):
        g = torch.Generator().manual_seed(seed)
        self.params = [torch.nn.Parameter(torch.zeros(n, dtype=F64)) for _ in range(2)]
        self.optimizer = torch.optim.SGD([{"params": [p]} for p in self.params], lr=1.0)
        self.planes = [
            torch.linalg.qr(torch.randn(n, 2, generator=g, dtype=F64))[0] for _ in range(2)
        ]
        self.turned = [0.0, 0.0]

    def step(self, *degrees):
        for i, turn in enumerate(degrees if len(degrees) == 2 else degrees * 2):
            self.turned[i] += math.radians(turn)
            direction = [math.cos(self.turned[i]), math.sin(self.turned[i])]
            with torch.no_grad():
                self.params[i] += self.planes[i] @ torch.tensor(direction, dtype=F64)
        self.optimizer.step()


SAID = (
    re.escape("an angle from a fraction = 0.1 of the parameters has a standard error of ")
    + r"[\d.]+ degrees, above the threshold of {} that it would have to drive"
)


def scheduler_of(training, threshold=0.5, fraction=0.1, **options):
    return AutoDrop(
        training.optimizer,
        1,
        0.5,
        detector=ThresholdSaturation(threshold),
        fraction=fraction,
        **options,
    )


def test_an_angle_that_is_too_uncertain_is_refused():
    training = Turning()
    scheduler = scheduler_of(training)
    for _ in range(2):
        training.step(90.0)
        scheduler.step()
    training.step(90.0)
    words = SAID.format(0.5) + ": watch with dry_run = True, or track more"
    with pytest.raises(RuntimeError, match=words):
        scheduler.step()
    assert math.degrees(scheduler._tracker.error) > 0.5
    assert len(scheduler.angular_velocities) == 1


@pytest.mark.parametrize(
    "options", [{"dry_run": True}, {"threshold": 60.0}, {"fraction": 1.0}], ids=str
)
def test_it_is_allowed_to_watch_or_under_a_larger_threshold(options):
    training = Turning()
    scheduler = scheduler_of(training, **options)
    for _ in range(9):
        training.step(90.0)
        scheduler.step()
    assert len(scheduler.angular_velocities) == 7
    assert (math.degrees(scheduler._tracker.error) > 0.5) == ("fraction" not in options)
    assert scheduler._states[0].memory.previous == scheduler._tracker.angle  # it was not left out


def test_later_ones_are_warned_of_once_and_left_out():
    """Steps that hardly turn are seen exactly: the error is in proportion to the angle."""
    training = Turning()
    scheduler = scheduler_of(training)
    turns = [1.0] * 5 + [60.0, 70.0, 60.0] + [1.0] * 3 + [70.0] * 2 + [1.0]
    used = []
    for t, turn in enumerate(turns):
        training.step(turn)
        before = scheduler._states[0].memory
        if t in (6, 12):
            with pytest.warns(RuntimeWarning, match=SAID.format(0.5) + ": it is left out") as said:
                scheduler.step()
            assert said[0].filename == __file__
        else:
            scheduler.step()
        if scheduler._states[0].memory != before:
            used.append(t)
    assert used == [2, 3, 4, 5, 9, 10, 11]
    assert len(scheduler.angular_velocities) == len(turns) - 2
    # The drops are those of the angles of 1° alone, of which each but the first is one.
    assert [e.step - 1 for e in scheduler.drops] == used[1:]


def test_with_groups_each_streak_of_one_is_warned_of_once():
    training = Turning()
    scheduler = scheduler_of(training, per_group=True)
    for _ in range(4):
        training.step(1.0)
        scheduler.step()
    training.step(1.0, 80.0)
    scheduler.step()
    training.step(1.0, 80.0)
    with pytest.warns(RuntimeWarning, match=SAID.format(0.5)) as said:
        scheduler.step()
    assert len(said) == 1
    for _ in range(3):
        training.step(1.0, 80.0)  # silent: warnings are errors in these tests
        scheduler.step()
    assert [e.group for e in scheduler.drops[-5:]] == [1, 0, 0, 0, 0]


def test_a_threshold_that_grows_is_compared_as_it_is():
    """2° at first, and 16° after three drops at half the rate each."""
    training = Turning()
    scheduler = AutoDrop(
        training.optimizer,
        1,
        0.5,
        detector=ThresholdSaturation(2.0),
        max_threshold=16.0,
        fraction=0.1,
    )
    for turn in [1.0] * 6 + [80.0] * 2:
        training.step(turn)
        scheduler.step()
    assert scheduler._states[0].threshold == 16.0
    assert 2.0 < math.degrees(scheduler._tracker.error) < 16.0
    assert scheduler._states[0].memory.previous == scheduler._tracker.angle


def test_a_resumed_run_is_warned_not_stopped():
    training = Turning()
    scheduler = scheduler_of(training)
    for _ in range(4):
        training.step(1.0)
        scheduler.step()
    training.step(80.0)
    scheduler.step()
    resumed = scheduler_of(training)
    resumed.load_state_dict(scheduler.state_dict())
    training.step(80.0)
    with pytest.warns(RuntimeWarning, match="it is left out"):
        resumed.step()
