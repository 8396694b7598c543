"""Samples at a temperature: the noise of a prior shrinks about its own means, or the prior is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
)

from vae_lightning.errors import UsageError
from vae_lightning.generate.images import sample
from vae_lightning.posteriors import LadderHead
from vae_lightning.priors import (
    ClassConditional,
    FlowPrior,
    GaussianMixture,
    LadderPrior,
    Prior,
    StandardNormal,
    TwoStage,
    UniformSphere,
    VampPrior,
    tempered,
)
from vae_lightning.vae import VAE


class Encoder(nn.Module):
    """Codes far from 0: the first pixel and its negative, each 10 times."""

    latent_space = StandardNormal.latent_space

    def __init__(self, full: bool = False) -> None:
        super().__init__()
        self.full = full

    def forward(self, x: Tensor) -> Distribution:
        means = 10 * torch.stack([x[:, 0, 0, 0], -x[:, 0, 0, 0]], 1)
        if self.full:
            return MultivariateNormal(means, torch.eye(2))
        return Independent(Normal(means, torch.ones_like(means)), 1)


def vamp(full: bool = False) -> Prior:
    prior = VampPrior((1, 1, 1), components=2)
    prior.pseudo_inputs.data = torch.tensor([-30.0, 30.0]).view(2, 1, 1, 1)
    prior.attach(Encoder(full))
    return prior


def mixture() -> Prior:
    prior = GaussianMixture(2, components=2)
    prior.means.data = torch.tensor([[10.0, -10.0], [0.0, 0.0]])
    return prior


def by_class() -> Prior:
    prior = ClassConditional(2, classes=2)
    prior.means.data = torch.tensor([[10.0, -10.0], [0.0, 0.0]])
    return prior


@pytest.mark.parametrize("make", [vamp, lambda: vamp(full=True), mixture, by_class])
@torch.no_grad()
def test_components_keep_their_means(make: Callable[[], Prior]) -> None:
    torch.manual_seed(0)
    z = tempered(make().distribution(), 0.1).sample((4000,))
    far = z[:, 0] > 5
    assert far.double().mean() == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(z[far].mean(0), torch.tensor([10.0, -10.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(z[~far].mean(0), torch.zeros(2), atol=0.02, rtol=0)
    torch.testing.assert_close(z[far].std(0), torch.full((2,), 0.1), atol=0.01, rtol=0)


@torch.no_grad()
def test_the_noise_of_a_flow_is_scaled_before_its_transform() -> None:
    torch.manual_seed(0)
    prior = FlowPrior(2, kind="maf", hidden=(8,))
    prior.standardise(torch.tensor([[5.0, -3.0], [7.0, -1.0]]))
    flow = prior.distribution()
    (middle,) = tempered(flow, 0.0).sample((5,)).unique(dim=0)
    torch.testing.assert_close(middle, flow.transform(torch.zeros(2)))
    torch.manual_seed(1)
    cool = tempered(flow, 0.5).sample((1000,))
    torch.manual_seed(1)
    torch.testing.assert_close(
        flow.transform.inv(flow.sample((1000,))) / 2, flow.transform.inv(cool), atol=1e-3, rtol=0
    )


@torch.no_grad()
def test_levels_and_stages_are_cooled_each() -> None:
    torch.manual_seed(0)
    prior = LadderPrior()
    prior.attach(LadderHead(5, 6))
    ladder = prior.distribution()
    (coldest,) = tempered(ladder, 0.0).sample((5,)).unique(dim=0)
    torch.testing.assert_close(coldest, ladder.descend(lambda mean, _: mean))
    level = [tempered(ladder, share).sample((4000,))[:, 3:].std().item() for share in (1.0, 0.5)]
    assert level == pytest.approx([1.0, 0.5], rel=0.05)
    stage = TwoStage(3, hidden=(8,))
    second = stage.distribution()
    (coldest,) = tempered(second, 0.0).sample((5,)).unique(dim=0)
    torch.testing.assert_close(coldest, stage.decode(torch.zeros(3)).mean)


@torch.no_grad()
def test_the_standard_prior_is_as_it_was() -> None:
    prior = StandardNormal(3).distribution()
    torch.manual_seed(0)
    z = prior.sample((7,))
    torch.manual_seed(0)
    torch.testing.assert_close(tempered(prior, 0.7).sample((7,)), 0.7 * z)


@pytest.mark.parametrize(
    ("distribution", "name"),
    [
        (UniformSphere(3).distribution(), "SphericalUniform"),
        (Independent(StudentT(torch.ones(2)), 1), "StudentT"),
        (
            MixtureSameFamily(Categorical(torch.ones(2)), Independent(StudentT(torch.ones(2, 2)), 1)),
            "StudentT",
        ),
    ],
)
def test_others_are_refused(distribution: Distribution, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has no noise about a mean"):
        tempered(distribution, 0.5)


def test_mistakes_are_told(tiny_model: VAE) -> None:
    model = tiny_model.eval()
    with pytest.raises(UsageError, match="--temperature -1: must be at least 0"):
        sample(model, 3, -1.0)
    prior = Independent(StudentT(torch.ones(model.latent_dim)), 1)
    model.prior_distribution = lambda labels=None: prior  # type: ignore[method-assign]
    assert len(sample(model, 3)) == 3
    with pytest.raises(UsageError, match=r"--temperature 0\.5: the prior cannot be cooled: StudentT has no noise"):
        sample(model, 3, 0.5)
