"""The chapter's claims, held against measurements."""

import json
from pathlib import Path

import pytest

from vae_lightning.report.claims import Claim, _judged, chapter_claims
from vae_lightning.runs import Run
from vae_lightning.runs.run import NEEDED


def runs(folder: Path, **groups: list[dict[str, float]]) -> list[Run]:
    """Finished runs with metrics: a list, over seeds, for each latent dimension `d<number>`."""
    found = []
    for name, metrics in groups.items():
        for seed, values in enumerate(metrics):
            run = Run(folder / f"{name}-{seed}")
            run.folder.mkdir()
            content = {f"test/{key}": value for key, value in values.items()} | {"latent_dim": int(name[1:])}
            content = dict.fromkeys(NEEDED, 1.0) | content
            run.metrics_file.write_text(json.dumps(content))
            found.append(run)
    return found


LATTICE = {
    "path_unevenness_lattice": 0.11, "halfway_distance_lattice": 1.1, "halfway_distance_crossfade_lattice": 1.25,
    "halfway_distance_untrained_lattice": 1.7,
}  # fmt: skip


def test_claims_are_held_against_measurements(tmp_path: Path) -> None:
    common = {"knn_accuracy_pixels": 0.9, "chance_accuracy": 0.1, "frechet_floor": 1.0}
    common |= {"normalised_mutual_information": 0.25, "normalised_mutual_information_pixels": 0.3}
    lattice = [{name: value * (1 + seed / 100) for name, value in LATTICE.items()} for seed in range(3)]
    small = [
        common | lattice[seed] | {"frechet_samples": 50 + seed, "knn_accuracy": 0.6 + seed / 100} for seed in range(3)
    ]
    large = [
        common | {"frechet_samples": 20 + seed, "knn_accuracy": 0.8, "knn_accuracy_plane": 0.3 + seed / 100}
        for seed in range(3)
    ]
    keys = ["model.latent_dim", "seed"]
    claims = chapter_claims(runs(tmp_path, d2=small, d128=large), keys)
    assert [claim.holds for claim in claims] == [True] * 4
    assert (
        "51.0 ± 1.0 at d = 2, 21.0 ± 1.0 at d = 128; of real images 1.0; lower is better, so d = 128 is; "
        in claims[0].measurement
    )
    assert "61.0 ± 1.0 %" in claims[1].measurement
    assert "k-means clusters is 0.250 ± 0.000 among codes and 0.300 among pixels" in claims[1].measurement
    assert "silhouette" not in claims[1].measurement
    assert "classify 80.0 ± 0.0 % of the test images correctly from their codes, and 31.0" in claims[2].measurement
    assert "is 11.1 ± 0.1 % of the path" in claims[3].measurement
    assert "the picture half way is 1.11 ± 0.01 times as far" in claims[3].measurement
    assert "a cross-fade of the pictures at both ends 1.26 ± 0.01 times" in claims[3].measurement
    assert "the accuracy from codes is above 50.0 %, halfway between chance and pixels" in claims[1].criterion


@pytest.mark.parametrize(
    ("values", "holding"),
    [
        ([0.01, 0.02, 0.03, 0.04], [True, False, False, False]),  # against 0.0125, 0.0167, 0.025, 0.05
        ([0.04, 0.012, 0.016, 0.02], [True, True, True, True]),
        ([0.02, None, 0.03, None], [True, None, True, None]),
        ([0.03, None, 0.03, None], [False, None, False, None]),
    ],
)
def test_claims_are_tested_together(values: list[float | None], holding: list[bool | None]) -> None:
    claims = [Claim("", "", "", p) for p in values]
    assert [claim.holds for claim in _judged(claims)] == holding


def test_claims_that_measurements_do_not_bear_out(tmp_path: Path) -> None:
    common = {"knn_accuracy_pixels": 0.9, "chance_accuracy": 0.1}
    crossfade = [
        {name: value * (1 + seed / 100) for name, value in LATTICE.items()} | {"halfway_distance_lattice": 1.25}
        for seed in range(3)
    ]
    small = [
        common | crossfade[seed] | {"frechet_samples": 30 + 10 * seed, "knn_accuracy": 0.3 + seed / 10}
        for seed in range(3)
    ]
    large = [
        common | {"frechet_samples": 25 + 10 * seed, "knn_accuracy": 0.8, "knn_accuracy_plane": 0.8 + (seed - 1) / 100}
        for seed in range(3)
    ]
    assert [claim.holds for claim in chapter_claims(runs(tmp_path, d2=small, d8=large), ["model.latent_dim"])] == [
        False
    ] * 4


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        ({}, True),
        # Between pixels everything is even, and nothing is nearer than a cross-fade is.
        ({"path_unevenness_lattice": 1 / 15, "halfway_distance_lattice": 1.25}, False),
        # So it is before training, far from everything.
        (
            {
                "path_unevenness_lattice": 0.07,
                "halfway_distance_lattice": 1.7,
                "halfway_distance_crossfade_lattice": 1.7,
            },
            False,
        ),
        # A decoder that jumps from one real image to the next.
        ({"path_unevenness_lattice": 1.0, "halfway_distance_lattice": 1.0}, False),
    ],
)
def test_smooth_transitions_are_more_than_even_ones(tmp_path: Path, found: dict[str, float], holds: bool) -> None:
    noise = [-0.001, 0.0, 0.001]
    seeds = [{name: value + shift for name, value in (LATTICE | found).items()} for shift in noise]
    for shift, metrics in zip(noise, seeds, strict=True):
        metrics["halfway_distance_crossfade_lattice"] += shift
        metrics["halfway_distance_untrained_lattice"] -= shift
    (claim,) = chapter_claims(runs(tmp_path, d2=seeds), ["model.latent_dim", "seed"])
    assert claim.holds is holds


def test_seeds_without_spread_decide_nothing(tmp_path: Path) -> None:
    """A t-test would divide by zero; that two seeds classify as many images correctly is no certainty."""
    values = {"knn_accuracy": 0.6, "knn_accuracy_pixels": 0.9, "chance_accuracy": 0.1}
    (claim,) = chapter_claims(runs(tmp_path, d2=[values, values]), ["model.latent_dim", "seed"])
    assert claim.holds is None


def test_claims_need_seeds_and_nothing_else_that_differs(tmp_path: Path) -> None:
    values = {"frechet_samples": 3.0, "knn_accuracy": 0.5, "knn_accuracy_pixels": 0.9, "chance_accuracy": 0.1}
    found = runs(tmp_path, d2=[values], d8=[values | {"knn_accuracy_plane": 0.2}])
    assert {claim.holds for claim in chapter_claims(found, ["model.latent_dim"])} == {None}
    assert chapter_claims(found, ["model.latent_dim", "model"]) == []
    assert chapter_claims(found, ["seed"]) == []
    (tmp_path / "bare").mkdir()
    assert chapter_claims(runs(tmp_path / "bare", d2=[{}], d8=[{}]), ["model.latent_dim"]) == []
