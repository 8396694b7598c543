"""The READMEs' examples, as they are written there."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from shared import run_command
from torch.distributions import Laplace

import vae_lightning
from vae_lightning import LoadedRun, compose, load_run, train

ROOT = Path(__file__).parents[1]
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "conf/README.md", "multirun/README.md")}
README, CONF = PAGES["README.md"], PAGES["conf/README.md"]

IMAGES = ["data.source.train_size=96", "data.source.test_size=40"]
SMALL = [*IMAGES, "data.batch_size=32", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"]
QUICK = [
    "callbacks.measurements.bound_samples=2",
    "callbacks.measurements.tsne=false",
    "callbacks.measurements.quality_images=0",
    "callbacks.explorer.cells=5",
    "callbacks.explorer.points=20",
]
BARE = ["callbacks=none", "logger=none"]


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def files(page: str) -> dict[str, str]:
    """The blocks that are files, by the path that a comment at their top names."""
    found = {}
    for block in [*blocks(page, "python"), *blocks(page, "yaml")]:
        if name := re.search(r"\A(?:# @package \S+\n)?# (mine/\S+)\n", block):
            found[name[1]] = block
    return found


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder outside the repository with the files of all examples, its modules importable."""
    folder = tmp_path_factory.mktemp("outside")
    modules = set()
    for name, content in (files(README) | files(CONF)).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        if path.suffix == ".py":
            modules.add(path.stem)
    sys.path.insert(0, str(folder / "mine"))
    yield folder
    sys.path.remove(str(folder / "mine"))
    for module in modules:
        sys.modules.pop(module, None)


def trained(outside: Path, folder: Path, *options: str) -> LoadedRun:
    """A run in a folder, of a configuration that may name the examples' choices."""
    return train(compose(*SMALL, *options, config_dir=outside / "mine"), folder, progress=False)


def test_an_architecture_outside_the_repository_trains_sweeps_and_is_compared(outside: Path) -> None:
    (command,) = re.findall(r"^PYTHONPATH=mine vae-train (--multirun .*)$", README, re.MULTILINE)
    small = [*SMALL, *BARE]
    done = run_command("vae_lightning.cli", *shlex.split(command), *small, cwd=outside, PYTHONPATH=f"mine:{ROOT}")
    assert done.returncode == 0, done.stderr
    assert "4 of 4 runs finished" in done.stdout
    (sweep,) = (outside / "multirun").iterdir()
    assert {path.name for path in sweep.iterdir()} >= {"model-conv_latent_dim-2", "model-dense_latent_dim-32"}
    assert (sweep / "report" / "comparison.png").is_file()


def test_from_python_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (written,) = [block for block in blocks(README, "python") if not block.startswith("# mine/")]
    monkeypatch.chdir(tmp_path)
    small = [*SMALL, "model=mlp", *BARE]
    # A run without a checkpoint cannot be loaded.
    small += ["+callbacks.checkpoints._target_=vae_lightning.callbacks.Checkpoints"]
    monkeypatch.setattr(vae_lightning, "compose", lambda *overrides: compose(*overrides, *small))
    found: dict = {}
    exec(written, found)
    assert found["comparison"].table["model.latent_dim"].tolist() == [2, 16]
    assert (tmp_path / "two_or_sixteen" / "index.html").is_file()
    assert found["run"].model.latent_dim == 16
    assert found["reconstructions"].shape == (16, 1, 28, 28)
    assert found["samples"].shape == (64, 1, 28, 28)
    assert found["posterior"].batch_shape == (16,)


@pytest.mark.slow
def test_a_conditional_model_with_a_learned_prior_an_adversary_and_a_callback(outside: Path, tmp_path: Path) -> None:
    choices = ["data=glyphs", "model=labelled", "model/prior=student", "model/objective=censored", "callbacks=rates"]
    run = trained(outside, tmp_path / "run", *choices, *QUICK, "model.latent_dim=3", "data.label_dropout=0.3")
    assert {"test/classifier_loss", "test/knn_accuracy"} <= run.metrics.keys()
    assert (run.run.figures / "rates_001.png").is_file()
    again = load_run(run.run.folder, trust=["labelled", "student", "censored"])
    assert again.model.sample(10, torch.arange(10)).shape == (10, 1, 28, 28)
    code, labels = torch.zeros(10, 3), torch.arange(10)
    assert not torch.equal(*again.model.decode(code, labels).mean[:2])  # the class matters
    hidden, unknown = again.model.decode(code, labels - 10).mean, again.model.decode(code, None).mean
    torch.testing.assert_close(hidden, unknown)
    assert again.model.decode(torch.zeros(5, 10, 3), labels).mean.shape == (5, 10, 1, 28, 28)


def test_players_have_optimizers_of_their_own(outside: Path, tmp_path: Path) -> None:
    config = compose("model/objective=censored", config_dir=outside / "mine")
    config.run_dir = str(tmp_path)
    model = vae_lightning.training.build(config, progress=False).model
    main, adversary = model.configure_optimizers()
    assert (main.defaults["lr"], adversary.defaults["lr"]) == (0.001, 0.0001)
    theirs = {*model.objective.classifier.parameters()}
    assert {*adversary.param_groups[0]["params"]} == theirs
    assert not theirs & {*main.param_groups[0]["params"]}


def test_a_posterior_a_likelihood_images_without_labels_and_a_metric(outside: Path, tmp_path: Path) -> None:
    choices = ["data=discs", "model/posterior=laplace", "model/likelihood=laplace", "callbacks=psnr"]
    run = trained(outside, tmp_path, *choices, *QUICK)
    assert run.metrics["test/nats_per_pixel"] == pytest.approx(-run.metrics["test/elbo"] / 784, rel=1e-5)
    assert 0 < run.metrics["test/psnr"] < 40
    assert "test/knn_accuracy" not in run.metrics
    assert run.test_images(3)[1] is None
    posterior = run.model.encode(run.test_images(3)[0])
    assert isinstance(posterior.base_dist, Laplace)
    assert posterior.event_shape == (run.model.latent_dim,)


def test_a_registered_point(outside: Path, tmp_path: Path) -> None:
    from vae_lightning.posteriors import point

    run = trained(outside, tmp_path / "run", "data=glyphs", "model=log_normal", "callbacks=none", "logger=none",
                  "+callbacks.checkpoints._target_=vae_lightning.callbacks.Checkpoints")  # fmt: skip
    posterior = run.model.encode(run.test_images(2)[0])
    torch.testing.assert_close(point(posterior), posterior.base_dist.loc.exp())


@pytest.mark.slow
def test_the_best_checkpoint_a_csv_file_and_a_schedule(outside: Path, tmp_path: Path) -> None:
    options = [
        "experiment=posteriors",
        "callbacks=[default,best,early_stopping]",
        *QUICK,
        "data.validation_size=20",
        "trainer.max_epochs=2",
    ]
    run = trained(outside, tmp_path, *options, "callbacks.measurements.probe_images=0")
    assert run.run.best_file.is_file()
    assert run.metrics["best_step"] in (3, 6)
    assert (tmp_path / "table" / "metrics.csv").is_file()
    states = torch.load(run.run.checkpoint_file, weights_only=True)
    (schedule,) = states["lr_schedulers"]
    assert schedule["last_epoch"] == 6
    assert states["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 0.01


def test_every_example_is_tried() -> None:
    """Each module and each choice of the examples stands in a test above."""
    tests = Path(__file__).read_text()
    for name in files(CONF):
        if name.endswith(".yaml"):
            path = Path(name).relative_to("mine")
            assert re.search(rf"{path.parent}={path.stem}\b", tests) or path.stem == "table", name


def test_commands_of_the_readme_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make ([a-z-]+)", "\n".join(PAGES.values()), re.MULTILINE))
    assert {"demo", "compare", "test", "bench"} <= targets
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_the_table_of_groups_is_complete() -> None:
    conf = ROOT / "conf"
    for path in conf.glob("*/**/*.yaml"):
        group = path.parent.relative_to(conf).as_posix()
        if path.stem.startswith("_") or group.startswith("hydra"):
            continue
        assert re.search(rf"^\| `{group}` \|.*`{path.stem}`", CONF, re.MULTILINE), f"{group}={path.stem}"


def test_the_table_of_the_engine_is_that_of_its_options() -> None:
    default, fast = compose(), compose("trainer=fast")
    for option in default.engine:
        values = [str(config.engine[option]).lower() for config in (default, fast)]
        assert f"| `engine.{option}` | {' | '.join(values)} |" in CONF


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    def anchors(page: str) -> set[str]:
        titles = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}

    for target in re.findall(r"\]\(([^)]+)\)", PAGES[name]):
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text()), target


@pytest.mark.parametrize("name", ["README.md"])
def test_the_rooms_are_there(name: str) -> None:
    (listing,) = re.findall(r"^```\nconf/ .*?^```", PAGES[name], re.MULTILINE | re.DOTALL)
    rooms = {room.rstrip("/") for room in re.findall(r"[a-z_]+(?:/|\.py)(?=\s)", listing)} - {"conf"}
    there = {path.name for path in (ROOT / "vae_lightning").iterdir() if not path.name.startswith("__")}
    assert there - {"errors.py"} == rooms
