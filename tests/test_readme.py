"""The README's worked example, as it is written there."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import run_command

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the repository with the files of the example, each named by its block's first line."""
    folder = tmp_path_factory.mktemp("outside")
    files = [block for language in ("python", "yaml") for block in blocks(language) if block.startswith("# mine/")]
    for block in files:
        path = folder / block.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
        "mine/dense.py", "mine/model/dense.yaml",
    ]  # fmt: skip
    return folder


def test_an_architecture_outside_the_repository_trains_sweeps_and_is_compared(outside: Path) -> None:
    (command,) = re.findall(r"^PYTHONPATH=mine vae-train (.*)$", README, re.MULTILINE)
    small = [
        "data.source.train_size=200",
        "data.source.test_size=50",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
    ]
    done = run_command("vae_lightning.cli", *shlex.split(command), *small, cwd=outside, PYTHONPATH="mine")
    assert done.returncode == 0, done.stderr
    assert "4 of 4 runs finished" in done.stdout
    (sweep,) = (outside / "multirun").iterdir()
    assert {path.name for path in sweep.iterdir()} >= {"model-conv_latent_dim-2", "model-dense_latent_dim-32"}
    assert (sweep / "report" / "comparison.png").is_file()


def test_commands_of_the_readme_are_there() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    targets = set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "compare", "test"} <= targets
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_the_table_of_groups_is_complete() -> None:
    conf = Path(__file__).parents[1] / "conf"
    for path in conf.glob("*/**/*.yaml"):
        group = path.parent.relative_to(conf).as_posix()
        if path.stem.startswith("_") or group.startswith("hydra"):
            continue
        assert re.search(rf"^\| `{group}` \|.*`{path.stem}`", README, re.MULTILINE), f"{group}={path.stem}"
