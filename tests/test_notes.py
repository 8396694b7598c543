"""What a table must be read with: bounds that still rise, and searches that chose by the test images."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from shared import TINY, run_command
from written_runs import write_run

from vae_lightning.report import compare, print_comparison
from vae_lightning.report.metrics import describe
from vae_lightning.report.table import RISING, evaluation_table, mean_table, notes_on, run_table, spread

SETTLED = {"test/iw_bound": -90.0, "test/iw_bound_rise": 0.02, "test/iw_bound_rise_stderr": 0.01}
STILL = {"test/iw_bound": -95.0, "test/iw_bound_rise": 1.2, "test/iw_bound_rise_stderr": 0.05}
NOISY = {"test/iw_bound": -97.0, "test/iw_bound_rise": 0.3, "test/iw_bound_rise_stderr": 0.4}
EARLIER = {"test/iw_bound": -99.0}  # a run from before the rise was measured


def test_a_bound_that_still_rises_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {3: SETTLED, 4: STILL, 5: NOISY, 6: EARLIER}
    runs = [write_run(tmp_path / f"d{d}", metrics, model__latent_dim=d) for d, metrics in found.items()]
    evaluation = runs[0].evaluation_file("more")
    evaluation.parent.mkdir()
    evaluation.write_text(json.dumps({"metrics": STILL, "steps": None}))
    comparison = compare(runs, tmp_path / "report")
    table = run_table(comparison.table, comparison.keys)
    assert table["iw bound"].tolist() == ["-90.00", f"-95.00 {RISING}", "-97.00", "-99.00"]
    assert table["more: iw bound"].tolist() == [f"-95.00 {RISING}", "", "", ""]
    print_comparison(comparison)
    (note,) = comparison.notes
    assert note.startswith(f"{RISING} This bound still rises")
    for text in (capsys.readouterr().out, comparison._repr_html_()):
        assert f"-95.00 {RISING}" in text
        assert f"{RISING} This bound still rises" in text
    page = (tmp_path / "report" / "index.html").read_text()
    assert note in page
    assert f">−95.00 {RISING}</td>" in page
    assert ">−97.00</td>" in page
    written = pd.read_csv(tmp_path / "report" / "metrics.csv")
    assert written["test/iw_bound"].tolist() == [-90.0, -95.0, -97.0, -99.0]
    assert compare(runs[2:], tmp_path / "other").notes == ()


def test_so_is_a_mean_over_seeds_of_which_one_rises(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(seed), metrics, seed=seed) for seed, metrics in enumerate((SETTLED, STILL))]
    comparison = compare(runs, tmp_path / "report")
    means = mean_table(comparison.table, comparison.keys)
    assert means is not None
    assert means["iw bound"].tolist() == [f"-92.50 ± 3.54 {RISING}"]
    assert f">−92.50 ± 3.54 {RISING}</td>" in (tmp_path / "report" / "index.html").read_text()


def test_so_is_one_of_vae_evaluate() -> None:
    table = evaluation_table({"one": SETTLED, "other": STILL})
    assert table["iw bound"].tolist() == ["-90.00", f"-95.00 {RISING}"]
    assert len(notes_on(pd.DataFrame([SETTLED, STILL]))) == 1
    assert notes_on(pd.DataFrame([SETTLED])) == []


@pytest.mark.parametrize(("units", "text"), [([1, 2], "1.5 ± 0.7"), ([2, 3], "2.5 ± 0.7"), ([0, 1], "0.5 ± 0.7")])
def test_a_mean_of_whole_numbers_has_a_digit_after_the_point(units: list[int], text: str) -> None:
    assert spread(pd.Series(units), describe("test/active_units")) == text


def use(active: float, rate: float, **others: float) -> dict[str, float]:
    return {"test/active_units": active, "test/rate": rate, **others}


def test_a_latent_space_that_is_hardly_used_is_said_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {
        "none": use(0, 0.004), "little": use(12, 0.05), "few": use(3, 9.5), "half": use(8, 20.0),
        "codes": use(0, 88.7, **{"test/code_perplexity": 30.0}), "same": use(0, 2.0),
    }  # fmt: skip
    runs = [write_run(tmp_path / name, metrics, model__latent_dim=16) for name, metrics in found.items()]
    comparison = compare(runs, tmp_path / "report")
    collapsed, same, few = comparison.notes
    assert collapsed == (
        "The posterior has collapsed to the prior: the codes of none (0 of 16 active, rate 4.0e-03 nats), little (12 "
        "of 16 active, rate 0.05 nats) tell next to nothing of the images."
    )
    assert same == (
        "The posterior is nearly the same for all images, but not the prior: the codes of same (0 of 16 active, rate "
        "2.00 nats) tell next to nothing of the images."
    )
    assert few == (
        "Less than half of the latent dimensions are used by few (3 of 16 active, rate 9.50 nats); in the others the "
        "posterior is nearly the same for all images."
    )
    print_comparison(comparison)
    assert "The posterior has collapsed to the prior: the codes of none (0 of 16" in capsys.readouterr().out
    assert collapsed in (tmp_path / "report" / "index.html").read_text()
    assert compare(runs[3:5], tmp_path / "other").notes == ()
    without_noise = {"run": "rae", "latent_dim": 16, **use(0, float("nan"))}
    assert notes_on(pd.DataFrame([without_noise])) == []
    many = [
        write_run(tmp_path / f"model-gated_latent_dim-4_seed-{i}", use(0, 0.0), model__latent_dim=4, seed=i)
        for i in range(5)
    ]
    comparison = compare(many, tmp_path / "many")
    (note,) = comparison.notes
    assert note.count(" of 4 active") == 3
    assert "nats) and 2 more tell next to nothing" in note
    print_comparison(comparison)
    shown = capsys.readouterr().out
    assert all(f"model-gated_latent_dim-4_seed-{seed}" in shown for seed in range(3))  # not broken at a hyphen


@pytest.mark.parametrize(("held_out", "said"), [(True, "elbo of validation images"), (False, "its value is too good")])
def test_a_search_says_what_it_chose_by(tmp_path: Path, held_out: bool, said: str) -> None:
    metrics = {"val/loss": 100.0, "val/elbo": -100.0} if held_out else {}
    write_run(tmp_path / "sweep" / "d2", metrics)
    sweeper = {"_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper", "params": {}}
    content = {"hydra": {"sweeper": sweeper, "overrides": {"task": []}}}
    (tmp_path / "sweep" / "multirun.yaml").write_text(yaml.safe_dump(content))
    comparison = compare(tmp_path / "sweep")
    assert len(comparison.notes) == 1
    assert said in comparison.notes[0]
    assert said in (tmp_path / "sweep" / "report" / "index.html").read_text()


def test_a_search_that_would_choose_by_the_test_images_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    options = [*TINY, "experiment=search", "data.validation_size=0", "hydra.sweeper.n_trials=1"]
    done = run_command("vae_lightning.cli", *options, "hydra.sweep.dir=search", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "data.validation_size=0: a search would choose the model by the test images; hold out images to choose by, "
        "such as data.validation_size=1000\n"
    )
    assert not (tmp_path / "search").exists()


def test_pixels_between_0_and_1_have_no_bernoulli_likelihood(tmp_path: Path) -> None:
    grey = {"test/distortion": 210.0, "test/distortion_above_floor": 60.0}
    binary = {"test/distortion": 90.0, "test/distortion_above_floor": 90.0}
    gaussian = {"test/distortion": 90.0}
    told = {}
    for name, metrics in {"grey": grey, "binary": binary, "gaussian": gaussian}.items():
        run = write_run(tmp_path / name, SETTLED | metrics)
        told[name] = [note for note in compare([run], tmp_path / f"{name}_report").notes if "cross entropy" in note]
    assert [len(notes) for notes in told.values()] == [1, 0, 0]
    assert told["grey"][0].startswith("Pixels between 0 and 1 under a Bernoulli likelihood")
    assert told["grey"][0] in (tmp_path / "grey_report" / "index.html").read_text()
