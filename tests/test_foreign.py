"""A package outside the repository, with parts of its own for everything, does what the project's own parts do."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer
from shared import TINY, UNMEASURED, compose_config, run_command

from vae_lightning import LoadError, load_run, train
from vae_lightning.errors import UsageError
from vae_lightning.runs import Run
from vae_lightning.runs.loading import LoadedRun

FOREIGN = Path(__file__).parent / "foreign"
OWN = [option for option in TINY if "width" not in option] + ["model=own"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of it by the command line."""
    folder = tmp_path_factory.mktemp("foreign")
    options = [*OWN, "-m", "--config-dir", str(FOREIGN), "model.latent_dim=2,3", "hydra.sweep.dir=sweep"]
    done = run_command("vae_lightning.cli", *options, cwd=folder, PYTHONPATH=str(FOREIGN))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "discriminator_loss" in done.stdout
    return folder / "sweep"


def test_it_is_trained_measured_drawn_and_reported(sweep: Path) -> None:
    table = pd.read_csv(sweep / "report" / "metrics.csv")
    assert table["model.latent_dim"].tolist() == [2, 3]
    needed = ["iw_bound", "mse", "knn_accuracy", "frechet_samples", "posterior_covariance_gap", "discriminator_loss"]
    assert table[[f"test/{name}" for name in needed]].notna().all().all()
    assert (table["test/iw_bound"] > table["test/elbo"]).all()
    for dimension, own in [(2, {"lattice.png", "lattice_of_quantiles.png"}), (3, {"traversals.png"})]:
        run = Run(sweep / f"latent_dim-{dimension}")
        drawn = {path.name for path in run.figures.glob("*.png")}
        assert drawn == own | {
            "bound.png", "latent_means.png", "nearest_training_images.png", "reconstructions.png", "samples.png",
            "samples_by_class.png", "samples_over_training.png",
        }  # fmt: skip
        with np.load(run.curves_file) as curves:
            assert {name for name in curves if not name.endswith("_steps")} == {
                "loss", "distortion", "rate", "discriminator_loss",
            }  # fmt: skip
        with np.load(run.explorer_file) as explorer:
            assert {"lattice", "slides", "labels"} <= set(explorer)
    page = (sweep / "report" / "index.html").read_text()
    assert "discriminator" in page
    assert "Samples above the nearest training image" in page
    assert np.asarray(Image.open(sweep / "report" / "comparison.png")).std() > 10


def test_it_is_loaded_with_trust_alone(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LoadError, match="--trust own"):
        load_run(sweep / "latent_dim-3")
    monkeypatch.syspath_prepend(FOREIGN)
    run = load_run(sweep / "latent_dim-3", trust=["own"])
    images, labels = run.test_images(4)
    assert run.model.reconstruct(images, labels).shape == images.shape
    assert run.model.sample(3, torch.tensor([1, 2, 3])).shape == (3, 1, 28, 28)
    other = run.model.decode(torch.zeros(1, 3), torch.tensor([1])).mean
    assert not torch.equal(other, run.model.decode(torch.zeros(1, 3), torch.tensor([2])).mean)


def own_run(folder: Path, *options: str) -> LoadedRun:
    plain = [option for option in OWN if "callbacks.measurements" not in option and "callbacks.explorer" not in option]
    return train(compose_config(*plain, *UNMEASURED, *options, config_dir=FOREIGN), folder, progress=False)


@pytest.mark.parametrize("options", [[], ["engine.steps_per_call=3"]], ids=str)
def test_it_is_extended_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    """One epoch, and then the second, are two epochs: both optimizers, their order, and the noise of each step."""
    monkeypatch.syspath_prepend(FOREIGN)
    options = [*options, "callbacks.losses.every_n_batches=3"]
    whole = own_run(tmp_path / "whole", *options)
    own_run(tmp_path / "parts", *options, "trainer.max_epochs=1")
    parts = own_run(tmp_path / "parts", *options, "resume=true")
    assert whole.metrics["steps"] == parts.metrics["steps"] == 6
    state = parts.model.state_dict()
    assert [name for name, value in whole.model.state_dict().items() if not torch.equal(value, state[name])] == []
    assert {k: v for k, v in whole.metrics.items() if k.startswith("test/")} == {
        k: v for k, v in parts.metrics.items() if k.startswith("test/")
    }


def test_each_optimizer_minimises_its_own_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's gradient is that of its loss alone, the discriminator's that of telling codes apart."""
    from vae_lightning.building import build
    from vae_lightning.data.batch import Batch

    monkeypatch.syspath_prepend(FOREIGN)
    plain = [option for option in OWN if not option.startswith("callbacks")]
    config = compose_config(*plain, "callbacks=none", "logger=none", config_dir=FOREIGN)
    config.run_dir = "."
    torch.manual_seed(0)
    model, _, trainer, _ = build(config)
    assert model.minimised == ("loss", "discriminator_loss")
    one, other = model.configure_optimizers()
    sets = [{id(p) for group in optimizer.param_groups for p in group["params"]} for optimizer in (one, other)]
    assert sets[1] == {id(p) for p in model.objective.discriminator.parameters()}
    assert sets[0] | sets[1] == {id(p) for p in model.parameters()}
    assert not sets[0] & sets[1]
    batch = Batch(torch.rand(8, 1, 28, 28), torch.arange(8))
    expected = {}
    for name, optimizer in (("loss", one), ("discriminator_loss", other)):
        model.zero_grad()
        torch.manual_seed(1)
        model.training_step(batch)[name].backward()
        own = [p for group in optimizer.param_groups for p in group["params"]]
        expected |= {p: None if p.grad is None else p.grad.clone() for p in own}
    model.zero_grad()
    torch.manual_seed(1)
    strategy = trainer.strategy
    strategy.connect(model)
    model.trainer = trainer
    strategy._step(batch, torch.Tensor.backward, [_Still(one), _Still(other)])
    for parameter, gradient in expected.items():
        torch.testing.assert_close(parameter.grad, gradient)


class _Still:
    """An optimizer that does not step."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.param_groups, self.zero_grad = optimizer.param_groups, optimizer.zero_grad

    def step(self) -> None: ...


def test_several_optimizers_on_several_devices_are_refused(tmp_path: Path) -> None:
    options = [*OWN, "--config-dir", str(FOREIGN), "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    done = run_command("vae_lightning.cli", *options, cwd=tmp_path, PYTHONPATH=str(FOREIGN))
    assert done.returncode == 2
    assert done.stderr.startswith("trainer.devices: loss, discriminator_loss have separate optimizers")


def test_a_gradient_scaler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, Lightning trains in bfloat16 instead, which needs none."""
    monkeypatch.syspath_prepend(FOREIGN)
    monkeypatch.setattr(Trainer, "precision", "16-mixed")
    with pytest.raises(UsageError, match="trainer.precision=16-mixed: loss, discriminator_loss have separate"):
        own_run(tmp_path / "run")
