"""Bad inputs and hostile files: each ends in a clear line and the right exit code, nothing lost, nothing executed.

The commands run in this process, as `main()` with arguments; what they print and how they exit is theirs.
"""

import gzip
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from shared import TINY, compose_config

from vae_lightning import cli, generate
from vae_lightning.building import build
from vae_lightning.config.sweeps import Folders
from vae_lightning.data.sources import DataError, TestImagesOnly
from vae_lightning.report import __main__ as report
from vae_lightning.runs import Run
from vae_lightning.runs.run import NEEDED

Change = Callable[[Path], object]
MAINS = {"vae-train": cli.main, "vae-generate": generate.main, "vae-report": report.main}
QUICK = [*TINY, "callbacks=none", "trainer.max_epochs=1"]
QUICK = [option for option in QUICK if not option.startswith("callbacks.")]


class Sabotage:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, ("executed", "w"))


def run(command: str, *arguments: str) -> int:
    """Runs a command in this process; returns its exit code."""
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    argv, sys.argv = sys.argv, [command, *arguments]
    environment, on_sigterm = dict(os.environ), signal.getsignal(signal.SIGTERM)
    Folders.sweep = Folders.run = None
    try:
        MAINS[command]()
    except SystemExit as done:
        return int(done.code or 0)
    finally:
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)
        signal.signal(signal.SIGTERM, on_sigterm)
        logging.getLogger().handlers[:], logging.getLogger().level = handlers, level
    return 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of two runs."""
    folder = tmp_path_factory.mktemp("made")
    options = [*TINY, "trainer.max_epochs=1", "callbacks.measurements.tsne=false", "model.latent_dim=2,3", "-m"]
    assert run("vae-train", *options, f"hydra.sweep.dir={folder / 'sweep'}") == 0
    return folder / "sweep"


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a copy of the sweep."""
    shutil.copytree(made, tmp_path / "sweep")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path / "nothing"))
    return tmp_path


def write(place: str, content: bytes | str) -> Change:
    return lambda folder: (folder / place).write_bytes(content.encode() if isinstance(content, str) else content)


def cut(place: str, share: float) -> Change:
    return lambda folder: write(place, (data := (folder / place).read_bytes())[: int(len(data) * share)])(folder)


def flip(place: str, share: float) -> Change:
    def change(folder: Path) -> None:
        content = bytearray((folder / place).read_bytes())
        content[int(len(content) * share)] ^= 0xFF
        (folder / place).write_bytes(content)

    return change


def remove(place: str) -> Change:
    return lambda folder: shutil.rmtree(folder / place) if (folder / place).is_dir() else (folder / place).unlink()


def configure(run_name: str, key: str, value: object) -> Change:
    def change(folder: Path) -> None:
        file = folder / "sweep" / run_name / "config.yaml"
        config = yaml.safe_load(file.read_text())
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node[part]
        node[last] = value
        file.write_text(yaml.safe_dump(config))

    return change


def checkpoint(content: object) -> Change:
    return lambda folder: torch.save(content, folder / CKPT)


def data_file(content: bytes, name: str = "t10k-images-idx3-ubyte.gz") -> Change:
    def change(folder: Path) -> None:
        place = folder / "nothing" / "KMNIST" / "raw"
        place.mkdir(parents=True)
        (place / name).write_bytes(content)

    return change


def archive(place: str, **members: bytes) -> Change:
    def change(folder: Path) -> None:
        with zipfile.ZipFile(folder / place, "w") as file:
            for name, content in members.items():
                file.writestr(name, content)

    return change


def pickled(place: str) -> Change:
    return lambda folder: np.savez(folder / place, codes=np.array([Sabotage()], dtype=object))


def large_picture(folder: Path) -> None:
    Image.new("L", (20_000, 20_000)).save(folder / "large.png")


def nothing(folder: Path) -> None: ...


ONE = "sweep/latent_dim-2"
CKPT = f"{ONE}/checkpoints/last.ckpt"
METRICS = f"{ONE}/metrics.json"
CONFIG = f"{ONE}/config.yaml"
SAMPLE = ["vae-generate", "sample", ONE, "-o", "new.png"]
ENCODE = ["vae-generate", "encode", ONE, "new.png", "-o", "new.csv"]
REPORT = ["vae-report", "sweep"]
KMNIST = ["vae-train", "data=kmnist10k", "data.source.mirrors=[]"]
FOREIGN = "does not fit the model"
DAMAGED = "metrics.json is damaged"
SCRIPT = "<script>open('executed')</script>"
BOMB = gzip.compress(b"\0" * 50_000_000)

# What is done to the folder, the command, its exit code, what it says.
TABLE: dict[str, tuple[Change, list[str], int, str]] = {
    # Commands
    "misspelt option": (nothing, ["vae-train", "model.latentdim=2"], 2, "Did you mean model.latent_dim?"),
    "misspelt group": (nothing, ["vae-train", "modle=conv"], 2, "modle"),
    "misspelt choice": (nothing, ["vae-train", "data=kmist"], 2, "Did you mean data=kmnist?"),
    "a short name": (nothing, ["vae-train", "latent_dim=16"], 2, "latent_dim: no such option. Did you mean model.lat"),
    "a group as value": (nothing, ["vae-train", "model.prior=vamp"], 2, "choose with model/prior=vamp"),
    "a group as value in a sweep": (nothing, ["vae-train", "model.prior=vamp,a", "-m"], 2, "with model/prior=vamp"),
    "an option that is not listed": (
        nothing, ["vae-train", "model.optimizer.weight_decay=0.1"], 2, "add it with +model.optimizer.weight_decay=0.1"
    ),
    "no folder of configurations": (nothing, ["vae-train", "--config-dir=nowhere"], 2, "nowhere' not found"),
    "options of a callback that is not chosen": (
        nothing,
        ["vae-train", "experiment=published_iwae", "hydra.mode=RUN", "data=glyphs", "callbacks=none"],
        2,
        "callbacks.measurements: the chosen callbacks have none of that name; leave it out",
    ),
    "an empty callback": (
        nothing, ["vae-train", *TINY, "callbacks.grids=null"], 2, "callbacks.grids: is empty; leave it out with '~"
    ),
    "a callback that looks for a batch size": (
        nothing, ["vae-train", *QUICK, "+callbacks.find._target_=pytorch_lightning.callbacks.BatchSizeFinder"], 2,
        "callbacks.find: BatchSizeFinder is not possible; set data.batch_size, or compare several with --multirun",
    ),
    "a callback that looks for a learning rate": (
        nothing, ["vae-train", *QUICK, "+callbacks.find._target_=pytorch_lightning.callbacks.LearningRateFinder"], 2,
        "callbacks.find: LearningRateFinder is not possible; set model.optimizer.lr, or compare several with --multi",
    ),
    "no validation images to monitor": (
        nothing,
        ["vae-train", *QUICK, "+callbacks.stop={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/a}"],
        2,
        "callbacks.stop.monitor=val/a: there are no validation images",
    ),
    "an optimizer refuses": (
        nothing, ["vae-train", *QUICK, "+model.optimizer.eps=-1"], 2, "model.optimizer: Invalid epsilon value: -1"
    ),
    "a posterior refuses": (
        nothing, ["vae-train", *QUICK, "model/posterior=iaf", "model.encoder.posterior.transforms=0"], 2,
        "model.encoder.posterior.transforms: must be at least 1, got 0",
    ),
    "an optimizer of a discriminator refuses": (
        nothing, ["vae-train", *QUICK, "model/objective=factor", "model.objective.optimizer.lr=-1"], 2,
        "model.objective.optimizer: Invalid learning rate: -1",
    ),
    "all jobs of a sweep": (
        nothing, ["vae-train", "data=glyphs", "seed=1,2", "model.latent_dim=0", "-m"], 2, "seed-2: model.latent_dim=0"
    ),
    "no images at all": (
        nothing, ["vae-train", "data=glyphs", "data.source.train_size=0"], 2, "data.source.train_size: must be a whole"
    ),
    "option twice": (nothing, ["vae-train", *QUICK, "seed=1,1", "-m"], 2, "1 appears 2 times"),
    "a sweep over nothing": (nothing, ["vae-train", *QUICK, "seed=range(2,2)", "-m"], 2, "(2,2): has no values; give"),
    "a glob on an option": (nothing, ["vae-train", *QUICK, "seed=glob(*)", "-m"], 2, "glob is for the choices of a"),
    "a sweep without -m": (nothing, ["vae-train", "seed=0,1"], 2, "which needs --multirun"),
    "unbalanced brackets": (nothing, ["vae-train", "data.image_shape=[1,28"], 2, "cannot be read"),
    "empty key": (nothing, ["vae-train", "=3"], 2, "override"),
    "interpolation to nowhere": (nothing, ["vae-train", "seed=${nowhere}"], 2, "nowhere"),
    "interpolation to itself": (nothing, ["vae-train", "seed=${seed}"], 2, "seed"),
    "a shell command as interpolation": (nothing, ["vae-train", "study=${oc.env:NOT_SET}"], 2, "NOT_SET"),
    "a text as seed": (nothing, ["vae-train", "seed=first"], 2, "seed"),
    "negative seed": (nothing, ["vae-train", "seed=-1"], 2, "seed=-1: must be"),
    "huge seed": (nothing, ["vae-train", "seed=4294967296"], 2, "seed=4294967296: must be"),
    "no dimension": (nothing, ["vae-train", "model.latent_dim=0"], 2, "must be a whole number of at least 1"),
    "too many stages": (
        nothing, ["vae-train", *QUICK, "model.encoder.stages=1000000000"], 2, "stages: must be a whole number from 2 to"
    ),
    "too many blocks": (
        nothing, ["vae-train", *QUICK, "model=resnet", "model.encoder.blocks=1000000000"], 2, "more than 10,000 modules"
    ),
    "half a dimension": (nothing, ["vae-train", "model.latent_dim=2.5"], 2, "must be a whole number"),
    "nan as learning rate": (nothing, ["vae-train", "model.optimizer.lr=nan"], 2, "must be a number greater than 0"),
    "inf as learning rate": (nothing, ["vae-train", "model.optimizer.lr=inf"], 2, "must be a number greater than 0"),
    "negative batch": (nothing, ["vae-train", "data.batch_size=-8"], 2, "data.batch_size=-8"),
    "images of two dimensions": (nothing, ["vae-train", "data.image_shape=[28,28]"], 2, "three whole numbers"),
    "images too small": (nothing, ["vae-train", *QUICK, "data.image_shape=[1,2,2]"], 2, "image_shape"),
    "null where a number is": (nothing, ["vae-train", *QUICK, "model.latent_dim=null"], 2, "model.latent_dim"),
    "a list where a number is": (nothing, ["vae-train", *QUICK, "model.latent_dim=[2,3]"], 2, "model.latent_dim"),
    "no model": (nothing, ["vae-train", *QUICK, "~model"], 2, "model"),
    "no data": (nothing, ["vae-train", "~data"], 2, "data"),
    "no optimizer": (nothing, ["vae-train", *QUICK, "~model.optimizer"], 2, "optimizer"),
    "another class": (nothing, ["vae-train", *QUICK, "model._target_=os.system"], 2, "no such option"),
    "no such class": (nothing, ["vae-train", *QUICK, "model.encoder._target_=a.b.C"], 2, "cannot be loaded"),
    "a class that is none": (nothing, ["vae-train", *QUICK, "model.prior._target_=torch"], 2, "model.prior"),
    "an unknown precision": (nothing, ["vae-train", *QUICK, "trainer.precision=8"], 2, "must be one of"),
    "no epochs": (nothing, ["vae-train", *QUICK, "trainer.max_epochs=0"], 2, "trainer.max_epochs=0"),
    "no devices": (nothing, ["vae-train", *QUICK, "trainer.devices=0"], 2, "trainer.devices=0"),
    "an unknown strategy": (nothing, ["vae-train", *QUICK, "+trainer.strategy=dpp"], 2, "must be one of auto, ddp"),
    "more workers than none": (nothing, ["vae-train", *QUICK, "data.num_workers=-1"], 2, "data.num_workers=-1"),
    "all images held out": (nothing, ["vae-train", *QUICK, "data.validation_size=96"], 2, "data.validation_size=96"),
    "objective and prior": (
        nothing,
        ["vae-train", *QUICK, "model/objective=free_bits", "model/prior=vamp"],
        2,
        "needs a prior with independent dimensions",
    ),
    "objective and likelihood": (
        nothing,
        ["vae-train", *QUICK, "model/objective=vae_gan", "model/likelihood=gaussian"],
        2,
        "does not train a likelihood's parameters",
    ),
    "a path that climbs": (nothing, ["vae-train", "experiment=../../../etc/passwd"], 2, "experiment"),
    "the folder of another run": (nothing, ["vae-train", *QUICK, f"hydra.run.dir={ONE}"], 2, "already holds a run"),
    "a file as folder": (
        write("file", ""),
        ["vae-train", *QUICK, "hydra.run.dir=file/run"],
        1,
        "cannot write the output folder",
    ),
    "a folder that nobody can write": (
        nothing,
        ["vae-train", *QUICK, "hydra.run.dir=/proc/run"],
        1,
        "cannot write the output folder",
    ),
    "a model without end": (nothing, ["vae-train", *QUICK, "model.encoder.width=1000000000000000"], 2, "out of memory"),
    "resuming another run": (
        nothing,
        ["vae-train", *QUICK, f"hydra.run.dir={ONE}", "resume=true", "seed=5"],
        2,
        "seed=5: sweep/latent_dim-2 was started with seed=0. Set it back to resume",
    ),
    "resuming from a part of a checkpoint": (
        lambda folder: (remove(METRICS)(folder), cut(CKPT, 0.1)(folder)),
        ["vae-train", *TINY, "trainer.max_epochs=1", "callbacks.measurements.tsne=false", "model.latent_dim=2,3", "-m",
         "hydra.sweep.dir=sweep", "resume=true"],
        2,
        "last.ckpt: cannot be read",
    ),
    # Data
    "no data set": (nothing, KMNIST, 1, "no t10k-images-idx3-ubyte.gz"),
    "empty images": (data_file(b""), KMNIST, 1, "t10k-images-idx3-ubyte.gz is damaged"),
    "HTML as images": (data_file(b"<html>404</html>"), KMNIST, 1, "t10k-images-idx3-ubyte.gz is damaged"),
    "a gzip bomb": (data_file(BOMB), KMNIST, 1, "t10k-images-idx3-ubyte.gz is damaged"),
    "labels as images": (data_file(gzip.compress(b"\0\0\x08\x01\0\0\0\1\0")), KMNIST, 1, "is damaged"),
    "a folder as images": (
        lambda folder: (folder / "nothing/KMNIST/raw/t10k-images-idx3-ubyte.gz").mkdir(parents=True),
        KMNIST,
        1,
        "t10k-images-idx3-ubyte.gz",
    ),
    # Runs that are loaded
    "no run": (nothing, ["vae-generate", "sample", "nowhere"], 2, "no such folder"),
    "a sweep as run": (nothing, ["vae-generate", "sample", "sweep"], 2, "this is a sweep"),
    "no checkpoint": (remove(CKPT), SAMPLE, 2, "no checkpoint"),
    "empty checkpoint": (write(CKPT, b""), SAMPLE, 2, "cannot be read as a checkpoint"),
    "half a checkpoint": (cut(CKPT, 0.5), SAMPLE, 2, "cannot be read as a checkpoint"),
    "HTML as checkpoint": (write(CKPT, "<html>"), SAMPLE, 2, "cannot be read as a checkpoint"),
    "a pickle that runs": (checkpoint({"state_dict": Sabotage()}), SAMPLE, 2, "cannot be read as a checkpoint"),
    "a checkpoint of another program": (checkpoint({"model": 1}), SAMPLE, 2, "cannot be read as a checkpoint"),
    "a list as checkpoint": (checkpoint([1, 2]), SAMPLE, 2, "cannot be read as a checkpoint"),
    "a number as weights": (checkpoint({"state_dict": 3}), SAMPLE, 2, FOREIGN),
    "weights of another architecture": (configure("latent_dim-2", "model.encoder.width", 5), SAMPLE, 2, FOREIGN),
    "weights of a newer version": (
        checkpoint({"state_dict": {"encoder.rotary": torch.zeros(1)}, "pytorch-lightning_version": "9.0"}),
        SAMPLE,
        2,
        FOREIGN,
    ),
    "no configuration": (remove(CONFIG), SAMPLE, 2, "there is no run in this folder"),
    "empty configuration": (write(CONFIG, ""), SAMPLE, 2, "config.yaml is damaged"),
    "bytes as configuration": (write(CONFIG, b"\xff\xfe\0"), SAMPLE, 2, "config.yaml"),
    "a tag that runs": (write(CONFIG, "model: !!python/object/apply:os.mkdir [executed]"), SAMPLE, 2, "config.yaml"),
    "YAML that grows": (
        write(CONFIG, "a: &a [1,1,1]\nb: &b [*a,*a,*a]\nmodel: [*b,*b,*b]\ndata: {}\n"), SAMPLE, 2, "has no model"
    ),
    "a class that runs": (configure("latent_dim-2", "model.encoder._target_", "os.mkdir"), SAMPLE, 2, "--trust os"),
    "a nested class that runs": (
        configure("latent_dim-2", "model.encoder.width", {"_target_": "os.mkdir", "path": "executed"}),
        SAMPLE,
        2,
        "--trust os",
    ),
    "a class reached through torch": (
        configure("latent_dim-2", "model.prior._target_", "torch.nn.modules.module.torch.load"), SAMPLE, 2, "_target_"
    ),
    "an option that no class has": (configure("latent_dim-2", "model.prior.depth", 3), SAMPLE, 2, "model"),
    "a model of a terabyte": (configure("latent_dim-2", "model.encoder.width", 10**9), SAMPLE, 2, "model"),
    "metrics with a comma too many": (write(METRICS, '{"test/elbo": 1,}'), SAMPLE, 2, DAMAGED),
    "a list as metrics": (write(METRICS, "[1, 2]"), SAMPLE, 2, DAMAGED),
    "a text as image": (write("new.png", "no image"), ENCODE, 2, "new.png: cannot be read as an image"),
    "an image too large": (large_picture, [*ENCODE[:3], "large.png", *ENCODE[4:]], 2, "cannot be read as an image"),
    "no image": (nothing, ENCODE, 2, "new.png: no such file"),
    # Sweeps that are compared
    "no sweep": (nothing, ["vae-report", "nowhere"], 2, "no such folder"),
    "a run as sweep": (nothing, ["vae-report", ONE], 2, "name the folder of its sweep"),
    "half of metrics": (cut(METRICS, 0.5), REPORT, 1, f"latent_dim-2: {DAMAGED}"),
    "binary metrics": (write(METRICS, b"\xff\0\xfe"), REPORT, 1, f"latent_dim-2: {DAMAGED}"),
    "metrics that are texts": (write(METRICS, '{"test/elbo": "high", "epochs": 1}'), REPORT, 1, DAMAGED),
    "nested metrics": (write(METRICS, '{"test/elbo": {"a": [1]}}'), REPORT, 1, DAMAGED),
    "metrics that are none": (write(METRICS, '{"test/elbo": NaN}'), REPORT, 1, DAMAGED),
    "a metric's name as script": (
        write(METRICS, json.dumps(dict.fromkeys([*NEEDED, SCRIPT], 1.0))), REPORT, 0, "2 of 2 runs"
    ),
    "a script as error": (
        lambda folder: (remove(METRICS)(folder), write(f"{ONE}/error.txt", SCRIPT)(folder)), REPORT, 1, "failed"
    ),
    "a formula as option": (configure("latent_dim-2", "model.latent_dim", "=cmd()"), REPORT, 0, "2 of 2 runs"),
    "no configuration of a run": (remove(CONFIG), REPORT, 1, "latent_dim-2: config.yaml is damaged"),
    "a list as configuration": (write(CONFIG, "[1]"), REPORT, 1, "latent_dim-2: config.yaml is damaged"),
    "a damaged list of what was swept": (write("sweep/multirun.yaml", "a: ["), REPORT, 0, "2 of 2 runs"),
    "another file as that list": (write("sweep/multirun.yaml", "a: 1"), REPORT, 0, "2 of 2 runs"),
    "damaged notes of Hydra": (write(f"{ONE}/.hydra/hydra.yaml", "a: ["), REPORT, 0, "2 of 2 runs"),
    "arrays that run": (pickled(f"{ONE}/figures/explorer.npz"), REPORT, 0, "2 of 2 runs"),
    "arrays cut off": (cut(f"{ONE}/figures/explorer.npz", 0.7), REPORT, 0, "2 of 2 runs"),
    "figures cut off": (cut(f"{ONE}/figures/figures.npz", 0.7), REPORT, 0, "2 of 2 runs"),
    "arrays that climb": (archive(f"{ONE}/figures/explorer.npz", **{"../executed": b"x"}), REPORT, 0, "2 of 2 runs"),
    "a picture that is none": (write(f"{ONE}/figures/samples.png", "no picture"), REPORT, 0, "2 of 2 runs"),
    "a grid that is none": (write(f"{ONE}/figures/grids/step_000001.png", "no picture"), REPORT, 0, "2 of 2 runs"),
    "a grid with another name": (write(f"{ONE}/figures/grids/step_x.png", "no picture"), REPORT, 0, "2 of 2 runs"),
    "events cut off": (
        lambda folder: [cut(str(file.relative_to(folder)), 0.6)(folder) for file in (folder / ONE).rglob("events*")],
        REPORT,
        0,
        "2 of 2 runs",
    ),
}  # fmt: skip


if not torch.cuda.is_available():
    TABLE["no GPU"] = (
        nothing, ["vae-train", "trainer=gpu"], 2, "trainer.accelerator=gpu: there is no GPU here; use trainer=cpu"
    )  # fmt: skip
    TABLE["no GPU to generate with"] = (nothing, [*SAMPLE, "--device", "cuda"], 2, "there is no CUDA device here")


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 60


# Much like the one beside it.
ALIKE = {
    *("binary metrics", "metrics that are texts", "nested metrics", "a list as configuration", "arrays cut off"),
    *("another file as that list", "arrays that climb", "a grid with another name", "a script as error"),
    *(
        "metrics that are none",
        "damaged notes of Hydra",
        "a picture that is none",
        "another class",
        "nan as learning rate",
    ),
    *(
        "misspelt choice",
        "a text as seed",
        "huge seed",
        "a list where a number is",
        "a file as folder",
        "HTML as images",
    ),
    *("unbalanced brackets", "images of two dimensions", "no optimizer", "a class that is none", "no devices"),
    *("a formula as option", "a damaged list of what was swept", "a grid that is none", "figures cut off", "no data"),
    *("no configuration of a run", "no epochs", "inf as learning rate", "null where a number is", "half a dimension"),
    *("an unknown precision", "no such class", "no images at all", "more workers than none", "labels as images"),
    *("a folder as images", "objective and likelihood", "an unknown strategy", "no dimension", "an image too large"),
    *("empty images", "empty checkpoint", "HTML as checkpoint", "a list as checkpoint", "empty configuration"),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case in ALIKE else case for case in TABLE]
)
def test_bad_input(here: Path, capfd: pytest.CaptureFixture[str], case: str) -> None:
    change, (command, *arguments), code, message = TABLE[case]
    change(here)
    before = {path: path.read_bytes() for path in here.glob("sweep/*/checkpoints/last.ckpt")}
    capfd.readouterr()
    assert run(command, *arguments) == code, capfd.readouterr()
    said = capfd.readouterr()
    assert re.search(re.escape(message), said.err if code and command != "vae-report" else said.out + said.err), said
    assert "Traceback" not in said.out + said.err
    assert len(said.err.splitlines()) <= 6
    assert not list(here.rglob("executed"))
    assert {path: path.read_bytes() for path in before} == before
    for table in here.glob("sweep/report/metrics.csv"):
        assert not re.search(r'(^|,)"?[=@]', table.read_text(), re.MULTILINE)
    if command == "vae-report":
        pages = list(here.glob("sweep/report/index.html"))
        assert not any(SCRIPT in page.read_text() for page in pages)


def test_a_sweep_that_is_refused_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`make report` would take it for the newest."""
    monkeypatch.chdir(tmp_path)
    assert run("vae-train", *QUICK, "-m", "model=mlp,mpl", "hydra.sweep.dir=sweep", "resume=true") == 2
    assert "resuming   nothing: sweep has no runs" in capfd.readouterr().out
    assert not (tmp_path / "sweep").exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(byte=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_found(tmp_path: Path, byte: int, bit: int) -> None:
    source = TestImagesOnly("KMNIST", train_size=2)
    folder = tmp_path / "KMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "t10k-images-idx3-ubyte.gz": gzip.compress(b"\0\0\x08\x03\0\0\0\3\0\0\0\2\0\0\0\2" + bytes(range(12)), mtime=0),
        "t10k-labels-idx1-ubyte.gz": gzip.compress(b"\0\0\x08\x01\0\0\0\3\0\1\2", mtime=0),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        source.checksums[name] = hashlib.md5(content).hexdigest()
    assert source.load(tmp_path, train=True).images.shape == (2, 1, 2, 2)
    total = sum(map(len, contents.values()))
    position = byte % total
    for name, content in contents.items():
        if position < len(content):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            (folder / name).write_bytes(damaged)
            break
        position -= len(content)
    with pytest.raises(DataError, match="is damaged"):
        source.load(tmp_path, train=True)


def keys(node: object, path: str = "") -> list[str]:
    """All keys of a configuration, dotted."""
    children = node.items() if isinstance(node, dict) else []
    return [found for key, child in children for found in (f"{path}{key}", *keys(child, f"{path}{key}."))]


OPTIONS = keys(OmegaConf.to_container(compose_config("data=glyphs"), resolve=False))
GROUPS = ["data", "model", "trainer", "callbacks", "logger", "experiment"]
GROUPS += [f"model/{part}" for part in ("objective", "posterior", "prior")]
VALUES = st.one_of(
    st.sampled_from(
        ["null", "true", "-1", "0", "1", "2.5", "1e999", "nan", "[]", "{}", "[1,2]", "{a:1}", "''", "${seed}"]
    ),
    st.sampled_from(["${nowhere}", "abc", "../x", "a/b", "99999999999", "???", "none"]),
    st.integers().map(str),
    st.floats().map(str),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6),
)
OVERRIDES = st.one_of(
    st.tuples(st.sampled_from(["", "+", "++", "~"]), st.sampled_from(OPTIONS + GROUPS), VALUES).map(
        lambda parts: f"{parts[0]}{parts[1]}" if parts[0] == "~" else f"{parts[0]}{parts[1]}={parts[2]}"
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).filter(
        lambda text: not text.startswith("-")
    ),
)


@settings(
    max_examples=int(os.environ.get("VAE_EXAMPLES", "4")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
@given(overrides=st.lists(OVERRIDES, min_size=1, max_size=2))
def test_no_override_gives_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], overrides: list[str]
) -> None:
    """Everything is composed, checked and made; only the training is left out."""

    def make(config: DictConfig, run: Run, swept: object) -> dict[str, float]:
        config.run_dir = str(run.folder)
        build(config)
        return {"test/elbo": 0.0}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_execute", make)
    capfd.readouterr()
    code = run("vae-train", "data=glyphs", *overrides, f"hydra.run.dir={tmp_path / 'run'}", "resume=true")
    said = capfd.readouterr()
    assert code in (0, 1, 2)
    assert "Traceback" not in said.out + said.err
    assert code == 0 or said.err.strip()
    assert len(said.err.splitlines()) <= 8
