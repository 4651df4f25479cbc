"""Which tensors are followed, under which names: groups, ties, frozen ones, filters, late ones."""

import math
import re
import warnings

import pytest
import torch

from autodrop import AngularVelocity, AutoDrop
from autodrop.detectors import ThresholdSaturation
from tests.autodrop.reference import Float64Angles

K = 2
F64 = torch.float64
# Angles are between 1° and 179°, steps of order 1: products and sums in float64 leave 1e-11.
TOLERANCE = 1e-9


def tensors(*sizes, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=g, dtype=F64) for size in sizes]


def parameters(*sizes, seed=0):
    return [torch.nn.Parameter(x) for x in tensors(*sizes, seed=seed)]


class Noise:
    """Moves tensors at random: each by a stream of its own, whatever the others do."""

    def __init__(self, params, seed=1):
        self.params = list(params)
        self.generators = [
            torch.Generator().manual_seed(100 * seed + i) for i in range(len(self.params))
        ]

    @torch.no_grad()
    def __call__(self, *only):
        for i, (p, g) in enumerate(zip(self.params, self.generators, strict=True)):
            if not only or i in only:
                p += torch.randn(p.shape, generator=g, dtype=p.dtype)


def keys(tracker):
    return [list(copies) for copies in tracker.state_dict()["copies"].values()]


a, b, c = tensors(3, 2, 4)
EXTRA = torch.ones(1, dtype=F64)
NAMINGS = {
    "tensors": ([a, b, c], [["0", "1", "2"]]),
    "a generator": (lambda: (p for p in (a, b)), [["0", "1"]]),
    "pairs": ([("x", a), ("y", b)], [["x", "y"]]),
    "pairs and tensors": ([("x", a), b], [["x", "1"]]),
    "dicts of tensors": ([{"params": [a]}, {"params": [b, c]}], [["0"], ["1", "2"]]),
    "dicts of one tensor": ([{"params": a, "lr": 0.1}, {"params": b}], [["0"], ["1"]]),
    "dicts of pairs": ([{"params": [("x", a)]}, {"params": [("y", b)]}], [["x"], ["y"]]),
    "dicts as an optimizer has them": (
        [{"params": [a, b], "param_names": ["x", "y"]}, {"params": [c], "param_names": ["z"]}],
        [["x", "y"], ["z"]],
    ),
    "a tensor that comes again": ([a, b, a, c], [["0", "1", "3"]]),
    "a group of what another one has": ([{"params": [a]}, {"params": [a, b]}], [["0"], ["2"]]),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_the_state_has_the_tensors_under_their_names_or_positions(naming):
    params, expected = NAMINGS[naming]
    velocity = AngularVelocity(params() if callable(params) else params, K)
    assert len(velocity.group_angles) == len(expected)
    flat = [key for group in expected for key in group]
    assert list(velocity.named_params) == flat
    assert keys(velocity) == [flat] * 3  # sum, previous, direction
    assert list(velocity.state_dict()["shapes"]) == flat


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_s_groups_come_with_their_names(make):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    groups = [{"params": list(model[i].named_parameters(prefix=str(i)))} for i in (0, 2)]
    optimizer = make(groups, lr=0.1)
    names = ["0.weight", "0.bias", "2.weight", "2.bias"]
    velocity = AngularVelocity(optimizer.param_groups, K)
    assert list(velocity.named_params) == names
    assert len(velocity.group_angles) == 2
    copies = AutoDrop(optimizer, K).state_dict()["tracker"]["copies"]
    assert [list(tensors) for tensors in copies.values()] == [names] * 4
    assert [tuple(t.shape) for t in copies["AnchoredSums.sum"].values()] == [
        (3, 2),
        (3,),
        (1, 3),
        (1,),
    ]
    plain = make(model.parameters(), lr=0.1)
    assert list(AutoDrop(plain, K).state_dict()["tracker"]["shapes"]) == ["0", "1", "2", "3"]


def resumed_in_another_order(named, **options):
    """Angles (whole, resumed): the second process lists its two tensors the other way round."""

    def made(order):
        params = dict(zip(("x", "y"), parameters(40, 40), strict=True))
        listed = [(name, params[name]) for name in order]
        optimizer = torch.optim.SGD(listed if named else [p for _, p in listed], lr=0.1)
        scheduler = AutoDrop(optimizer, K, detector=ThresholdSaturation(1e-9), **options)
        return scheduler, Noise(params.values())

    def train(scheduler, noise, steps):
        for _ in range(steps):
            scheduler.optimizer.step()
            noise()
            scheduler.step()

    first, noise = made("xy")
    train(first, noise, 5 * K + 1)
    second, other = made("yx")
    train(second, other, 5 * K + 1)  # the model is where the first one is
    second.load_state_dict(first.state_dict())
    train(first, noise, 3 * K)
    train(second, other, 3 * K)
    assert len(first.angular_velocities) == 6
    return first.angular_velocities, second.angular_velocities


@pytest.mark.parametrize("options", [{}, {"fraction": 0.5, "dry_run": True}], ids=str)
def test_names_find_their_tensors_in_another_order(options):
    whole, resumed = resumed_in_another_order(True, **options)
    assert resumed == pytest.approx(whole, abs=TOLERANCE)


def test_control_positions_do_not():
    whole, resumed = resumed_in_another_order(False)
    assert resumed != pytest.approx(whole, abs=1.0)


def tied_model():
    model = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False))
    model.double()
    model[1].weight = model[0].weight
    return model, torch.nn.Parameter(torch.ones(7, dtype=F64))


def angles_of(params, moved, steps=10 * K):
    velocity, noise = AngularVelocity(params, K), Noise(moved)
    found = []
    for _ in range(steps):
        noise()
        found.append(velocity.update())
    return [math.degrees(angle) for angle in found if angle is not None]


def test_a_tied_tensor_counts_once():
    """The embedding's weight is the output's: once in parameters(), twice in lists by hand."""
    model, other = tied_model()
    shared = model[0].weight
    assert len(list(model.parameters())) == 1

    def seen(params):
        with torch.no_grad():
            shared.fill_(1.0)
            other.fill_(1.0)
        return angles_of(params, [shared, other])

    once = seen([shared, other])
    assert len(once) == 8
    assert seen([*model.parameters(), other]) == once
    assert seen([shared, model[1].weight, other]) == once
    assert seen([("in", shared), ("out", model[1].weight), ("other", other)]) == once
    groups = seen([{"params": [shared]}, {"params": [model[1].weight, other]}])
    assert groups == pytest.approx(once, abs=TOLERANCE)


def test_control_a_tensor_counted_twice_makes_another_angle():
    x, y = parameters(15, 7)
    twin = torch.nn.Parameter(x.detach().clone())
    velocity, once = AngularVelocity([x, twin, y], K), AngularVelocity([x, y], K)
    noise = Noise([x, y])
    for _ in range(3 * K):
        noise()
        twin.data.copy_(x.data)
        velocity.update(), once.update()
    assert abs(math.degrees(velocity.angle - once.angle)) > 0.5


def test_the_optimizer_s_tied_tensor_counts_once():
    model, other = tied_model()
    optimizer = torch.optim.SGD([*model.named_parameters(), ("other", other)], lr=0.1)
    scheduler = AutoDrop(optimizer, K)
    assert list(scheduler.state_dict()["tracker"]["shapes"]) == ["0.weight", "other"]


# "frozen": requires_grad = False; "unused": a gradient never comes.
@pytest.mark.parametrize("how", ["frozen", "unused"])
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_what_has_no_gradient_counts_for_nothing_until_it_has(how, dtype):
    """Five windows without the first layer, then with it; against float64 on the iterates."""
    g = torch.Generator().manual_seed(2)
    first, second = torch.nn.Linear(4, 6), torch.nn.Linear(6, 3)
    model = torch.nn.Sequential(first, second).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=F64))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
    if how == "frozen":
        first.requires_grad_(False)
    scheduler = AutoDrop(optimizer, 4, detector=ThresholdSaturation(1e-9))
    whole = Float64Angles(list(model.parameters()), 4)
    moving = Float64Angles(list(second.parameters()), 4)
    exact, exact_moving = [], []
    for t in range(40):
        if t == 20:
            first.requires_grad_(True)
        x = torch.randn(5, 4, generator=g, dtype=dtype)
        if t < 20 and how == "unused":
            x = x[:, :2].repeat(1, 3)
        optimizer.zero_grad()
        out = second(x) if x.shape[1] == 6 else model(x)
        (out - torch.randn(5, 3, generator=g, dtype=dtype)).square().mean().backward()
        assert (first.weight.grad is None) == (t < 20)
        optimizer.step()
        scheduler.step()
        exact.append(whole.update())
        exact_moving.append(moving.update())
    exact = [angle for angle in exact if angle is not None]
    exact_moving = [angle for angle in exact_moving if angle is not None]
    # Float32: what rounding the sums of four leaves, see the accuracy of `AngularVelocity`.
    tolerance = 1e-4 if dtype is torch.float32 else TOLERANCE
    assert len(exact) == 8
    assert scheduler.angular_velocities == pytest.approx(exact, abs=tolerance)
    # Windows 2, 3, 4 end before the first layer moves; it has a share in all others.
    apart = [abs(x - y) for x, y in zip(exact, exact_moving, strict=True)]
    assert max(apart[:3]) < 1e-9
    assert min(apart[4:]) > 0.01


def test_a_frozen_group_has_no_angle_until_it_moves():
    x, y = parameters(6, 6)
    velocity, noise = AngularVelocity([{"params": [x]}, {"params": [y]}], K), Noise([x, y])
    seen = []
    for t in range(1, 12 * K + 1):
        noise(*((0, 1) if t >= 6 * K else (0,)))
        if t == 2 * K:  # the second window: the first step that there could be
            with pytest.warns(RuntimeWarning, match="the parameters of group 1 did not move"):
                velocity.update()
        else:
            velocity.update()
        if t % K == 0:
            seen.append([angle is not None for angle in velocity.group_angles])
    assert seen[:2] == [[False, False]] * 2
    assert seen[2:8] == [[True, False]] * 6
    # It moves with x_6k, the first iterate of window 6, whose step is the first.
    assert seen[8:] == [[True, True]] * 4


class Words(torch.nn.Module):
    """An embedding with sparse gradients under a linear layer."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(8, 3, sparse=True, dtype=F64)
        self.out = torch.nn.Linear(3, 2, dtype=F64)

    def forward(self, words):
        return self.out(self.table(words))


@pytest.mark.parametrize("optimizer", ["sgd", "sparse adam"])
def test_sparse_gradients(optimizer):
    """The gradient is sparse, the parameter is not: rows that no batch has stay where they are."""
    g = torch.Generator().manual_seed(3)
    model = Words()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=F64))
    if optimizer == "sgd":
        made = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.5)
    else:
        made = torch.optim.SparseAdam(model.table.named_parameters("table"), lr=0.05)
    scheduler = AutoDrop(made, 3, 0.5, detector=ThresholdSaturation(20.0), momentum="rescale")
    tracked = list(scheduler._tracker.params)
    exact, expected = Float64Angles(tracked, 3), []
    start = model.table.weight.detach().clone()
    for _ in range(45):
        words = torch.randint(0, 6, (4,), generator=g)
        made.zero_grad()
        loss = (model(words) - torch.randn(4, 2, generator=g, dtype=F64)).square().mean()
        loss.backward()
        assert model.table.weight.grad.is_sparse
        made.step()
        scheduler.step()
        expected.append(exact.update())
    expected = [angle for angle in expected if angle is not None]
    assert len(expected) == 13
    assert scheduler.angular_velocities == pytest.approx(expected, abs=TOLERANCE)
    assert torch.equal(model.table.weight[6:], start[6:])
    assert not torch.equal(model.table.weight[:6], start[:6])
    assert scheduler.drops


@pytest.mark.parametrize("named", [True, False])
def test_late_groups_are_tracked_under_their_names_and_resume(named):
    """Two groups, the second one added within window 3; saved after it and resumed."""
    late_at, saved_at, steps = 3 * K + 1, 6 * K + 1, 9 * K

    def members(part):
        names = {"early": ("x", "y"), "late": ("z",)}[part]
        params = parameters(5, 3) if part == "early" else parameters(4, seed=5)
        return list(zip(names, params, strict=True)) if named else params

    def tensors_of(part):
        return [item[1] if named else item for item in part]

    early, late = members("early"), members("late")
    optimizer = torch.optim.SGD(early, lr=0.1)
    scheduler = AutoDrop(optimizer, K, detector=ThresholdSaturation(1e-9))
    noise = Noise([*tensors_of(early), *tensors_of(late)])
    exact, expected, state = None, [], None
    for t in range(1, steps + 1):
        if t == late_at:
            optimizer.add_param_group({"params": late, "lr": 0.01})
        optimizer.step()
        noise()
        if t == late_at:
            with pytest.warns(RuntimeWarning, match="now has 3 parameter tensors, 2 before"):
                scheduler.step()
        else:
            scheduler.step()
        if t == 4 * K - 1:  # windows that start with x_4k count; the next update makes it
            exact = "next"
        elif exact == "next":
            exact = Float64Angles([*tensors_of(early), *tensors_of(late)], K)
        elif exact is not None:
            expected.append(exact.update())
        if t == saved_at:
            state = scheduler.state_dict()
            values = [p.detach().clone() for p in noise.params]
            generators = [g.get_state() for g in noise.generators]
    expected = [angle for angle in expected if angle is not None]
    assert len(expected) == 3
    assert scheduler.angle_steps == [3 * K, 7 * K, 8 * K, 9 * K]
    assert scheduler.angular_velocities[1:] == pytest.approx(expected, abs=TOLERANCE)
    assert list(state["tracker"]["shapes"]) == (["x", "y", "z"] if named else ["0", "1", "2"])

    early, late = members("early"), members("late")
    optimizer = torch.optim.SGD(early, lr=0.1)
    optimizer.add_param_group({"params": late, "lr": 0.01})
    again = AutoDrop(optimizer, K, detector=ThresholdSaturation(1e-9))
    noise = Noise([*tensors_of(early), *tensors_of(late)])
    for p, value, g, was in zip(noise.params, values, noise.generators, generators, strict=True):
        p.data.copy_(value)
        g.set_state(was)
    again.load_state_dict(state)
    for _ in range(saved_at, steps):
        optimizer.step()
        noise()
        again.step()
    assert again.angular_velocities == scheduler.angular_velocities
    assert again.angle_steps == scheduler.angle_steps


def walked(track, named=True, steps=5 * K, **options):
    """A scheduler over x, y, z that walk at random, of which `track` follows some."""
    params = parameters(5, 3, 4)
    optimizer = torch.optim.SGD(list(zip("xyz", params, strict=True)) if named else params, lr=0.1)
    scheduler = AutoDrop(optimizer, K, detector=ThresholdSaturation(1e-9), track=track, **options)
    noise = Noise(params)
    for _ in range(steps):
        optimizer.step()
        noise()
        scheduler.step()
    return scheduler


def test_a_filter_sees_names_and_tensors_and_decides_what_is_followed():
    seen = []

    def follows(name, p):
        seen.append((name, p.numel()))
        return name != "y"

    scheduler = walked(follows)
    assert seen == [("x", 5), ("y", 3), ("z", 4)]
    assert list(scheduler._tracker.named_params) == ["x", "z"]
    x, _, z = parameters(5, 3, 4)
    noise = Noise([x, torch.zeros(3, dtype=F64), z])
    alone = AngularVelocity([x, z], K)
    expected = []
    for _ in range(5 * K):
        noise()
        expected.append(alone.update())
    expected = [math.degrees(angle) for angle in expected if angle is not None]
    assert scheduler.angular_velocities == expected
    assert walked(None).angular_velocities != pytest.approx(expected, abs=0.1)  # the control


def test_a_filter_by_the_tensor_where_there_are_no_names():
    scheduler = walked(lambda name, p: name == "" and p.numel() > 3, named=False)
    assert [p.numel() for p in scheduler._tracker.params] == [5, 4]


def test_a_filter_holds_for_late_parameters_and_their_groups():
    scheduler = walked(lambda name, p: name != "y")
    late = parameters(2, 2, seed=9)
    scheduler.optimizer.add_param_group({"params": list(zip("uy", late, strict=True))[:1]})
    scheduler.optimizer.step()
    with pytest.warns(RuntimeWarning, match="now has 4 parameter tensors, 3 before"):
        scheduler.step()
    assert list(scheduler._tracker.named_params) == ["x", "z", "u"]


@pytest.mark.parametrize("per_group", [False, True])
def test_a_filter_that_leaves_nothing_is_an_error(per_group):
    with pytest.raises(ValueError, match=r"track must leave at least one parameter.* none of 3$"):
        walked(lambda name, p: False, per_group=per_group)


def test_a_filter_that_leaves_a_group_without_parameters_is_an_error_per_group():
    x, y = parameters(3, 3)
    optimizer = torch.optim.SGD([{"params": [("x", x)]}, {"params": [("y", y)]}], lr=0.1)
    AutoDrop(optimizer, K, track=lambda name, p: name == "x")
    with pytest.raises(ValueError, match="tracked parameters in every group, got none in group 1"):
        AutoDrop(optimizer, K, per_group=True, track=lambda name, p: name == "x")


@pytest.mark.parametrize("name", ["track", "on_drop"])
def test_what_cannot_be_called_is_an_error_at_once(name):
    (x,) = parameters(3)
    with pytest.raises(TypeError, match=f"{name} must be callable or None, got 'weight'"):
        AutoDrop(torch.optim.SGD([x], lr=0.1), K, **{name: "weight"})


def nested():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torch's: a prototype
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


REFUSED = {
    "complex": (lambda: torch.ones(2, dtype=torch.complex64), "got dtype torch.complex64"),
    "integers": (lambda: torch.ones(2, dtype=torch.int32), "got dtype torch.int32"),
    "8 bits": (lambda: torch.ones(2, dtype=torch.float8_e4m3fn), "got dtype torch.float8_e4m3fn"),
    "sparse": (lambda: torch.ones(2, 2).to_sparse(), "must be dense, got layout torch.sparse_coo"),
    "nested": (nested, "must be dense, got nested ones"),
    "lazy": (
        lambda: torch.nn.LazyLinear(1).weight,
        "must be initialised: run the lazy modules once, before tracking",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("form", ["tensor", "pair", "dict"])
def test_what_cannot_be_followed_is_refused_in_every_form(kind, form):
    make, words = REFUSED[kind]
    good, bad = torch.ones(2), make()
    params = {
        "tensor": [good, bad],
        "pair": [("good", good), ("bad", bad)],
        "dict": [{"params": [good]}, {"params": [bad]}],
    }[form]
    with pytest.raises(TypeError, match=re.escape(words)):
        AngularVelocity(params)


@pytest.mark.parametrize("kind", ["complex", "integers", "sparse"])
def test_the_scheduler_refuses_them_unless_a_filter_leaves_them_out(kind):
    make, words = REFUSED[kind]
    good, bad = torch.nn.Parameter(torch.ones(2)), make()
    optimizer = torch.optim.SGD([("good", good), ("bad", bad)], lr=0.1)
    with pytest.raises(TypeError, match=re.escape(words)):
        AutoDrop(optimizer)
    scheduler = AutoDrop(optimizer, track=lambda name, p: name == "good")
    assert list(scheduler._tracker.named_params) == ["good"]


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ([{"weights": [a]}], TypeError, r"must have \"params\", got one of \['weights'\]"),
        (
            [{"params": [a], "param_names": ["x", "y"]}],
            ValueError,
            r"param_names must be as many as params = 1, got \['x', 'y'\]",
        ),
        ([("1", a), b], ValueError, "must have different names, got '1' twice"),
        ([{"params": [("x", a)]}, {"params": [("x", b)]}], ValueError, "got 'x' twice"),
    ],
)
def test_names_and_dicts_that_do_not_fit(params, error, words):
    with pytest.raises(error, match=words):
        AngularVelocity(params)
