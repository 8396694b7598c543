"""Runs on disk: what an option was, which weights are loaded, runs of other versions, resuming and extending."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from shared import TINY, compose_config
from written_runs import configuration, write_checkpoint, write_run

from vae_lightning import LoadError, load_run
from vae_lightning.errors import UsageError
from vae_lightning.runs import Run
from vae_lightning.runs.resuming import check_same
from vae_lightning.runs.versions import upgraded
from vae_lightning.vae import VAE


def test_options_and_choices(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert [run.option(key) for key in ("seed", "model/objective", "model", "model.objective._target_", "no.key")] == [
        0, "elbo", "conv", "ELBO", None
    ]  # fmt: skip


def test_choices_of_an_older_run_are_in_hydras_notes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", choices={"model": "wrong"})
    config = yaml.safe_load(run.config_file.read_text())
    del config["choices"]
    run.config_file.write_text(yaml.safe_dump(config))
    run.hydra_file.parent.mkdir()
    run.hydra_file.write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": {"model": "mlp"}}}}))
    assert Run(run.folder).option("model") == "mlp"
    run.config_file.write_text(yaml.safe_dump(config | {"choices": {"model": "conv"}}))
    assert Run(run.folder).option("model") == "conv"


@pytest.fixture
def saved(tmp_path: Path, tiny_model: VAE) -> Run:
    """A run that can be loaded."""
    config = OmegaConf.to_container(compose_config(*TINY, "seed=0"), resolve=False)
    resolved = OmegaConf.to_container(compose_config(*TINY).model, resolve=True)
    run = write_run(tmp_path / "run", data=config["data"], model=resolved)  # type: ignore[index,call-overload]
    write_checkpoint(run.checkpoint_file, tiny_model.state_dict())
    return run


def reconfigure(run: Run, change: Any) -> None:
    config = yaml.safe_load(run.config_file.read_text())
    change(config)
    run.config_file.write_text(yaml.safe_dump(config))


def test_the_tested_weights_are_loaded(saved: Run) -> None:
    before = load_run(saved.folder).model.state_dict()
    assert saved.weights_file == saved.checkpoint_file
    doubled = {name: value * 2 for name, value in before.items()}
    write_checkpoint(saved.best_file, doubled)
    assert saved.weights_file == saved.best_file
    after = load_run(saved.folder).model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in doubled.items())


def test_a_run_of_the_version_before(saved: Run) -> None:
    engine = {"channels_last": True, "compile": False, "steps_per_call": 50, "cuda_graph": True}
    reconfigure(saved, lambda config: (config.pop("engine"), config["model"].update(engine)))
    saved.environment_file.write_text(json.dumps({"vae-lightning": "0.1.0"}))
    loaded = load_run(saved.folder)
    assert not engine.keys() & loaded.config["model"].keys()
    assert loaded.config["engine"] == engine
    assert loaded.model.sample(2).shape == (2, 1, 28, 28)


def test_renamed_classes() -> None:
    old = {"model": {"posterior": [{"_target_": "vae_lightning.architectures.posterior.DiagonalNormalHead", "n": 1}]},
           "callbacks": {"measurements": {"_target_": "vae_lightning.measurements.Measurements"}}}  # fmt: skip
    new = upgraded(old)
    assert new["model"]["posterior"] == [{"_target_": "vae_lightning.posteriors.DiagonalNormalHead", "n": 1}]
    assert new["callbacks"]["measurements"] == {"_target_": "vae_lightning.callbacks.Measurements"}
    assert old["callbacks"]["measurements"]["_target_"] == "vae_lightning.measurements.Measurements"


@pytest.mark.parametrize("version", ["999.0.0", "0.999", "1000"])
def test_a_run_of_a_newer_version_is_refused(saved: Run, version: str) -> None:
    saved.environment_file.write_text(json.dumps({"vae-lightning": version}))
    if version == "1000":  # not a version of ours
        load_run(saved.folder)
        return
    with pytest.raises(LoadError, match=rf"was made by vae-lightning {version}, which is newer than") as caught:
        load_run(saved.folder)
    assert "\n" not in str(caught.value)


def test_schedules_of_pytorch_may_be_loaded(saved: Run) -> None:
    def change(config: dict[str, Any], target: str = "torch.optim.lr_scheduler.StepLR") -> None:
        config["model"]["optimizer"] = {"_target_": target, "_partial_": True, "step_size": 2}

    reconfigure(saved, change)
    assert load_run(saved.folder).config["model"]["optimizer"]["step_size"] == 2
    reconfigure(saved, lambda config: change(config, "torch.optim.lr_scheduler.warnings.warn"))
    with pytest.raises(LoadError, match="cannot be loaded"):
        load_run(saved.folder)
    reconfigure(saved, lambda config: change(config, "torch.optim.lr_scheduler.partial"))
    with pytest.raises(LoadError, match="is neither a class of this package nor a layer, optimizer or learning-rate"):
        load_run(saved.folder)


def test_a_trusted_module_that_is_not_found(saved: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reconfigure(saved, lambda config: config["model"]["encoder"].update(_target_="dense_elsewhere.layers.Dense"))
    with pytest.raises(LoadError, match="the folder that contains dense_elsewhere must be on PYTHONPATH"):
        load_run(saved.folder, trust=["dense_elsewhere"])
    (tmp_path / "dense_elsewhere").mkdir()
    (tmp_path / "dense_elsewhere" / "layers.py").write_text("raise RuntimeError('not today')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LoadError, match="cannot be loaded: not today$"):
        load_run(saved.folder, trust=["dense_elsewhere"])


def resume(run: Run, **options: Any) -> bool:
    return check_same(OmegaConf.create(configuration(**options)), run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 3}, "seed=3: .*run was started with seed=0. Set it back to resume this run, or train in"),
        ({"callbacks__figures__samples": 9}, "callbacks.figures.samples=9: .* was started with .*samples=100"),
        ({"callbacks__grids": {"shown": 3}}, "callbacks.grids.shown=3: .* was started without it. Leave it out"),
        ({"callbacks__figures": ...}, "callbacks.figures._target_: .* was started with .*FinalFigures. Set it to"),
        ({"logger": {}}, "logger.tensorboard._target_: .* was started with"),
        ({"engine__steps_per_call": 50}, "engine.steps_per_call=50: "),
        (
            {"trainer__max_epochs": 1},
            "trainer.max_epochs=1: .*run has trained 2 epochs; a run can be extended, but not",
        ),
        ({"trainer__max_steps": 10}, "trainer.max_steps=10: .*run was started with trainer.max_steps=None; a run can"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_another_run_is_not_resumed(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resume(write_run(tmp_path / "run"), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "extends"),
    [
        ({}, False),
        (
            {"data__root": "/x", "trainer__enable_progress_bar": False, "trainer__enable_model_summary": True},
            False,
        ),
        ({"callbacks__figures": {**configuration()["callbacks"]["figures"], "cache": "/tmp"}}, False),
        ({"run_dir": "somewhere", "logger__tensorboard__save_dir": "${run_dir}"}, False),
        ({"study": "renamed", "resume": True}, False),
        ({"trainer__max_epochs": 3}, True),
        ({"trainer__max_epochs": -1}, True),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_the_same_run_is_resumed_or_extended(tmp_path: Path, options: dict[str, Any], extends: bool) -> None:
    assert resume(write_run(tmp_path / "run"), **options) is extends


def test_an_interrupted_run_is_not_shortened(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", trainer__max_steps=10)
    run.metrics_file.unlink()
    with pytest.raises(
        UsageError, match=r"trainer.max_epochs=1: .*run was started with trainer.max_epochs=2; a run can"
    ):
        resume(run, trainer__max_epochs=1, trainer__max_steps=10)
    assert resume(run, trainer__max_steps=20)


def test_a_run_that_an_older_version_has_started_is_finished_with_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", engine=...)
    with pytest.raises(UsageError, match="run: was started by an older version of vae-lightning; finish it with that"):
        resume(run)
    run.environment_file.write_text(json.dumps({"vae-lightning": "0.1.0"}))
    with pytest.raises(UsageError, match=r"run: was started by vae-lightning 0\.1\.0; finish it with that version, or"):
        resume(Run(run.folder))


@pytest.mark.parametrize(
    ("version", "nodes"), [("0.2.0", ["engine"]), ("0.2.0", ["choices"]), ("0.1.0", ["engine", "callbacks"])]
)
def test_a_configuration_that_was_cut_off_is_not_one_of_an_older_version(
    tmp_path: Path, version: str, nodes: list[str]
) -> None:
    file = write_run(tmp_path / "run").config_file
    file.write_text(
        yaml.safe_dump({key: value for key, value in yaml.safe_load(file.read_text()).items() if key not in nodes})
    )
    run = Run(file.parent)
    run.environment_file.write_text(json.dumps({"vae-lightning": version}))
    with pytest.raises(UsageError, match=r"run: config\.yaml is damaged"):
        resume(run)


def test_a_damaged_configuration_is_not_resumed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    run.config_file.write_text("[1]")
    with pytest.raises(UsageError, match=r"config\.yaml is damaged"):
        resume(Run(run.folder))
