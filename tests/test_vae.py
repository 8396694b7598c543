"""The LightningModule and the callbacks, in short real trainings."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import Callback
from shared import TINY, compose_config
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from vae_lightning.building import Built, build
from vae_lightning.callbacks import FinalFigures, LossLines, SampleGrids
from vae_lightning.callbacks.drawing import drawing, is_due
from vae_lightning.data.batch import Batch
from vae_lightning.data.datamodule import ImageDataModule
from vae_lightning.engine.cuda_graphs import CapturedStep
from vae_lightning.engine.strategies import OneDevice
from vae_lightning.objectives import ELBO, AsPrinted
from vae_lightning.report.picture import learning_curves
from vae_lightning.runs import Run
from vae_lightning.vae import VAE


def built(folder: Path, *overrides: str, callbacks: list[Callback] | None = None) -> Built:
    """A run's parts as the command makes them, with these callbacks alone."""
    config = compose_config(*TINY, "logger=none", *overrides)
    config.callbacks, config.run_dir = {}, str(folder)
    seed_everything(config.seed, verbose=False)
    made = build(config)
    made.trainer.callbacks += callbacks or []
    return made


def fit(folder: Path, *overrides: str, callbacks: list[Callback] | None = None) -> tuple[VAE, ImageDataModule, Trainer]:
    model, data, trainer, _ = built(folder, *overrides, callbacks=callbacks)
    trainer.fit(model, datamodule=data)
    return model, data, trainer


def test_shapes(tiny_model: VAE) -> None:
    model = tiny_model.eval()
    images = torch.rand(3, 1, 28, 28)
    assert model.sample(5).shape == (5, 1, 28, 28)
    assert model.reconstruct(images).shape == images.shape
    assert model.decode(torch.zeros(2, 4, 2)).batch_shape == (2, 4)
    assert 0 <= model.sample(5).min() <= model.sample(5).max() <= 1


def test_drawing_leaves_no_trace_on_the_training(tmp_path: Path) -> None:
    plain, *_ = fit(tmp_path / "plain")
    drawn, *_ = fit(tmp_path / "drawn", callbacks=[SampleGrids(every_n_batches=1, images=9), LossLines(1)])
    assert drawn.training
    state = drawn.state_dict()
    assert [name for name, value in plain.state_dict().items() if not torch.equal(value, state[name])] == []
    grids = sorted(path.name for path in (tmp_path / "drawn" / "figures" / "grids").iterdir())
    assert grids == [f"step_{step:06d}.png" for step in range(1, 7)]
    assert Image.open(tmp_path / "drawn" / "figures" / "grids" / grids[0]).size == (3 * 29 + 1, 3 * 29 + 1)


def test_epochs_of_few_batches_are_drawn_and_printed_as_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """4, 8 and 12 batches are done at the ends of the second, third and fourth epoch."""
    caplog.set_level("INFO")
    fit(tmp_path, "trainer.max_epochs=5", callbacks=[SampleGrids(every_n_batches=4, images=4), LossLines(4)])
    assert sorted(Run(tmp_path).grids()) == [6, 9, 12]
    printed = [line.partition("   loss")[0] for line in caplog.messages if line.startswith("epoch")]
    assert printed == [f"epoch {epoch}/5  batch   3/3" for epoch in (2, 3, 4)]


def test_a_loader_without_a_length_is_one_epoch() -> None:
    trainer = SimpleNamespace(num_training_batches=float("inf"), datamodule=None, current_epoch=0)
    assert [batch for batch in range(9) if is_due(trainer, batch, 4)] == [3, 7]


def test_validation_leaves_no_trace_on_the_training(tmp_path: Path) -> None:
    """The held-out images are fixed, so that only the validation itself makes the difference."""
    states = []
    for every_epoch in (1, 5):
        options = ["data.validation_size=20", f"trainer.check_val_every_n_epoch={every_epoch}"]
        model, _, trainer = fit(tmp_path, *options)
        assert ("val/elbo" in trainer.callback_metrics) == (every_epoch == 1)
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_drawing_puts_everything_back(tiny_model: VAE) -> None:
    tiny_model.train()
    tiny_model.encoder.trunk[1].eval()  # one layer may have been frozen
    before, state = {k: v.clone() for k, v in tiny_model.state_dict().items()}, torch.get_rng_state()
    with drawing(tiny_model):
        assert not any(module.training for module in tiny_model.modules())
        assert not tiny_model.sample(4).requires_grad
    assert tiny_model.training
    assert not tiny_model.encoder.trunk[1].training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in tiny_model.state_dict().items())


def test_test_metrics_are_means_over_images(tmp_path: Path) -> None:
    """40 test images in batches of 16, 16 and 8: a mean over batches would be another number."""
    model, data, trainer = fit(tmp_path)
    (metrics,) = trainer.test(model, datamodule=data, verbose=False)
    rates, distortions = [], []
    with torch.no_grad():
        for index, batch in enumerate(data.test_dataloader()):
            x = batch[0].float() / 255
            torch.manual_seed(index)
            terms = ELBO()(model.eval(), Batch(x))
            rates.append(terms["rate"])
            distortions.append(terms["distortion"])
    assert [len(rate) for rate in rates] == [16, 16, 8]
    assert metrics["test/rate"] == pytest.approx(torch.cat(rates).mean().item(), rel=1e-5)
    assert metrics["test/distortion"] == pytest.approx(torch.cat(distortions).mean().item(), rel=1e-5)
    assert metrics["test/elbo"] == pytest.approx(-metrics["test/distortion"] - metrics["test/rate"], rel=1e-5)
    assert metrics == trainer.test(model, datamodule=data, verbose=False)[0]


def test_loss_is_the_objectives_own_and_elbo_everyones(tmp_path: Path) -> None:
    model, data, trainer = fit(tmp_path, "model/objective=beta", "model.objective.beta=3")
    (metrics,) = trainer.test(model, datamodule=data, verbose=False)
    assert metrics["test/elbo"] == pytest.approx(-metrics["test/distortion"] - metrics["test/rate"], rel=1e-5)
    # The two use other noise, hence the tolerance.
    assert metrics["test/loss"] == pytest.approx(metrics["test/distortion"] + 3 * metrics["test/rate"], rel=0.02)
    model.objective = AsPrinted()
    (printed,) = trainer.test(model, datamodule=data, verbose=False)
    assert printed["test/elbo"] == metrics["test/elbo"]


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
@pytest.mark.parametrize("channels", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_final_figures(tmp_path: Path, latent_dim: int, channels: int) -> None:
    class InColour(ImageDataModule):
        def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
            images, labels = super().on_after_batch_transfer(batch, dataloader_idx)
            return Batch(images.expand(-1, channels, -1, -1), labels)

    config = compose_config(*TINY, f"model.latent_dim={latent_dim}")
    model = instantiate(
        compose_config(*TINY, f"model.latent_dim={latent_dim}", f"data.image_shape=[{channels},28,28]").model,
        _convert_="all",
    )
    data = InColour(**instantiate({**config.data, "_target_": "builtins.dict"}))
    figures = FinalFigures(quantile_cells=12, reconstructions=13, samples=10)
    trainer = Trainer(accelerator="cpu", default_root_dir=tmp_path, logger=False, callbacks=[figures])
    trainer.test(model, datamodule=data, verbose=False)
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    own = {1: set(), 2: {"lattice", "lattice_of_quantiles"}, 5: {"traversals"}}[latent_dim]
    assert drawn == {"latent_means", "reconstructions", "samples"} | own
    for path in (tmp_path / "figures").glob("*.png"):
        picture = pil_to_tensor(Image.open(path)).float()
        assert min(picture.shape[1:]) >= 300
        assert picture.std() > 5
        # Nothing is cut off: the margin is white.
        edges = [picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1]]
        assert all(edge.min() == 255 for edge in edges), path.name


def distance(one: VAE, other: VAE) -> float:
    """Mean distance of the parameters, in Adam's longest steps of a training with `fit`.

    A bias before batch norm has no gradient but rounding, so a largest distance would say nothing.
    """
    flat, flat_other = (torch.cat([p.detach().flatten() for p in model.parameters()]) for model in (one, other))
    return (flat - flat_other).abs().mean().item() / (6 * 1e-3)


def test_fast_training_changes_little(tmp_path: Path) -> None:
    plain, *_ = fit(tmp_path)
    channels_last, *_ = fit(tmp_path, "engine.channels_last=true")
    assert channels_last.encoder.trunk[3].weight.is_contiguous(memory_format=torch.channels_last)
    fast, _, trainer = fit(tmp_path, "trainer=fast")
    assert trainer.precision == "bf16-mixed"
    assert {parameter.dtype for parameter in fast.parameters()} == {torch.float32}
    assert distance(plain, channels_last) < 0.005
    assert 0 < distance(plain, fast) < 0.1
    other, *_ = fit(tmp_path, "model.optimizer.lr=0.0012")
    assert distance(plain, other) > distance(plain, channels_last)


def test_densities_keep_32_bits_under_mixed_precision(tiny_model: VAE) -> None:
    images = torch.rand(4, 1, 28, 28)
    with torch.autocast("cpu", torch.bfloat16):
        terms = ELBO()(tiny_model, Batch(images))
        assert tiny_model.decoder(torch.zeros(1, 2)).dtype == torch.bfloat16
    assert {term.dtype for term in terms.values()} == {torch.float32}


class Replayed(CapturedStep):
    """A captured step where there is no CUDA: the graph's replay is the step itself, on the graph's own tensors."""

    recorded: ClassVar[list[Tensor]] = []

    def warm_up(self, batch: Batch) -> Tensor:
        return self.step(batch)

    def record(self, batch: Batch) -> tuple[Callable[[], None], Tensor]:
        self.recorded.append(batch.images)
        output = torch.empty(3)

        def replay() -> None:
            output.copy_(self.step(batch))

        return replay, output


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_first_replay_draws_its_own_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording resets the graph's noise on a stream of its own, which a busy device may be late with."""

    class Late(torch.cuda.CUDAGraph):
        def capture_begin(self, *arguments: Any, **options: Any) -> None:
            torch.cuda._sleep(200_000_000)
            super().capture_begin(*arguments, **options)

    def step(batch: Batch) -> Tensor:
        torch.cuda._sleep(500_000_000)
        return torch.randn(3, device="cuda")

    torch.manual_seed(0)
    eager = [torch.randn(3, device="cuda") for _ in range(6)]
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Late)
    torch.manual_seed(0)
    captured = CapturedStep(step)
    assert torch.equal(
        torch.stack([captured(Batch(torch.zeros(2, device="cuda"))) for _ in range(6)]), torch.stack(eager)
    )


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("graph", [False, True])
def test_several_steps_in_a_call_are_the_same_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, graph: bool
) -> None:
    """8 batches an epoch, the last one short, in calls of 5 and 3: bitwise the run of one batch a call."""
    settings = ["data.source.train_size=90", "data.batch_size=12", f"trainer.precision={precision}"]
    settings += ["data.shift=1", "data.binarize=dynamic"]
    settings += [
        "trainer.log_every_n_steps=3",
        "callbacks.losses.every_n_batches=5",
        "callbacks.grids.every_n_batches=5",
    ]
    if graph:
        monkeypatch.setattr("vae_lightning.engine.strategies.CapturedStep", Replayed)
        monkeypatch.setattr(OneDevice, "_can_capture", lambda strategy: True)
        Replayed.recorded.clear()
    found = []
    for name, options in [("one", []), ("many", ["engine.steps_per_call=10", f"engine.cuda_graph={graph}"])]:
        config = compose_config(*TINY, *settings, *options)
        config.run_dir = str(tmp_path / name)
        seed_everything(0, verbose=False)
        model, data, trainer, stopwatch = build(config)
        trainer.fit(model, datamodule=data)
        grids = {path.name: path.read_bytes() for path in (tmp_path / name).glob("figures/grids/*.png")}
        found.append((model.state_dict(), grids, learning_curves(Run(tmp_path / name)), stopwatch.images))
        assert (trainer.global_step, trainer.current_epoch) == (16, 2)
    assert trainer.strategy.options.steps_per_call == data.batches_per_call == 5
    assert len(Replayed.recorded) == graph
    (state, grids, curves, images), (state_of_many, *rest) = found
    assert all(torch.equal(value, state_of_many[key]) for key, value in state.items())
    assert sorted(grids) == ["step_000005.png", "step_000013.png"]
    assert curves["loss"][0] == [3, 6, 9, 12, 15]
    assert [grids, curves, images] == rest


@pytest.mark.slow
def test_a_compiled_step_is_the_same_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.fallback_random", True)  # the same noise as without compilation
    plain, *_ = fit(tmp_path)
    compiled, *_ = fit(tmp_path, "engine.compile=true")
    assert distance(plain, compiled) < 0.005
