"""What a run was made with, and `vae-train --again`: whether it comes out bit by bit the same."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from shared import TINY, UNMEASURED, call, compose_config

from vae_lightning import LoadError, again, train
from vae_lightning.again import repeat
from vae_lightning.data.images import StoredImages
from vae_lightning.runs import Run
from vae_lightning.runs.provenance import commit, differing_environment, packages


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repeated") / "run"
    options = ["callbacks=[default,best,early_stopping]", "logger=[tensorboard,csv]", "data.validation_size=16"]
    train(compose_config(*TINY, *options, *UNMEASURED, "trainer.max_epochs=1"), folder, progress=False)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return Run(Path(shutil.copytree(trained, tmp_path / "run")))


def edit(run: Run, **options: object) -> None:
    config = yaml.safe_load(run.config_file.read_text())
    for key, value in options.items():
        *path, last = key.split("__")
        node = config
        for part in path:
            node = node[part]
        node[last] = value
    run.config_file.write_text(yaml.safe_dump(config))


def test_a_run_is_repeated_bit_by_bit(run: Run) -> None:
    torch.manual_seed(123)
    found = repeat(run.folder)
    assert found.equal
    assert found.kept
    assert [line for line in found.environment if not line.startswith("git: ")] == []  # of another folder
    assert found.run.folder.parent.name == "outputs"
    assert found.run.metrics["test/elbo"] == run.metrics["test/elbo"]
    # All that it writes is in its own folder, and is recorded as for the first.
    assert {file.name for file in Path().iterdir()} == {"outputs", "run"}
    assert {file.name for file in run.folder.iterdir()} <= {file.name for file in found.run.folder.iterdir()}
    assert found.run.best_file.is_file()
    assert found.run.config == run.config


def test_what_differs_is_named(run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    edit(run, model__optimizer__lr=0.0011)
    environment = json.loads(run.environment_file.read_text())
    environment["packages"]["torch"] = "1.0"
    environment["data"]["train"] = "other"
    run.environment_file.write_text(json.dumps(environment))
    done = call(again.main, "vae-train", "--again", "run", "-o", "second", capture=capfd, patch=monkeypatch)
    assert done.returncode == 1
    assert "test/elbo: " in done.stdout
    assert f"here       torch: 1.0 → {packages()['torch']}" in done.stdout
    assert ", train other, test " in done.stdout
    names = set(torch.load(run.checkpoint_file, weights_only=True)["state_dict"])
    assert f"different  {len(names)} weights" not in done.stdout  # running statistics of a first batch are the same
    assert "different  " in done.stdout
    shutil.rmtree(Path("second") / "checkpoints")
    found = repeat("second", "third")
    assert found.equal
    assert not found.kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"callbacks__own": {"_target_": "os.system", "command": "touch executed"}}, "os.system"),
        ({"data__source": {"_target_": "subprocess.run", "args": ["touch", "executed"]}}, "subprocess.run"),
        ({"trainer__logger": {"_target_": "builtins.exec", "_args_": ["x"]}}, "trainer.logger"),
        ({"model__objective": "${oc.env:HOME}"}, "interpolations"),
    ],
)
def test_nothing_of_others_is_executed(run: Run, options: dict[str, object], message: str) -> None:
    edit(run, **options)
    with pytest.raises(LoadError, match=message):
        repeat(run.folder, "second")
    assert not Path("executed").exists()
    assert not Path("second").exists()


def test_what_cannot_be_repeated(run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    edit(run, model__optimizer__lr=1e30)
    failed = call(again.main, "vae-train", "--again", "run", capture=capfd, patch=monkeypatch)
    assert (failed.returncode, "Traceback" in failed.stderr) == (1, False)
    assert "loss is" in failed.stderr
    run.metrics_file.unlink()
    for folder, reason in (("run", "is not a finished run"), ("nowhere", "no such folder")):
        done = call(again.main, "vae-train", "--again", folder, capture=capfd, patch=monkeypatch)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert reason in done.stderr


def test_the_commit_and_whether_it_is_all(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert commit(tmp_path) is None
    git("init")
    (tmp_path / "model.py").write_text("width = 28\n")
    assert commit(tmp_path) is None  # nothing yet
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "run.log").write_text("not tracked")
    found = commit(tmp_path)
    assert found == {"commit": git("rev-parse", "HEAD"), "clean": True}
    (tmp_path / "model.py").write_text("width = 29\n")
    changed = commit(tmp_path)
    assert changed == {**found, "clean": False}
    assert differing_environment({"git": found}, {"git": changed}) == [
        f"git: {found['commit'][:12]} → {found['commit'][:12]} with changes"
    ]


def test_environments_of_older_versions_have_the_main_packages_alone() -> None:
    old = {"torch": "2.0", "python": "3.11.1", "command": ["a"], "started": "then"}
    new = {
        "torch": "2.1",
        "python": "3.11.1",
        "command": ["b"],
        "started": "now",
        "packages": {"torch": "2.1", "a": "1"},
    }
    assert differing_environment(old, new) == ["torch: 2.0 → 2.1"]
    assert differing_environment(new, {**new, "packages": {"torch": "2.1", "a": "2"}}) == ["a: 1 → 2"]


def test_the_digest_is_that_of_images_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (30, 1, 4, 4), dtype=torch.uint8)
    labels = torch.arange(30)
    digest = StoredImages(images, labels).digest()
    assert digest == StoredImages(images.clone(), labels.clone()).digest()
    twice = StoredImages(torch.cat([images, images]), torch.cat([labels, labels]))
    assert digest == twice.subset(torch.arange(30)).digest()
    changed = images.clone()
    changed[17, 0, 3, 3] += 1
    others = [(changed, labels), (images, labels.flip(0)), (images, None), (images[:29], labels[:29])]
    assert len({digest, *(StoredImages(*other).digest() for other in others)}) == 5
    monkeypatch.setattr("vae_lightning.data.images.DIGESTED", 16 * 5)  # of many images, some
    some = StoredImages(images, labels).digest()
    assert some not in (digest, StoredImages(images[:29], labels[:29]).digest())
