"""M2 against the explicit sum over classes, in float64, and a run with few labels."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vae_lightning.architectures.mlp import MLPClassifier
from vae_lightning.data.batch import Batch
from vae_lightning.likelihoods import Bernoulli
from vae_lightning.objectives import M2
from vae_lightning.posteriors import GaussianHead
from vae_lightning.priors import ClassConditional, Prior

CLASSES, D, PIXELS = 3, 2, 6
HIDDEN = torch.tensor([2, -1, 0, -1, 1])


class SmallModel(nn.Module):
    """Linear networks of images with 1×2×3 pixels and of labels, which may not be hidden."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.classes = classes
        self.head = GaussianHead(PIXELS + classes, D)
        self.decoder = nn.Linear(D + classes, PIXELS)
        self.prior: Prior = ClassConditional(D, classes)
        nn.init.normal_(self.prior.means)

    def encode(self, x: Tensor, labels: Tensor) -> Distribution:
        return self.head(torch.cat([x.flatten(1), nn.functional.one_hot(labels, self.classes)], 1))

    def decode(self, z: Tensor, labels: Tensor) -> Distribution:
        raw = self.decoder(torch.cat([z, nn.functional.one_hot(labels, self.classes)], 1))
        return Bernoulli()(raw.view(-1, 1, 2, 3))

    def prior_distribution(self, labels: Tensor) -> Distribution:
        return self.prior.distribution(labels)


@pytest.fixture
def parts() -> tuple[SmallModel, M2, Tensor]:
    torch.manual_seed(1)
    classifier = MLPClassifier((1, 2, 3), CLASSES, hidden=[4])
    objective = M2(classifier, CLASSES, alpha=0.7, labelled=0.6)
    return SmallModel().double(), objective.double(), torch.rand(5, 1, 2, 3, dtype=torch.float64)


def explicit(model: SmallModel, objective: M2, images: Tensor, labels: Tensor, share: float) -> dict[str, Tensor]:
    """Kingma et al. (2014), equations 6, 7 and 9, image by image and class by class."""
    torch.manual_seed(3)
    noise = torch.stack([torch.randn(len(images), D, dtype=torch.float64) for _ in range(CLASSES)], 1)
    logits = objective.classifier(images)
    found: dict[str, list[Tensor]] = {"loss": [], "distortion": [], "rate": [], "classification": []}
    for x, eps, logit, label in zip(images, noise, logits, labels.tolist(), strict=True):
        q = logit.exp() / logit.exp().sum()
        distortions, rates = [], []
        for y in range(CLASSES):
            told = torch.eye(CLASSES, dtype=torch.float64)[y]
            features = torch.cat([x.flatten(), told])
            mean, deviation = model.head.mean(features), (0.5 * model.head.log_variance(features)).exp()
            z = mean + deviation * eps[y]
            p = model.decoder(torch.cat([z, told])).sigmoid()
            distortions.append(-(x.flatten() * p.log() + (1 - x.flatten()) * (1 - p).log()).sum())
            m, s = model.prior.means[y], model.prior.log_scales[y].exp()
            rates.append(((s / deviation).log() + (deviation**2 + (mean - m) ** 2) / (2 * s**2) - 0.5).sum())
        cost = [d + r + math.log(CLASSES) for d, r in zip(distortions, rates, strict=True)]  # L(x, y), equation 6
        if label >= 0:
            bound, distortion, error = cost[label], distortions[label], -q[label].log() / share
        else:
            bound = sum(q[y] * cost[y] for y in range(CLASSES)) + (q * q.log()).sum()  # U(x), equation 7
            distortion, error = sum(q[y] * distortions[y] for y in range(CLASSES)), torch.zeros_like(bound)
        found["distortion"].append(distortion)
        found["rate"].append(bound - distortion)
        found["classification"].append(error)
        found["loss"].append(bound + 0.7 * error)
    return {name: torch.stack(values) for name, values in found.items()}


@pytest.mark.parametrize("labels", [HIDDEN, None, HIDDEN.clamp(min=0)], ids=["some", "none", "all"])
def test_the_bound_is_the_explicit_sum(parts: tuple[SmallModel, M2, Tensor], labels: Tensor | None) -> None:
    model, objective, images = parts
    torch.manual_seed(3)
    terms = objective(model, Batch(images, labels))
    given = torch.full((5,), -1) if labels is None else labels
    for name, expected in explicit(model, objective, images, given, share=0.6).items():
        torch.testing.assert_close(terms[name], expected)
    correct = (objective.classifier(images).argmax(1) == given) & (given >= 0)
    torch.testing.assert_close(terms["label_accuracy"], correct.double() / 0.6)
    objective.eval()  # where all images that are measured have labels
    torch.manual_seed(3)
    measured = objective(model, Batch(images, given))["classification"]
    torch.testing.assert_close(measured, explicit(model, objective, images, given, share=1.0)["classification"])


def test_its_gradient_is_that_of_the_explicit_sum(parts: tuple[SmallModel, M2, Tensor]) -> None:
    model, objective, images = parts
    parameters = [*model.parameters(), *objective.parameters()]
    expected = torch.autograd.grad(explicit(model, objective, images, HIDDEN, 0.6)["loss"].sum(), parameters)
    torch.manual_seed(3)
    found = torch.autograd.grad(objective(model, Batch(images, HIDDEN))["loss"].sum(), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)

    def loss(*weights: Tensor) -> Tensor:
        torch.manual_seed(3)
        return objective(model, Batch(images, HIDDEN))["loss"]

    assert torch.autograd.gradcheck(loss, parameters, fast_mode=True)


def test_unlabelled_images_teach_the_classifier() -> None:
    """Two kinds of images, one label of each: the others follow what they look like."""
    torch.manual_seed(0)
    kinds = torch.arange(40) % 2
    images = (torch.rand(40, 1, 2, 3) < torch.where(kinds.bool(), 0.9, 0.1).view(-1, 1, 1, 1)).float()
    labels = torch.where(torch.arange(40) < 2, kinds, -1)

    class Model(SmallModel):
        def decode(self, z: Tensor, labels: Tensor) -> Distribution:  # of the label alone
            return super().decode(0 * z, labels)

    model, objective = Model(2), M2(MLPClassifier((1, 2, 3), 2, [8]), 2, alpha=1.0, labelled=0.05)
    optimizer = torch.optim.Adam([*model.parameters(), *objective.parameters()], lr=0.03)
    for _ in range(80):
        optimizer.zero_grad()
        objective(model, Batch(images, labels))["loss"].mean().backward()
        optimizer.step()
    assert objective.eval()(model, Batch(images, kinds))["label_accuracy"].mean() > 0.95


def test_options_out_of_range() -> None:
    for option, value in [("alpha", -1.0), ("labelled", 0.0), ("classes", 0)]:
        with pytest.raises(ValueError, match=f"{option}: must be"):
            M2(nn.Identity(), **{option: value})
