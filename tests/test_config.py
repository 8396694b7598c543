"""The configuration tree: everything in conf/ composes and makes what it says, and mistakes are found."""

from pathlib import Path

import pytest
from conftest import compose_config
from hydra.utils import instantiate
from omegaconf import OmegaConf

from vae_lightning.config.messages import explain
from vae_lightning.config.schema import check, check_calls
from vae_lightning.errors import UsageError
from vae_lightning.runs import run_name, short_names, swept_keys
from vae_lightning.config import CONFIGURATION

CHOICES = sorted(
    (path.parent.relative_to(CONFIGURATION).as_posix(), path.stem)
    for path in CONFIGURATION.glob("*/**/*.yaml")
    if not path.stem.startswith("_") and "hydra" not in path.parts
)


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=lambda part: part)
def test_every_choice_composes_and_makes_what_it_names(group: str, choice: str, tmp_path: Path) -> None:
    config = compose_config(f"{group}={choice}")
    config.run_dir = str(tmp_path)
    check(config)
    check_calls(config)
    if group in ("trainer", "experiment"):  # a GPU may not be there
        config.trainer.accelerator = "cpu"
    for node in ("data", "model", "trainer"):
        assert instantiate(config[node], _convert_="all") is not None
    for node in ("callbacks", "logger"):
        assert all(value is not None for value in instantiate(config[node], _convert_="all").values())
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("path", sorted((CONFIGURATION / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_experiment_says_how_to_run_it_and_what_to_expect(path: Path) -> None:
    package, command, expectation, *_ = path.read_text().splitlines()
    assert package == "# @package _global_"
    assert command == f"# vae-train experiment={path.stem}"
    assert expectation.startswith("# ")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.latent_dim=0", "model.latent_dim=0: must be a whole number of at least 1"),
        ("model.latent_dim=abc", "model.latent_dim=abc: must be a whole number"),
        ("model.latent_dim=true", "model.latent_dim=True: must be a whole number"),
        ("data.batch_size=-1", "data.batch_size=-1: must be a whole number of at least 1"),
        ("trainer.max_epochs=0.5", "trainer.max_epochs=0.5: must be a whole number of at least 1"),
        ("model.optimizer.lr=0", "model.optimizer.lr=0: must be a number greater than 0"),
        ("data.image_shape=28", "data.image_shape=28: must be three whole numbers"),
        ("data.image_shape=[28,28]", "data.image_shape=[28, 28]: must be three whole numbers"),
        ("trainer.devices=[0]", "trainer.devices=[0]: must be a whole number of at least 1"),
        ("callbacks.figures.samples=0", "callbacks.figures.samples=0: must be a whole number of at least 1"),
        ("seed=-1", "seed=-1: must be a whole number from 0"),
        ("trainer.accelerator=gpus", "trainer.accelerator=gpus: must be one of auto, cpu"),
    ],
)
def test_ranges(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check(compose_config(override))
    assert message in explain(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+model.encoder.widht=3", "model.encoder.widht: no such option. Did you mean model.encoder.width?"),
        ("+data.bach_size=3", "Did you mean data.batch_size?"),
        ("+trainer.max_epoch=3", "Did you mean trainer.max_epochs?"),
        ("+model.optimizer.beta=3", "Did you mean model.optimizer.betas?"),
        ("+callbacks.grids.image=3", "callbacks.grids has every_n_batches, images, shown"),
        ("model.encoder.width=abc", "model.encoder.width=abc: must be of type int"),
        ("model.encoder._target_=nowhere.Encoder", "model.encoder._target_=nowhere.Encoder: cannot be loaded"),
        ("model.encoder._target_=vae_lightning.vae.Encoder", "has no attribute 'Encoder'"),
    ],
)
def test_calls(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_calls(compose_config(override))
    assert message in str(caught.value)


def sweep(folder: Path, task: list[str], params: dict[str, str] | None = None) -> Path:
    folder.mkdir()
    OmegaConf.save({"hydra": {"sweeper": {"params": params}, "overrides": {"task": task}}}, folder / "multirun.yaml")
    return folder


def test_runs_are_named_by_what_was_swept(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "sweep", ["data=glyphs", "seed=0,1"], {"model.latent_dim": "2,128"})
    assert swept_keys(folder) == ["model.latent_dim", "seed"]
    assert run_name(str(folder), ["model.latent_dim=2", "data=glyphs", "seed=1"]) == "latent_dim-2_seed-1"
    # The command line wins over the experiment.
    overrides = ["model.latent_dim=8", "model/objective=choice(elbo,beta)"]
    fixed = sweep(tmp_path / "fixed", overrides, {"model.latent_dim": "2,4"})
    assert swept_keys(fixed) == ["model/objective"]
    assert run_name(str(fixed), ["model.latent_dim=8", "model/objective=beta"]) == "objective-beta"
    assert swept_keys(tmp_path) == []


def test_run_names_are_plain_and_differ(tmp_path: Path) -> None:
    values = ["[64,32]", "[64, 32]", "a/b", "a b", "..", "'quoted'", "x" * 300, "x" * 301, "-1", "1e-3", "é", "{a:1}"]
    names = {run_name("nowhere", [f"model.x={value}"]) for value in values}
    assert len(names) == len(values)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") for name in names)
    assert all(len(name) < 200 for name in names)
    many = run_name("nowhere", [f"model.option_{i}=value" for i in range(40)])
    assert len(many) < 200


def test_short_names_of_keys_that_end_alike() -> None:
    assert short_names(["model/objective", "data"]) == {"model/objective": "objective", "data": "data"}
    assert short_names(["data.seed", "seed"])["data.seed"] == "data.seed"
