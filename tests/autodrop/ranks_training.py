"""A small network that several ranks train together, in every way that torch distributes one."""

from __future__ import annotations

import warnings

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from autodrop import AngularVelocity, AutoDrop
from autodrop.detectors import ThresholdSaturation

WINDOW = 4
STEPS = 48
KINDS = ("one process", "ddp", "fsdp", "hsdp", "tp x fsdp")


def build(dtype):
    g = torch.Generator().manual_seed(0)
    # 6 × 5, 6, 3 × 6, 3: a tensor of 3 rows over 4 ranks leaves an empty shard.
    model = torch.nn.Sequential(
        torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3, bias=True)
    ).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64))
    return model


def distribute(model, kind):
    """The model as `kind` has it, and whether each rank takes its own share of a batch."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    if kind == "one process":
        return model, 1
    if kind == "ddp":
        return DistributedDataParallel(model), world
    if kind == "fsdp":
        fully_shard(model[2])
        return fully_shard(model), world
    if kind == "hsdp":
        mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("replica", "shard"))
        return fully_shard(model, mesh=mesh), world
    mesh = init_device_mesh("cpu", (world // 2, 2), mesh_dim_names=("data", "tensor"))
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    parallelize_module(model, mesh["tensor"], plan)
    for layer in model:
        if list(layer.parameters()):
            fully_shard(layer, mesh=mesh["data"])
    return fully_shard(model, mesh=mesh["data"]), world // 2


class Training:
    """`step` makes one update and one call of the scheduler, on this rank's share of the batch."""

    def __init__(self, kind, dtype=torch.float64, **options):
        self.model, self.shares = distribute(build(dtype), kind)
        rank = dist.get_rank() if dist.is_initialized() else 0
        self.share = rank // 2 if kind == "tp x fsdp" else rank % self.shares
        self.dtype = dtype
        self.optimizer = torch.optim.SGD(self.model.named_parameters(), lr=0.1, momentum=0.9)
        options = {"detector": ThresholdSaturation(25.0), "window": WINDOW, **options}
        self.scheduler = AutoDrop(self.optimizer, factor=0.5, **options)

    def step(self, t):
        g = torch.Generator().manual_seed(100 + t)
        x = torch.randn(8, 5, generator=g, dtype=torch.float64).to(self.dtype)
        y = torch.randn(8, 3, generator=g, dtype=torch.float64).to(self.dtype)
        x, y = (batch.chunk(self.shares)[self.share] for batch in (x, y))
        self.optimizer.zero_grad()
        ((self.model(x) - y) ** 2).mean().backward()
        self.optimizer.step()
        self.scheduler.step()


def full(p):
    return (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone()


def train(kind, dtype=torch.float64, steps=STEPS, **options):
    """What the scheduler saw, beside a tracker of the whole parameters gathered on this rank."""
    # Of tensor parallel under FSDP2, in its own forward.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
    training = Training(kind, dtype, **options)
    params = list(training.model.parameters())
    whole = [full(p) for p in params]
    exact = AngularVelocity(whole, WINDOW, process_group=None)
    angles, counts = [], []
    for t in range(steps):
        communication = CommDebugMode()
        step = training.scheduler.step

        def counted(communication=communication, step=step):
            with communication:
                step()

        training.scheduler.step = counted
        training.step(t)
        training.scheduler.step = step
        counts.append(sum(communication.get_comm_counts().values()))
        with torch.no_grad():
            for mine, p in zip(whole, params, strict=True):
                mine.copy_(full(p))
        angle = exact.update()
        if angle is not None:
            angles.append(angle)
    scheduler = training.scheduler
    return {
        "angles": list(scheduler.angular_velocities),
        "exact": torch.rad2deg(torch.tensor(angles, dtype=torch.float64)).tolist(),
        "drops": [(e.step, e.new_lr) for e in scheduler.drops],
        "rates": [group["lr"] for group in training.optimizer.param_groups],
        "counts": counts,
    }
