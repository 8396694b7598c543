"""Runs of many sweeps in one report: from folders of folders, chosen, told apart, and held against a baseline."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from shared import call
from written_runs import write_run

from vae_lightning.errors import UsageError
from vae_lightning.report import __main__ as command
from vae_lightning.report import compare
from vae_lightning.report.differences import differences
from vae_lightning.runs import Run

ELBO = {2: [-250.0, -251.5, -249.0, -252.0], 16: [-230.0, -233.5, -228.0, -231.0]}


def make(folder: Path, dimension: int, seed: int, elbo: float, version: str = "0.2.0", **options: object) -> Run:
    run = write_run(folder, {"test/elbo": elbo}, model__latent_dim=dimension, seed=seed, **options)
    run.environment_file.write_text(f'{{"vae-lightning": "{version}"}}')
    return Run(folder)


@pytest.fixture
def sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sweeps in folders of folders; a fifth seed has one of the dimensions alone."""
    monkeypatch.chdir(tmp_path)
    for dimension, values in ELBO.items():
        for seed, elbo in enumerate(values):
            make(tmp_path / "all" / "deep" / f"sweep-{dimension}" / f"seed-{seed}", dimension, seed, elbo)
    make(tmp_path / "all" / "deep" / "sweep-16" / "seed-9", 16, 9, -999.0)
    return tmp_path / "all"


def test_differences_are_paired_by_seed(sweeps: Path) -> None:
    comparison = compare(sweeps, baseline="latent_dim=2")
    assert comparison.folder == sweeps / "report"
    found = comparison.differences
    assert found is not None
    (row,) = found[found["metric"] == "test/elbo"].to_dict("records")
    expected = stats.ttest_rel(ELBO[16], ELBO[2])
    low, high = expected.confidence_interval(0.95)
    assert (row["group"], row["seeds"]) == ("latent_dim=16", 4)
    assert row["difference"] == pytest.approx(np.subtract(ELBO[16], ELBO[2]).mean())
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    page = (sweeps / "report" / "index.html").read_text()
    text = f"+{row['difference']:.2f} ± {(high - low) / 2:.2f}"
    assert "Differences from latent_dim=2" in page
    assert text in page
    assert text in comparison._repr_html_()
    assert pd.read_csv(sweeps / "report" / "differences.csv").equals(found)
    compare(sweeps)
    assert not (sweeps / "report" / "differences.csv").exists()  # those of an earlier report
    assert "Differences from" not in (sweeps / "report" / "index.html").read_text()


def test_what_differs_is_marked_with_all_tests_together(sweeps: Path) -> None:
    """Two metrics of one pair of groups: 0.02 is not small enough for the first of three, nor is what follows."""
    spread = {
        "test/elbo": [9.0, 10.0, 11.0, 10.5],
        "test/rate": [0.6, 2.8, 1.2, 2.0],
        "test/distortion": [-1.0, 1, 2, -2],
        "test/active_units": [1.0, 1.0, 1.0, 1.0],  # without spread, there is nothing to test by
    }
    for dimension in (2, 16):
        for seed in range(4):
            run = sweeps / "more" / f"{dimension}-{seed}"
            write_run(
                run, {name: values[seed] * (dimension == 16) for name, values in spread.items()},
                model__latent_dim=dimension, seed=seed,
            )  # fmt: skip
    comparison = compare(sweeps / "more", baseline="latent_dim=2")
    found = comparison.differences
    assert found is not None
    found = found[found["metric"].isin(spread)].set_index("metric")
    tested = found["p"].to_dict()
    assert np.isnan(tested.pop("test/active_units"))
    expected = {name: stats.ttest_1samp(spread[name], 0).pvalue for name in tested}
    assert tested == pytest.approx(expected)
    assert expected["test/elbo"] < 0.05 / 3 < expected["test/rate"] < 0.05 < expected["test/distortion"]
    assert found["differs"].to_dict() == dict.fromkeys(spread, False) | {"test/elbo": True}
    page = (sweeps / "more" / "report" / "index.html").read_text()
    assert "+10.12 ± 1.36 *" in page
    assert "Holm" in page


def test_equal_differences_of_counts_leave_nothing_to_test_by(sweeps: Path) -> None:
    """The shares 0.405 − 0.403 and 0.413 − 0.411 of float32 differ by rounding alone, which is no spread."""
    for dimension, accuracies in {2: (403, 411), 16: (405, 413)}.items():
        for seed, right in enumerate(accuracies):
            metrics = {"test/knn_accuracy": float(np.float32(right / 1000)), "test/active_units": right % 2 + seed}
            write_run(sweeps / "more" / f"{dimension}-{seed}", metrics, model__latent_dim=dimension, seed=seed)
    found = compare(sweeps / "more", baseline="latent_dim=2").differences
    assert found is not None
    assert np.isnan(found.set_index("metric").loc["test/knn_accuracy", "p"])
    assert not found["differs"].any()
    assert "+0.0 ± 0.0<" in (sweeps / "more" / "report" / "index.html").read_text()  # active units


def test_groups_without_a_seed_of_the_baseline(sweeps: Path) -> None:
    make(sweeps / "more" / "lonely", 5, 77, -240.0)
    found = compare(sweeps, baseline="latent_dim=2").differences
    assert found is not None
    lonely = found[found["group"] == "latent_dim=5"]
    assert lonely["seeds"].unique().tolist() == [0]
    assert lonely["difference"].isna().all()
    comparison = compare(sweeps, baseline="lonely", where="latent_dim == 5")
    assert comparison.differences is None
    assert comparison.notes[0] == "All runs are of the baseline lonely: there are no differences from it."


def test_a_single_seed_has_no_interval(sweeps: Path) -> None:
    comparison = compare(sweeps, where="seed == 1", baseline="2")
    found = comparison.differences
    assert found is not None
    row = found[found["metric"] == "test/elbo"].iloc[0]
    assert (row["difference"], row["seeds"]) == (18.0, 1)
    assert np.isnan(row["low"])
    assert "+18.00<" in comparison._repr_html_()


@pytest.mark.parametrize("name", ["2", "latent_dim=2", "model.latent_dim=2", "sweep-2/seed-0"])
def test_what_a_baseline_may_be_called(sweeps: Path, name: str) -> None:
    comparison = compare(sweeps)
    assert set(differences(comparison.table, comparison.keys, name)["group"]) == {"latent_dim=16"}


@pytest.mark.parametrize("name", ["hidden=[64, 32]", "[64,32]", "hidden=[64,32],conv"])
def test_a_list_may_be_a_baseline(tmp_path: Path, name: str) -> None:
    rows = [{"run": hidden, "status": "finished", "hidden": hidden, "model": "conv", "test/elbo": -1.0}
            for hidden in ("[64, 32]", "[64]")]  # fmt: skip
    assert differences(pd.DataFrame(rows), ["hidden", "model"], name)["group"].tolist() == ["hidden=[64], model=conv"]


def test_a_baseline_that_is_none_or_several(sweeps: Path) -> None:
    for name in ("3", "seed=0"):
        with pytest.raises(
            UsageError, match=f"^baseline={name}: no group is called that, of latent_dim=2; latent_dim=16"
        ):
            compare(sweeps, baseline=name)
    make(sweeps / "more" / "run", 2, 0, -240.0, data__batch_size=64)
    with pytest.raises(UsageError, match="^baseline=2: several groups are called that"):
        compare(sweeps, baseline="2")
    assert compare(sweeps, baseline="2, batch_size=64", folder="report").differences is not None
    assert not (sweeps / "report").exists()


def test_runs_without_seeds_that_differ(sweeps: Path, tmp_path: Path) -> None:
    comparison = compare(sweeps, where="seed == 0", baseline="sweep-2/seed-0", folder="report")
    assert comparison.differences is not None
    assert set(comparison.differences["group"]) == {"latent_dim=16"}


def test_versions_data_and_budgets_are_told_apart(sweeps: Path, tmp_path: Path) -> None:
    make(tmp_path / "new" / "seed-0", 2, 0, -240.0, version="0.3.0")
    comparison = compare([sweeps, tmp_path / "new"], "report", where="latent_dim == 2")
    assert comparison.keys == ("version", "seed")
    html = comparison._repr_html_()
    assert "-250.62 ± 1.38" in html  # of the old version alone
    assert "These runs are of different versions of this package: they are told apart" in html
    make(tmp_path / "more" / "seed-0", 2, 0, -240.0, trainer__max_epochs=9, data__name="other")
    notes = compare([sweeps, tmp_path / "more"], "report", where="latent_dim == 2").notes
    assert any(note.startswith("These runs are of different data and budgets: ") for note in notes)
    assert not any("different" in note for note in compare(sweeps).notes)
    other = Run(sweeps / "deep" / "sweep-2" / "seed-1")
    for run, digest in ((Run(sweeps / "deep" / "sweep-2" / "seed-0"), "a"), (other, "b")):
        run.environment_file.write_text(f'{{"vae-lightning": "0.2.0", "data": {{"test": "{digest}"}}}}')
    assert any(note.startswith("These runs are of different data under one name: ") for note in compare(sweeps).notes)


def test_the_command(sweeps: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    report: Callable = lambda *words: call(command.main, "vae-report", *words, capture=capfd, patch=monkeypatch)  # noqa: E731
    done = report("all", "--where", "seed < 3", "--baseline", "2", "-o", "chosen")
    assert done.returncode == 0
    assert "6 of 6 runs finished" in done.stdout
    assert f"latent_dim=16     3 +{np.subtract(ELBO[16], ELBO[2])[:3].mean():.2f} ±" in done.stdout
    assert Path("chosen/differences.csv").is_file()
    for wrong in (["--where", "seed <"], ["--where", "seed == 77"], ["--baseline", "3"]):
        refused = report("all", *wrong)
        assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
        assert wrong[1] in refused.stderr
