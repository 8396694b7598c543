"""The ladder of latent variables: densities, rates and levels against independent calculations."""

import math

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from shared import TINY, compose_config
from torch.distributions import MultivariateNormal, Normal

from vae_lightning.config.messages import explain
from vae_lightning.data.batch import Batch
from vae_lightning.distributions import Ladder
from vae_lightning.objectives import ELBO, FreeBits
from vae_lightning.posteriors import LadderHead, point, spread
from vae_lightning.posteriors.ladder import level_sizes
from vae_lightning.priors import LadderPrior
from vae_lightning.rates import level_rates, rate, rates

SIZES = (3, 2, 1)


@pytest.fixture
def head() -> LadderHead:
    torch.manual_seed(0)
    return LadderHead(7, 6, SIZES, hidden=5).double()


@pytest.fixture
def posterior(head: LadderHead) -> Ladder:
    return head(torch.randn(4, 7, dtype=torch.float64))


def by_hand(head: LadderHead, features: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """log q(z|x), log p(z) and the levels' KL divergences, written out for three levels of one image."""

    def network(layers: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = layers[2](torch.nn.functional.leaky_relu(layers[0](x)))
        half = len(out) // 2
        return out[:half], (out[half:] / 2).exp()

    z1, z2, z3 = z[:3], z[3:5], z[5:]
    bottom, evidence = features, []
    for layer, output in zip(head.bottom_up, head.evidence, strict=True):
        bottom = torch.nn.functional.leaky_relu(layer[0](bottom))
        out = output(bottom)
        evidence.append((out[: len(out) // 2], (out[len(out) // 2 :] / 2).exp()))
    p = [network(head.top_down.networks[0], z2), network(head.top_down.networks[1], z3),
         (torch.zeros(1).double(), torch.ones(1).double())]  # fmt: skip
    q = []
    for (m, s), (pm, ps) in zip(evidence[:2], p[:2], strict=True):
        variance = 1 / (1 / s**2 + 1 / ps**2)
        q.append((variance * (m / s**2 + pm / ps**2), variance.sqrt()))
    q.append(evidence[2])

    def density(pairs: list) -> torch.Tensor:
        parts = zip(pairs, (z1, z2, z3), strict=True)
        return sum(
            (-((part - m) ** 2) / (2 * s**2) - s.log() - 0.5 * math.log(2 * math.pi)).sum() for (m, s), part in parts
        )

    kl = [
        ((ps / s).log() + (s**2 + (m - pm) ** 2) / (2 * ps**2) - 0.5).sum()
        for (m, s), (pm, ps) in zip(q, p, strict=True)
    ]
    return density(q), density(p), *kl


def test_densities_and_rates_are_those_written_out(head: LadderHead) -> None:
    features = torch.randn(4, 7, dtype=torch.float64)
    posterior, prior = head(features), Ladder(head.top_down)
    z = posterior.sample()
    written = [by_hand(head, *pair) for pair in zip(features, z, strict=True)]
    log_q, log_p, *levels = (torch.stack(parts) for parts in zip(*written, strict=True))
    torch.testing.assert_close(posterior.log_prob(z), log_q)
    torch.testing.assert_close(prior.log_prob(z), log_p)
    for found, expected in zip(level_rates(posterior, prior, z), levels, strict=True):
        torch.testing.assert_close(found.sum(1), expected)
    torch.testing.assert_close(rate(posterior, prior, z), sum(levels))
    assert rates(posterior, prior).shape == (4, 6)


def test_samples_have_the_density_that_is_said(head: LadderHead) -> None:
    """E_q[p(z)/q(z)] = 1, and the sampled rate is on average the sum of the levels' rates."""
    posterior, prior = head(torch.randn(2, 7, dtype=torch.float64)), Ladder(head.top_down)
    z = posterior.sample((100_000,))
    assert z.shape == (100_000, 2, 6)
    log_ratio = posterior.log_prob(z) - prior.log_prob(z)
    weights = (-log_ratio).exp()
    assert ((weights.mean(0) - 1).abs() < 5 * weights.std(0) / len(z) ** 0.5).all()
    levels = torch.cat(level_rates(posterior, prior, z), -1).sum(-1)
    difference = log_ratio - levels
    assert (difference.mean(0).abs() < 4 * difference.std(0) / len(z) ** 0.5).all()


def test_a_ladder_of_linear_levels_is_one_normal_distribution(head: LadderHead) -> None:
    for network in head.top_down.networks:
        network[0].weight.data.zero_()  # then the levels are independent
    prior = Ladder(head.top_down)
    normals = prior.normals(torch.zeros(6).double())
    whole = Normal(torch.cat([n.mean for n in normals]), torch.cat([n.stddev for n in normals]))
    z = torch.randn(5, 6).double()
    torch.testing.assert_close(prior.log_prob(z), whole.log_prob(z).sum(-1))
    joint = MultivariateNormal(whole.mean, torch.diag(whole.variance))
    torch.testing.assert_close(prior.log_prob(z), joint.log_prob(z))


def test_point_and_spread_follow_the_means(posterior: Ladder) -> None:
    code = point(posterior)
    normals = posterior.normals(code)
    torch.testing.assert_close(code, torch.cat([normal.mean for normal in normals], -1))
    torch.testing.assert_close(spread(posterior), torch.cat([normal.stddev for normal in normals], -1))


def test_gradients_reach_everything_through_the_sample(head: LadderHead) -> None:
    features = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)

    def codes(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return head(x).rsample()

    assert torch.autograd.gradcheck(codes, features)


def test_variations_share_the_highest_levels(head: LadderHead) -> None:
    prior = LadderPrior()
    prior.attach(head)
    rows = prior.variations(4)
    assert [*rows] == ["same levels 2 to 3", "same level 3"]
    lower, upper = rows.values()
    assert lower.shape == (4, 6)
    assert (lower[:, 3:] == lower[:1, 3:]).all()
    assert (upper[:, 5:] == upper[:1, 5:]).all()
    assert len(lower[:, 0].unique()) == len(upper[:, 3].unique()) == 4
    assert list(prior.parameters()) == []


def model(*options: str) -> torch.nn.Module:
    config = compose_config(
        *TINY, "model/posterior=ladder", "model.encoder.posterior.levels=3", "model.latent_dim=6", *options
    )
    torch.manual_seed(0)
    return instantiate(config.model, _convert_="all")


def test_free_bits_are_those_of_levels() -> None:
    made = model("model/prior=ladder", "model/objective=free_bits", "model.objective.nats=1000")
    images = torch.rand(5, 1, 28, 28)
    assert isinstance(made.objective, FreeBits)
    terms = made.objective(made, Batch(images))
    torch.testing.assert_close(terms["loss"] - terms["distortion"], torch.full((5,), 6000.0))
    torch.manual_seed(3)
    bound = ELBO()(made, Batch(images))
    assert [name for name in bound if "level" in name] == ["rate_level_1", "rate_level_2", "rate_level_3"]
    torch.testing.assert_close(bound["rate"], sum(bound[f"rate_level_{number}"] for number in (1, 2, 3)))


def test_a_prior_of_another_kind() -> None:
    """Then the levels are those of the posterior alone, and the rate is estimated; the other way round is refused."""
    terms = ELBO()(model(), Batch(torch.rand(2, 1, 28, 28)))
    assert [*terms] == ["loss", "distortion", "rate"]
    with pytest.raises(InstantiationException) as caught:
        instantiate(compose_config(*TINY, "model/prior=ladder").model, _convert_="all")
    assert "choose model/posterior=ladder" in explain(caught.value)


@pytest.mark.parametrize("levels", [1, 7, [6], [3, 4], [6, 0]], ids=str)
def test_levels_that_cannot_be(levels: int | list[int]) -> None:
    with pytest.raises(ValueError, match="levels: must be"):
        level_sizes(6, levels)
