"""Evaluation against independent calculations."""

import numpy as np
import pytest
import torch
from torch.distributions import kl_divergence

from vae_lightning.evaluation import encode_all, normal_lattice, principal_plane, square_lattice, traverse


def test_principal_plane_is_that_of_the_singular_value_decomposition() -> None:
    points = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 5, 0.1, 3, 0.2, 1])
    plane = principal_plane(points)
    centred = points.numpy() - points.numpy().mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(plane.coordinates.abs().numpy(), np.abs(u[:, :2] * s[:2]), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(plane.explained, s[:2] ** 2 / (s**2).sum(), rtol=1e-4)
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2))
    torch.testing.assert_close(principal_plane(points.flip(0)).axes, plane.axes)


def test_lattices() -> None:
    lattice = square_lattice(8.0, 8)
    assert lattice.shape == (8, 8, 2)
    assert lattice[0, 0].tolist() == [-8, 8]
    assert lattice[-1, -1].tolist() == [8, -8]
    torch.testing.assert_close(lattice[0, :, 0], torch.linspace(-8, 8, 8))
    # A fifth of a normal's mass lies between the steps of a lattice with five cells.
    steps = normal_lattice(5)[0, :, 0]
    torch.testing.assert_close(torch.special.ndtr(steps), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]))


def test_traverse_changes_one_dimension_a_row() -> None:
    codes = traverse(torch.arange(4.0), torch.tensor([2, 0]), torch.tensor([-1.0, 9.0]))
    assert codes.tolist() == [[[0, 1, -1, 3], [0, 1, 9, 3]], [[-1, 1, 2, 3], [9, 1, 2, 3]]]


def test_rates_of_the_dimensions_add_up_over_unequal_batches(tiny_model) -> None:
    images, labels = torch.rand(10, 1, 28, 28), torch.arange(10)
    batches = [(images[:7], labels[:7]), (images[7:], labels[7:])]
    model = tiny_model.eval()
    codes = encode_all(model, batches)
    posterior = model.encode(images)
    rate = kl_divergence(posterior, model.prior.distribution()).mean().item()
    assert codes.rates.sum().item() == pytest.approx(rate, rel=1e-4)
    torch.testing.assert_close(codes.means, posterior.mean.detach(), rtol=1e-4, atol=1e-5)
    assert codes.labels.tolist() == list(range(10))
