"""Posteriors that can be chosen in the config tree: each goes with every architecture."""

import pytest
import torch
from conftest import TINY, compose_config
from hydra.utils import instantiate

from vae_lightning.config import CONFIGURATION
from vae_lightning.data.batch import Batch
from vae_lightning.posteriors import moments, point, spread

PRIORS = {"von_mises_fisher": "uniform_sphere"}  # where it is not standard
HEADS = sorted(path.stem for path in (CONFIGURATION / "model" / "posterior").glob("*.yaml"))


@pytest.mark.parametrize("architecture", ["conv", "mlp", "resnet"])
@pytest.mark.parametrize("head", HEADS)
def test_contract(head: str, architecture: str) -> None:
    options = [option for option in TINY if architecture != "mlp" or "width" not in option]
    options += [f"model={architecture}", f"model/posterior={head}", f"model/prior={PRIORS.get(head, 'standard')}"]
    config = compose_config(*options, "model.latent_dim=3")
    torch.manual_seed(0)
    model = instantiate(config.model, _convert_="all")
    images = torch.rand(4, 1, 28, 28)
    posterior = model.encode(images)
    assert posterior.batch_shape == (4,)
    assert posterior.event_shape == (3,)
    assert posterior.rsample((2,)).shape == (2, 4, 3)
    assert point(posterior).shape == spread(posterior).shape == (4, 3)
    mean, covariance = moments(posterior)
    assert mean.shape == (4, 3)
    assert covariance.shape in ((4, 3), (4, 3, 3))
    model.objective(model, Batch(images))["loss"].mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
