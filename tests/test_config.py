"""The configuration tree: everything in conf/ composes and makes what it says, and mistakes are found."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from pytorch_lightning import Trainer
from shared import PARTNERS, TINY, UNMEASURED, compose_config

from vae_lightning import train
from vae_lightning.callbacks import LatentExplorer
from vae_lightning.config import CONFIGURATION, compose, make
from vae_lightning.config.messages import explain, explain_failure
from vae_lightning.config.schema import _share_of_cores, check, check_calls
from vae_lightning.errors import UsageError
from vae_lightning.runs import run_name, short_names, swept_keys

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


MISTAKES = [
    (
        ["model.optimizer.weight_decay=0.01"],
        "model.optimizer.weight_decay: is not set in the configuration; add it with +model.optimizer.weight_decay=0.01",
    ),
    (
        ["seed=3", "trainer.min_epochs=2"],
        "trainer.min_epochs: is not set in the configuration; add it with +trainer.min_epochs=2",
    ),
    (["trainer.min_epoch=2"], "trainer.min_epoch: no such option. Did you mean trainer.max_epochs?"),
    (["trainer.max_epoch=2"], "trainer.max_epoch: no such option. Did you mean trainer.max_epochs?"),
    (["model.optimizer.depth=2"], "model.optimizer.depth: no such option.\nmodel.optimizer has lr"),
    (["latent_dim=16"], "latent_dim: no such option. Did you mean model.latent_dim?\nthe options are callbacks"),
    (["lr=0.1"], "lr: no such option. Did you mean model.optimizer.lr?"),
    (["model.lr=0.1"], "model.lr: no such option. Did you mean model.optimizer.lr?"),
    (["width=3"], "width: no such option. Did you mean model.encoder.width or model.decoder.width?"),
    (["every_n_batches=3"], "every_n_batches: no such option. Did you mean callbacks."),
    (["max_epoch=3"], "max_epoch: no such option. Did you mean trainer.max_epochs?"),
    (
        ["data=torchvision", "data.source.train.split=all"],
        "data.source.train.split: is not set in the configuration; add it with +data.source.train.split=all",
    ),
    (["sed=3"], "sed: no such option. Did you mean seed?"),
    (["model.latent_dim=2,3"], "model.latent_dim=2,3: several values are a sweep, which needs --multirun"),
    (["seed=2", "model.latent_dim=choice(2,3)"], "model.latent_dim=choice(2,3): several values are a sweep"),
    (["+seed=2"], "Could not append to config"),
    (["latent dim"], "'latent dim': cannot be read; options are given as KEY=VALUE"),
    (["seed=[1"], "'seed=[1': cannot be read; options are given as KEY=VALUE"),
    (["study=Bücher (1)"], "study=Bücher (1): has characters that must be quoted for Hydra, and again for the shell"),
    (["seed=abc"], "seed: Value 'abc' of type 'str' could not be converted to Integer"),
    (
        ["schedule.warmup=0.1"],
        "schedule: is a group; choose with schedule=CHOICE, and set the options of the choice in mo",
    ),
    (["callbacks=[default,bst]"], "callbacks=bst: no such choice. Did you mean callbacks=best?"),
    (["model=con"], "model=con: no such choice. Did you mean model=conv?\nmodel can be conv, linear, mlp"),
    (["experiment=foo"], "experiment=foo: no such choice.\nexperiment can be as_printed, "),
    (
        ["model.objective.beta=4"],
        "model.objective has no options; choose model/objective=beta, model/objective=annealed or model/objective=c",
    ),
    (["callbacks=none", "callbacks.grids.shown=1"], "callbacks has no options; choose callbacks=default, which sets"),
    (["model/objective=elb"], "Did you mean model/objective=elbo?"),
]


@pytest.mark.parametrize(("overrides", "message"), MISTAKES, ids=lambda value: " ".join(value)[:40])
def test_mistakes_in_overrides(overrides: list[str], message: str) -> None:
    with pytest.raises((HydraException, UsageError)) as caught:
        compose(*overrides)
    said = explain(caught.value, overrides)
    assert message in said
    assert len(said.splitlines()) <= 2
    assert said.splitlines()[0].count(", ") <= 3


def test_groups_that_an_experiment_cannot_choose(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    for group in ("recipe", "debug"):
        defaults = f"defaults:\n  - override /{group}: vae\n"
        (tmp_path / "experiment" / "own.yaml").write_text(f"# @package _global_\n{defaults}")
        with pytest.raises(UsageError, match=f"^experiment/own: cannot choose {group}, which is read after it; choose"):
            compose("experiment=own", config_dir=tmp_path)


def test_a_group_that_a_model_of_ones_own_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "own.yaml").write_text("defaults: [_base]\n")
    message = "^model/posterior: the chosen model has no group posterior; choose another model, or add posterior to the"
    with pytest.raises(UsageError, match=message):
        compose("model=own", "model/posterior=iaf", config_dir=tmp_path)


def test_an_option_that_is_added_must_be_read_by_something() -> None:
    with pytest.raises(UsageError, match=r"^latent_dim: no such option\. Did you mean model\.latent_dim\?"):
        check(compose("+latent_dim=16"))
    check(compose("+width=16", "model.encoder.width=${width}", "model.decoder.width=${width}"))


@pytest.mark.parametrize("value", ["Bücher (1)", "a&b", "it's $5 & `more`", 'say "hi"', "~/pics=1"])
def test_a_value_that_hydra_cannot_read_is_quoted_for_the_shell(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        compose(f"study={value}")
    quoted = str(caught.value).rpartition(" shell: ")[2]
    (read,) = subprocess.run(["sh", "-c", f"printf %s {quoted}"], capture_output=True, text=True).stdout.splitlines()
    assert compose(read).study == value


def test_a_configuration_can_be_resolved() -> None:
    config = compose("model/labels=embedded", "model/likelihood=logistic_mixture", "run_dir=x")
    OmegaConf.resolve(config)
    assert config.model.decoder.image_shape[1:] == [28, 28]


def test_values_come_from_the_command_line_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError) as caught:
        compose("trainer.min_epochs=2")
    error = caught.value.__cause__
    assert isinstance(error, HydraException)
    assert explain(error).endswith("add it with +trainer.min_epochs=VALUE")
    monkeypatch.setattr("sys.argv", ["vae-train", "--multirun", "seed=1,2", "trainer.min_epochs=2", "(("])
    assert explain(error).endswith("add it with +trainer.min_epochs=2")


def test_mistakes_in_python(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UsageError, match=r"^config_dir=.*nowhere: there is no such folder$"):
        compose(config_dir=tmp_path / "nowhere")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "own.yaml").write_text("encoder:\n\tunits: 3\n")
    with pytest.raises(UsageError, match=r"model/own.yaml, line 2: found character '\\t' that cannot start any token$"):
        compose("model=own", config_dir=tmp_path)
    with pytest.raises(UsageError, match=r"^model.latent_dim: .*Environment variable 'NOWHERE' not found"):
        train(compose("model.latent_dim=${oc.env:NOWHERE}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    compose("experiment=latent_sweep", "model.latent_dim=8")
    assert not caplog.messages
    compose("experiment=latent_sweep")
    (said,) = caplog.messages
    assert said.startswith("compose: leaves out model.latent_dim=2,128; choose one value of each")


def test_a_misspelling_imports_nothing() -> None:
    """Whether a class has an option is looked up only for names that resemble none of those in the configuration."""
    program = """
import sys
from vae_lightning.config.compose import compose
from vae_lightning.config.messages import explain
try:
    compose("trainer.max_epoch=3")
except Exception as error:
    print(explain(error), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Did you mean trainer.max_epochs?" in done.stdout
    assert done.stdout.endswith(" False\n")


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


class Failing:
    def __init__(self, width: int) -> None:
        raise ValueError(f"width: must be even, got {width}")


def test_images_that_a_model_does_not_take_may_be_fitted() -> None:
    config = compose("data=glyphs", "data.source.image_size=37", "data.image_shape=[1,37,37]")
    with pytest.raises(InstantiationException) as caught:
        make(config.model)
    said = explain(caught.value, [])
    assert re.search(r"model\.\w+\.image_shape: .* got 37\nmodel=mlp takes images of any size; data.source.size=", said)


def test_a_failed_call_names_its_node() -> None:
    """Hydra says only in words which node it was: this fails when it changes them."""
    with pytest.raises(InstantiationException) as caught:
        make(OmegaConf.create({"model": {"encoder": {"_target_": f"{__name__}.Failing", "width": 3}}}))
    assert explain(caught.value) == "model.encoder.width: must be even, got 3"


class Dying(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        os._exit(1)


def test_a_worker_that_dies_while_it_hands_over_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left in the queue then refers to memory that nobody serves any more."""
    from torch.multiprocessing import reductions

    def gone(*_: object) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(reductions, "storage_from_cache", gone)
    with pytest.raises(ConnectionResetError) as caught:
        reductions.rebuild_storage_fd(torch.UntypedStorage, type("Handle", (), {"detach": gone})(), 8)
    assert explain_failure(caught.value, "run", 64).startswith("a worker process died; data.num_workers=0")
    assert explain_failure(ConnectionResetError(104, "reset"), "run", 64) == "run: reset"


def test_a_worker_that_dies_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch says it only in words: this fails when it changes them."""
    wait = torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(wait, "__defaults__", (0.1,))  # seconds, instead of 5
    with pytest.raises(RuntimeError) as caught:
        list(torch.utils.data.DataLoader(Dying(), num_workers=1))
    said = explain_failure(caught.value, "run", 64)
    assert re.fullmatch(r"worker process \d+ died; data.num_workers=0 loads the images in the main process", said)


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
