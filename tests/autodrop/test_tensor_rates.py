"""What is refused is what waits for the device or does not obey, found by running some steps."""

import itertools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim import Optimizer, optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from autodrop import tensor_rates
from autodrop.tensor_rates import check_tensor_rates

F32, F64 = torch.float32, torch.float64
# Those that follow a rate on a device at least with some options, and those that never do.
FOLLOWING = [
    *("SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "NAdam", "RAdam", "Adadelta", "Adamax"),
    *("ASGD", "SparseAdam"),
]
NAMES = [*FOLLOWING, "Rprop", "Adafactor", "Muon", "LBFGS"]
MORE = {
    "SGD": [{"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, {"maximize": True}],
    "Adam": [{"amsgrad": True, "weight_decay": 0.1}, {"decoupled_weight_decay": True}],
    "AdamW": [{"amsgrad": True}, {"maximize": True}],
    "Adagrad": [{"lr_decay": 0.1, "weight_decay": 0.1}, {"maximize": True}],
    "RMSprop": [{"momentum": 0.9, "centered": True}, {"maximize": True, "weight_decay": 0.1}],
    "NAdam": [{"weight_decay": 0.1, "decoupled_weight_decay": True}, {"maximize": True}],
    "RAdam": [{"weight_decay": 0.1, "decoupled_weight_decay": True}, {"maximize": True}],
    "Adadelta": [{"weight_decay": 0.1}, {"maximize": True}],
    "Adamax": [{"weight_decay": 0.1}, {"maximize": True}],
    "ASGD": [{"weight_decay": 0.1}, {"maximize": True}],
}


def torch_s(name):
    if not hasattr(torch.optim, name):
        pytest.skip(f"torch {torch.__version__} has no {name}")
    return getattr(torch.optim, name)


def known(name):
    """The options that this torch has."""
    return torch_s(name)(parameters("cpu")).param_groups[0]


def choices(name):
    """All combinations of what chooses the code that runs."""
    values = {"fused": (None, True), "foreach": (None, True, False), "capturable": (False, True)}
    values = {key: value for key, value in values.items() if key in known(name)}
    for row in itertools.product(*values.values()):
        options = dict(zip(values, row, strict=True))
        if not (options.get("fused") and options.get("foreach")):  # torch refuses both
            yield options


def parameters(device):
    return [torch.nn.Parameter(torch.ones(4, 3, device=device)) for _ in range(2)]


class ReadBack(Exception):
    pass


class Reads(TorchDispatchMode):
    """Raises where a value on CUDA is read; those on the host, as counts of steps, are not far."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name == "_local_scalar_dense":
            if args[0].device.type == "cuda":
                raise ReadBack
            return 0.5
        if name.startswith("_fused_"):
            # Fake tensors do not have these. On CUDA they take a pointer to a float32 rate.
            if func._overloadname != "tensor_lr":
                raise ReadBack
            assert (kwargs["lr"].device.type, kwargs["lr"].dtype) == ("cuda", F32)
            return None
        return func(*args, **(kwargs or {}))


@pytest.fixture
def cuda(monkeypatch):
    """Fake CUDA tensors count as native ones, and may be copied, without a CUDA build."""
    native = [torch.Tensor, torch.nn.Parameter, FakeTensor]
    monkeypatch.setattr(optimizer, "_foreach_supported_types", native)
    monkeypatch.setattr(tensor_rates, "_NATIVE", tuple(native))
    monkeypatch.setattr(
        torch.Tensor, "copy_", lambda self, other, *_: torch.ops.aten.copy_(self, other)
    )


def waits(name, options):
    """Whether some of the first eager steps reads from the device, and what the check says.

    None for the first where this torch has no such step: Adagrad is fused on CUDA in newer ones.
    """
    with FakeTensorMode():
        params = parameters("cuda")
        opt = torch_s(name)(params, lr=0.1, **options)
        # Constructors compare their rate with 0.
        opt.param_groups[0]["lr"] = torch.full((), 0.1, device="cuda")
        try:
            check_tensor_rates(opt)
            refused = None
        except ValueError as error:
            refused = str(error)
        try:
            with Reads():
                for _ in range(10):
                    for p in params:
                        p.grad = torch.ones_like(p)
                    if name == "LBFGS":
                        opt.step(lambda: torch.ones((), device="cuda"))
                    else:
                        opt.step()
        except ReadBack:
            return True, refused
        except TypeError as error:  # how older torch says that it cannot read a fake number
            if "FakeTensor" not in str(error):
                raise
            return True, refused
        except RuntimeError as error:
            if "`fused=True` requires" in str(error):
                return None, refused
            if "lr as a Tensor is not supported" not in str(error):
                raise
            return True, refused
        return False, refused


# Without a CUDA build neither sparse tensors nor LBFGS's reading of the loss can be faked.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("SparseAdam", "LBFGS")])
def test_what_reads_its_rate_back_is_refused_and_nothing_else(name, cuda):
    found = []
    for options in choices(name):
        for more in [{}, *MORE.get(name, [])]:
            if not more.keys() <= known(name).keys():
                continue
            reads, refused = waits(name, options | more)
            if reads is None:
                continue
            assert reads == (refused is not None), (options, more, refused)
            found.append(reads)
    always = {"Rprop": True, "Adafactor": True, "Muon": True, "RAdam": False}
    assert set(found) == ({always[name]} if name in always else {True, False})


def test_the_option_that_the_error_names_is_the_one(cuda):
    """Adding what a refusal asks for makes the step one that does not read."""
    for name in FOLLOWING:
        if name in ("SparseAdam", "RAdam"):  # which need nothing
            continue
        _, refused = waits(name, {"foreach": False})
        for wish in refused.partition("unless ")[2].partition(",")[0].split(" or "):
            options = {"foreach": None}
            options |= {word.partition("=")[0]: True for word in wish.split(" and ")}
            assert waits(name, options) in [(False, None), (None, None)]


def sparse_or_dense(name, p):
    grad = 2.0 * (p.detach() - 1.0)
    return grad.to_sparse() if name == "SparseAdam" else grad


def train(name, options, rate, lower, steps=9):
    """Where some steps lead; at the middle one `lower` is applied to the group."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(4, 3, generator=generator)) for _ in range(2)]
    opt = torch_s(name)(params, lr=rate, **options)
    for t in range(steps):
        if t == steps // 2:
            lower(opt.param_groups[0])
        for p in params:
            p.grad = sparse_or_dense(name, p)
        if name == "LBFGS":
            opt.step(lambda: sum(((p.detach() - 1.0) ** 2).sum() for p in params))
        else:
            opt.step()
    return opt, torch.cat([p.detach().flatten() for p in params])


@pytest.mark.parametrize("name", NAMES)
def test_on_the_cpu_what_does_not_follow_its_rate_is_refused_and_nothing_else(name):
    """A tensor written in place must do as a number put in its place does, and both must do."""
    for options in choices(name):
        if options.get("capturable"):  # for devices only
            continue
        tensor = torch.tensor(0.125)
        _, unchanged = train(name, options, 0.125, lambda group: None)
        _, expected = train(name, options, 0.125, lambda group: group.update(lr=0.0625))
        refused = None
        try:
            opt, got = train(name, options, tensor, lambda group: group["lr"].mul_(0.5))
        except ValueError as error:
            if "lr as a Tensor is not supported" not in str(error):
                raise
            opt, _ = train(name, options, 0.125, lambda group: None)
            opt.param_groups[0]["lr"], got = tensor, unchanged
        # Float32, and a few steps that do not amplify what rounding does.
        same = torch.allclose(got, expected, rtol=0.0, atol=1e-5)
        follows = same and not torch.allclose(got, unchanged, rtol=0.0, atol=1e-4)
        try:
            check_tensor_rates(opt)
        except ValueError as error:
            refused = str(error)
        assert follows == (refused is None), (options, refused)


def test_sparse_adam_reads_nothing():
    """On the CPU, where nothing in it depends on the device."""
    param = torch.nn.Parameter(torch.ones(4, 3))
    opt = torch_s("SparseAdam")([param], lr=torch.tensor(0.1))
    names = []

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    for _ in range(2):
        param.grad = param.detach().to_sparse()
        with Names():
            opt.step()
    assert "mul" in names
    assert "_local_scalar_dense" not in names


class Own(Optimizer):
    """A user's own."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})


class Derived(torch.optim.SGD):
    """Steps as SGD does."""


def on_cuda(cls, lr, **options):
    def make():
        opt = cls(parameters("cuda"), 0.1, **options)
        opt.param_groups[0]["lr"] = lr()
        return opt

    return make


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: torch.optim.SGD(parameters("cpu"), lr=0.1, fused=True),
            TypeError,
            r"lr of parameter group 0 must be a floating-point tensor, got 0.1: pass lr=torch.ten",
        ),
        (
            on_cuda(torch.optim.SGD, lambda: torch.ones((), device="cuda", dtype=torch.int64)),
            TypeError,
            "must be a floating-point tensor",
        ),
        (
            on_cuda(Own, lambda: torch.ones(1, device="cuda")),
            ValueError,
            r"lr of parameter group 0 must have no dimension, got shape \(1,\)",
        ),
        (
            on_cuda(Own, lambda: torch.tensor(0.1)),
            ValueError,
            "lr of parameter group 0 must be on the device of its parameters, cuda:0, got cpu",
        ),
        (
            on_cuda(Derived, lambda: torch.ones((), device="cuda")),
            ValueError,
            "SGD reads its rate back at every step unless fused=True, got fused=None, foreach=None",
        ),
        (
            on_cuda(torch.optim.SGD, lambda: torch.ones((), device="cuda", dtype=F64), fused=True),
            ValueError,
            "lr of parameter group 0 must be torch.float32 for fused=True, got torch.float64",
        ),
        (on_cuda(Own, lambda: torch.ones((), device="cuda")), None, ""),
        (on_cuda(torch.optim.RAdam, lambda: torch.ones((), device="cuda", dtype=F64)), None, ""),
    ],
)
def test_arguments(make, error, words):
    with FakeTensorMode():
        opt = make()
        if error is None:
            check_tensor_rates(opt)
        else:
            with pytest.raises(error, match=words):
                check_tensor_rates(opt)


def test_every_group_is_checked():
    a, b = parameters("cpu")
    opt = Own([{"params": [a]}, {"params": [b], "lr": 0.2}], lr=torch.tensor(0.1))
    with pytest.raises(TypeError, match=r"lr of parameter group 1 .* got 0.2"):
        check_tensor_rates(opt)


def test_other_types_of_parameters_need_foreach_to_be_asked_for(cuda, monkeypatch):
    """Torch has multi-tensor code for them only then."""
    monkeypatch.setattr(optimizer, "_foreach_supported_types", [torch.Tensor])
    monkeypatch.setattr(tensor_rates, "_NATIVE", (torch.Tensor,))
    reads, refused = waits("Adagrad", {})
    assert reads
    assert "unless fused=True or foreach=True" in refused
    assert waits("Adagrad", {"foreach": True}) == (False, None)


def test_a_rate_on_cuda_is_seen_to_be_read(cuda):
    """Control: the mode that the truth is found with."""
    with FakeTensorMode(), Reads():
        rate = torch.ones((), device="cuda")
        with pytest.raises(ReadBack):
            torch.ones(2, device="cuda").add_(1.0, alpha=rate)
        with pytest.raises(ReadBack):
            rate.item()
        assert torch.ones(()).item() == 0.5
