"""Comparisons from Python and by `vae-report`: any runs, whatever terms they have, with or without labels."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from written_runs import write_curves, write_figures, write_grid, write_run

from vae_lightning import plots
from vae_lightning.report import __main__ as command
from vae_lightning.report import compare, print_comparison
from vae_lightning.report.curves import learning_curves
from vae_lightning.report.metrics import describe
from vae_lightning.report.table import mean_table, metrics_table
from vae_lightning.runs import Run, differing_options, run_labels, sweep_runs

FIVE = {"loss": [9.0, 8, 7], "distortion": [8.0, 7, 6], "rate": [1.0, 1, 1], "critic_loss": [0.5, 0.4, 0.3]}


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    monkeypatch.chdir(tmp_path)
    return [write_run(tmp_path / "a" / "one"), write_run(tmp_path / "b" / "one", model__latent_dim=3)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are printed."""
    found: list[Figure] = []

    draw = plots.rendered

    def rendered(figure: Figure) -> np.ndarray:
        found.append(figure)
        return draw(figure)

    monkeypatch.setattr(plots, "rendered", rendered)
    return found


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text()
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)[1])


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def all_text(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_runs_from_anywhere(two: list[Run]) -> None:
    loaded = SimpleNamespace(run=two[1])
    comparison = compare([str(two[0].folder), loaded, two[1]])
    assert comparison.keys == ("model.latent_dim",)
    assert comparison.folder == Path("report")
    assert list(comparison.table["run"]) == ["a/one", "b/one"]  # each run once, under a name of its own
    assert list(comparison.table["model.latent_dim"]) == [2, 3]
    assert sorted(path.name for path in Path("report").iterdir()) == ["index.html", "metrics.csv"]
    html = comparison._repr_html_()
    assert "-102.00" in html
    assert 'href="report/index.html"' in html


def test_a_folder_of_runs_and_sweeps(two: list[Run], tmp_path: Path) -> None:
    sweep = tmp_path / "b"
    (sweep / "multirun.yaml").write_text("hydra: {}")
    for run in (*two, write_run(tmp_path / "alone", model__latent_dim=5)):
        run.environment_file.write_text("{}")
    assert list(compare(tmp_path, tmp_path / "all").table["model.latent_dim"]) == [2, 5, 3]
    assert len(compare(sweep).runs) == 1


def test_a_single_object_and_an_empty_folder(two: list[Run], tmp_path: Path) -> None:
    assert len(compare(two[0], folder="alone").runs) == 1
    assert compare([two[0].folder, tmp_path / "b"], tmp_path / "both").folder == tmp_path / "both"
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="there is no run in this folder.*empty"):
        compare([two[0], tmp_path / "empty"])


def test_unfinished_runs_are_named(two: list[Run]) -> None:
    two[1].metrics_file.unlink()
    two[1].error_file.write_text("<b>it broke</b>")
    comparison = compare(two)
    assert comparison.unfinished == (two[1],)
    assert "&lt;b&gt;it broke" in comparison._repr_html_()
    assert list(comparison.table["status"]) == ["finished", "<b>it broke</b>"]


def test_the_command_compares_several(two: list[Run], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def report(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["vae-report", *arguments])
        with pytest.raises(SystemExit) as done:
            command.main()
        return int(done.value.code or 0)

    assert report("a/one", "b", "-o", "there") == 0
    assert "2 of 2 runs finished" in capsys.readouterr().out
    assert Path("there/metrics.csv").is_file()
    assert report("a/one", "b") == 2
    assert "say where the report goes with -o FOLDER" in capsys.readouterr().err
    assert report("a/one") == 2
    assert "this is a run; name the folder of its sweep" in capsys.readouterr().err
    assert report("a/one", "-o", "alone") == 0
    two[0].metrics_file.unlink()
    assert report("a", "-o", "unfinished") == 1


def test_curves_are_in_tensorboard_if_it_was_a_logger(two: list[Run], capsys: Any) -> None:
    for found in (False, True):
        print_comparison(compare("b"))
        assert ("curves     tensorboard --logdir b" in capsys.readouterr().out) == found
        two[1].tensorboard.mkdir(exist_ok=True)


MLP = "vae_lightning.architectures.mlp.MLPEncoder"
AVERAGING = {"_target_": "pytorch_lightning.callbacks.StochasticWeightAveraging", "swa_lrs": 0.1}
MNIST = {"_target_": "vae_lightning.data.sources.TorchvisionMNIST", "dataset": "MNIST"}


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"run_dir": "elsewhere", "resume": True, "study": "x", "data__root": "/data"}, []),
        ({"model__latent_dim": 3, "model__encoder__latent_dim": 3}, ["model.latent_dim"]),
        ({"seed": 1, "data__seed": 1, "data__batch_size": 64}, ["data.batch_size", "seed"]),
        (
            {"model__objective": {"_target_": "vae_lightning.objectives.Beta", "beta": 4.0},
             "choices": {"model/objective": "beta"}},
            ["model/objective"],
        ),
        ({"model__encoder": {"_target_": MLP, "hidden": [9]}, "choices": {"model": "mlp"}}, ["model"]),
        ({"model__encoder": {"_target_": "mine.Encoder", "hidden": [9]}}, ["model.encoder._target_"]),
        ({"model__encoder__width": 8}, ["model.encoder.width"]),
        ({"data__source": MNIST, "data__name": "mnist", "choices": {"data": "mnist"}}, ["data"]),
        (
            {"data__source": MNIST, "data__name": "mnist", "data__batch_size": 64, "choices": {"data": "mnist"}},
            ["data", "data.batch_size"],
        ),
        (
            {"engine__steps_per_call": 50, "trainer__precision": "bf16-mixed", "choices": {"trainer": "fast"}},
            ["trainer"],
        ),
        ({"callbacks__figures__samples": 4, "logger": {}}, []),
        (
            {"model__likelihood": {"_target_": "vae_lightning.likelihoods.LogisticMixture", "components": 4},
             "model__decoder": {"image_shape": [40, 32, 32]}},
            ["model.likelihood._target_"],
        ),
        ({"callbacks__averaging": AVERAGING}, ["callbacks.averaging._target_"]),
        ({"choices": {"experiment": "smoke"}}, []),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_differs(tmp_path: Path, options: dict[str, Any], keys: list[str]) -> None:
    runs = [write_run(tmp_path / "one"), write_run(tmp_path / "two", **options)]
    assert sorted(differing_options(runs)) == keys
    labels = run_labels(runs, differing_options(runs))
    assert len(set(labels.values())) == 2
    comparison = compare(runs, tmp_path / "report")
    assert all(label in (tmp_path / "report" / "index.html").read_text() for label in labels.values())
    assert set(keys) <= set(comparison.table)


def test_a_run_of_the_version_before_differs_in_no_option_that_has_moved(tmp_path: Path) -> None:
    old = {"engine": ..., "choices": {}, "model__steps_per_call": 1}
    runs = [write_run(tmp_path / "old", **old), write_run(tmp_path / "new")]
    config = yaml.safe_load(runs[0].config_file.read_text())
    del config["choices"]
    runs[0].config_file.write_text(yaml.safe_dump(config))
    assert differing_options([Run(run.folder) for run in runs]) == []


def test_seeds_are_averaged(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"{seed}-{averaged}", {"test/elbo": -100.0 - seed}, seed=seed,
                  **({"callbacks__averaging": AVERAGING} if averaged else {}))
        for seed in (0, 1) for averaged in (False, True)
    ]  # fmt: skip
    html = compare(runs, tmp_path / "report")._repr_html_()
    assert html.count("-100.50 ± 0.71") == 2
    assert "StochasticWeightAveraging" in html
    page = (tmp_path / "report" / "index.html").read_text()
    assert "averaging = –" in page
    assert "mean ± standard deviation over 2 seeds" in page


LAPLACE = {"model__likelihood": {"_target_": "mine.Laplace"}}


@pytest.mark.parametrize(
    ("others", "different", "best"),
    [
        ({}, "", ["−107.00", "0.1000"]),
        ({"data__name": "mnist"}, "data", ["−107.00", "−101.00", "0.3000", "0.1000"]),
        (LAPLACE, "likelihoods", ["−107.00", "−101.00", "0.1000"]),
        ({"data__name": "mnist", **LAPLACE}, "data and likelihoods", ["−107.00", "−101.00", "0.3000", "0.1000"]),
    ],
)
def test_only_what_can_be_compared_is_ranked(
    tmp_path: Path, others: dict[str, Any], different: str, best: list[str]
) -> None:
    for dimension, mse in [(7, 0.3), (8, 0.4)]:
        write_run(tmp_path / f"d-{dimension}", {"test/mse": mse}, model__latent_dim=dimension)
    for dimension, mse in [(1 if others else 9, 0.1), (2 if others else 10, 0.2)]:
        write_run(tmp_path / f"d-{dimension}", {"test/mse": mse}, model__latent_dim=dimension, **others)
    compare(tmp_path)
    page = (tmp_path / "report" / "index.html").read_text()
    assert (f"The test elbos are of different {different}, so they are not ranked" in page) == bool(different)
    assert ("The best test elbo is that of latent_dim = 7: −107.00" in page) == (not different)
    assert ("among runs of the same data" in page) == bool(different)
    assert sorted(re.findall(r'class="best">([^<]*)<', page)) == sorted(best)


def test_a_sweep_without_a_note_of_what_was_swept(tmp_path: Path) -> None:
    for dimension in (2, 3):
        write_run(tmp_path / f"d-{dimension}", model__latent_dim=dimension)
    failed = tmp_path / "failed" / ".hydra"
    failed.mkdir(parents=True)
    (failed / "hydra.yaml").write_text("hydra: {job: {num: 7}}")
    (failed / "config.yaml").write_text("seed: 0")
    assert [run.name for run in sweep_runs(tmp_path)] == ["d-2", "d-3", "failed"]
    assert sweep_runs(tmp_path / "failed") == []
    comparison = compare(tmp_path)
    assert comparison.keys == ("model.latent_dim",)
    assert comparison.folder == tmp_path / "report"
    assert [run.name for run in comparison.unfinished] == ["failed"]
    swept = comparison.table["model.latent_dim"]
    assert swept.isna().tolist() == [False, False, True]
    assert swept[swept == 3].index.tolist() == [1]
    assert '["model.latent_dim", "latent_dim", ""]' in (tmp_path / "report" / "index.html").read_text()


def test_a_sweep_over_whole_nodes(tmp_path: Path) -> None:
    nodes = [{"_target_": f"torch.optim.{name}", "_partial_": True, "lr": 0.001} for name in ("SGD", "Adam")]
    for number, node in enumerate(nodes * 2):
        write_run(tmp_path / f"{number}", {"test/elbo": -100.0 - number}, model__optimizer=node, seed=number // 2)
    comparison = compare(sorted(tmp_path.iterdir()), tmp_path / "report")
    optimizers = next(key for key in comparison.keys if "optimizer" in key)
    assert optimizers == "model.optimizer._target_"
    table = metrics_table(comparison.runs, ["model.optimizer", "seed"])
    assert table["model.optimizer"].tolist() == ["SGD(lr=0.001)", "Adam(lr=0.001)"] * 2
    means = mean_table(table, ["model.optimizer", "seed"])
    assert means is not None
    assert means["seeds"].tolist() == [2, 2]


def test_the_terms_are_those_that_the_runs_have(two: list[Run], drawn: list[Figure]) -> None:
    write_curves(two[0], **FIVE)
    write_curves(two[1], mmd=[0.1, 0.2, 0.3], **FIVE)
    compare(two)
    found = titles(drawn[0])[:5]
    assert [title.partition(",")[0] for title in found] == ["loss", "distortion", "rate", "critic loss", "mmd"]
    assert found[0] == "loss, nats per image"
    # Each run has the same colour in all panels, also where the other one has no such term.
    (line,) = [line for line in drawn[0].axes[4].lines if len(line.get_xdata())]
    assert line.get_color() == plots.PALETTE[1]
    data = data_of(Path("report/index.html"))
    assert [term[0] for term in data["terms"]] == ["loss", "distortion", "rate", "critic_loss", "mmd"]
    assert data["terms"][3] == ["critic_loss", "critic loss", ""]
    assert data["runs"][0]["curves"]["critic_loss"] == [[1, 2, 3], [0.5, 0.4, 0.3]]


def test_runs_without_curves_or_with_damaged_ones(two: list[Run]) -> None:
    two[0].figures.mkdir()
    np.savez(
        two[0].curves_file, loss=np.ones(3), loss_steps=np.ones(2), rate=np.ones((2, 2)), rate_steps=np.ones((2, 2))
    )
    assert learning_curves(two[0]) == {}
    assert learning_curves(two[1]) == {}
    compare(two)
    assert not Path("report/comparison.png").exists()


def test_a_run_without_grids_has_its_name(two: list[Run], drawn: list[Figure]) -> None:
    for run in two:
        write_figures(run)
    compare(two)
    assert "latent_dim = 3\nelbo −103.0 = −(distortion 90.0 + rate 12.0)" in all_text(drawn[0])
    write_grid(two[0], 5)
    compare(two)
    assert "latent_dim = 3\nelbo" in all_text(drawn[1])
    assert "no samples were drawn during training" in all_text(drawn[1])


def test_runs_that_differ_in_much_are_told_apart_within_the_picture(tmp_path: Path, drawn: list[Figure]) -> None:
    names = [f"{'averaged_' * 14}{number}" for number in range(3)]
    for number, name in enumerate(names):
        optimizer = {
            "_target_": "torch.optim.Adam",
            "lr": number,
            "weight_decay": number,
            "betas": [0.9, 0.99 + number],
        }
        others = {"data__batch_size": number, "model__latent_dim": number + 2, "trainer__max_epochs": number}
        run = write_run(tmp_path / name, model__optimizer=optimizer, seed=number, **others)
        write_curves(run, loss=[9.0, 8, 7])
        write_grid(run, 5)
    compare(tmp_path)
    (figure,) = drawn
    curves, titles, _ = figure.subfigs
    assert [text.get_text() for text in curves.legends[0].get_texts()] == names
    assert [cell.get_suptitle().rpartition("\n")[0].replace("\n", "") for cell in titles.subfigs] == names
    assert figure.get_suptitle().endswith("seed 0, 1, 2  ·  glyphs  ·  2 epochs")
    drawn_in = [
        (figure, figure.texts[0]),
        (figure, curves.legends[0]),
        *((cell, cell.texts[0]) for cell in titles.subfigs),
    ]
    for part, artist in drawn_in:
        assert part.bbox.x0 <= artist.get_window_extent().x0 < artist.get_window_extent().x1 <= part.bbox.x1


@pytest.mark.parametrize("exact", [True, False, None])
def test_without_labels(two: list[Run], drawn: list[Figure], exact: bool | None) -> None:
    for run in two:
        more = {} if exact is None else {"exact": np.array(exact)}
        write_figures(run, labelled=False, rates=np.ones(1 if exact is None else 5), **more)
    compare(two)
    assert drawn[0].legends == []
    scatters = [axes for axes in drawn[0].axes if axes.collections]
    assert all(len({tuple(c) for c in axes.collections[0].get_facecolors()}) == 1 for axes in scatters)
    reduced = exact is False
    assert ("70% of their variance" in all_text(drawn[0])) == reduced
    explorers = [run["explorer"] for run in data_of(Path("report/index.html"))["runs"]]
    assert [explorer["labels"] for explorer in explorers] == [None, None]
    assert [explorer["exact"] for explorer in explorers] == ([True, False] if exact is None else [exact, exact])


def test_labels_that_do_not_fit_are_damage(two: list[Run]) -> None:
    for run in two:
        write_figures(run, labels=np.arange(5))
    compare(two)
    assert [run["explorer"] for run in data_of(Path("report/index.html"))["runs"]] == [None, None]


def test_unknown_metrics_have_a_readable_name(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"test/discriminator_loss": 0.6931, "test/tiny": 3.2e-5})
    compare(run, tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "discriminator loss</button>" in page
    assert ">0.693</td>" in page
    assert describe("test/tiny").write(3.2e-5) == "3.2e-05"
    assert describe("test/tiny").write(0.0) == "0.000"
    assert describe("test/active_units").write(1234) == "1,234"
