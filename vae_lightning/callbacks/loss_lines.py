"""The loss terms, printed during training."""

import logging

from pytorch_lightning import Callback, LightningModule, Trainer

from .drawing import batches_done, batches_of_epoch, is_due

__all__ = ["LossLines"]

log = logging.getLogger(__name__)


class LossLines(Callback):
    """Prints the loss terms at every n-th batch of each epoch.

    Args:
        every_n_batches: n; epochs of fewer batches are counted as one, with lines at the end of some.
    """

    def __init__(self, every_n_batches: int = 50) -> None:
        self.every_n_batches = every_n_batches

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        if not is_due(trainer, batch_idx, self.every_n_batches):
            return
        # A call that takes several steps returns one value per step. Lightning divides the loss, but no other term, by
        # the number of accumulated batches.
        terms = {name: value.reshape(-1)[-1].item() for name, value in outputs.items()}
        terms["loss"] *= trainer.accumulate_grad_batches
        values = "   ".join(f"{name} {value:7.2f}" for name, value in terms.items())
        epochs = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        batches = f"{batches_done(trainer, batch_idx):3d}/{batches_of_epoch(trainer)}"
        log.info("epoch %s  batch %s   %s", epochs, batches, values)
