"""Every likelihood, objective and prior goes with every other, or is refused with a reason before training."""

from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import TINY, compose_config
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pytorch_lightning import Trainer

from vae_lightning.config import CONFIGURATION
from vae_lightning.config.messages import exit_code, explain
from vae_lightning.data.batch import Batch
from vae_lightning.objectives import Annealed
from vae_lightning.vae import VAE


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGURATION / "model" / group).glob("*.yaml"))


COMBINATIONS = list(product(*(choices(group) for group in ("likelihood", "objective", "prior"))))
NEED_INDEPENDENT = {"as_printed", "free_bits"}


@pytest.mark.parametrize(("likelihood", "objective", "prior"), COMBINATIONS)
def test_a_step_moves_every_parameter(likelihood: str, objective: str, prior: str) -> None:
    options = [f"model/{group}={choice}" for group, choice in
               [("likelihood", likelihood), ("objective", objective), ("prior", prior)]]  # fmt: skip
    if prior == "vamp":
        options.append("model.prior.components=5")
    if objective == "m2":
        options += ["model/labels=embedded", "model.labels.classes=2"]
    config = compose_config(*TINY, *options, "model.latent_dim=3")
    torch.manual_seed(0)
    if objective in NEED_INDEPENDENT and prior != "standard":
        with pytest.raises(InstantiationException) as caught:
            instantiate(config.model, _convert_="all")
        assert exit_code(caught.value) == 2
        assert "needs a prior with independent dimensions" in explain(caught.value)
        return
    model = instantiate(config.model, _convert_="all")
    images = (torch.rand(6, 1, 28, 28) * 255).round() / 255
    for _ in range(2):  # where annealing starts, the rate has no weight
        terms = model.objective(model, Batch(images))
        assert all(term.shape == (6,) and term.isfinite().all() for term in terms.values())
        (optimizer,) = model.configure_optimizers()
        optimizer.zero_grad()
        terms["loss"].mean().backward()
        without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        optimizer.step()
    assert without == []
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
