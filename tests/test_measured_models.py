"""Models, priors and data that are not this package's are measured as its own are, as far as they can be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule
from shared import ON_SPHERE, PARTNERS
from test_measurements import BY_CLASS, built, lines_with, measured
from torch import Tensor, nn
from torch.distributions import (
    AffineTransform,
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)
from torch.distributions.transforms import TanhTransform
from torch.utils.data import DataLoader

from vae_lightning.data.batch import Batch
from vae_lightning.priors import StandardNormal


class FullCovariance(nn.Module):
    """Makes the dimensions of an encoder's posterior depend on each other."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Distribution:
        normal = self.encoder(x)
        factor = torch.diag_embed(normal.stddev) + 0.1 * torch.ones(3, 3).tril(-1)
        return MultivariateNormal(normal.mean, scale_tril=factor)


class Flow(FullCovariance):
    """Bends the posterior of an encoder."""

    def forward(self, x: Tensor) -> Distribution:
        return TransformedDistribution(self.encoder(x), [AffineTransform(0.1, 0.7, event_dim=1), TanhTransform()])


class Bare(FullCovariance):
    """A posterior that has nothing but `rsample` and `log_prob`."""

    def forward(self, x: Tensor) -> Distribution:
        return BareDistribution(self.encoder(x))


class BareDistribution(Distribution):
    def __init__(self, base: Distribution) -> None:
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)
        self.base = base

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.base.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob(value)


class FlowPrior(StandardNormal):
    def distribution(self) -> Distribution:
        return TransformedDistribution(super().distribution(), [AffineTransform(0.5, 2.0, event_dim=1)])


BY_DIMENSION = {"dimensionwise_kl", "total_correlation_lower", "total_correlation_upper"}
OF_THE_RATE = {
    "mutual_information_lower", "mutual_information_upper", "marginal_kl_lower", "marginal_kl_upper", *BY_DIMENSION
}  # fmt: skip
NOTHING = dict.fromkeys(("bound_samples", "probe_images", "quality_images", "plane_points"), 0)


@pytest.mark.parametrize("prior", ["vamp", "class_conditional", "ladder"])
def test_the_annealed_bound_of_any_prior_on_real_vectors(prior: str) -> None:
    options = [option for option in PARTNERS.get(f"model/prior={prior}", ()) if "posterior" in option]
    model, data = built(f"model/prior={prior}", *options, "model.latent_dim=4")
    sizes = {"annealed_images": 3, "annealed_chains": 2, "annealed_steps": 4}
    found = measured(model, data, **NOTHING | {"bound_samples": 2} | sizes)
    assert {name for name in found if "annealed" in name} == {
        f"annealed_{name}{suffix}" for name in ("bound", "rise", "gap") for suffix in ("", "_stderr")
    }
    assert found["annealed_gap"] > -5 * found["annealed_gap_stderr"]


@pytest.mark.parametrize(
    ("options", "space"),
    [([*ON_SPHERE, "model.latent_dim=3"], "the unit sphere"), (["recipe=vq_vae"], "the vectors of a codebook")],
)
def test_the_annealed_bound_needs_real_vectors(
    options: list[str], space: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, data = built(*options)
    with caplog.at_level("INFO"):
        found = measured(model, data, **NOTHING, annealed_images=3)
    assert not [name for name in found if "annealed" in name]
    line = f"measured   the prior is a density on {space}: annealed importance sampling is left out"
    assert lines_with("annealed", caplog) == [line]


@pytest.mark.parametrize(
    ("posterior", "flow_prior"),
    [
        *((FullCovariance, False), (Flow, True), (Bare, True)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [(FullCovariance, True), (Flow, False), (Bare, False)]
        ),
    ],
)
def test_any_posterior_and_any_prior_are_measured(posterior: type[FullCovariance], flow_prior: bool) -> None:
    model, data = built("model.latent_dim=3")
    usual = measured(model, data, probe_images=0)
    model.encoder = posterior(model.encoder)
    if flow_prior:
        model.prior = FlowPrior(3)
    metrics = measured(model, data, probe_images=0)
    # The marginals of both are known, and the prior's are independent.
    by_dimension = posterior is FullCovariance and not flow_prior
    assert set(metrics) == (set(usual) if by_dimension else set(usual) - BY_DIMENSION)
    assert all(np.isfinite(value) for value in metrics.values())
    # The moments of a prior without closed form are those of samples.
    if posterior is Bare and flow_prior:
        assert metrics["posterior_mean_gap"] == pytest.approx(0.5, abs=0.3)
        assert metrics["mse"] == pytest.approx(usual["mse"], rel=0.05)


class ConditionalEncoder(FullCovariance):
    """An encoder that cannot do without labels."""

    conditional = True

    def forward(self, x: Tensor, labels: Tensor | None) -> Distribution:
        assert labels is not None
        assert len(labels) == len(x)
        return self.encoder(x)


class ConditionalDecoder(FullCovariance):
    conditional = True

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        return self.encoder(z + 0.1 * labels.unsqueeze(-1).expand((*z.shape[:-1], 1)))


class ConditionalPrior(StandardNormal):
    conditional = True

    def distribution(self, labels: Tensor | None = None) -> Independent:
        assert labels is not None
        return Independent(Normal(labels.float().unsqueeze(-1).expand(-1, 3), 1.0), 1)


@pytest.mark.parametrize(
    ("posterior", "others"),
    [("iaf", []), ("fsq", ["model/prior=uniform_codes"]), ("none", ["model/objective=wae_mmd"])],
)
def test_without_a_density_at_other_codes_the_rate_is_whole(
    posterior: str, others: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    model, data = built(f"model/posterior={posterior}", *others, "model.latent_dim=4")
    with caplog.at_level("INFO"):
        metrics = measured(model, data, **NOTHING)
    assert not OF_THE_RATE & set(metrics)
    line = "measured   no density at the codes of other images, or a slow one: the parts of the rate are left out"
    assert lines_with("left out", caplog) == [line] * (posterior != "none")


def test_the_rate_of_directions_has_no_gaussian() -> None:
    model, data = built("model/posterior=von_mises_fisher", "model/prior=uniform_sphere", "model.latent_dim=16")
    metrics = measured(model, data, **NOTHING)
    assert set(metrics) & OF_THE_RATE == OF_THE_RATE - BY_DIMENSION
    parts = metrics["marginal_kl_lower"], metrics["mutual_information_upper"]
    assert sum(parts) == pytest.approx(metrics["rate"], abs=1e-4)
    assert min(parts) > -0.01


def test_labels_reach_a_conditional_model(caplog: pytest.LogCaptureFixture) -> None:
    model, data = built("model.latent_dim=3")
    model.encoder, model.decoder = ConditionalEncoder(model.encoder), ConditionalDecoder(model.decoder)
    model.prior = ConditionalPrior(3)
    with caplog.at_level("INFO"):
        metrics = measured(model, data)
    assert set(metrics) >= BY_CLASS
    assert not OF_THE_RATE & set(metrics)
    assert lines_with("parts of the rate", caplog) == [
        "measured   the prior depends on the label: the parts of the rate are left out"
    ]
    # The prior of all images together has the moments of ten classes, 0 to 9, each with variance 1.
    assert metrics["posterior_mean_gap"] == pytest.approx(4.5, abs=0.2)
    assert metrics["posterior_covariance_gap"] == pytest.approx(((8.25 * 3) ** 2 + 0) ** 0.5 / 3**0.5, rel=0.1)


class OwnData(LightningDataModule):
    """A data module from elsewhere, with labels that no name is known of, and no more than is asked of one."""

    name = "own"
    class_names = ()
    image_shape = (1, 28, 28)

    def examples(self, name: str, count: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(len(name))
        labels = torch.arange(50) % 4  # told by the brightness
        images = torch.rand(50, 1, 28, 28, generator=generator) / 2 + labels[:, None, None, None] / 8
        return images[:count], labels[:count]

    def test_dataloader(self) -> DataLoader:
        return DataLoader([Batch(*self.examples("test", 50))], batch_size=None)


@pytest.mark.slow
def test_a_data_module_from_elsewhere_is_measured(tmp_path: Path) -> None:
    model, _ = built()
    metrics = measured(model, OwnData(), cache=str(tmp_path))
    assert metrics["chance_accuracy"] == pytest.approx(13 / 50)
    assert BY_CLASS - {"knn_accuracy_plane"} <= set(metrics)
