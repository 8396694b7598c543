"""M2: semi-supervised learning with a classifier as the posterior of the labels."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..conditioning import is_conditional
from ..data.batch import Batch
from .checks import at_least
from .elbo import ELBO
from .objective import Model, Terms

__all__ = ["M2"]


class M2(ELBO):
    """A bound of log p(x, y) for images with a label, of log p(x) for those without, and a classifier q(y|x) of both.

    With L(x, y) = distortion + rate + log K, the classes being equally likely, an image with a label costs L(x, y),
    one without Σ_y q(y|x)·L(x, y) − H(q(y|x)). In either case `distortion` is the expectation over the label, and
    `rate` is KL(q(z, y|x) ‖ p(z, y)), so that both add up to the bound. All classes are tried for each image: a step
    takes K times that of the ELBO.

    `classification`, −log q(y|x), is averaged over the images with labels and has weight α; `label_accuracy` is the
    share of them that q(y|x) classifies correctly.

    Args:
        classes: K.
        classifier: maps images `(B, C, H, W)` to logits `(B, K)`.
        alpha: α, at least 0. The paper's is this times the number of images, because its loss is a sum over them, and
            it takes 0.1 and thousands of epochs. With so little, the classifier first follows what lowers the bound of
            images without labels, whatever their class: in short trainings more of it is needed.
        labelled: share of the training images that have labels.

    Raises:
        ValueError: for an option out of range.

    Source: Kingma et al. (2014), equations 6 to 9, https://arxiv.org/abs/1406.5298.
    """

    conditional = True
    infers_labels = True

    def __init__(self, classifier: nn.Module, classes: int = 10, alpha: float = 30.0, labelled: float = 1.0) -> None:
        super().__init__()
        self.classifier = classifier
        self.classes = at_least("classes", classes, 1)
        self.alpha = at_least("alpha", alpha, 0)
        if not 0 < labelled <= 1:
            raise ValueError(f"labelled: must be a share greater than 0 and up to 1, got {labelled}")
        self.labelled = labelled

    def check(self, model: Model) -> None:
        if not is_conditional(model.decoder):
            raise ValueError("objective: M2 needs a decoder that is given labels; choose model/labels=embedded")

    def forward(self, model: Model, batch: Batch) -> Terms:
        images = batch.images
        labels = images.new_full(images.shape[:1], -1, dtype=torch.int64) if batch.labels is None else batch.labels
        known = labels >= 0
        logits = self.classifier(images).to(torch.promote_types(images.dtype, torch.float32))
        # One class at a time, so that the noise of each is drawn as that of any batch.
        tried = [super(M2, self).forward(model, Batch(images, torch.full_like(labels, y))) for y in range(self.classes)]
        distortions, rates = (torch.stack([terms[name] for terms in tried], 1) for name in ("distortion", "rate"))
        log_q = torch.where(known.unsqueeze(1), _log_certain(labels, self.classes, logits), logits.log_softmax(1))
        q = log_q.exp()
        distortion = (q * distortions).sum(1)
        rate = (q * (rates + log_q)).sum(1) + math.log(self.classes)
        # Divided by the expected share, so that the mean over the batch is one over the images with labels.
        share = known.to(distortion) / (self.labelled if self.training else 1.0)
        classification = share * cross_entropy(logits, labels.clamp(min=0), reduction="none")
        return {
            "loss": self.combine(distortion, rate) + self.alpha * classification,
            "distortion": distortion,
            "rate": rate,
            "classification": classification,
            "label_accuracy": share * (logits.argmax(1) == labels),
        }


def _log_certain(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    """The logarithm `(B, classes)` of a distribution that is sure of labels `(B,)`: 0, and a low number elsewhere."""
    chosen = torch.arange(classes, device=labels.device) == labels.unsqueeze(1)
    return torch.where(chosen, 0.0, -1e4).to(like)
