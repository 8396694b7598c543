"""Mistakes in options are told in a line or two: what is wrong, what is allowed, and what to do."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.errors import HydraException, InstantiationException
from omegaconf import OmegaConf

from vae_lightning import train
from vae_lightning.config import compose, make
from vae_lightning.config.messages import explain, explain_failure
from vae_lightning.errors import UsageError

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
    (["+experiment=smoke"], "experiment: is chosen already; choose another with experiment=CHOICE, without +"),
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


@pytest.mark.parametrize("value", ["Bücher (1)", "a&b", "it's $5 & `more`", 'say "hi"', "~/pics=1"])
def test_a_value_that_hydra_cannot_read_is_quoted_for_the_shell(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        compose(f"study={value}")
    quoted = str(caught.value).rpartition(" shell: ")[2]
    (read,) = subprocess.run(["sh", "-c", f"printf %s {quoted}"], capture_output=True, text=True).stdout.splitlines()
    assert compose(read).study == value


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
