"""The unit sphere as a latent space: great circles, charts and lattices. R^d is in test_metrics.py."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vae_lightning.errors import UsageError
from vae_lightning.latent_spaces import Sphere


def random_codes(count: int, dimensions: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return normalize(torch.randn(count, dimensions, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("dimensions", [2, 3, 7])
def test_paths_turn_evenly_on_the_shorter_great_circle(dimensions: int) -> None:
    start, end = random_codes(20, dimensions).split(10)
    path = Sphere(dimensions).interpolate(start, end, 9)
    torch.testing.assert_close(path[:, 0], start)
    torch.testing.assert_close(path[:, -1], end)
    torch.testing.assert_close(path.norm(dim=-1), torch.ones(10, 9, dtype=torch.float64))
    angles = (path[:, 1:] * path[:, :-1]).sum(-1).acos()
    whole = (start * end).sum(1).acos()
    torch.testing.assert_close(angles, (whole / 8).unsqueeze(1).expand(10, 8), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_paths_between_equal_and_opposite_codes_stay_on_the_sphere(sign: int) -> None:
    start = random_codes(5, 4)
    path = Sphere(4).interpolate(start, sign * start, 5)
    torch.testing.assert_close(path.norm(dim=-1), torch.ones(5, 5, dtype=torch.float64))
    torch.testing.assert_close(path[:, -1], sign * start)


def test_traversals_turn_towards_each_axis() -> None:
    code, values = random_codes(1, 4)[0], torch.tensor([-1.0, 0.0, 0.5, 3.0])
    turned = Sphere(4).traverse(code, torch.tensor([2, 0]), values)
    assert turned.shape == (2, 4, 4)
    torch.testing.assert_close(turned.norm(dim=-1), torch.ones(2, 4, dtype=torch.float64))
    torch.testing.assert_close(turned[:, 1], code.expand(2, 4))
    torch.testing.assert_close(turned @ code, values.double().cos().expand(2, 4))
    assert turned[0, 2, 2] > code[2]
    assert turned[1, 2, 0] > code[0]
    # Only the plane of the code and the axis is left.
    rest = turned[0] - (turned[0] @ code).unsqueeze(1) * code
    axis = torch.eye(4, dtype=torch.float64)[2] - code[2] * code
    assert (rest - (rest @ axis).unsqueeze(1) * axis / (axis @ axis)).abs().max() < 1e-12
    pole = torch.eye(4)[2]
    torch.testing.assert_close(Sphere(4).traverse(pole, torch.tensor([2]), values).norm(dim=-1), torch.ones(1, 4))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_angles_are_coordinates_of_the_circle_and_the_sphere(dimensions: int) -> None:
    codes = random_codes(50, dimensions)
    chart = Sphere(dimensions).chart(codes)
    assert chart.exact
    torch.testing.assert_close(chart.lift(chart.coordinates), codes)
    torch.testing.assert_close(chart.project(codes), chart.coordinates)
    assert chart.coordinates[:, 0].abs().max() <= math.pi
    assert chart.coordinates[:, 1].abs().max() <= math.pi / 2
    assert chart.explained.sum().item() == pytest.approx(1)
    places = {(1.0, 0.0): 0.0, (0.0, 1.0): math.pi / 2, (0.0, -1.0): -math.pi / 2}
    for (x, y), longitude in places.items():
        place = torch.tensor([[x, y, 0.0][:dimensions]])
        assert chart.project(place)[0].tolist() == pytest.approx([longitude, 0])


def test_above_three_dimensions_a_plane_shows_the_half_sphere_of_the_codes() -> None:
    codes = normalize(random_codes(100, 6) + torch.tensor([0, 0, 0, 3.0, 0, 1.0]), dim=1)
    chart = Sphere(6).chart(codes)
    assert not chart.exact
    lifted = chart.lift(chart.coordinates)
    torch.testing.assert_close(lifted.norm(dim=1), torch.ones(100, dtype=torch.float64))
    torch.testing.assert_close(chart.project(lifted), chart.coordinates)
    assert (lifted @ codes.mean(0) > 0).all()
    far = chart.lift(torch.full((1, 2), 9.0, dtype=torch.float64))
    assert far.norm().item() == pytest.approx(1)


def test_lattices_cover_the_sphere() -> None:
    lattice = Sphere(3).lattice(8)
    assert lattice.codes.shape == (8, 8, 3)
    torch.testing.assert_close(Sphere(3).chart(lattice.codes[0]).coordinates, lattice.coordinates[0])
    assert (lattice.coordinates[:, 0, 1].diff() < 0).all()
    torch.testing.assert_close(lattice.coordinates[0, :, 0], (torch.arange(8) + 0.5) / 8 * 2 * math.pi - math.pi)
    torch.testing.assert_close(lattice.coordinates[:, 0, 1], math.pi / 2 - (torch.arange(8) + 0.5) / 8 * math.pi)
    # Cells of equal area have equally many of evenly spread codes, so the lattice's moments are the sphere's.
    codes = Sphere(3).quantiles(60).codes.reshape(-1, 3)
    torch.testing.assert_close(codes.T @ codes / len(codes), torch.eye(3) / 3, rtol=0, atol=1e-3)
    circle = Sphere(2).lattice(12)
    assert (circle.codes.shape, circle.coordinates.shape) == ((1, 12, 2), (1, 12, 2))
    torch.testing.assert_close(circle.codes.mean(1), torch.zeros(1, 2))


def test_what_a_sphere_has_not() -> None:
    with pytest.raises(ValueError, match="latent_dim: the unit sphere needs at least 2 dimensions, got 1"):
        Sphere(1)
    with pytest.raises(UsageError, match="--extent 3: a lattice covers the whole unit sphere"):
        Sphere(3).lattice(4, 3.0)
    assert Sphere(3).origin.tolist() == [1, 0, 0]
