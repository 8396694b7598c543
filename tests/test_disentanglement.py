"""Scores of disentanglement, of codes made by hand whose scores are known."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vae_lightning.metrics.disentanglement import (
    Factored,
    beta_vae_score,
    dci,
    disentanglement,
    factor_vae_score,
    known_shares,
    modularity,
    mutual_information_gap,
    separated_attribute_predictability,
    varying,
)
from vae_lightning.metrics.ranking import unsupervised_disentanglement_ranking

Code = Callable[[Tensor, torch.Generator], Tensor]  # of factors (N, K)

# All entries are alike, so every dimension knows equally much of every factor.
EVEN_ROTATION = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2


def noise(factors: Tensor, generator: torch.Generator, dimensions: int = 4) -> Tensor:
    return torch.randn(len(factors), dimensions, generator=generator)


CODES: dict[str, Code] = {
    "one to one": lambda factors, generator: 3 * factors + 1,
    "in another order, and bent": lambda factors, generator: (-(factors**3))[:, [2, 0, 3, 1]],
    "with unused dimensions": lambda factors, generator: torch.cat([factors, 1e-3 * noise(factors, generator)], 1),
    "with unused dimensions that tell": lambda factors, generator: torch.cat([factors, 1e-3 * factors], 1),
    "rotated": lambda factors, generator: factors @ EVEN_ROTATION,
    "twice": lambda factors, generator: torch.cat([factors, factors], 1),
    "constant": lambda factors, generator: torch.zeros(len(factors), 4),
    "noise": noise,
    "all but one": lambda factors, generator: torch.cat([factors[:, :3], noise(factors, generator, 1)], 1),
    "two in one": lambda factors, generator: torch.cat([factors[:, :1] + factors[:, 1:2], factors[:, 2:]], 1),
    "a single dimension": lambda factors, generator: factors[:, :1],
}


def made(code: Code, images: int, seed: int = 0) -> Factored:
    """Codes of images of four factors, evenly and independently drawn."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.rand(images, 4, generator=generator) - 0.5
    return Factored(code(factors, generator), factors, [False] * 4)


def scores(name: str) -> dict[str, float]:
    return disentanglement(made(CODES[name], 2000), made(CODES[name], 2000, 1))


# What each score must be; what is not named has no value that can be told without measuring.
MIG, SAP, FACTOR_VAE, BETA_VAE = (
    "mutual_information_gap", "separated_attribute_predictability", "factor_vae_score", "beta_vae_score",
)  # fmt: skip
BEST = dict.fromkeys(
    [MIG, SAP, FACTOR_VAE, BETA_VAE, "disentanglement", "completeness", "informativeness", "modularity"], 1.0
)
EXPECTED = {
    "one to one": BEST,
    # Mutual information does not see a bend, linear prediction does: the squared correlation of x and x³ is 21/25.
    "in another order, and bent": BEST | {SAP: 21 / 25},
    "with unused dimensions": BEST,
    "with unused dimensions that tell": BEST,
    "rotated": {MIG: 0, SAP: 0, "disentanglement": 0, "completeness": 0, FACTOR_VAE: 1 / 4, BETA_VAE: 1 / 4},
    "twice": BEST | {MIG: 0, SAP: 0, "completeness": 1 - math.log(2) / math.log(8)},
    "constant": dict.fromkeys(BEST, 0.0) | {BETA_VAE: 1 / 4},
    "noise": dict.fromkeys(BEST, 0.0) | {FACTOR_VAE: 1 / 4, BETA_VAE: 1 / 4},
    # The fourth factor is never told, but where it is shared no other is, which a linear classifier sees.
    "all but one": {
        MIG: 3 / 4,
        SAP: 3 / 4,
        "informativeness": 3 / 4,
        "modularity": 1,
        "completeness": 3 / 4,
        BETA_VAE: 1,
    },
    # Of two factors that share a dimension, one is always mistaken for the other.
    "two in one": {FACTOR_VAE: 3 / 4, BETA_VAE: 3 / 4, SAP: 3 / 4, "informativeness": 3 / 4},
    "a single dimension": {MIG: 1 / 4, SAP: 1 / 4, "modularity": 1, "informativeness": 1 / 4},
}


@pytest.mark.parametrize("name", CODES)
def test_codes_made_by_hand_have_their_known_scores(name: str) -> None:
    found = scores(name)
    assert found.keys() == BEST.keys()
    assert all(0 <= value <= 1 for value in found.values())
    for score, value in EXPECTED[name].items():
        assert found[score] == pytest.approx(value, abs=0.06), score


def test_the_rest_is_in_order() -> None:
    """What has no exact value, against codes that are better and worse."""
    found = {name: scores(name) for name in ("one to one", "two in one", "rotated")}
    for score in (MIG, "disentanglement", "modularity"):
        best, middle, worst = (values[score] for values in found.values())
        assert best > middle + 0.1 > worst + 0.2, score
    assert found["rotated"]["informativeness"] > 0.9  # entangled, but all there


def test_dimensions_that_posterior_noise_would_drown_know_nothing() -> None:
    def leaking(factors: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat([factors, 1e-3 * factors], 1)

    images = made(leaking, 2000)
    for score in (mutual_information_gap, modularity):
        assert score(images) == pytest.approx(1, abs=0.02)
    assert factor_vae_score(images, made(leaking, 2000, 1)) == 1
    expected = torch.cat([torch.eye(4), torch.zeros(4, 4)])
    torch.testing.assert_close(known_shares(images), expected, atol=0.03, rtol=0)


def flipped(bits: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    return (bits + (torch.rand(bits.shape, generator=generator) < probability)) % 2


def bits(images: int = 20_000, factors: int = 2) -> tuple[Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(2, (images, factors), generator=generator).double(), generator


def test_the_mutual_information_gap_of_noisy_channels() -> None:
    """A bit that is flipped with probability p keeps 1 − H(p) of its information."""
    factors, generator = bits()
    codes = torch.cat([flipped(factors, 0.05, generator), flipped(factors, 0.2, generator)], 1)

    def lost(p: float) -> float:
        return -(p * math.log2(p) + (1 - p) * math.log2(1 - p))

    found = mutual_information_gap(Factored(codes, factors, [True, True]))
    assert found == pytest.approx(lost(0.2) - lost(0.05), abs=0.01)


def test_modularity_of_a_dimension_that_knows_equally_much_of_two_factors() -> None:
    factors, _ = bits(factors=3)
    both, one = 2 * factors[:, 0] + factors[:, 1], factors[:, 2]
    # δ is one factor too many of the two that there can be.
    assert modularity(Factored(both[:, None], factors, [False] * 3)) == pytest.approx(1 / 2, abs=0.01)
    assert modularity(Factored(torch.stack([both, one], 1), factors, [False] * 3)) == pytest.approx(3 / 4, abs=0.01)


def test_predictability_of_numbers_is_the_gap_of_squared_correlations() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(20_000, 2, generator=generator)
    codes = torch.cat([factors + spread * noise(factors, generator, 2) for spread in (0.5, 1)], 1)
    images = Factored(codes, factors, [False, False])
    found = separated_attribute_predictability(images, images)
    assert found == pytest.approx(1 / (1 + 0.25) - 1 / (1 + 1), abs=0.02)


def test_categories_have_no_order() -> None:
    """Their codes may be in any: as numbers they are not predicted linearly, as categories by thresholds."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(5, (3000, 2), generator=generator).double()
    codes = torch.tensor([3.0, 0, 4, 1, 2])[factors.long()] + 0.1 * noise(factors, generator, 2)
    train, test = (Factored(codes[part], factors[part], [True, True]) for part in (slice(1500), slice(1500, None)))
    assert separated_attribute_predictability(train, test) == pytest.approx(1, abs=0.05)
    assert list(dci(train, test)) == pytest.approx([1, 1, 1], abs=0.05)
    numbers = [part._replace(categorical=[False, False]) for part in (train, test)]
    assert separated_attribute_predictability(*numbers) < 0.1
    # Guessing tells nothing.
    unrelated = [part._replace(codes=torch.randn(len(part.codes), 2, generator=generator)) for part in (train, test)]
    assert dci(*unrelated).informativeness < 0.05
    assert separated_attribute_predictability(*unrelated) < 0.05


@pytest.mark.parametrize("score", [factor_vae_score, beta_vae_score])
def test_groups_share_one_of_many_values(score: Callable[[Factored, Factored], float]) -> None:
    """A category with as many values as there are groups to draw, and one with two: both can be told."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.stack([torch.randint(k, (3000,), generator=generator) for k in (40, 2)], 1).double()
    codes = factors / factors.std(0)
    images = Factored(codes, factors, [True, True])
    assert score(images, images) == 1
    small = images._replace(codes=1e-6 * codes)
    assert score(small, small) == 1


def test_factors_that_do_not_vary_are_ignored() -> None:
    images = made(CODES["two in one"], 1000)
    more = torch.cat([torch.full((1000, 1), 7.0), images.factors], 1)
    assert varying(more) == [1, 2, 3, 4]
    padded = images._replace(factors=more, categorical=[True] + [False] * 4)
    assert disentanglement(padded, padded) == disentanglement(images, images)
    with pytest.raises(ValueError, match="factors: at least 2 must vary, got 1"):
        modularity(padded._replace(factors=more[:, :2]))


def test_models_that_find_the_same_dimensions_are_ranked_above_others() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(3000, 5, generator=generator)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q
    used = torch.ones(5)
    same = [codes, 1 - 3 * codes[:, [2, 1, 0, 4, 3]]]
    assert unsupervised_disentanglement_ranking(same, [used, used]) == pytest.approx([0.9, 0.9], abs=0.01)
    # A dimension without a rate does not count, whatever it is.
    more = torch.cat([codes, codes[:, :1]], 1)
    rates = torch.tensor([1, 1, 1, 1, 1, 0.005])
    assert unsupervised_disentanglement_ranking([*same, more], [used, used, rates]) == pytest.approx(
        [0.9] * 3, abs=0.01
    )
    rotated = unsupervised_disentanglement_ranking([codes, codes @ rotation], [used, used])
    assert max(rotated) < 0.5
    unrelated = unsupervised_disentanglement_ranking([codes, torch.randn(3000, 5, generator=generator)], [used, used])
    assert max(unrelated) < 0.05
    # The one among five that differs is last; the median keeps it from hurting the others.
    five = unsupervised_disentanglement_ranking([*same, codes @ rotation, codes, codes + 0.01], [used] * 5)
    assert five.index(min(five)) == 2
    assert sorted(five)[1] > 0.85
    # Nothing in common with a model without information.
    assert unsupervised_disentanglement_ranking([codes, codes], [used, torch.zeros(5)]) == [0, 0]


def test_a_ranking_needs_several_models_and_the_same_images() -> None:
    codes, rates = torch.randn(10, 2), torch.ones(2)
    for given in ([codes], [codes, codes[:9]]):
        with pytest.raises(ValueError, match="codes: must be of the same images, by two or more models"):
            unsupervised_disentanglement_ranking(given, [rates] * len(given))
