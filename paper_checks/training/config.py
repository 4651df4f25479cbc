"""Everything that decides a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from autodrop import Rule, rules
from paper_checks.training.augment import AugmentName
from paper_checks.training.schedules import SCHEDULES, Settings

OptimizerName = Literal["sgd", "adamw"]
RuleName = Literal["uai2024", "arxiv2021"]
SamplingName = Literal["shuffled", "independent"]
ModelName = Literal["mlp", "cnn", "resnet18", "wrn16x4", "transformer"]
PrecisionName = Literal["float32", "bfloat16"]
EvaluateName = Literal["all", "test", "end"]


@dataclass(frozen=True)
class Config:
    """A training run: with the same data, machine and versions, equal configs give equal runs.

    epochs, batch_size: an epoch is as many samples as the training set has; its last mini-batch
        may be smaller.
    sampling: "shuffled", every epoch goes through the training set once in a new random order, as
        is usual; or "independent", every sample is drawn anew from the whole set, which is the
        noise that the theory assumes. See `fixed_rates` for how much it matters to the angle.
    learning_rate: the first rate α_0.
    optimizer: "sgd", or "adamw" for which momentum is β_1.
    momentum, weight_decay: as torch has them; momentum in [0, 1).
    nesterov: of sgd.
    schedule: a name in `schedules.SCHEDULES`: "autodrop", or "constant", which watches the same
        angles and does nothing, or a rival.
    settings: (name, value) pairs for the schedule in place of its recommended ones.
    rule: which AutoDrop: Algorithm 1 of UAI 2024, or the rule of arXiv 2111.15317 (2021).
    window: updates per window; None chooses it by the length of an epoch, see `window_for`.
    factor: ρ of a drop; None is the rule's own default.
    model: see `model.build`.
    hidden: widths of the hidden layers of "mlp".
    width: channels of the first stage, or width of "transformer"; None is the model's own.
    augment: how images are moved at random, anew in every epoch, see `augment`.
    seed: of the first weights and of the order of the samples.
    device: "cpu", "cuda" or "cuda:N".
    threads: of torch on the CPU. It is part of the config since sums over another number of
        threads round differently; one is also the fastest for networks of this size.
    precision: of forward and backward passes: "float32", or "bfloat16" by autocast.
    fused: torch's fused optimizers, which round a little differently and are faster.
    watch: whether angles are measured where the schedule does not need them.
    evaluate: "all", the training and the test set after every epoch; "test", only the test set; or
        "end", only the test set and only after the last epoch.

    Raises ValueError for values outside these ranges.
    """

    epochs: int = 100
    batch_size: int = 32
    sampling: SamplingName = "shuffled"
    learning_rate: float = 0.1
    optimizer: OptimizerName = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False
    schedule: str = "autodrop"
    settings: Settings = ()
    rule: RuleName = "uai2024"
    window: int | None = None
    factor: float | None = None
    model: ModelName = "mlp"
    hidden: tuple[int, ...] = (64,)
    width: int | None = None
    augment: AugmentName = "none"
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    precision: PrecisionName = "float32"
    fused: bool = False
    watch: bool = True
    evaluate: EvaluateName = "all"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        object.__setattr__(self, "settings", tuple((name, value) for name, value in self.settings))
        for name in ("epochs", "batch_size", "threads"):
            _integer(name, getattr(self, name), 1)
        for width in self.hidden:
            _integer("hidden", width, 1)
        _integer("seed", self.seed, 0)
        if self.seed >= 2**63:
            raise ValueError(f"seed must be < 2^63, got {self.seed}")
        if not 0.0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be finite and > 0, got {self.learning_rate!r}")
        if not 0.0 <= self.momentum < 1.0:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum!r}")
        if not 0.0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be finite and >= 0, got {self.weight_decay!r}")
        if self.width is not None:
            _integer("width", self.width, 1)
        for name, known in (
            ("sampling", get_args(SamplingName)),
            ("optimizer", get_args(OptimizerName)),
            ("schedule", tuple(SCHEDULES)),
            ("rule", get_args(RuleName)),
            ("model", get_args(ModelName)),
            ("augment", get_args(AugmentName)),
            ("precision", get_args(PrecisionName)),
            ("evaluate", get_args(EvaluateName)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        only = SCHEDULES[self.schedule].only
        if self.optimizer not in only:
            raise ValueError(
                f"optimizer must be one of {only} for schedule {self.schedule!r}, "
                f"got {self.optimizer!r}"
            )
        if self.window is not None:
            self.rule_for(self.window)
        elif self.factor is not None:
            self.rule_for(2)

    def window_for(self, epoch: int) -> int:
        """Updates per window, for an epoch of `epoch` updates.

        If `window` does not say: for the UAI rule a sixth of an epoch, since k should grow with
        the training set (Section 4, p. 3608) and the paper's 64 is a sixth of CIFAR-10's epoch at
        the customary batch size of 128. On the digits 64 would be an epoch and a half, and 100
        epochs would leave room for five drops. For the arXiv rule one epoch, its definition.
        """
        if self.window is not None:
            return self.window
        return epoch if self.rule == "arxiv2021" else max(1, round(epoch / 6))

    def rule_for(self, epoch: int, **settings: Any) -> Rule:
        """The rule, for an epoch of `epoch` updates; settings: further arguments of it."""
        window = self.window_for(epoch)
        make: Any = rules.uai2024 if self.rule == "uai2024" else rules.arxiv2021
        if self.factor is not None:
            settings["factor"] = self.factor
        return make(window, **settings)


def _integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
