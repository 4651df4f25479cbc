"""`autodrop.integrations.lightning` for code that says `import pytorch_lightning`.

The two packages have a Callback and a Trainer each.
"""

from __future__ import annotations

from autodrop.integrations.lightning_hooks import LightningHooks

try:
    from pytorch_lightning import Callback
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "autodrop.integrations.pytorch_lightning needs pip install pytorch-lightning; for "
        "`import lightning` there is autodrop.integrations.lightning, with autodrop[lightning]"
    ) from error

__all__ = ["AutoDropCallback"]


class AutoDropCallback(LightningHooks, Callback):
    """See `autodrop.integrations.lightning.AutoDropCallback`."""
