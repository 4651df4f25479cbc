"""Small tensors in batches: bit for bit what each of them alone gives."""

import itertools
import math

import pytest
import torch

from autodrop import AngularVelocity, accumulation
from autodrop.accumulation import AnchoredSums, PlainSums
from autodrop.batches import Batch, batched
from autodrop.sources import Source

# Of the group that is empty, and of what is not finite.
pytestmark = pytest.mark.filterwarnings("ignore:no angular velocity:RuntimeWarning")

F32, F64, BF16, F16 = torch.float32, torch.float64, torch.bfloat16, torch.float16
K = 3
SHAPES = [(3,), (40, 5), (4, 2), (), (0,), (17,), (3, 2, 2), (100,), (6, 5), (1,), (64,), (33,)]
OPTIONS = {
    "anchored": (F32, {}),
    "anchored, bfloat16 direction": (F32, {"direction": BF16}),
    "plain": (F32, {"accumulation": "plain"}),
    "float64": (F64, {}),
    "bfloat16": (BF16, {}),
    "mixed": (None, {}),
    "sampled": (F32, {"fraction": 0.5}),
    "snapshots": (F32, {"observation": "snapshot"}),
    "offload": (F32, {"offload": True, "motion": True}),
}


def model(dtype, g):
    """Of all dtypes in turn if it is None; every third one transposed, or not dense."""
    dtypes = itertools.cycle([F32, BF16, F64, F32, F16] if dtype is None else [dtype])
    params = [torch.randn(s, generator=g).to(kind) for s, kind in zip(SHAPES, dtypes, strict=False)]
    params[2] = params[2].t()
    params[6] = params[6].to(memory_format=torch.contiguous_format).permute(2, 0, 1)
    params[8] = torch.cat([params[8], params[8]], 1)[:, ::2]
    return params


def followed(dtype, options, most, monkeypatch, disturb=None, windows=6):
    """(sizes of the batches, all that a tracker found, its state's bits), in batches of `most`.

    A group for each tensor. disturb: called with (t, parameters) after update t.
    """
    with monkeypatch.context() as patch:
        patch.setattr(accumulation, "_most", lambda device: most)
        g = torch.Generator().manual_seed(0)
        params = model(dtype, g)
        velocity = AngularVelocity([{"params": [p]} for p in params], K, **options)
        sizes = [len(batch.sources) for sums in velocity._sums for batch in sums._batches]
        found = []

        def note(products):
            found.append(products.clone())
            return products.new_zeros(0)

        velocity.on_close = note
        # Of a device's count of updates: two of them were none.
        skips = velocity.observation == "mean" and not velocity._measures
        for t in range(1, windows * K + 1):
            skipped = t % (2 * K) == 1 and t > K and skips
            if not skipped:
                for p in params:
                    p += (0.01 * torch.randn(p.shape, generator=g)).to(p.dtype)
            if disturb is not None:
                disturb(t, params)
            velocity.advance(torch.tensor(float(skipped)) if skips else None)
            found.append(torch.tensor([velocity.angle or math.nan, velocity.error]))
        for p in params:
            assert not p.numel() or p.double().abs().max() < 100.0
        copies = velocity.state_dict()["copies"]
        state = {(name, key): t for name, ts in copies.items() for key, t in ts.items()}
        return sizes, found, state


def bits(x):
    return x.contiguous().reshape(-1).view(torch.uint8)


def same(found, expected):
    """Whether two lists are the same bit for bit, nan included."""
    return [bits(x).tolist() for x in found] == [bits(x).tolist() for x in expected]


@pytest.mark.parametrize("launches_cost", [False, True])
@pytest.mark.parametrize("chunk", [50, 10**6])
@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_bits_as_one_by_one(name, chunk, launches_cost, monkeypatch):
    dtype, options = OPTIONS[name]
    monkeypatch.setattr(accumulation, "_CHUNK", chunk)
    monkeypatch.setattr(accumulation, "_BATCH", chunk)
    if launches_cost:
        monkeypatch.setattr(accumulation, "_ONE_BY_ONE", ())
    # Of no elements: each tensor alone.
    sizes, found, state = followed(dtype, options, 0, monkeypatch)
    assert set(sizes) == {1}
    assert sum(t.double().abs().sum() for t in state.values()) > 0.0
    assert sum(len(x) == 2 and not math.isnan(x[0]) for x in found) >= 3
    for most in (20, 50):
        sizes, again, state_again = followed(dtype, options, most, monkeypatch)
        assert max(sizes) >= 2
        assert same(again, found)
        assert list(state_again) == list(state)
        assert same(state_again.values(), state.values())


@pytest.mark.parametrize("launches_cost", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["anchored", "plain", "float64"])
def test_what_is_not_finite_stays_in_its_tensor(name, value, launches_cost, monkeypatch):
    """Not in its neighbours of a batch, nor in itself once it is finite again."""
    dtype, options = OPTIONS[name]
    if launches_cost:
        monkeypatch.setattr(accumulation, "_ONE_BY_ONE", ())
    ill, kept = 5, []

    def disturb(t, params):
        if t == 2 * K + 1:
            kept.append(params[ill].clone())
            params[ill][2] = value
        elif t == 3 * K + 1:
            params[ill].copy_(kept[0])

    sizes, clean, state = followed(dtype, options, 1000, monkeypatch)
    assert sizes == [len(SHAPES)]
    _, found, disturbed = followed(dtype, options, 1000, monkeypatch, disturb)
    others = [i for i in range(len(SHAPES)) if i != ill]
    rows = [(x, y) for x, y in zip(found, clean, strict=True) if len(x) == len(SHAPES)]
    assert len(rows) == 5
    assert all(same([x[others]], [y[others]]) for x, y in rows)
    finite = [bool(x[ill].isfinite().all()) for x, _ in rows]
    # One window (two of the updates were none), and none after it.
    assert finite.count(False) == 1
    assert finite[-1]
    assert all(bool(x.isfinite().all()) for x in disturbed.values())
    for (copy, key), t in disturbed.items():
        if key != str(ill):
            assert same([t], [state[copy, key]])


def sources(*kinds):
    return [
        Source(str(i), torch.zeros(size, dtype=dtype), owned=owned, fraction=fraction)
        for i, (size, dtype, owned, fraction) in enumerate(kinds)
    ]


def keys(batches):
    return [[source.key for source in batch.sources] for batch in batches]


def test_only_what_is_alike_is_in_a_batch():
    made = sources(
        (3, F32, True, 1.0),
        (3, F64, True, 1.0),
        (3, F32, False, 1.0),
        (20, F32, True, 0.8),
        (4, F32, True, 1.0),
        (2, F32, False, 1.0),
        (9, F64, True, 1.0),
        (40, F32, True, 0.4),
    )
    batches = batched(made, lambda device: 1000)
    assert keys(batches) == [["0", "4"], ["1", "6"], ["2", "5"], ["3", "7"]]
    assert [batch.size for batch in batches] == [7, 12, 5, 32]
    assert [batch.dtype for batch in batches] == [F32, F64, F32, F32]
    assert [(b.owned, b.sampled) for b in batches] == [(True, False)] * 2 + [
        (False, False),
        (True, True),
    ]


def test_a_batch_has_at_most_so_many_elements_and_large_tensors_break_none():
    made = sources(*((size, F32, True, 1.0) for size in (4, 11, 5, 1, 1, 9, 30, 1, 10)))
    batches = batched(made, lambda device: 10)
    assert keys(batches) == [["0", "2", "3"], ["1"], ["4", "5"], ["6"], ["7"], ["8"]]
    assert keys(batched(made, lambda device: 0)) == [[source.key] for source in made]


def test_products_come_in_the_order_of_the_sources_and_of_what_counts_only():
    """That of their sum, to the last bit; the batches are 0, 3, 5 and 1, 4 and 2."""
    made = sources(
        (3, F32, True, 1.0),
        (2, F64, True, 1.0),
        (3, F32, False, 1.0),
        (0, F32, True, 1.0),
        (4, F64, True, 1.0),
        (5, F32, True, 1.0),
    )
    sums = PlainSums(made)
    assert keys(sums._batches) == [["0", "3", "5"], ["1", "4"], ["2"]]
    for i, source in enumerate(made):
        source.parameter.fill_(i + 1.0)
    sums.add()
    found = [(source.key, numbers[:3].tolist()) for source, numbers in sums.close(1)]
    squares = {"0": 3 * 1.0, "1": 2 * 4.0, "4": 4 * 25.0, "5": 5 * 36.0}
    assert found == [(key, [square, 0.0, 0.0]) for key, square in squares.items()]


def test_where_a_mean_is_not_finite_the_next_deviations_are_from_x():
    made = sources((3, F32, True, 1.0), (2, F32, True, 1.0))
    sums = AnchoredSums(made)
    assert len(sums._batches) == 1
    made[1].parameter[0] = math.nan
    sums.add()
    for i, source in enumerate(made):
        source.parameter.fill_(i + 5.0)
    list(sums.close(1))
    assert [a.tolist() for a in sums.anchor] == [[0.0, 0.0, 0.0], [6.0, 0.0]]


def test_a_batch_reads_its_sources_end_to_end():
    made = sources((3, F32, True, 1.0), (2, F32, True, 1.0))
    made[0].parameter.copy_(torch.tensor([1.0, 2.0, 3.0]))
    made[1].parameter.fill_(4.0)
    batch = Batch(made[0])
    assert batch.read().data_ptr() == made[0].parameter.data_ptr()  # of one, no copy
    batch.append(made[1])
    room = batch.read()
    assert room.tolist() == [1.0, 2.0, 3.0, 4.0, 4.0]
    first, second = batch.parts(room)
    second.zero_()
    assert (first.tolist(), room.tolist()) == ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 0.0, 0.0])
