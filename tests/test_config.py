"""The configuration tree: everything in conf/ composes and makes what it says, and mistakes are found."""

import inspect
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from pytorch_lightning import Trainer
from shared import PARTNERS, TINY, UNMEASURED, compose_config

from vae_lightning.callbacks import LatentExplorer
from vae_lightning.config import CONFIGURATION, compose
from vae_lightning.config.messages import explain
from vae_lightning.config.schema import _share_of_cores, check, check_calls
from vae_lightning.errors import UsageError

# Those that test_combinations.py makes and trains are left out.
COMBINED = ("recipe", "model/labels", "model/likelihood", "model/objective", "model/posterior", "model/prior")
CHOICES = sorted(
    (path.parent.relative_to(CONFIGURATION).as_posix(), path.stem)
    for path in CONFIGURATION.glob("*/**/*.yaml")
    if not path.stem.startswith("_")
    and "hydra" not in path.parts
    and path.parent.relative_to(CONFIGURATION).as_posix() not in COMBINED
)


NEEDED = {
    "folder": ["data.source.path={}"],
    "arrays": ["data.source.path={}/a.npy"],
    "torchvision": ["data.source.dataset=Flowers102"],
    "huggingface": ["data.source.name=uoft-cs/cifar10"],
    **{choice: ["data.validation_size=9"] for choice in ("plateau", "best", "early_stopping")},
}


@pytest.mark.parametrize(
    "options",
    [
        [*TINY, *UNMEASURED, "model.latent_dim=7", "data.image_shape=[1,8,8]", "callbacks.losses={every_n_batches: 4}"],
        [*TINY, "recipe=m2", "model.labels.classes=3", "run_dir=x", "seed=5"],
        ["callbacks=[default,ema]", "model.optimizer.lr=1e-4", "trainer.max_epochs=null", "schedule=cosine"],
    ],
    ids=["dictionary", "recipe", "list"],
)
def test_tests_compose_as_users_do(options: list[str]) -> None:
    first, second, composed = compose_config(*options), compose_config(*options), compose(*options)
    assert first == second == composed
    assert OmegaConf.to_yaml(first) == OmegaConf.to_yaml(second) == OmegaConf.to_yaml(composed)


# Much like another one, or also run by a test.
ALIKE = {
    *("cifar10", "celeba", "omniglot", "svhn", "fashion_mnist", "mnist", "kmnist", "kmnist10k", "glyphs", "sprites"),
    *("smoke", "as_printed", "latent_sweep", "published_svae", "published_svae_normal", "published_standard_prior"),
    *("disentanglement_beta", "published_linear", "published_vamp_prior"),
    *("cosine", "warmup_cosine", "one_cycle", "plateau", "step"),  # of which test_schedules has more
}


@pytest.mark.parametrize(
    ("group", "choice"),
    [pytest.param(group, name, marks=[pytest.mark.slow] * (name in ALIKE)) for group, name in CHOICES],
    ids=lambda part: part,
)
def test_every_choice_composes_and_makes_what_it_names(
    group: str, choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if choice in ("mlflow", "wandb"):
        pytest.importorskip(choice)
    monkeypatch.chdir(tmp_path)  # where MLflow's database is
    Image.new("RGB", (64, 64)).save(tmp_path / "1.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "2.png")
    np.save(tmp_path / "a.npy", np.zeros((2, 28, 28), np.uint8))
    needed = [option.format(tmp_path) for option in NEEDED.get(choice, [])] + PARTNERS.get(f"{group}={choice}", [])
    config = compose(f"{group}={choice}", *needed)
    config.run_dir = str(tmp_path)
    check(config)
    check_calls(config)
    if group in ("trainer", "experiment"):  # a GPU may not be there
        config.trainer.accelerator = "cpu"
    data = instantiate(config.data, _convert_="all")
    config.data.image_shape = config.data.image_shape or list(data.image_shape)
    for node in ("model", "trainer"):
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
        ("data.source=glyphs", "data.source=glyphs: must be the options of a source, which data=CHOICE chooses"),
        ("data.root=5", "data.root=5: must be a folder, or null"),
        ("trainer.max_time=10", "trainer.max_time=10: must be days, hours, minutes and seconds, such as 00:01:30:00"),
        ("data.image_shape=28", "data.image_shape=28: must be three whole numbers"),
        ("data.image_shape=[28,28]", "data.image_shape=[28, 28]: must be three whole numbers"),
        ("trainer.devices=[0]", "trainer.devices=[0]: must be a whole number of at least 1"),
        ("callbacks.figures.samples=0", "callbacks.figures.samples=0: must be a whole number of at least 1"),
        ("callbacks.explorer.points=0", "callbacks.explorer.points=0: must be a whole number of at least 1"),
        ("callbacks.explorer.dimensions=0", "callbacks.explorer.dimensions=0: must be a whole number of at least 1"),
        ("seed=-1", "seed=-1: must be a whole number from 0"),
        ("trainer.accelerator=gpus", "trainer.accelerator=gpus: must be one of auto, cpu"),
        ("engine.steps_per_call=0", "engine.steps_per_call=0: must be a whole number of at least 1"),
        ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=0: must be a whole number of at least"),
        ("trainer.val_check_interval=0", "trainer.val_check_interval=0: must be a fraction of an epoch up to 1.0"),
        ("trainer.val_check_interval=1.5", "trainer.val_check_interval=1.5: must be a fraction of an epoch up to 1.0"),
        ("trainer.limit_train_batches=2.5", "trainer.limit_train_batches=2.5: must be a whole number of at least 1"),
        ("trainer.max_epochs=null", "trainer.max_epochs=null: needs another limit, trainer.max_steps or trainer.max_t"),
        ("+trainer.logger=false", "trainer.logger=False: is set by the program; choose with logger=csv and others"),
        ("+trainer.use_distributed_sampler=true", "trainer.use_distributed_sampler=True: is set by the program; leave"),
        ("trainer.max_steps=0", "trainer.max_steps=0: must be a whole number of at least 1, or -1"),
        ("trainer.gradient_clip_algorithm=norms", "trainer.gradient_clip_algorithm=norms: must be one of norm, value"),
    ],
)
def test_ranges(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check(compose_config(override))
    assert message in explain(caught.value)


@pytest.mark.parametrize(("option", "least"), [("cells", 2), ("points", 1), ("dimensions", 1), ("steps", 2)])
def test_the_explorer_has_something_to_show(option: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"{option}: must be a whole number of at least {least}, got {least - 1}"):
        LatentExplorer(**{option: least - 1})


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


@pytest.mark.parametrize(
    "override",
    [
        *("trainer.accumulate_grad_batches=2", "trainer.val_check_interval=0.5", "trainer.val_check_interval=20"),
        *("trainer.deterministic=warn", "trainer.max_time=00:00:10:00", "trainer.overfit_batches=2"),
        *("trainer.limit_val_batches=0", "trainer.fast_dev_run=true", "trainer.profiler=simple"),
    ],
)
def test_lightning_options(override: str) -> None:
    config = compose_config("trainer.accelerator=cpu", override)
    config.run_dir = "x"
    check(config)
    check_calls(config)
    key, _, value = override.removeprefix("trainer.").partition("=")
    assert str(config.trainer[key]).lower() == value


def test_jobs_in_parallel_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [_share_of_cores(jobs) for jobs in (1, 2, 3, 16, -1, -2)] == ["8", "4", "2", "1", "1", "1"]


def test_the_trainer_lists_options_with_lightnings_defaults() -> None:
    parameters = inspect.signature(Trainer).parameters
    ours = {"accelerator", "devices", "precision", "max_epochs", "log_every_n_steps", "enable_progress_bar"}
    # Lightning's None means the same, or the project's default differs.
    other = {"val_check_interval": 1.0, "num_sanity_val_steps": 0, "enable_model_summary": False}
    for name, value in compose().trainer.items():
        if not str(name).startswith("_") and name not in ours:
            assert value == other.get(name, parameters[name].default), name


@pytest.mark.parametrize("group", ["model/objective", "model/likelihood", "model/prior"])
def test_a_group_given_as_a_value(group: str) -> None:
    key = group.replace("/", ".")
    with pytest.raises(UsageError) as caught:
        check(compose(f"{key}=some"))
    assert str(caught.value) == f"{key}=some: is a group of options; choose with {group}=some"


def test_a_group_of_ones_own_given_as_a_value(tmp_path: Path) -> None:
    (tmp_path / "model" / "encoder" / "stem").mkdir(parents=True)
    (tmp_path / "model" / "encoder" / "stem" / "wide.yaml").write_text("width: 3")
    with pytest.raises(UsageError, match=r"model.encoder.stem=wide: is a group .* with model/encoder/stem=wide"):
        check(compose("+model/encoder/stem=wide", "model.encoder.stem=wide", config_dir=tmp_path))


def test_a_group_may_be_given_a_list(tmp_path: Path) -> None:
    config = compose("callbacks=[default, best, ema]", "data.validation_size=9")
    assert {*config.callbacks} == {*compose().callbacks, "best", "averaging"}
    assert config.choices["callbacks"] == "default,best,ema"


MONITORS = [
    ("callbacks.stop", "{_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/elbo}"),
    ("callbacks.best", "{_target_: pytorch_lightning.callbacks.ModelCheckpoint, monitor: val/loss}"),
    ("model.lr_scheduler", "{monitor: val/loss}"),
]


@pytest.mark.parametrize(("key", "node"), MONITORS)
def test_monitors_need_validation_images(key: str, node: str) -> None:
    monitor = node.removesuffix("}").rpartition(" ")[2]
    with pytest.raises(UsageError) as caught:
        check(compose(f"++{key}={node}"))
    hint = "there are no validation images; hold some out with data.validation_size=1000"
    assert str(caught.value) == f"{key}.monitor={monitor}: {hint}"
    check(compose(f"++{key}={node}", "data.validation_size=100"))
    check(compose(f"++{key}={node.replace('val/', 'train/')}"))


def test_an_option_that_is_added_must_be_read_by_something() -> None:
    with pytest.raises(UsageError, match=r"^latent_dim: no such option\. Did you mean model\.latent_dim\?"):
        check(compose("+latent_dim=16"))
    check(compose("+width=16", "model.encoder.width=${width}", "model.decoder.width=${width}"))


def test_a_configuration_can_be_resolved() -> None:
    config = compose("model/labels=embedded", "model/likelihood=logistic_mixture", "run_dir=x")
    OmegaConf.resolve(config)
    assert config.model.decoder.image_shape[1:] == [28, 28]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("~model.encoder.image_shape", "model.encoder also needs image_shape: add +model.encoder.image_shape=VALUE"),
        ("+callbacks.x={_target_: pytorch_lightning.callbacks.EarlyStopping}", "callbacks.x also needs monitor: add"),
    ],
)
def test_calls_without_what_they_need(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_calls(compose_config(override))
    assert message in str(caught.value)


def test_keys_of_an_option_may_be_numbers() -> None:
    own = "{_target_: pytorch_lightning.callbacks.GradientAccumulationScheduler, scheduling: {0: 2, 1: {}}}"
    check_calls(compose(f"+callbacks.own={own}", "run_dir=x"))
    with pytest.raises(UsageError, match=r"Did you mean callbacks\.own\.scheduling\?"):
        compose(f"+callbacks.own={own}", "callbacks.own.schedulng.0=3")
