"""Names of runs and of options: short, readable, and different from each other."""

from pathlib import Path

from omegaconf import OmegaConf

from vae_lightning.runs import run_name, short_names, swept_keys


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
