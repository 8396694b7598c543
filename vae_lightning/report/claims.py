"""The chapter's claims, held against what a sweep over the latent dimension has measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..runs import Run

__all__ = ["Claim", "chapter_claims"]

LEVEL = 0.05  # of the tests


@dataclass(frozen=True)
class Claim:
    """A claim of the chapter and what speaks to it.

    Attributes:
        claim: in the chapter's words.
        measurement: figures, mean ± standard deviation over seeds.
        criterion: when it is said to hold.
        holds: None where the sweep cannot tell, for want of seeds.
    """

    claim: str
    measurement: str
    criterion: str
    holds: bool | None

    @property
    def verdict(self) -> str:
        return {True: "holds", False: "not shown", None: "undecided"}[self.holds]


def chapter_claims(runs: Sequence[Run], keys: Sequence[str]) -> list[Claim]:
    """The claims that finished runs can speak to.

    None where anything but the latent dimension and the seed differs between the runs, or nothing was measured of them.
    """
    if not set(keys) <= {"model.latent_dim", "seed"} or "model.latent_dim" not in keys:
        return []
    groups: dict[int, list[Run]] = {}
    for run in runs:
        groups.setdefault(int(run.metrics["latent_dim"]), []).append(run)
    smallest, largest = min(groups), max(groups)
    found: list[Claim | None] = []
    if smallest < largest:
        found.append(_quality(smallest, groups[smallest], largest, groups[largest]))
    if 2 in groups:
        found.append(_clusters(groups[2]))
    if largest > 2:
        found.append(_loss_of_information(largest, groups[largest]))
    if 2 in groups:
        found.append(_smoothness(groups[2]))
    return [claim for claim in found if claim]


def _quality(small: int, of_small: Sequence[Run], large: int, of_large: Sequence[Run]) -> Claim | None:
    one, other = (_values(runs, "test/frechet_samples") for runs in (of_small, of_large))
    if one is None or other is None:
        return None
    measurement = f"Fréchet distance of samples {_spread(one, 1)} at d = {small}, {_spread(other, 1)} at d = {large}"
    if floor := _mean(of_large, "test/frechet_floor"):
        measurement += f"; of real images {floor:.1f}"
    holds = None
    if min(len(one), len(other)) > 1:
        p = float(stats.ttest_ind(one, other, equal_var=False).pvalue)
        measurement += f"; p = {p:.2g}"
        holds = p < LEVEL
    criterion = f"the two differ, by Welch's t-test over seeds at the level {LEVEL}"
    return Claim("“Latent space size significantly affects artifact quality”", measurement, criterion, holds)


def _clusters(runs: Sequence[Run]) -> Claim | None:
    codes = _values(runs, "test/knn_accuracy")
    pixels, chance = (_mean(runs, f"test/{name}") for name in ("knn_accuracy_pixels", "chance_accuracy"))
    if codes is None or pixels is None or chance is None:
        return None
    halfway = (pixels + chance) / 2
    measurement = (
        f"nearest neighbours among the codes at d = 2 tell the class of {_spread(100 * codes, 1)} % of the test "
        f"images, among the images themselves of {100 * pixels:.1f} %; chance is {100 * chance:.1f} %"
    )
    criterion = f"more than halfway from chance to what pixels tell, {100 * halfway:.1f} %"
    return Claim(
        "In two dimensions “classes are nicely clustered together”", measurement, criterion, _above(codes, halfway)
    )


def _loss_of_information(dimension: int, runs: Sequence[Run]) -> Claim | None:
    codes, plane = (_values(runs, f"test/{name}") for name in ("knn_accuracy", "knn_accuracy_plane"))
    if codes is None or plane is None:
        return None
    measurement = (
        f"at d = {dimension} nearest neighbours tell the class of {_spread(100 * codes, 1)} % of the test images "
        f"among the codes, of {_spread(100 * plane, 1)} % in the plane of their two leading components"
    )
    for name, label in [("", "that plane"), ("_tsne", "a t-SNE picture")]:
        kept = [_mean(runs, f"test/{measure}{name}") for measure in ("trustworthiness", "continuity")]
        if None not in kept:
            measurement += (
                f"; {label} keeps neighbourhoods with trustworthiness {kept[0]:.3f}, continuity {kept[1]:.3f}"
            )
    criterion = "the plane tells less of the classes than the codes it is made of"
    claim = "Beyond two dimensions a latent plot is a reduction, “resulting in loss of information and ambiguity”"
    return Claim(claim, measurement, criterion, _above(codes - plane, 0.0))


def _smoothness(runs: Sequence[Run]) -> Claim | None:
    steps = _values(runs, "test/path_unevenness")
    if steps is None:
        return None
    measurement = (
        f"the longest of 15 decoded steps between two codes is {_spread(100 * steps, 1)} % of its path; even, 6.7 %"
    )
    claim = "The 2-d lattice shows smooth transitions, “not too bad, for a latent dimensionality of 2”"
    return Claim(claim, measurement, "less than a quarter of the path", _above(-steps, -0.25))


def _above(values: np.ndarray, threshold: float) -> bool | None:
    """Whether a mean over seeds is above a threshold, by a one-sided t-test; None for a single seed."""
    if len(values) < 2:
        return None
    if np.ptp(values) < 1e-9:
        return bool(values[0] > threshold)
    return bool(stats.ttest_1samp(values, threshold, alternative="greater").pvalue < LEVEL)


def _values(runs: Sequence[Run], name: str) -> np.ndarray | None:
    if any(name not in run.metrics for run in runs):
        return None
    return np.array([run.metrics[name] for run in runs], dtype=float)


def _mean(runs: Sequence[Run], name: str) -> float | None:
    values = _values(runs, name)
    return None if values is None else float(values.mean())


def _spread(values: np.ndarray, digits: int) -> str:
    mean = f"{values.mean():,.{digits}f}"
    return f"{mean} ± {values.std(ddof=1):,.{digits}f}" if len(values) > 1 else mean
