"""TensorBoard's Custom Scalars and Projector tabs."""

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import pad

from ..data.batch import Batch
from ..data.sizes import shrunk
from ..metrics.codes import encode_all
from ..plots import drawable
from .drawing import drawing, model_of, tensorboards

__all__ = ["TensorBoardViews"]


SPRITE = 32  # pixels of a side, at most, of the projector's images: TensorBoard loads all of them as one


class TensorBoardViews(Callback):
    """Adds charts of each term over all runs (Custom Scalars tab) and the codes of test images (Projector tab).

    The projector shows posterior means with their classes and images.

    Args:
        points: maximum number of test images in the projector; 0 skips it.
    """

    every_n_batches = 0

    def __init__(self, points: int = 1000) -> None:
        self.points = points
        self._charted = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        if not self._charted:
            charts = {term: ["Multiline", [f"^train/{term}$"]] for term in outputs}
            for logger in tensorboards(trainer):
                logger.experiment.add_custom_scalars({"training": charts})
            self._charted = True

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loggers = tensorboards(trainer)
        if not loggers or not self.points or not trainer.is_global_zero:
            return
        model, data = model_of(pl_module), trainer.datamodule  # type: ignore[attr-defined]
        images, labels = data.examples("test", self.points)
        with drawing(model):
            codes = encode_all(model, [Batch(images, labels).on(model.device)]).points
        codes = pad(codes, (0, max(0, 3 - codes.shape[1])))  # the projector draws nothing of fewer columns
        names = dict(enumerate(data.class_names))
        classes = None if labels is None else [names.get(label, str(label)) for label in labels.tolist()]
        for logger in loggers:
            logger.experiment.add_embedding(codes, classes, _sprites(images), trainer.global_step, "posterior means")


def _sprites(images: Tensor) -> Tensor:
    """Returns images in colour, reduced, and padded to squares: TensorBoard cannot put together others."""
    small = shrunk(drawable(images), SPRITE)
    height, width = small.shape[-2:]
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    return pad(small, (left, side - width - left, top, side - height - top)).expand(-1, 3, -1, -1)
