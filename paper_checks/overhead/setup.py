"""What is measured on: the device, the network and its batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F

from paper_checks.networks import ResNet18, Transformer

ModelName = Literal["resnet18", "transformer"]
ClockName = Literal["wall", "cpu"]

_CLASSES, _SIDE = 10, 32  # CIFAR-10
_VOCABULARY = 20_000
_WIDTHS = {"resnet18": 64, "transformer": 768}
# A forward and backward pass of about a second on two cores; customary batches on a GPU.
_BATCHES = {
    ("resnet18", "cpu"): 16,
    ("resnet18", "cuda"): 128,
    ("transformer", "cpu"): 1,
    ("transformer", "cuda"): 8,
}
_CONTEXTS = {"cpu": 128, "cuda": 512}


@dataclass(frozen=True)
class Setup:
    """A benchmark: what `measure` takes.

    device: "cpu", "cuda" or "cuda:N".
    model: "resnet18" on CIFAR images, or "transformer" on tokens: 128 of them in a sequence on the
        cpu, 512 on cuda.
    repeats: rounds, in each of which every call is timed once.
    windows: for which each whole training loop is run: of 3 iterations on the cpu, of `window`
        iterations on cuda.
    batch: images or sequences; by default 128 and 8 on cuda, 16 and 1 on the cpu.
    width: channels of the first stage, 64, or of the transformer, 768, whose
        heads are width // 64, at least one.
    depth: blocks of the transformer.
    window: k ≥ 2, updates over which the end of a window is spread.
    threads: of torch on the CPU; by default as many as torch has.
    clock: "wall", or "cpu": the CPU time of the thread, which hardly depends on what else the
        machine does. That is the time of the work only where one thread does it all: it needs the
        cpu and threads = 1.

    Raises ValueError for an argument out of range, for a CUDA device that is not there.
    """

    device: str = "cpu"
    model: ModelName = "resnet18"
    repeats: int = 30
    windows: int = 12
    batch: int | None = None
    width: int | None = None
    depth: int = 12
    window: int = 64
    threads: int | None = None
    clock: ClockName = "wall"

    def __post_init__(self) -> None:
        if self.model not in get_args(ModelName):
            raise ValueError(f"model must be one of {get_args(ModelName)}, got {self.model!r}")
        if self.clock not in get_args(ClockName):
            raise ValueError(f"clock must be one of {get_args(ClockName)}, got {self.clock!r}")
        for name in ("repeats", "windows", "batch", "width", "depth", "window", "threads"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        if self.window < 2:
            raise ValueError(f"window must be >= 2, got {self.window}")
        if self.model == "transformer" and self.width is not None and self.width % self.heads:
            raise ValueError(
                f"width must be a multiple of width // 64 = {self.heads} heads, got {self.width}"
            )
        try:
            device = torch.device(self.device)
        except RuntimeError:
            device = None
        if device is None or device.type not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu, cuda or cuda:N, got {self.device!r}")
        if device.type == "cuda":
            found = torch.cuda.device_count() if torch.cuda.is_available() else 0
            if (device.index or 0) >= found:
                raise ValueError(
                    f"device {self.device!r} must be present, but torch finds {found} CUDA devices"
                )
        if self.clock == "cpu" and (device.type != "cpu" or self.threads != 1):
            raise ValueError(
                "clock 'cpu' needs device cpu and threads = 1, "
                f"got device {self.device!r} and threads = {self.threads}"
            )

    @property
    def kind(self) -> str:
        """The type of the device: cpu or cuda."""
        return torch.device(self.device).type

    @property
    def heads(self) -> int:
        """Attention heads of the transformer: as many as 64 goes into its width, at least one."""
        return max(1, (self.width or _WIDTHS["transformer"]) // 64)

    def batch_size(self) -> int:
        """Images or sequences in a batch."""
        return self.batch or _BATCHES[self.model, self.kind]

    def describe(self) -> str:
        """The batch in words."""
        if self.model == "resnet18":
            return f"{self.batch_size()} images of 3×{_SIDE}×{_SIDE}"
        return f"{self.batch_size()} sequences of {_CONTEXTS[self.kind]} tokens"

    def build(self) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
        """The network on its device in training mode, and its loss on one random batch."""
        generator = torch.Generator().manual_seed(0)
        width, n = self.width or _WIDTHS[self.model], self.batch_size()
        model: nn.Module
        if self.model == "resnet18":
            model = ResNet18(_CLASSES, width)
            x = torch.randn(n, 3, _SIDE, _SIDE, generator=generator)
            y = torch.randint(_CLASSES, (n,), generator=generator)
        else:
            context = _CONTEXTS[self.kind]
            model = Transformer(_VOCABULARY, width, self.depth, self.heads)
            tokens = torch.randint(_VOCABULARY, (n, context + 1), generator=generator)
            x, y = tokens[:, :-1], tokens[:, 1:].flatten()
        model.to(self.device)
        x, y = x.to(self.device), y.to(self.device)
        return model, lambda: F.cross_entropy(model(x).flatten(0, -2), y)
