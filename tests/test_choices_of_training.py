"""What is chosen for a training: debug, best checkpoint, early stopping and averaging, as a user runs them."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from shared import TINY, UNMEASURED, compose_config
from test_lightning_parts import PLAIN, run, same

from vae_lightning.building import build
from vae_lightning.runs import Run
from vae_lightning.runs.options import differing_options

TRAIN = [option for option in TINY if not option.startswith("callbacks.") and "log_every" not in option]
WITHOUT_EPOCHS = [option for option in TRAIN if "max_epochs" not in option]


LISTS = ("default,best", "default,early_stopping,ema")


@pytest.mark.parametrize("lists", [LISTS[1:], LISTS], ids=len)
@pytest.mark.slow
def test_a_sweep_of_schedules_and_callbacks(tmp_path: Path, vae_train: Callable, lists: tuple[str, ...]) -> None:
    """Runs are named and compared by what was chosen, and one that is resumed ends as it had."""
    sweep = ["--multirun", *TINY, *UNMEASURED, "data.validation_size=16", "hydra.sweep.dir=sweep", "logger=none"]
    sweep += ["schedule=cosine,plateau", f"callbacks={','.join(f'[{chosen}]' for chosen in lists)}"]
    done = vae_train(*sweep)
    assert (done.returncode, done.stderr) == (0, "")
    count = 2 * len(lists)
    assert f"{count} of {count} runs finished" in done.stdout
    runs = [Run(file.parent) for file in sorted((tmp_path / "sweep").glob("*/metrics.json"))]
    chosen = {(run.option("schedule"), run.option("callbacks")) for run in runs}
    assert chosen == set(product(("cosine", "plateau"), lists))
    assert set(differing_options(runs)) == {"schedule", "callbacks"} - ({"callbacks"} if len(lists) == 1 else set())
    assert all(("best_step" in run.metrics) == ("best" in str(run.option("callbacks"))) for run in runs)
    expected = runs[0].metrics
    runs[0].metrics_file.unlink()
    again = vae_train(*sweep, "resume=true")
    assert (again.returncode, again.stderr) == (0, "")
    found = json.loads(runs[0].metrics_file.read_text())
    assert measured(found) == measured(expected)


def measured(metrics: dict) -> dict:
    return {name: value for name, value in metrics.items() if "/" in name}


@pytest.mark.slow
def test_metrics_and_lines_say_of_which_checkpoint_they_are(tmp_path: Path, vae_train: Callable) -> None:
    """By the mode the first epoch is the best: validation and test metrics are those of a training that ends there."""
    options = [*TINY, *UNMEASURED, "callbacks=[default,best]", "callbacks.best.mode=min", "data.validation_size=16"]
    said = {}
    for epochs in (1, 3):
        done = vae_train(*options, f"trainer.max_epochs={epochs}", f"hydra.run.dir=run_{epochs}")
        assert (done.returncode, done.stderr) == (0, "")
        said[epochs] = done.stdout
    first, found = (json.loads((tmp_path / f"run_{epochs}" / "metrics.json").read_text()) for epochs in (1, 3))
    assert (found["best_step"], found["steps"]) == (3, 9)
    assert measured(found) == measured(first)
    assert "after step 3 of 9" in said[3]
    assert [line.rpartition(", ")[2] for line in said[3].splitlines() if line.startswith(("validated", "tested"))] == [
        "step 3",
        "step 3",
    ]
    assert {file.name for file in (tmp_path / "run_3" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


@pytest.mark.slow
def test_stopping_is_said_and_lasts(tmp_path: Path, vae_train: Callable) -> None:
    options = [*TINY, *UNMEASURED, "callbacks=[default,early_stopping]", "data.validation_size=16", "logger=none"]
    options += ["callbacks.stopping.mode=min", "callbacks.stopping.patience=1", "hydra.run.dir=run"]
    done = vae_train(*options, "trainer.max_epochs=4")
    assert "stopped    after epoch 2 of 4: Monitored metric val/elbo did not improve" in done.stdout
    longer = vae_train(*options, "trainer.max_epochs=9", "resume=true")
    assert (longer.returncode, longer.stderr) == (0, "")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"] == 2


def test_an_average_of_a_run_that_is_extended(tmp_path: Path) -> None:
    """Training continues from its own weights, not from their average."""
    average = ["+callbacks.own={_target_: pytorch_lightning.callbacks.EMAWeightAveraging, decay: 0.9}"]
    whole = run(tmp_path / "whole", *average)
    run(tmp_path / "parts", *average, "trainer.max_epochs=1")
    assert same(whole, run(tmp_path / "parts", *average, "resume=true"))


def test_a_finished_training_that_was_not_yet_tested(tmp_path: Path) -> None:
    """As after a crash while measuring: the average is tested, not the weights that training would continue from."""
    average = ["+callbacks.own={_target_: vae_lightning.callbacks.MovingAverage, decay: 0.9}"]
    found = run(tmp_path / "run", *average)
    found.run.metrics_file.unlink()
    again = run(tmp_path / "run", *average, "resume=true")
    assert same(found, again)
    assert again.metrics["test/elbo"] == found.metrics["test/elbo"]


def test_what_is_counted_is_not_averaged(tmp_path: Path) -> None:
    average = ["+callbacks.own={_target_: vae_lightning.callbacks.MovingAverage, decay: 0.9}"]
    found = run(tmp_path / "run", *average, "model/objective=annealed", "model.objective.steps=100")
    assert found.model.objective.taken == found.metrics["steps"] > 1


@pytest.mark.parametrize("fast", [[], pytest.param(["trainer=fast"], marks=pytest.mark.slow)], ids=["", "fast"])
@pytest.mark.parametrize("choice", ["limit", "fast_dev_run", "profiler"])
def test_debug_choices(tmp_path: Path, vae_train: Callable, choice: str, fast: list[str]) -> None:
    options = [*WITHOUT_EPOCHS, *UNMEASURED, *fast, f"debug={choice}", "hydra.run.dir=run", "data.validation_size=16"]
    done = vae_train(*options, "data.batch_size=4")
    assert (done.returncode, done.stderr) == (0, "")
    if choice == "fast_dev_run":
        assert "dry run    one batch of training, validation and test" in done.stdout
        assert not list(tmp_path.iterdir())
        return
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["epochs"], metrics["steps"]) == (1, 10 if choice == "limit" else 20)
    if choice == "profiler":
        report = (tmp_path / "run" / "fit-profile.txt").read_text()
        assert "OneDevice.training_step" in report


@pytest.mark.slow
def test_anomaly_names_the_operation(tmp_path: Path, vae_train: Callable) -> None:
    """Without it, the step at which the loss has become NaN is all that is said."""
    options = [*TRAIN, *UNMEASURED, "model/likelihood=gaussian", "model.optimizer.lr=1e10", "logger=none"]
    plain = vae_train(*options, "hydra.run.dir=plain")
    assert plain.returncode == 1
    assert "Backward" not in plain.stderr
    found = vae_train(*options, "debug=anomaly", "hydra.run.dir=found")
    assert found.returncode == 1
    assert "Function 'DivBackward0' returned nan values" in found.stderr
    assert "likelihoods/" in found.stderr or "objectives/elbo.py" in found.stderr
    assert "RuntimeError" in (tmp_path / "found" / "error.txt").read_text()


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_overfitting_validates_what_is_trained_on(tmp_path: Path, binarize: str) -> None:
    small = [option for option in PLAIN if "batch_size" not in option]
    config = compose_config(*small, "debug=overfit", f"data.binarize={binarize}", "data.validation_size=9")
    config.run_dir = str(tmp_path)
    _, data, trainer, _ = build(config)
    data.trainer = trainer
    data.setup()
    trained, validated = next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))
    assert trained.images.shape == (16, 1, 28, 28)
    assert torch.equal(trained.labels, validated.labels)
    if binarize == "none":
        assert torch.equal(trained.images, validated.images)
    else:
        assert not validated.images[trained.images == 0].any()


@pytest.mark.slow
def test_overfitting_reaches_the_floor(tmp_path: Path, vae_train: Callable) -> None:
    """As the file says: the training images are known by heart, unlike the test images, which were never seen."""
    done = vae_train("debug=overfit", "data=glyphs", "model=mlp", *UNMEASURED, "logger=none", "hydra.run.dir=run")
    assert (done.returncode, done.stderr) == (0, "")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["steps"] == 500
    assert metrics["val/distortion_above_floor"] == pytest.approx(5, abs=1)
    assert metrics["test/distortion_above_floor"] > 300
