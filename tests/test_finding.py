"""Runs on disk: found at any depth, chosen by conditions, listed, deleted; and one process at a time trains a run."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import yaml
from shared import TINY, UNMEASURED, call, compose_config, run_command, start_command
from written_runs import write_run

from vae_lightning import find_runs, train
from vae_lightning.errors import UsageError
from vae_lightning.runs import Run, claimed, is_claimed, state_of
from vae_lightning.runs.__main__ import main
from vae_lightning.runs.finding import runs_in
from vae_lightning.runs.where import matching


def make(folder: Path, elbo: float | None = None, failed: str = "", **options: object) -> Run:
    """A run's folder, as a training leaves it behind."""
    (folder / "checkpoints").mkdir(parents=True)
    choices = {"data": options.pop("data", "glyphs"), "model/objective": options.pop("objective", "elbo")}
    config = {
        "study": "run",
        "seed": options.pop("seed", 0),
        "data": {"name": choices["data"], "batch_size": 128},
        "model": {
            "latent_dim": options.pop("latent_dim", 2),
            "objective": {"_target_": f"o.{choices['model/objective']}"},
            "encoder": {"latent_dim": options.get("latent_dim", 2)},
        },
        "trainer": {"max_epochs": 3},
        "choices": choices,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "environment.json").write_text(json.dumps({"vae-lightning": "0.2.0", "started": "2026-01-31T12:00:00"}))
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"0" * 2_000_000)
    if elbo is not None:
        metrics = {"latent_dim": config["model"]["latent_dim"], "epochs": 3, "test/loss": -elbo, "test/distortion": 1.0}
        (folder / "metrics.json").write_text(json.dumps(metrics | {"test/elbo": elbo, "test/rate": 5.0}))
    if failed:
        (folder / "error.txt").write_text(f"Traceback\n{failed}\n")
    return Run(folder)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make(Path("multirun/first/two"), -250.0, latent_dim=2)
    make(Path("multirun/first/sixteen"), -230.0, latent_dim=16, seed=1)
    make(Path("multirun/deeper/down/own"), -240.0, latent_dim=16, data="mnist", objective="beta")
    make(Path("outputs/broken"), failed="step 2: loss is nan", latent_dim=4)
    make(Path("outputs/stopped"), latent_dim=8)
    make(Path("outputs/two/inner/checkpoints"), -1.0)  # inside a run there are no runs
    make(Path("outputs/two"), -251.0, seed=7)
    (tmp_path / "outputs" / "other").mkdir()
    (tmp_path / "outputs" / "other" / "config.yaml").write_text("seed: 0\n")  # of another program
    (tmp_path / "linked").symlink_to(tmp_path / "multirun")
    return tmp_path


def names(runs: list[Run]) -> list[str]:
    return [run.name for run in runs]


def test_runs_are_found_at_any_depth(place: Path) -> None:
    assert names(runs_in([])) == ["own", "sixteen", "two", "broken", "stopped", "two"]
    assert names(runs_in(["multirun/f*", "multirun"])) == ["sixteen", "two", "own"]
    for dimension in (16, 2):
        make(place / "more" / f"latent_dim-{dimension}_seed-0")
    assert names(runs_in(["more"])) == ["latent_dim-2_seed-0", "latent_dim-16_seed-0"]
    assert names(runs_in(["linked"])) == ["own", "sixteen", "two"]
    assert names(runs_in([place / "outputs" / "two"])) == ["two"]
    assert runs_in(["outputs/other"]) == []
    with pytest.raises(UsageError, match=r"^multirun/2\*: no such folder"):
        runs_in(["multirun/2*"])


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("latent_dim <= 8", ["two", "broken", "stopped", "two"]),
        ("model.latent_dim == 16 and data == 'mnist'", ["own"]),
        ("data == 'mnist' or seed == 7", ["own", "two"]),
        ("not data == 'glyphs'", ["own"]),
        ("data.name != 'glyphs'", ["own"]),
        ("model/objective == 'beta'", ["own"]),
        ("objective in ['beta', 'iwae']", ["own"]),
        ("elbo > -245", ["own", "sixteen"]),
        ("-245 < test/elbo < -235", ["own"]),
        ("test/elbo != -250", ["own", "sixteen", "broken", "stopped", "two"]),
        ("state == 'failed'", ["broken"]),
        ("state in ('failed', 'interrupted') and latent_dim > 4", ["stopped"]),
        ("name not in ['two', 'own']", ["sixteen", "broken", "stopped"]),
        ("(seed == 1) or (latent_dim == 4 and max_epochs == 3)", ["sixteen", "broken"]),
    ],
)
def test_conditions(place: Path, condition: str, expected: list[str]) -> None:
    assert names(runs_in([], condition)) == expected


@pytest.mark.parametrize(
    "condition",
    [
        "__import__('os').system('touch executed')",
        "(lambda: 1)() == 1",
        "latent_dim.__class__ == 1 and open('executed', 'w')",
        "[x for x in (1, 2)] == latent_dim",
        "latent_dim + 1 == 3",
        "f'{latent_dim}' == '2'",
        "latent_dim",
        "latent_dim = 2",
        "latent_dim == ",
        "",
        "latent_dim < 'x'",
        "latent_dim in 5",
        "2 ** 99999999 == latent_dim",
        "(" * 400 + "1" + ")" * 400 + " == latent_dim",
        "latent_dim == 2 and " * 100 + "latent_dim == 2",
        "latent_dim == 2\x00",
    ],
)
def test_what_is_no_condition_is_refused_and_not_executed(place: Path, condition: str) -> None:
    with pytest.raises(UsageError, match=r"^where"):
        matching(runs_in([]), condition)
    assert not (place / "executed").exists()


def test_a_name_that_no_run_has_is_refused(place: Path) -> None:
    with pytest.raises(UsageError, match="no run has 'lantent_dim'; did you mean latent_dim"):
        runs_in([], "lantent_dim == 2")
    with pytest.raises(UsageError, match="no run has 'test/elbow'; did you mean test/elbo"):
        runs_in([], "test/elbow > 2")


def test_a_table_of_runs(place: Path) -> None:
    table = find_runs(where="latent_dim >= 8")
    assert table["folder"].tolist() == ["multirun/deeper/down/own", "multirun/first/sixteen", "outputs/stopped"]
    assert table["state"].tolist() == ["finished", "finished", "interrupted"]
    assert table["model.latent_dim"].tolist() == [16, 16, 8]
    assert table["test/elbo"].tolist()[:2] == [-240.0, -230.0]
    assert table["version"].unique().tolist() == ["0.2.0"]
    assert (table["bytes"] > 2_000_000).all()
    assert find_runs("outputs/other").empty


@pytest.fixture
def runs(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable:
    return lambda *words: call(main, "vae-runs", *words, capture=capfd, patch=monkeypatch)


def test_the_listing(runs: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    listed = runs().stdout
    assert "6 runs (4 finished, 1 failed, 1 interrupted), 14.0 MB" in listed
    assert [line.split()[0] for line in listed.splitlines()[1:7]] == [str(run.folder) for run in runs_in([])]
    assert "-230.00" in listed
    assert "failed     outputs/broken: step 2: loss is nan" in listed
    best = runs("--best-first", "--folders", "--where", "state == 'finished'").stdout.split()
    assert best == ["multirun/first/sixteen", "multirun/deeper/down/own", "multirun/first/two", "outputs/two"]
    table = pd.read_csv(StringIO(runs("--csv").stdout))
    assert table["test/elbo"].dropna().tolist() == [-240.0, -230.0, -250.0, -251.0]
    wrong = runs("--where", "1 + 1")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
    assert "no runs" in runs("--where", "latent_dim == 2 and latent_dim == 3").stdout


def test_the_listing_has_the_main_options_first(runs: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    other = {"data": "mnist", "model": "mlp", "model/objective": "beta"}
    data = {"data__name": "mnist", "data__image_shape": [1, 32, 32], "data__batch_size": 16, "data__eval_batch_size": 9}
    model = {"model__encoder___target_": "own.MLP", "model__objective___target_": "own.Beta", "model__latent_dim": 3}
    one = write_run(Path("runs/one"))
    two = write_run(Path("runs/two"), **data, **model, seed=1, trainer__max_epochs=3, choices=other)
    for run in (one, two):
        run.environment_file.write_text("{}")
    listed = runs("runs").stdout.splitlines()
    main = ["data", "model", "latent_dim", "objective", "seed", "max_epochs"]
    assert listed[0].split() == ["run", "state", *main, "elbo", "size", "version", "started"]
    assert listed[-1] == "2 more options differ: --csv has all"


def test_only_what_was_named_is_deleted(
    place: Path, runs: Callable[..., subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(place.rglob("*"))
    refused = runs("--delete-failed")
    assert (refused.returncode, set(place.rglob("*"))) == (2, before)
    assert "add --yes" in refused.stderr
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert "nothing was deleted" in runs("--delete-failed").stdout
    assert set(place.rglob("*")) == before
    assert runs("--delete-failed", "--yes").returncode == 0
    assert {path.parts[-1] for path in before - set(place.rglob("*")) if path.parent.name == "outputs"} == {"broken"}
    monkeypatch.setattr("builtins.input", lambda question: "y")
    with claimed(Run(place / "outputs" / "two")):  # neither finished nor failed as long as it is trained
        assert runs("--keep-best", "2", "--where", "data == 'glyphs'").returncode == 0
    assert runs("--keep-best", "1", "--where", "name in ('sixteen', 'two')").returncode == 0
    assert names(runs_in([])) == ["own", "sixteen", "stopped"]
    assert runs("--keep-best", "0").returncode == 2


@pytest.mark.parametrize(
    ("metrics", "options", "reason"),
    [
        ({}, {"data__name": "mnist"}, "they are of different data"),
        ({"val/loss": 7.0}, {}, "some have validation images and some have none"),
        ({"test/elbo": None}, {}, "some have no bound of log p(x)"),
    ],
)
def test_what_cannot_be_ranked_is_not_deleted(
    tmp_path: Path, runs: Callable[..., subprocess.CompletedProcess[str]], metrics, options, reason: str
) -> None:
    written = [
        write_run(tmp_path / "sweep" / name, **options) for name, options in [("0", {}), ("1", {}), ("2", options)]
    ]
    for run in written:
        run.environment_file.write_text("{}")
    other = written[-1]
    known = json.loads(other.metrics_file.read_text()) | metrics
    other.metrics_file.write_text(json.dumps({name: value for name, value in known.items() if value is not None}))
    refused = runs(tmp_path / "sweep", "--keep-best", "1", "--yes")
    assert refused.returncode == 2
    assert f"--keep-best 1: the runs cannot be ranked, since {reason}" in refused.stderr
    assert len(runs_in([tmp_path / "sweep"])) == 3
    assert f"not ranked by the bound alone, since {reason}" in runs(tmp_path / "sweep", "--best-first").stdout


def test_a_run_that_ends_while_the_question_waits_is_not_deleted(
    place: Path, runs: Callable[..., subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(question: str) -> str:
        (place / "outputs" / "broken" / "metrics.json").write_text("{}")  # resumed, and finished
        return "y"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    done = runs("--delete-failed")
    assert (done.returncode, done.stderr) == (1, "not deleted  outputs/broken: has changed meanwhile\n")
    assert (place / "outputs" / "broken").exists()


def test_a_run_that_is_trained_is_neither_trained_twice_nor_touched(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    assert state_of(run) == "interrupted"
    with claimed(run):
        assert is_claimed(run)
        assert state_of(run) == "running"
        with pytest.raises(UsageError, match="another process is training this run"):
            train(compose_config(*TINY, "resume=true"), run.folder)
        assert not run.error_file.exists()
    assert state_of(run) == "interrupted"
    assert [path.name for path in run.folder.glob(".*")] == []


@pytest.mark.slow
def test_two_processes_that_take_up_the_same_run(tmp_path: Path) -> None:
    options = [*TINY, *UNMEASURED, "trainer.max_epochs=3000", "hydra.run.dir=run"]
    said = tmp_path / "said"
    said.mkdir()
    first = start_command("vae_lightning.cli", *options, cwd=tmp_path, said=said)
    run = Run(tmp_path / "run")
    while not run.checkpoint_file.exists():
        time.sleep(0.1)
    assert state_of(run) == "running"
    second = run_command("vae_lightning.cli", *options, "resume=true", cwd=tmp_path)
    assert second.returncode == 2
    assert "run: another process is training this run" in second.stderr
    assert not run.error_file.exists()
    first.send_signal(signal.SIGKILL)
    first.wait(60)
    assert state_of(run) == "interrupted"
    with claimed(run):  # it ended with its process
        pass
