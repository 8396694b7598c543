"""A step, all measurements and figures on a device that is not the CPU: nothing meets across devices."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from pretended_gpu import GPU, moved, pretended
from shared import TINY, compose_config

from vae_lightning.callbacks import FinalFigures, LatentExplorer
from vae_lightning.data.batch import Batch
from vae_lightning.data.datamodule import ImageDataModule
from vae_lightning.measuring import MEASUREMENTS, Sizes, Subject
from vae_lightning.metrics.reference import Reference
from vae_lightning.vae import VAE

SIZES = Sizes(
    bound_samples=3, bound_images=20, half_samples=3, annealed_images=4, annealed_chains=2, annealed_steps=3, tsne=False
)
MORE = ["vq_vae", "hyperspherical_vae", "iaf_vae"]
MORE += ["beta_tc_vae", "conditional_vae", "dreg", "fsq_vae", "full_covariance_vae", "info_vae", "iwae", "ladder_vae"]
MORE += ["mixture_vae", "rae", "vamp_vae", "wae", "flow_prior_vae", "geco", "m2", "dip_vae"]


class Silent:
    """Shows no progress."""

    def step(self, *_: object) -> "Silent":
        return self

    def __enter__(self) -> Any:
        return lambda share: None

    def __exit__(self, *_: object) -> None:
        pass


def batches(data: ImageDataModule) -> Iterator[Batch]:
    images, labels = data.examples("test", 40)
    for start in range(0, 40, 16):
        yield Batch(images[start : start + 16].to(GPU), labels[start : start + 16].to(GPU))


def test_what_is_pretended() -> None:
    layer = torch.nn.Linear(3, 2)
    moved(layer)
    with pretended():
        images = torch.rand(4, 3)
        assert images.device.type == "cpu"
        there = images.to(GPU)
        assert (there.device, layer(there).device, torch.zeros(2, device=GPU).device) == (GPU, GPU, GPU)
        assert (there + 1).mean().device == GPU
        assert there[torch.tensor([0, 2])].shape == (2, 3)
        assert there.cpu().numpy().shape == (4, 3)
        layer(there).sum().backward()
        assert layer.weight.grad.device == GPU
        for wrong in (
            lambda: layer(images),
            lambda: there + images,
            lambda: torch.cat([there, images]),
            lambda: images[there[:, 0].long()],
            lambda: images.logical_or(there),
        ):
            with pytest.raises(RuntimeError, match="same device"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with pytest.raises(TypeError, match="no 64 bits"):
            there.double()
        assert there.cpu().double().dtype == torch.float64


@pytest.mark.parametrize("recipe", ["vae", *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_nothing_meets_across_devices(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reference, "at_chance", False)  # of so few images it would be
    torch.manual_seed(0)
    config = compose_config(*TINY, f"recipe={recipe}")
    config.run_dir = str(tmp_path)
    data: ImageDataModule = instantiate(config.data, _convert_="all")
    data.prepare_data()
    data.setup()
    model: VAE = instantiate(config.model, _convert_="all")
    moved(model)
    with pretended():
        images, labels = data.examples("train", 32)
        for _ in range(2):
            terms = model.objective(model, Batch(images.to(GPU), labels.to(GPU)))
            assert all(term.device == GPU for term in terms.values())
            terms["loss"].mean().backward()
        model.eval()
        subject = Subject(model, data, lambda: batches(data), 3, SIZES, Silent(), None)  # type: ignore[arg-type]
        with torch.no_grad():
            found = {name: value for each in MEASUREMENTS for name, value in each.measure(subject).items()}
            trainer = SimpleNamespace(
                datamodule=data,
                test_dataloaders=[*batches(data)],
                num_test_batches=[3],
                strategy=SimpleNamespace(batch_to_device=lambda batch: batch),
                default_root_dir=str(tmp_path),
                world_size=1,
                is_global_zero=True,
                global_step=1,
                progress_bar_callback=None,
                loggers=[],
                callbacks=[],
            )
            for callback in (FinalFigures(), LatentExplorer(cells=5, points=20, steps=3)):
                callback.on_test_end(trainer, model)  # type: ignore[arg-type]
        assert {"precision_stderr", "frechet_samples", "halfway_distance", "knn_accuracy"} <= found.keys()
        assert all(isinstance(value, float) for value in found.values())
        assert len([*tmp_path.rglob("*.png")]) > 2
