"""Finished runs measured again: as they were to the last digit, with other sizes, other data, other checkpoints."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest
import torch
from shared import TINY, UNDRAWN, call, run_command

from vae_lightning import LoadError, compare, evaluate, load_run, progress
from vae_lightning.data.sources import DataError
from vae_lightning.errors import UsageError
from vae_lightning.evaluating import main
from vae_lightning.evaluating.naming import SIZES, evaluation_name
from vae_lightning.metrics.bounds import importance_weighted_bound
from vae_lightning.runs import Run

Command = Callable[..., CompletedProcess[str]]

BRIGHTNESS = """
from pytorch_lightning import Callback

class Brightness(Callback):
    def on_test_epoch_end(self, trainer, pl_module):
        images, _ = trainer.datamodule.examples("test", 1000)
        pl_module.log("test/brightness", images.mean().double())
"""
# The worst checkpoint instead of the best, so that it is not the last one.
CHOSEN = [
    "data.validation_size=16", "+callbacks.best._target_=pytorch_lightning.callbacks.ModelCheckpoint",
    "+callbacks.best.monitor=val/elbo", "+callbacks.best.mode=min", "+callbacks.best.dirpath=${run_dir}/checkpoints",
]  # fmt: skip


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "brightness.py").write_text(BRIGHTNESS)
    options = [
        "--multirun",
        "model.latent_dim=2,3",
        "hydra.sweep.dir=sweep",
        "data.scale=256",
        "engine.channels_last=true",
    ]
    options += [*CHOSEN, "+callbacks.own._target_=brightness.Brightness", "model.optimizer.lr=0.01"]
    path = str(folder), *sys.path
    done = run_command("vae_lightning.cli", *TINY, *UNDRAWN, *options, cwd=folder, PYTHONPATH=":".join(path))
    assert done.returncode == 0, done.stderr
    return folder / "sweep"


@pytest.fixture
def run(sweep: Path, tmp_path: Path) -> Path:
    """A run of the sweep that its test may spoil."""
    return Path(shutil.copytree(sweep / "latent_dim-3", tmp_path / "run"))


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`vae-evaluate` in a folder of its own, in this process."""

    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call(main, "vae-evaluate", *arguments, capture=capsys, patch=monkeypatch)


def metrics_of(run: Path) -> dict[str, float]:
    return {name: value for name, value in Run(run).metrics.items() if name.startswith("test/")}


BOUND_ALONE: dict[str, Any] = {"probe_images": 0, "quality_images": 0, "plane_points": 0}


def test_settings_of_the_training_give_its_metrics_to_the_last_digit(
    run: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(sweep.parent)
    before = torch.get_rng_state()
    found = evaluate(run, trust=["brightness"])
    assert torch.equal(torch.get_rng_state(), before)
    assert {"test/brightness", "test/elbo_training", "test/mutual_information_upper"} < found.metrics.keys()
    assert len(found.metrics) > 25
    assert found.metrics == metrics_of(run)
    content = json.loads((run / "evaluations" / "test.json").read_text())
    assert content["metrics"] == found.metrics
    assert (content["checkpoint"], content["steps"], content["data"]) == ("best", 6, {"name": "glyphs"})
    assert content["measurements"]["bound_samples"] == 3
    assert sorted(path.name for path in (run / "evaluations").iterdir()) == ["test.json"]


def test_callbacks_from_elsewhere_need_trust(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        found = evaluate(run, **BOUND_ALONE)
    assert "test/brightness" not in found.metrics
    assert "left out   callbacks.own._target_=brightness.Brightness" in caplog.text
    assert "--trust brightness" in caplog.text


def test_either_checkpoint_is_measured(run: Path) -> None:
    best, last = (evaluate(run, checkpoint=which, bound_samples=0, **BOUND_ALONE) for which in ("best", "last"))
    assert best.metrics["test/elbo"] == metrics_of(run)["test/elbo"] < last.metrics["test/elbo"]
    loaded = load_run(run, checkpoint="last")
    images, labels = loaded.test_images(1000)
    error = (loaded.model.reconstruct(images, labels) - images).square().mean().item()
    assert last.metrics["test/mse"] == pytest.approx(error, rel=1e-5)
    (run / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(LoadError, match="has no checkpoint .checkpoints/best.ckpt.; only a callback"):
        evaluate(run, checkpoint="best", force=True)


@pytest.mark.slow
def test_more_samples_tighten_the_bound(run: Path) -> None:
    found = evaluate(load_run(run), bound_samples=400, **BOUND_ALONE)
    bound, error = (found.metrics[f"test/{name}"] for name in ("iw_bound", "iw_bound_stderr"))
    loaded = load_run(run)
    exact = importance_weighted_bound(loaded.model, loaded.test_images(1000), 400)
    assert bound == pytest.approx(exact.mean().item(), abs=0.6)
    assert error == pytest.approx(exact.std().item() / len(exact) ** 0.5, rel=0.05)
    assert found.arrays["bound_samples"] == [1, 2, 5, 10, 20, 50, 100, 200, 400]
    assert found.arrays["bound"] == sorted(found.arrays["bound"])
    assert found.arrays["bound"][-1] == pytest.approx(bound)
    assert json.loads(found.file.read_text())["arrays"] == found.arrays
    assert found.file.name == "bound_samples-400_probe_images-0_quality_images-0_plane_points-0.json"


def test_other_data_are_seen_as_the_model_was_trained(run: Path) -> None:
    options = ["data.source.test_size=30", "data.source.train_size=50", "data.source.seed=7"]
    found = evaluate(run, "glyphs", options, bound_samples=2, **BOUND_ALONE)
    loaded = load_run(run)
    loaded.config["data"]["source"] |= {"test_size": 30, "train_size": 50, "seed": 7}
    images, labels = loaded.test_images(1000)
    assert len(images) == 30
    assert "test/elbo_training" not in found.metrics  # the run was not trained on those
    assert images.max() == 255 / 256
    error = (loaded.model.reconstruct(images, labels) - images).square().mean().item()
    assert found.metrics["test/mse"] == pytest.approx(error, rel=1e-5)
    assert found.settings["data"] == {"name": "glyphs", "choice": "glyphs", "options": options}
    assert "data-glyphs_test_size-30" in found.name


def test_other_data_must_fit_the_model(run: Path, command: Command) -> None:
    large = ["data.source.image_size=32", "data.image_shape=[1,32,32]"]
    done = command(run, "--data", "glyphs", *large)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--data glyphs: its images are [1, 32, 32]" in done.stderr
    assert "the model of run is built for [1, 28, 28]" in done.stderr


def test_other_data_are_told_from_the_runs_own(run: Path, command: Command) -> None:
    few = run.parent / "mine" / "data" / "few.yaml"
    few.parent.mkdir(parents=True)
    few.write_text("defaults: [glyphs]\nname: few\nsource: {train_size: 9, test_size: 40}\n")
    options = ["--config-dir", "mine", "--bound-samples", "2", "--plane-points", "0", "--half-samples", "5"]
    done = command("run", "--against", "few", *options)
    assert done.returncode == 0, done.stderr
    (file,) = (run / "evaluations").iterdir()
    assert file.name == "against-few_bound_samples-2_plane_points-0_half_samples-5.json"
    content = json.loads(file.read_text())
    assert content["against"] == ["few"]
    # They are drawn as the run's own are.
    found = [content["metrics"][f"test/auroc_{name}_against_few"] for name in ("bound", "typicality", "complexity")]
    assert found == pytest.approx([0.5] * 3, abs=0.2)
    header, row = done.stdout.split("\n\n")[1].splitlines()
    assert header.split()[:4] == ["run", "against", "AUROC,", "bound"]
    assert row.split() == ["run", "few", *(f"{value:.3f}" for value in found)]
    assert {"test/frechet_samples_stderr", "test/recall_stderr"} < set(content["metrics"])

    done = command("run", "--against", "sprites")
    assert done.returncode == 2
    assert done.stderr == (
        "vae-evaluate: --against sprites: data.image_shape: must be [1, 32, 32], as the images of sprites are, "
        "got [1, 28, 28]\n"
    )
    assert command("run", "--against", "mnits").returncode == 2


def test_the_command_measures_a_sweep_and_the_report_shows_it(
    sweep: Path, tmp_path: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    copy = Path(shutil.copytree(sweep, tmp_path / "copy"))
    shutil.copytree(copy / "latent_dim-2", copy / "latent_dim-4")
    (copy / "latent_dim-4" / "metrics.json").unlink()
    sizes = ["--bound-samples", "9", "--probe-images", "0", "--quality-images", "0", "--plane-points", "0"]
    done = command("copy", *sizes, "--name", "nine")
    assert done.returncode == 0, done.stderr
    assert "left out   latent_dim-4: not finished" in done.stdout
    assert caplog.text.count("evaluating latent_dim-") == 2
    table = done.stdout.splitlines()[1:]
    assert table[0].split() == ["run", "elbo", "iw", "bound", "distortion", "rate", "mse", "active"]
    metrics = json.loads((copy / "latent_dim-3" / "evaluations" / "nine.json").read_text())["metrics"]
    bounds = [
        word
        for name in ("test/elbo", "test/iw_bound")
        for word in (f"{metrics[name]:.2f}", "±", f"{metrics[name + '_stderr']:.2f}")
    ]
    assert table[2].split()[:7] == ["latent_dim-3", *bounds]
    assert "± standard error over test images" in done.stdout

    again = command("copy", *sizes, "--name", "nine")
    assert again.returncode == 2
    assert again.stderr.endswith("exists already; replace it with --force, or choose another --name\n")
    assert command(copy / "latent_dim-3", *sizes, "--name", "nine", "--force").returncode == 0

    comparison = compare(copy)
    column = "evaluations/nine/test/iw_bound"
    of_three = comparison.table.set_index("run").loc["latent_dim-3"]
    assert of_three[column] == metrics["test/iw_bound"]
    assert column in pd.read_csv(comparison.folder / "metrics.csv")
    page = (comparison.folder / "index.html").read_text()
    assert "nine: iw bound" in page
    assert "nine: elbo" not in page  # it only repeats that of the training
    assert "nine: iw bound" in comparison._repr_html_()
    # Trained further, the run is no longer the one that was evaluated.
    file = copy / "latent_dim-3" / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"steps": 12}))
    assert pd.isna(compare(copy).table.set_index("run").loc["latent_dim-3"][column])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["run", "--data", "mnits"], "Did you mean data=mnist?"),
        (["run", "--data", "glyphs", "data.source.sise=3"], "data.source.sise"),
        (["run", "--data", "glyphs", "data.source.test_size=-3"], "data.source.test_size"),
        (["run", "--data", "folder"], "data.source.path has no value: set one with data.source.path=VALUE"),
        (["run", "data.source.test_size=3"], "data.source.test_size=3: an option of other data"),
        (["run", "--name", "../up"], "--name ../up: must be up to 200 letters"),
        (["run", "--device", "abacus"], "--device abacus: must be one of"),
        (["run", "--bound-samples", "-1"], "must be a whole number of at least 0, not -1"),
        (["data.source.test_size=3"], "name at least one run"),
    ],
)
def test_mistakes_are_told_in_a_line_or_two(run: Path, command: Command, arguments: list[str], message: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((run / "evaluations").glob("*")) if (run / "evaluations").exists() else True


def test_a_run_from_somebody_else_is_loaded_as_safely_as_by_generate(run: Path) -> None:
    config = run / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("vae_lightning.data.glyphs.Glyphs", "os.system"))
    with pytest.raises(LoadError, match="data.source._target_=os.system: only classes of this package"):
        evaluate(run)
    # Nothing is downloaded for it either.
    source = "vae_lightning.data.sources.TorchvisionMNIST\n    dataset: MNIST\n    mirrors: [http://127.0.0.1:9/]"
    of_glyphs = ("train_size", "test_size", "image_size", "seed")
    lines = text.replace("vae_lightning.data.glyphs.Glyphs", source).splitlines()
    config.write_text(
        "\n".join(line for line in lines if not line.startswith(tuple(f"    {key}:" for key in of_glyphs)))
    )
    with pytest.raises(DataError, match="No such file") as caught:
        evaluate(run, data_root=str(run / "data"))
    assert "tried" not in str(caught.value)
    # A callback is not made unless it is trusted, and a cache folder is never taken from a run.
    config.write_text(
        text.replace("brightness.Brightness", "os.system").replace("cache: null", f"cache: {run / 'cache'}")
    )
    evaluate(run, bound_samples=1, plane_points=0)
    assert not (run / "cache").exists()


def test_negative_sizes_are_refused_in_python(run: Path) -> None:
    with pytest.raises(UsageError, match="probe_images: must be a whole number of at least 0, got -1"):
        evaluate(run, probe_images=-1)


def test_what_takes_long_says_so(run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    monkeypatch.setattr("vae_lightning.measuring.averages.PATIENCE", -1.0)
    with caplog.at_level("INFO"):
        evaluate(run)
    lines = [record.getMessage() for record in caplog.records]
    (announced,) = (
        i for i, line in enumerate(lines) if line.startswith("measuring  the bound with 3 samples for each")
    )
    ended = [line.split(" in ")[0].removeprefix("measured   ") for line in lines if line.startswith("measured   ")]
    assert ended[0] == "bound of test images"
    assert lines[announced].endswith(" s")
    assert announced < lines.index(next(line for line in lines if "bound of test images" in line))
    assert {"class accuracies", "reference of glyphs", "Fréchet and kernel distances", "paths between images"} < set(
        ended
    )


def test_bars_replace_the_lines(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    with caplog.at_level("INFO"):
        evaluate(run, progress=True)
    bars = capsys.readouterr().err
    assert "bound of test images   0%" in bars
    assert "reference of glyphs …" in bars
    assert "measured   reference of glyphs" not in caplog.text


def test_names_of_evaluations_are_the_same_within_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = (None, "mnist", [], "last", {"bound_samples": 5000})
    name = evaluation_name(*asked)
    (tmp_path / "multirun.yaml").write_text("hydra:\n  overrides: {task: ['seed=1,2']}\n  sweeper: {params: null}\n")
    monkeypatch.chdir(tmp_path)
    assert evaluation_name(*asked) == name == "data-mnist_checkpoint-last_bound_samples-5000"


def test_a_name_that_was_made_may_be_asked_for() -> None:
    """The command makes it, and the evaluation is asked for it."""
    name = evaluation_name(None, None, [], None, dict.fromkeys(SIZES, 1000))
    assert evaluation_name(name, None, [], None, {}) == name


def test_estimates_come_from_a_short_piece() -> None:
    calls = []

    def work() -> None:
        calls.append(torch.rand(300, 300).matmul(torch.rand(300, 300)))

    assert progress.estimate(work, 1) > 0
    assert len(calls) == 1
    clock = iter(range(0, 1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress.time, "perf_counter", lambda: next(clock) / 10)
        assert progress.estimate(lambda: None, 1000) == pytest.approx(100)
        assert next(clock) <= 40  # calls of 0.1 s each, for 2 s
