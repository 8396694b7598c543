"""What TensorBoard shows beyond curves and pictures."""

from pytorch_lightning import Callback, LightningModule, Trainer

from ..evaluation.codes import encode_all
from .drawing import drawing, model_of, on_device, tensorboards

__all__ = ["TensorBoardViews"]


class TensorBoardViews(Callback):
    """What TensorBoard shows beyond curves and pictures: the terms of all runs as one chart each, and the codes.

    The charts are in its Custom Scalars tab; the posterior means of test images, with their classes and the images
    themselves, in its Projector tab.

    Args:
        points: test images, at most, in the projector; 0 leaves it out.
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
            codes = encode_all(model, [on_device(model, images, labels)]).points
        if model.latent_space.axes == 1:  # the projector wants at least two columns
            codes = model.latent_space.chart(codes).coordinates
        names = dict(enumerate(data.class_names))
        classes = None if labels is None else [names.get(label, str(label)) for label in labels.tolist()]
        sprites = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        for logger in loggers:
            logger.experiment.add_embedding(codes, classes, sprites, trainer.global_step, "posterior means")
