"""Labels: data whose labels do not fit what the model does with them are refused before training."""

from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import nn

from ..conditioning import is_conditional
from ..data.datamodule import ImageDataModule
from ..errors import DataError, UsageError
from ..vae import VAE
from .drawing import model_of

__all__ = ["LabelCheck", "hidden_by", "refuse_hidden_labels", "refuse_other_classes"]


class LabelCheck(Callback):
    """Compares the data's labels with what the parts of the model say of those they take, when both are set up.

    A part (encoder, decoder, prior or objective) may have the attributes `classes`, the number of classes that it is
    built for, and `needs_all_labels`, if it cannot do without a label for each image; see `refuse_hidden_labels`.

    Raises:
        DataError: for images without labels, or with another number of classes.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if stage != "fit" or not isinstance(data, ImageDataModule):
            return
        model = model_of(pl_module)
        sizes = _classes(model)
        if sizes and not data.splits["train"].labelled:
            others = " ".join(WITHOUT_LABELS.get(option, "another model") for option in sizes)
            raise DataError(
                f"data: the images of {data.name} have no labels, which {', '.join(sizes)} needs; choose {others}, or "
                "data with labels"
            )
        count = len(data.class_names)
        for option, size in sizes.items():
            if count not in (0, size):  # 0 where it is not known before all images are read
                advice = _advice(option, sizes, count)
                raise DataError(f"{option}.classes={size}: the images of {data.name} are of {count} classes; {advice}")


WITHOUT_LABELS = {
    "model.labels": "model/labels=none",
    "model.prior": "model/prior=standard",
    "model.objective": "model/objective=elbo",
}
HIDING = {"labelled": 1.0, "label_dropout": 0.0}


def hidden_by(data: LightningDataModule) -> str:
    """Returns the option that hides labels of training images, with its value; empty if none does."""
    hides = (
        f"data.{name}={getattr(data, name)}" for name, usual in HIDING.items() if getattr(data, name, usual) != usual
    )
    return next(hides, "")


def refuse_hidden_labels(model: VAE, data: LightningDataModule) -> None:
    """Raises `UsageError` for hidden labels that no part of the model sees, or that one needs.

    So are those of `data.label_dropout` if the objective infers labels, because it has to know their share.
    """
    option = hidden_by(data)
    if not option:
        return
    if not _parts(model):
        raise UsageError(f"{option}: no part of the model is given labels; choose model/labels=embedded")
    needing = [name for name, part in _parts(model).items() if getattr(part, "needs_all_labels", False)]
    infers, dropout = getattr(model.objective, "infers_labels", False), getattr(data, "label_dropout", 0)
    if infers and dropout:
        raise UsageError(
            f"data.label_dropout={dropout}: {type(model.objective).__name__} infers hidden labels and has to know "
            "their share; hide them with data.labelled"
        )
    if needing and not infers:
        unless = "" if dropout else ", unless model/objective=m2"
        raise UsageError(f"{option}: {needing[0]} needs the label of every image{unless}")


def refuse_other_classes(model: VAE, data: ImageDataModule) -> None:
    """Raises `DataError` if test images have more classes than a trained model was built for."""
    for size in _classes(model).values():
        if len(data.class_names) > size:
            raise DataError(
                f"the images of {data.name} are of {len(data.class_names)} classes, the model was trained with {size}"
            )


def _parts(model: VAE) -> dict[str, nn.Module]:
    """The parts that are given labels, by the option that makes them so."""
    parts = {
        "model.labels" if model.labels else "model.encoder": model.encoder,
        "model.labels" if model.labels else "model.decoder": model.decoder,
        "model.prior": model.prior,
        "model.objective": model.objective,
    }
    return {name: part for name, part in parts.items() if is_conditional(part)}


def _classes(model: VAE) -> dict[str, int]:
    return {name: part.classes for name, part in _parts(model).items() if hasattr(part, "classes")}  # type: ignore[misc]


def _advice(option: str, sizes: dict[str, int], count: int) -> str:
    # The others follow it where they were not set themselves.
    named = "model.labels" if "model.labels" in sizes and sizes["model.labels"] != count else option
    return f"set {named}.classes={count}"
