"""AutoDrop: drop the learning rate when the angular velocity of the parameters saturates.

    from autodrop import AutoDrop

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = AutoDrop(optimizer, window=64)
    for x, y in batches:
        optimizer.zero_grad(); loss(model(x), y).backward(); optimizer.step()
        scheduler.step()    # scheduler.angular_velocities, scheduler.drops, scheduler.get_last_lr()

`AutoDrop` is the scheduler; `AngularVelocity` only measures; `angle_between` is the angle itself;
`run` is the same rule on arrays, `replay` on recorded angles. What a rule is made of: `detectors`,
`DropPolicy`, `rules`.

Source: Wang, Teng, Choromanska, "AutoDrop: Training Deep Learning Models with Automatic Learning
Rate Drop", UAI 2024, PMLR 244:3603–3629; first version arXiv 2111.15317 (2021).
"""

from importlib.metadata import PackageNotFoundError, version

from autodrop import detectors, rules
from autodrop.algorithm import Trajectory, run
from autodrop.angle import angle_between, angle_from_products
from autodrop.policy import DropEvent, DropPolicy
from autodrop.replay import replay
from autodrop.rules import Rule
from autodrop.scheduler import AutoDrop
from autodrop.tracker import AngularVelocity

try:
    __version__ = version("autodrop")
except PackageNotFoundError:  # used from a source tree that is not installed
    __version__ = "0+unknown"

__all__ = [
    "AngularVelocity",
    "AutoDrop",
    "DropEvent",
    "DropPolicy",
    "Rule",
    "Trajectory",
    "angle_between",
    "angle_from_products",
    "detectors",
    "replay",
    "rules",
    "run",
]
