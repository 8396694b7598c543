"""How well single dimensions of codes stand for single known factors of variation."""

import logging
from typing import Literal

import torch

from ..data.batch import Batch
from ..metrics.disentanglement import Factored, disentanglement, varying
from .subject import Metrics, Subject

__all__ = ["measure"]

log = logging.getLogger(__name__)

ENOUGH = 1000  # images: 50 that share a factor


def measure(subject: Subject) -> Metrics:
    """Returns the scores of disentanglement, where the data module knows at least two factors that vary."""
    data, count = subject.data, subject.sizes.factor_images
    if not count or not getattr(data, "factor_names", ()):
        return {}
    with subject.progress.step("disentanglement"):
        train, test = _coded(subject, "train"), _coded(subject, "test")
        if len(set(varying(train.factors)) & set(varying(test.factors))) < 2:
            log.info("measured   fewer than two factors of %s vary: scores of disentanglement are left out", data.name)
            return {}
        subject.note_if_few("scores of disentanglement", len(test.codes), ENOUGH)
        return disentanglement(train, test)


def _coded(subject: Subject, name: Literal["train", "test"]) -> Factored:
    data = subject.data
    numbers = data.chosen(name, subject.sizes.factor_images)
    codes = [subject.codes(Batch(*data.numbered(name, part))) for part in numbers.split(1000)]
    categorical = [factor in data.categorical_factors for factor in data.factor_names]
    return Factored(torch.cat(codes), data.factors(name, numbers), categorical)
