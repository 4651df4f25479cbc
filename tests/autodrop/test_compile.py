"""Under torch.compile: the hook counts, and a rate that is a tensor drops without a recompilation.

With the backend "eager", which is Dynamo's tracing and guarding without a code generator.
"""

import contextlib
import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from autodrop import AutoDrop
from autodrop.detectors import ThresholdSaturation
from autodrop.device_rules import DeviceRecord, DeviceRule

SGD, Adam = torch.optim.SGD, torch.optim.Adam
OPTIMIZERS = {
    "SGD": lambda params, lr: SGD(params, lr, momentum=0.9),
    "fused SGD": lambda params, lr: SGD(params, lr, momentum=0.9, fused=True),
    "Adam": lambda params, lr: Adam(params, lr),
    "fused Adam": lambda params, lr: Adam(params, lr, fused=True),
}

# Torch's own: it deprecates what it imports, and older ones tell of their cache.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Skipping serialization:UserWarning"),
]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


class Loop:
    """Two parameters pulled to 1; the rate drops with every window that has an angle before it."""

    def __init__(self, optimizer, lr):
        generator = torch.Generator().manual_seed(0)
        self.params = [
            torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in (5, (2, 3))
        ]
        self.optimizer = OPTIMIZERS[optimizer](self.params, lr)
        self.scheduler = AutoDrop(self.optimizer, 2, 0.5, detector=ThresholdSaturation(180.0))

    def backward(self):
        self.optimizer.zero_grad()
        sum(((p - 1.0) ** 2).sum() for p in self.params).backward()

    def update(self):
        self.backward()
        self.optimizer.step()

    def run(self, update, steps=12, drop=None):
        """After three updates to warm up, recompilations are errors."""
        for t in range(steps):
            guard = contextlib.nullcontext()
            if t >= 3:
                guard = torch._dynamo.config.patch(error_on_recompile=True)
            with guard:
                update()
            (drop or self.scheduler.step)()

    def end(self):
        return torch.cat([p.detach().flatten() for p in self.params])


def tensor():
    return torch.tensor(0.1)


@pytest.fixture(scope="module")
def eager():
    """Where the uncompiled loops lead."""
    ends = {}
    for name in OPTIMIZERS:
        loop = Loop(name, tensor())
        loop.run(loop.update)
        ends[name] = loop.end()
    return ends


def close(a, b):
    """Compiled Adam has 1 − β₂^t, which is t/1000, in float32: off by 6e-5/t of itself, that is by
    3e-5/t of a step of 0.1, 9e-6 in twelve steps. Other orders of summation matter less."""
    return torch.allclose(a, b, rtol=0.0, atol=2e-5)


@pytest.mark.parametrize("part", ["optimizer.step", "a whole update"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_compiled_step_counts_and_drops_without_recompiling(name, part, eager):
    loop = Loop(name, tensor())
    if part == "optimizer.step":
        step = torch.compile(loop.optimizer.step, backend="eager")

        def update():
            loop.backward()
            step()
    else:
        update = torch.compile(loop.update, backend="eager")
    loop.run(update)
    assert counters["frames"]["ok"] > 0
    assert loop.scheduler.updates == 12
    assert [drop.step for drop in loop.scheduler.drops] == [8, 10, 12]
    assert close(loop.end(), eager[name])


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_control_a_rate_that_is_a_number_recompiles_at_a_drop(name):
    loop = Loop(name, 0.1)
    step = torch.compile(loop.optimizer.step, backend="eager")

    def update():
        loop.backward()
        step()

    with pytest.raises(torch._dynamo.exc.RecompileError):
        loop.run(update)
    assert loop.scheduler.updates == 8
    assert len(loop.scheduler.drops) == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_drop_on_the_device_does_not_recompile(name):
    """The rule writes the rate that the compiled step reads."""
    loop = Loop(name, tensor())
    rate = loop.optimizer.param_groups[0]["lr"]
    rule, rates = DeviceRule(loop.scheduler.rule, 1, "cpu"), []

    def drop():
        rule.observe(torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64))
        rates.append(DeviceRecord.unpack(rule.act([rate]).tolist()).new_lr[0])

    loop.run(torch.compile(loop.update, backend="eager"), steps=8, drop=drop)
    dropped = loop.end()
    assert rates == pytest.approx([0.1] * 3 + [0.1 / 2**n for n in range(1, 6)], rel=1e-7)

    # An uncompiled loop at these rates.
    loop = Loop(name, 0.1)
    for lr in [0.1, *rates[:-1]]:
        loop.optimizer.param_groups[0]["lr"] = lr
        loop.backward()
        loop.optimizer.step()
    assert close(loop.end(), dropped)


def test_the_hook_is_not_traced():
    """Its flag would be a guard, and the second step before a scheduler's would recompile."""
    loop = Loop("SGD", tensor())
    (hook,) = loop.optimizer._optimizer_step_post_hooks.values()

    def step(x):
        hook(loop.optimizer, (), {})
        return x + 1.0

    counter, compiled = loop.scheduler._counter, torch.compile(step, backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for steps in (1, 2, 3):
            for _ in range(steps):
                compiled(torch.ones(2))
            assert counter.take(loop.optimizer)
            assert not counter.take(loop.optimizer)


def test_a_scheduler_s_step_in_a_compiled_function_is_not_traced():
    loop = Loop("SGD", tensor())

    def update():
        loop.update()
        loop.scheduler.step()

    compiled = torch.compile(update, backend="eager")
    frames = []
    for _ in range(12):
        compiled()
        frames.append(counters["frames"]["total"])
    assert [drop.step for drop in loop.scheduler.drops] == [8, 10, 12]
    assert frames[3:] == frames[3:4] * 9  # none compiled after the steps that warm up


@pytest.mark.skipif(not shutil.which("g++"), reason="Inductor needs a C++ compiler")
def test_generated_code_follows_the_rate(eager, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    loop = Loop("Adam", tensor())
    step = torch.compile(loop.optimizer.step)

    def update():
        loop.backward()
        step()

    loop.run(update)
    assert [drop.step for drop in loop.scheduler.drops] == [8, 10, 12]
    assert close(loop.end(), eager["Adam"])
