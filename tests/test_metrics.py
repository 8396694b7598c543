"""Evaluation against independent calculations."""

import warnings

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.stats import entropy
from sklearn.datasets import make_swiss_roll
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from vae_lightning.data.batch import Batch
from vae_lightning.latent_spaces import Euclidean, Lattice, box_lattice, normal_lattice, square_lattice
from vae_lightning.metrics import probes, quality
from vae_lightning.metrics.bounds import bound_with, effective_share, importance_weighted_bound, squared_error
from vae_lightning.metrics.codes import Aggregate, active_units, encode_all
from vae_lightning.metrics.geometry import path_unevenness
from vae_lightning.priors import StandardNormal


def test_principal_plane_is_that_of_the_singular_value_decomposition() -> None:
    points = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 5, 0.1, 3, 0.2, 1])
    plane = Euclidean(6).chart(points)
    centred = points.numpy() - points.numpy().mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(plane.coordinates.abs().numpy(), np.abs(u[:, :2] * s[:2]), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(plane.explained, s[:2] ** 2 / (s**2).sum(), rtol=1e-4)
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2))
    torch.testing.assert_close(Euclidean(6).chart(points.flip(0)).axes, plane.axes)


def test_lattices() -> None:
    lattice = square_lattice(8.0, 8)
    assert lattice.shape == (8, 8, 2)
    assert lattice[0, 0].tolist() == [-8, 8]
    assert lattice[-1, -1].tolist() == [8, -8]
    torch.testing.assert_close(lattice[0, :, 0], torch.linspace(-8, 8, 8))
    # A fifth of a normal's mass lies between the steps of a lattice with five cells.
    steps = normal_lattice(5)[0, :, 0]
    torch.testing.assert_close(torch.special.ndtr(steps), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]))
    box = torch.tensor([[-1.0, 0.0], [1.0, 4.0]])
    assert box_lattice(box, 3, 2).tolist() == [[[-1, 4], [0, 4], [1, 4]], [[-1, 0], [0, 0], [1, 0]]]
    assert box_lattice(box, 2, 1).tolist() == [[[-1, 2], [1, 2]]]


def test_traverse_changes_one_dimension_a_row() -> None:
    codes = Euclidean(4).traverse(torch.arange(4.0), torch.tensor([2, 0]), torch.tensor([-1.0, 9.0]))
    assert codes.tolist() == [[[0, 1, -1, 3], [0, 1, 9, 3]], [[-1, 1, 2, 3], [9, 1, 2, 3]]]


@pytest.mark.parametrize("lattice", [Euclidean(1).lattice(5, 2.0), Euclidean(1).quantiles(5)], ids=["even", "likely"])
def test_a_lattice_with_one_axis_is_a_row_of_its_chart(lattice: Lattice) -> None:
    assert lattice.codes.shape == (1, 5, 1)
    chart = Euclidean(1).chart(lattice.codes[0])
    assert torch.equal(chart.coordinates, lattice.coordinates[0])
    assert chart.names == lattice.names


def test_rates_of_the_dimensions_add_up_over_unequal_batches(tiny_model) -> None:
    images, labels = torch.rand(10, 1, 28, 28), torch.arange(10)
    batches = [Batch(images[:7], labels[:7]), Batch(images[7:], labels[7:])]
    model = tiny_model.eval()
    codes = encode_all(model, batches)
    posterior = model.encode(images)
    rate = kl_divergence(posterior, model.prior.distribution()).mean().item()
    assert codes.rates.sum().item() == pytest.approx(rate, rel=1e-4)
    torch.testing.assert_close(codes.points, posterior.mean.detach(), rtol=1e-4, atol=1e-5)
    assert codes.labels.tolist() == list(range(10))
    unlabelled = encode_all(model, [Batch(batch.images) for batch in batches])
    assert unlabelled.labels is None
    assert torch.equal(unlabelled.points, codes.points)
    assert encode_all(model, [batches[0], Batch(images[7:])]).labels is None


def test_the_aggregate_posterior_has_the_moments_of_its_samples() -> None:
    torch.manual_seed(0)
    means, deviations = torch.randn(300, 3).double() @ torch.randn(3, 3).double(), torch.rand(300, 3).double() + 0.1
    aggregate = Aggregate()
    for part in (slice(0, 200), slice(200, 300)):
        aggregate.update(Independent(Normal(means[part], deviations[part]), 1))
    z = (means + deviations * torch.randn(4000, 300, 3).double()).reshape(-1, 3)
    assert aggregate.count == 300
    torch.testing.assert_close(aggregate.mean, z.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(aggregate.covariance, z.T.cov(), atol=0.02, rtol=0.01)
    torch.testing.assert_close(aggregate.covariance_of_means, means.T.cov(correction=0))


def test_the_aggregate_of_posteriors_with_dependent_dimensions() -> None:
    torch.manual_seed(0)
    means, factors = torch.randn(300, 3).double(), torch.randn(300, 3, 3).double().tril(-1) + torch.eye(3)
    posterior = MultivariateNormal(means, scale_tril=factors)
    aggregate = Aggregate()
    aggregate.update(posterior)
    z = posterior.sample((4000,)).reshape(-1, 3)
    torch.testing.assert_close(aggregate.mean, z.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(aggregate.covariance, z.T.cov(), atol=0.02, rtol=0.01)
    torch.testing.assert_close(aggregate.covariance_of_means, means.T.cov(correction=0))


def test_active_units_vary_with_the_image() -> None:
    means = torch.diag(torch.tensor([1.0, 0.0101, 0.5, 0.0099, 0.0]))
    assert active_units(means, torch.eye(5)) == 3
    assert active_units(means, 0.5 * torch.eye(5)) == 4


def test_moments_of_priors() -> None:
    torch.manual_seed(0)

    def moments_of(prior: Distribution) -> tuple[Tensor, Tensor]:
        aggregate = Aggregate()
        aggregate.update(prior)
        assert aggregate.count == 1
        return aggregate.mean, aggregate.covariance

    mean, covariance = moments_of(StandardNormal(3).distribution())
    torch.testing.assert_close(covariance, torch.eye(3).double())
    assert mean.tolist() == [0, 0, 0]
    parts = Independent(Normal(torch.tensor([[-2.0, 0.0], [2.0, 1.0]]), torch.full((2, 2), 0.5)), 1)
    mean, covariance = moments_of(MixtureSameFamily(Categorical(logits=torch.zeros(2)), parts))
    torch.testing.assert_close(mean, torch.tensor([0.0, 0.5]).double(), atol=0.05, rtol=0)
    expected = torch.tensor([[4.25, 1.0], [1.0, 0.5]]).double()
    torch.testing.assert_close(covariance, expected, atol=0.1, rtol=0)


def test_rates_of_the_dimensions_under_a_mixture_are_against_its_marginals(tiny_model) -> None:
    """With components alike in all dimensions but one, the others' rates are those against one Gaussian."""
    torch.manual_seed(0)
    means = torch.tensor([[0.0, -3.0], [0.0, 3.0]])

    class Mixture:
        def distribution(self) -> MixtureSameFamily:
            parts = Independent(Normal(means, torch.ones(2, 2)), 1)
            return MixtureSameFamily(Categorical(logits=torch.zeros(2)), parts)

    model = tiny_model.eval()
    images = torch.rand(1, 1, 28, 28).expand(4000, -1, -1, -1)
    expected = kl_divergence(model.encode(images[:1]).base_dist, Normal(0.0, 1.0))[0]
    del model.prior
    model.prior = Mixture()
    rates = encode_all(model, [Batch(images)]).rates
    assert rates[0].item() == pytest.approx(expected[0].item(), abs=0.05)
    posterior = model.encode(images[:1]).base_dist
    z = torch.linspace(-12, 12, 20_001).view(-1, 1)
    q = Normal(posterior.mean[0, 1], posterior.stddev[0, 1]).log_prob(z[:, 0])
    p = torch.stack([Normal(mean, 1.0).log_prob(z[:, 0]) for mean in means[:, 1]]).logsumexp(0) - np.log(2)
    exact = torch.trapezoid(q.exp() * (q - p), z[:, 0]).item()
    assert rates[1].item() == pytest.approx(exact, abs=0.1)


def test_even_paths_and_jumps() -> None:
    even = torch.linspace(0, 1, 5).view(1, 5, 1, 1, 1).expand(1, 5, 1, 2, 2)
    jump = (even > 0.6).float()
    torch.testing.assert_close(path_unevenness(torch.cat([even, jump])), torch.tensor([0.25, 1.0]))
    assert path_unevenness(torch.zeros(1, 4, 1, 2, 2)).tolist() == [0]


class Conditional:
    """p(x|z, y) = N(z + y, 1), p(z|y) = N(y, 1) and their exact posterior, in one dimension; y must be known."""

    latent_dim = 1

    def prior_distribution(self, labels: Tensor | None = None) -> Distribution:
        assert labels is not None
        return Independent(Normal(labels.double().unsqueeze(-1), 1.0), 1)

    def encode(self, x: Tensor, labels: Tensor | None = None) -> Distribution:
        assert labels is not None
        # From x = 2y + noise of variance 2: z|x,y has the mean y + (x − 2y)/2 and half the variance.
        return Independent(Normal(x.flatten(1) / 2, 0.5**0.5), 1)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Distribution:
        assert labels is not None
        return Independent(Normal((z + labels.unsqueeze(-1)).unflatten(-1, (1, 1, 1)), 1.0), 3)


def test_labels_reach_the_bound_and_the_rates() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(6, 1, 1, 1).double(), torch.arange(6) % 3
    batch = Batch(x, labels)
    exact = Normal(2.0 * labels, 2**0.5).log_prob(x.flatten())
    # With the exact posterior, every weight is p(x|y).
    torch.testing.assert_close(importance_weighted_bound(Conditional(), batch, 5), exact)
    codes = encode_all(Conditional(), [Batch(x[:4], labels[:4]), Batch(x[4:], labels[4:])])
    prior = Conditional().prior_distribution(labels)
    expected = kl_divergence(Conditional().encode(x, labels), prior).mean()
    torch.testing.assert_close(codes.rates.sum(), expected)


def test_bounds_of_the_same_weights_rise_when_their_samples_are_doubled() -> None:
    weights = torch.randn(80, 7, generator=torch.Generator().manual_seed(0)).double()
    bounds = torch.stack([bound_with(weights, samples) for samples in (1, 2, 4, 8, 16, 80)])
    torch.testing.assert_close(bounds[0], weights.mean(0))
    torch.testing.assert_close(bounds[-1], weights.exp().mean(0).log())
    groups = [weights[start : start + 16].exp().mean(0).log() for start in range(0, 80, 16)]
    torch.testing.assert_close(bounds[4], torch.stack(groups).mean(0))
    assert (bounds.diff(dim=0) >= 0).all()  # of every image, not only in expectation
    torch.testing.assert_close(bound_with(weights, 30), bound_with(weights[:60], 30))


def test_the_effective_share_of_normal_log_weights() -> None:
    """That of w = e^(σu) is (E w)² / E w² = e^(−σ²)."""
    noise = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0)).double()
    for deviation in (0.0, 0.3, 1.0):
        expected = float(np.exp(-(deviation**2)))
        assert effective_share(deviation * noise - 500).item() == pytest.approx(expected, rel=0.02)
    one = torch.tensor([[0.0], [-900.0], [-900.0], [-900.0]])
    assert effective_share(one).item() == 0.25


def test_squared_error_is_a_mean_over_pixels() -> None:
    one, other = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    other[1, 0, 0, 0] = 2.0
    assert squared_error(one, other).tolist() == [0, pytest.approx(4 / 48)]


def test_frechet_distance_of_two_gaussians() -> None:
    generator = np.random.default_rng(0)
    factors = [generator.normal(size=(5, 5)) for _ in range(2)]
    means = [generator.normal(size=5) for _ in range(2)]
    samples = [generator.normal(size=(60_000, 5)) @ a.T + m for a, m in zip(factors, means, strict=True)]
    one, other = (a @ a.T for a in factors)
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(one + other - 2 * linalg.sqrtm(one @ other).real)
    found = quality.frechet(*(torch.from_numpy(sample) for sample in samples))
    assert found == pytest.approx(expected, rel=0.03)
    same = quality.frechet(*(torch.from_numpy(half) for half in np.split(samples[0], 2)))
    assert same < 0.01 * expected


def test_kernel_distance_is_the_unbiased_estimate() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(40, 3).double(), torch.randn(40, 3).double() + 1

    def kernel(a: Tensor, b: Tensor) -> float:
        return ((a @ b).item() / 3 + 1) ** 3

    apart = [(i, j) for i in range(40) for j in range(40) if i != j]
    within = sum(kernel(x[i], x[j]) for x in (one, other) for i, j in apart) / len(apart)
    across = sum(kernel(a, b) for a in one for b in other) / 40**2
    assert quality.distances(one, other).kernel == pytest.approx(within - 2 * across, rel=1e-6)


def test_a_classifier_learns() -> None:
    torch.manual_seed(0)
    labels = torch.arange(600) % 3
    images = torch.rand(600, 1, 16, 16) * 0.5
    for label in range(3):
        images[labels == label, :, 5 * label : 5 * label + 4] += 0.5
    classifier = quality.train_classifier(images[:500], labels[:500], 3, epochs=3)
    assert not classifier.training
    assert quality.accuracy(classifier, images[500:], labels[500:]) > 0.95
    assert classifier.features(images).shape == (600, 64)


def test_trustworthiness_of_a_known_manifold() -> None:
    roll, position = make_swiss_roll(600, random_state=0)
    unrolled = torch.from_numpy(np.stack([position, roll[:, 1]], 1))
    points = torch.from_numpy(roll)
    itself = probes.faithfulness(points, points)
    assert itself == (1, 1)
    flat = probes.faithfulness(points, Euclidean(3).chart(points.float()).coordinates)
    good = probes.faithfulness(points, unrolled)
    # A projection lays turns of the roll over each other: neighbours in the picture are none in truth.
    assert flat.trustworthiness < good.trustworthiness
    assert flat.continuity > 0.95
    # Cut in two and one half moved far away: neighbours in truth are torn apart.
    torn = unrolled + 100.0 * (unrolled[:, :1] > unrolled[:, :1].median())
    assert (
        probes.faithfulness(unrolled, torn).continuity
        < 1
        == round(probes.faithfulness(unrolled, torn).trustworthiness, 2)
    )
    few = probes.faithfulness(points[:3], unrolled[:3])
    assert all(0 <= value <= 1 for value in few)


def test_tsne_keeps_clusters_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(150) % 3
    points = torch.randn(150, 20, generator=generator) + 8 * torch.eye(20)[labels]
    picture = probes.tsne(points)
    assert picture.shape == (150, 2)
    assert probes.knn_accuracy((picture[:100], labels[:100]), (picture[100:], labels[100:])) > 0.95
    assert torch.equal(probes.tsne(points), picture)


def test_class_accuracies() -> None:
    generator = torch.Generator().manual_seed(0)
    angle = 2 * torch.pi * torch.rand(1200, generator=generator)
    labels = torch.arange(1200) % 2
    rings = torch.stack([angle.cos(), angle.sin()], 1) * (1 + labels)[:, None]
    train, test = (rings[:1000], labels[:1000]), (rings[1000:], labels[1000:])
    nearest, linear = probes.class_accuracies(train, test)
    assert nearest == 1
    assert linear < 0.65  # rings cannot be told apart by a line
    halves = (angle.cos() > 0).long()
    assert probes.class_accuracies((rings[:1000], halves[:1000]), (rings[1000:], halves[1000:]))[1] > 0.97
    assert probes.class_accuracies((rings[:9], labels[:9] * 0), (rings[9:12], labels[9:12] * 0)) == (1, 1)


def test_the_penalty_of_the_linear_probe_is_chosen_on_training_points() -> None:
    """Two hundred points, each of whose hundred coordinates tells a little of the class: a large penalty averages."""
    generator = torch.Generator().manual_seed(0)
    points, labels = torch.randn(2200, 100, generator=generator), torch.arange(2200) % 2
    points += 0.25 * labels[:, None]
    train, test = (points[:200], labels[:200]), (points[200:], labels[200:])
    scaler = StandardScaler().fit(train[0])
    usual = LogisticRegression().fit(scaler.transform(train[0]), train[1]).score(scaler.transform(test[0]), test[1])
    assert probes.class_accuracies(train, test)[1] > usual + 0.03
    few = points[:5], torch.tensor([0, 0, 0, 0, 1])  # a class that cannot be in every fold
    assert 0 <= probes.class_accuracies(few, test)[1] <= 1
    rare = points[:60], torch.tensor([0, 1] * 29 + [2, 2])
    assert 0 <= probes.class_accuracies(rare, test)[1] <= 1


def blobs() -> tuple[Tensor, Tensor]:
    """Three tight classes of 60, 30 and 10 points, two of which are near each other."""
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    centres = torch.tensor([[0.0, 0.0], [20.0, 0.0], [20.0, 3.0]])
    return centres[labels] + 0.3 * torch.randn(100, 2, generator=torch.Generator().manual_seed(0)), labels


def test_classes_are_clusters_or_not() -> None:
    points, labels = blobs()
    assert probes.clustering(points, labels)["normalised_mutual_information"] == pytest.approx(1)
    shuffled = labels[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    found = probes.clustering(points, shuffled)
    assert found["normalised_mutual_information"] < 0.1
    assert found["silhouette"] < 0.05
    # As many clusters as classes: with two, those that are near each other are one.
    merged = labels.clamp(max=1)
    assert probes.clustering(points, merged)["normalised_mutual_information"] == pytest.approx(1)
    split = torch.where(labels == 2, 2, torch.arange(100) % 2)  # half of each cluster has either label
    joint = np.array([[30, 15, 0], [30, 15, 0], [0, 0, 10]]) / 100
    of_labels, of_clusters = entropy(joint.sum(1)), entropy(joint.sum(0))
    shared = of_labels + of_clusters - entropy(joint.flatten())
    found = probes.clustering(points, split)
    assert found["normalised_mutual_information"] == pytest.approx(2 * shared / (of_labels + of_clusters))


def test_the_silhouette_is_that_of_the_classes() -> None:
    points, labels = blobs()
    labels = (labels + (torch.arange(100) % 7 == 0)) % 3  # which are not quite the clusters
    distances, expected = torch.cdist(points, points), []
    for i, label in enumerate(labels):
        means = [distances[i, labels == other].sum() / (labels == other).sum() for other in range(3)]
        means[label] *= (labels == label).sum() / ((labels == label).sum() - 1)  # without itself
        inside, outside = means[label], min(mean for other, mean in enumerate(means) if other != label)
        expected.append((outside - inside) / max(inside, outside))
    assert probes.clustering(points, labels)["silhouette"] == pytest.approx(float(np.mean(expected)), abs=1e-4)


def test_few_or_equal_points_are_not_clusters() -> None:
    points, labels = blobs()
    assert probes.clustering(points, 0 * labels) == {}
    assert probes.clustering(points[:3], torch.arange(3)).keys() == {"normalised_mutual_information"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = probes.clustering(0 * points, labels)
    assert same == {"normalised_mutual_information": pytest.approx(0, abs=1e-9), "silhouette": pytest.approx(0)}
