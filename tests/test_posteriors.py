"""Posteriors that can be chosen in the config tree: each goes with every architecture."""

import re
from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from shared import TINY, compose_config
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, Poisson, StudentT
from torch.nn.functional import one_hot

from vae_lightning.architectures.mlp import MLPDecoder, MLPEncoder
from vae_lightning.building import build
from vae_lightning.config import CONFIGURATION
from vae_lightning.config.messages import explain
from vae_lightning.data.batch import Batch
from vae_lightning.errors import UsageError
from vae_lightning.latent_spaces import Euclidean, Sphere
from vae_lightning.objectives import ELBO, Model, Terms
from vae_lightning.posteriors import moments, point, spread
from vae_lightning.priors import Prior
from vae_lightning.vae import VAE

PRIORS = {
    "von_mises_fisher": "uniform_sphere",
    "vq": "uniform_codes",
    "fsq": "uniform_codes",
}  # where it is not standard
HEADS = sorted(path.stem for path in (CONFIGURATION / "model" / "posterior").glob("*.yaml"))


@pytest.mark.parametrize("architecture", ["conv", "mlp", pytest.param("resnet", marks=pytest.mark.slow)])
@pytest.mark.parametrize("head", HEADS)
def test_contract(head: str, architecture: str) -> None:
    options = [option for option in TINY if architecture != "mlp" or "width" not in option]
    options += [f"model={architecture}", f"model/posterior={head}", f"model/prior={PRIORS.get(head, 'standard')}"]
    options += ["model/objective=wae_mmd"] * (head == "none")
    config = compose_config(*options, "model.latent_dim=4")
    torch.manual_seed(0)
    model = instantiate(config.model, _convert_="all")
    if head == "fsq":  # otherwise all codes are still 0
        model.encoder.head.project.weight.data.mul_(30)
    images = torch.rand(4, 1, 28, 28)
    posterior = model.encode(images)
    assert posterior.batch_shape == (4,)
    assert posterior.event_shape == (4,)
    assert posterior.rsample((2,)).shape == (2, 4, 4)
    assert point(posterior).shape == spread(posterior).shape == (4, 4)
    mean, covariance = moments(posterior)
    assert mean.shape == (4, 4)
    assert covariance.shape in ((4, 4), (4, 4, 4))
    model.objective(model, Batch(images))["loss"].mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def made(posterior: str, *options: str) -> VAE:
    torch.manual_seed(0)
    return instantiate(compose_config(*TINY, f"model/posterior={posterior}", *options).model, _convert_="all")


@pytest.mark.parametrize("posterior", ["iaf", "nsf"])
def test_points_of_flows_are_moved_by_them_and_layers_take_the_dimensions_in_either_order(posterior: str) -> None:
    model = made(posterior, "model.latent_dim=4")
    flow = model.encode(torch.rand(1, 1, 28, 28))
    torch.testing.assert_close(point(flow), flow.transform(flow.base.mean))
    assert not torch.allclose(point(flow), flow.base.mean)
    jacobian = torch.autograd.functional.jacobian(lambda u: flow.transform(u), flow.base.mean)[0, :, 0]
    assert jacobian.abs().min() > 0  # one layer alone would leave a triangle of zeros


def test_gates_of_an_inverse_autoregressive_flow_mix() -> None:
    """Kingma et al. (2016), equation 14: σ·z + (1 − σ)·m, which stays at m where z is m."""
    from vae_lightning.posteriors.iaf import OPEN, _gated

    mean, logit, z = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    transform, gate = _gated(mean, logit), (logit + OPEN).sigmoid()
    torch.testing.assert_close(transform(z), gate * z + (1 - gate) * mean)
    torch.testing.assert_close(transform(mean), mean)
    torch.testing.assert_close(transform.log_abs_det_jacobian(z, transform(z)), gate.log())


@pytest.mark.parametrize(("posterior", "space"), [("von_mises_fisher", Sphere), ("iaf", Euclidean)])
def test_vamp_lives_where_its_posterior_does(posterior: str, space: type) -> None:
    model = made(posterior, "model.latent_dim=4", "model/prior=vamp", "model.prior.components=4")
    assert type(model.latent_space) is space
    assert model.sample(2).shape == (2, 1, 28, 28)


def test_a_sphere_in_a_single_dimension_is_refused() -> None:
    with pytest.raises(InstantiationException) as caught:
        made("von_mises_fisher", "model/prior=uniform_sphere", "model.latent_dim=1")
    assert "latent_dim: von_mises_fisher needs at least 2, got 1" in explain(caught.value)


def test_trying_an_objective_leaves_no_trace(tmp_path: Path) -> None:
    config = compose_config(*TINY, "model/posterior=iaf", "model/objective=annealed", "logger=none")
    config.run_dir = str(tmp_path)
    model = made("iaf", "model/objective=annealed")
    torch.manual_seed(0)
    tried = build(config).model
    assert tried.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, tried.state_dict()[name]), name
    after = torch.rand(3)
    made("iaf", "model/objective=annealed")
    assert torch.equal(after, torch.rand(3))


class WithoutChannels(MLPDecoder):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z).squeeze(-3)


class WithoutLeadingAxes(MLPDecoder):
    def forward(self, z: Tensor) -> Tensor:
        return self.pixels(self.trunk(z)).view(z.shape[0], *self.image_shape)


class WithoutDistribution(MLPEncoder):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean


class WithoutReparameterisation(MLPEncoder):
    def forward(self, x: Tensor) -> Distribution:
        return Independent(Poisson(super().forward(x).stddev, validate_args=False), 1, validate_args=False)


class WithoutImages(ELBO):
    def forward(self, model: Model, batch: Batch) -> Terms:
        return {name: term.mean() for name, term in super().forward(model, batch).items()}


class WithoutLoss(ELBO):
    def forward(self, model: Model, batch: Batch) -> Terms:
        return {"distortion": super().forward(model, batch)["distortion"]}


class WithHits(ELBO):
    def forward(self, model: Model, batch: Batch) -> Terms:
        terms = super().forward(model, batch)
        return {**terms, "hits": terms["loss"] > 500}


class WithoutFreedom(Prior):
    def __init__(self, latent_dim: int) -> None:
        super().__init__()

    def distribution(self) -> Distribution:
        return Independent(StudentT(torch.full((2,), -1.0)), 1)


class WithoutMetrics(nn.Module):
    def forward(self, raw: Tensor) -> Distribution:
        return Independent(Normal(raw, 1.0, validate_args=False), 3, validate_args=False)


class WithNumbers(WithoutMetrics):
    def metrics(self, x: Tensor, distortion: Tensor, rate: Tensor) -> dict[str, float]:
        return {"mse": 3.0}


@pytest.mark.parametrize(
    ("part", "broken", "message"),
    [
        ("decoder", WithoutChannels, "Independent with batch shape (3,) and event shape (2, 28, 28); a decoder maps"),
        ("decoder", WithoutLeadingAxes, "fails for codes (3, 2, 2): shape '[3, 1, 28, 28]' is invalid"),
        ("encoder", WithoutDistribution, "returns Tensor of shape (2, 2) and float32 for two images; an encoder maps"),
        ("encoder", WithoutReparameterisation, "event shape (2,), which has no rsample; an encoder maps"),
        ("objective", WithoutImages, "loss is Tensor of shape () and float32 for two images; an objective returns"),
        ("objective", WithoutLoss, "loss is NoneType for two images; an objective returns named terms"),
        ("objective", WithHits, "hits is Tensor of shape (2,) and bool for two images; an objective returns"),
        ("prior", WithoutFreedom, "Expected parameter df (Tensor of shape (2,)) of distribution"),
        ("likelihood", WithoutMetrics, "has no metrics; derive it from vae_lightning.likelihoods.Likelihood"),
        ("likelihood", WithNumbers, "its metric mse is float for two images; a likelihood has named metrics, each of"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_part_that_breaks_its_contract_is_refused(tmp_path: Path, part: str, broken: type, message: str) -> None:
    options = [option for option in TINY if "width" not in option]
    config = compose_config(*options, "model=mlp", "model.latent_dim=2", "logger=none", f"run_dir={tmp_path}")
    config.model[part]["_target_"] = f"{__name__}.{broken.__name__}"
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        build(config)
    assert str(caught.value).startswith(f"model.{part}: ")


class WithoutHidden(MLPDecoder):
    conditional = True

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return super().forward(z) + one_hot(labels).sum()


def test_hidden_labels_are_tried_where_there_are_some(tmp_path: Path) -> None:
    options = [option for option in TINY if "width" not in option]
    config = compose_config(*options, "model=mlp", "logger=none", f"run_dir={tmp_path}")
    config.model.decoder["_target_"] = f"{__name__}.WithoutHidden"
    build(config)
    config.data.label_dropout = 0.3
    with pytest.raises(
        UsageError, match=r"^data.label_dropout=0.3: hidden labels are -1, .*: Class values must be non"
    ):
        build(config)
