"""Every likelihood, objective and prior goes with every other, or is refused with a reason before training."""

import copy
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import PARTNERS, TINY, compose_config
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer

from vae_lightning.config import CONFIGURATION
from vae_lightning.config.messages import exit_code, explain
from vae_lightning.data.batch import Batch
from vae_lightning.objectives import Annealed
from vae_lightning.vae import VAE


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGURATION / "model" / group).glob("*.yaml"))


PLAIN = ("bernoulli", "elbo", "standard")


def combinations() -> Iterator[object]:
    """All of them; those that differ from the plain model in three parts are slow tests."""
    for combination in product(*(choices(group) for group in ("likelihood", "objective", "prior"))):
        differing = sum(choice != plain for choice, plain in zip(combination, PLAIN, strict=True))
        yield pytest.param(*combination, marks=[pytest.mark.slow] if differing == 3 else [])


NEED_INDEPENDENT = {"as_printed", "free_bits"}
NEED_FIXED = {"adversarial", "rae_gp", "rae_l2", "wae_mmd"}  # whose loss has no rate, the only term with the prior
MEANS_ONLY = {"geco", "ms_ssim", "vae_gan"}  # whose loss has no −log p(x|z)
WITH_PARAMETERS = {"discretized_logistic", "gaussian"}
# A deterministic code: the spread of a posterior that has one is not trained.
SPREAD = ["encoder.head.log_variance.weight", "encoder.head.log_variance.bias"]
LACKING = {
    ("tc", "ladder"): "needs the posterior's marginals",
    ("dreg", "ladder"): "register posteriors.stopped",
    ("dip_ii", "ladder"): "moments",
}
UNMOVED = {"rae_gp": SPREAD, "rae_l2": SPREAD}


@cache
def composed(group: str, choice: str) -> DictConfig:
    """The configuration with one choice: to compose takes longer than a step."""
    config = compose_config(*TINY, f"model/{group}={choice}", "model.latent_dim=3")
    return OmegaConf.masked_copy(config, ["data", "model"])


def refusal(likelihood: str, objective: str, prior: str) -> str:
    """Why a combination is refused; empty if it is not."""
    if objective in NEED_INDEPENDENT and prior != "standard" and (objective, prior) != ("free_bits", "ladder"):
        return "needs a prior with independent dimensions"
    if objective in NEED_FIXED and prior != "standard":
        return "does not train a prior"
    if objective in MEANS_ONLY and likelihood in WITH_PARAMETERS:
        return "does not train a likelihood's parameters"
    return ""


@pytest.mark.parametrize(("likelihood", "objective", "prior"), [*combinations()])
def test_a_step_moves_every_parameter(likelihood: str, objective: str, prior: str) -> None:
    config = copy.deepcopy(composed("likelihood", "bernoulli"))
    for group, choice in [("likelihood", likelihood), ("objective", objective), ("prior", prior)]:
        config.model[group] = composed(group, choice).model[group]
    if prior == "vamp":
        config.model.prior.components = 5
    for partner in PARTNERS.get(f"model/prior={prior}", ()):
        if partner.startswith("model/posterior="):
            config.model.encoder.posterior = composed("posterior", partner.partition("=")[2]).model.encoder.posterior
    torch.manual_seed(0)
    if reason := refusal(likelihood, objective, prior):
        with pytest.raises(InstantiationException) as caught:
            instantiate(config.model, _convert_="all")
        assert exit_code(caught.value) == 2
        assert reason in explain(caught.value)
        return
    model = instantiate(config.model, _convert_="all")
    if reason := LACKING.get((objective, prior)):
        with pytest.raises(ValueError, match=reason):
            model.objective(model, Batch(torch.rand(6, 1, 28, 28)))
        return
    images = (torch.rand(6, 1, 28, 28) * 255).round() / 255
    for _ in range(2):  # where annealing starts, the rate has no weight
        terms = model.objective(model, Batch(images))
        assert all(term.shape == (6,) and term.isfinite().all() for term in terms.values())
        optimizers = model.configure_optimizers()
        model.zero_grad()
        for name, optimizer in zip(model.minimised, optimizers, strict=True):
            own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            terms[name].mean().backward(inputs=own, retain_graph=True)
        without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        for optimizer in optimizers:
            optimizer.step()
    assert without == UNMOVED.get(objective, [])
    with torch.no_grad():
        assert model.eval().sample(2).shape == (2, 1, 28, 28)


def test_annealing_counts_optimizer_steps_alone(tmp_path: Path) -> None:
    """Neither the batches whose gradients are gathered, nor validation; and a checkpoint keeps the count."""
    config = compose_config(*TINY, "model/objective=annealed", "data.batch_size=16", "data.validation_size=32")
    model, data = (instantiate(config[key], _convert_="all") for key in ("model", "data"))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, accumulate_grad_batches=2, default_root_dir=tmp_path,
        enable_checkpointing=False, **quiet,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 4
    assert model.objective.taken == 4
    trainer.test(model, datamodule=data, verbose=False)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    other: VAE = instantiate(config.model, _convert_="all")
    other.load_state_dict(torch.load(tmp_path / "model.ckpt", weights_only=True)["state_dict"])
    assert isinstance(other.objective, Annealed)
    assert other.objective.taken == 4


def test_binarized_images_are_drawn_anew_for_training_and_once_for_testing() -> None:
    config = compose_config(*TINY, "data.binarize=dynamic", "data.validation_size=20", "data.scale=256")
    data, same, grey = (instantiate(config.data, _convert_="all") for _ in range(3))
    grey.binarize = "none"
    for module in (data, same, grey):
        module.setup()
    (one, _), (other, _), (exact, _) = (module.examples("test", 40) for module in (data, same, grey))
    assert set(one.unique().tolist()) == {0, 1}
    assert torch.equal(one, other)
    # As often one as the grey value says.
    assert one.mean().item() == pytest.approx(exact.mean().item(), abs=4 * 0.5 / one.numel() ** 0.5)
    assert one[exact == 0].max() == 0

    class Training:
        training = True

    data.trainer = Training()
    batch = data.splits["train"]
    first, second = (data.on_after_batch_transfer(batch, 0)[0] for _ in range(2))
    assert set(first.unique().tolist()) == {0, 1}
    assert not torch.equal(first, second)
    mean = torch.stack([data.on_after_batch_transfer(batch, 0)[0] for _ in range(200)]).mean(0)
    assert (mean - batch.images / 256).abs().max() < 5 * 0.5 / 200**0.5
    Training.training = False
    for name in ("val", "test"):
        images, _ = data.on_after_batch_transfer(data.splits[name], 0)
        assert set(images.unique().tolist()) == {0, 1}
    assert torch.equal(data.on_after_batch_transfer(data.splits["test"], 0)[0], one)
