"""The chapter's claims, tested on the measurements of a sweep over the latent dimension."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from ..runs import Run
from .significance import rejected, without_spread

__all__ = ["Claim", "chapter_claims"]

MARGIN = 0.05  # of the distance of a real image from the nearest other, by which half way must be nearer than controls


@dataclass(frozen=True)
class Claim:
    """A claim of the chapter and the evidence for it.

    Attributes:
        claim: in the chapter's words.
        measurement: the evidence: mean ± standard deviation over seeds.
        criterion: the condition under which the claim holds.
        p: p-value of the test that the condition is met only by chance; None if the sweep has too few seeds. Seeds vary
            the training, not the data.
        holds: whether p is small enough, by Holm's correction for several claims; None without a p-value.
    """

    claim: str
    measurement: str
    criterion: str
    p: float | None
    holds: bool | None = None

    @property
    def verdict(self) -> str:
        return {True: "holds", False: "not shown", None: "undecided"}[self.holds]


def chapter_claims(runs: Sequence[Run], keys: Sequence[str]) -> list[Claim]:
    """Returns the claims that finished runs can test.

    There are none if the runs differ in more than latent dimension and seed, or if nothing was measured.
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
    return _judged([claim for claim in found if claim])


def _judged(claims: Sequence[Claim]) -> list[Claim]:
    """Decides by Holm's procedure: the probability that any claim wrongly holds is at most `holm.LEVEL`."""
    holding = iter(rejected([claim.p for claim in claims if claim.p is not None]))
    return [claim if claim.p is None else replace(claim, holds=next(holding)) for claim in claims]


def _quality(small: int, of_small: Sequence[Run], large: int, of_large: Sequence[Run]) -> Claim | None:
    one, other = (_values(runs, "test/frechet_samples") for runs in (of_small, of_large))
    if one is None or other is None:
        return None
    measurement = f"Fréchet distance of samples {_spread(one, 1)} at d = {small}, {_spread(other, 1)} at d = {large}"
    if floor := _mean(of_large, "test/frechet_floor"):
        measurement += f"; of real images {floor:.1f}"
    p = None
    if min(len(one), len(other)) > 1:
        p = float(stats.ttest_ind(one, other, equal_var=False).pvalue)
        better = large if other.mean() < one.mean() else small
        measurement += f"; lower is better, so d = {better} is; p = {p:.2g}"
    criterion = "the two differ, by Welch's t-test over seeds"
    return Claim("“Latent space size significantly affects artifact quality”", measurement, criterion, p)


def _clusters(runs: Sequence[Run]) -> Claim | None:
    codes = _values(runs, "test/knn_accuracy")
    pixels, chance = (_mean(runs, f"test/{name}") for name in ("knn_accuracy_pixels", "chance_accuracy"))
    if codes is None or pixels is None or chance is None:
        return None
    halfway = (pixels + chance) / 2
    measurement = (
        f"nearest neighbours classify {_spread(100 * codes, 1)} % of the test images correctly from their codes at "
        f"d = 2, and {100 * pixels:.1f} % from their pixels; chance is {100 * chance:.1f} %"
    )
    for name, what in [
        ("normalised_mutual_information", "the normalised mutual information of classes and k-means clusters"),
        ("silhouette", "the silhouette of the classes"),
    ]:
        of_codes, of_pixels = _values(runs, f"test/{name}"), _mean(runs, f"test/{name}_pixels")
        if of_codes is not None and of_pixels is not None:
            measurement += f"; {what} is {_spread(of_codes, 3)} among codes and {of_pixels:.3f} among pixels"
    criterion = f"the accuracy from codes is above {100 * halfway:.1f} %, halfway between chance and pixels"
    return Claim(
        "In two dimensions “classes are nicely clustered together”", measurement, criterion, _above(codes, halfway)
    )


def _loss_of_information(dimension: int, runs: Sequence[Run]) -> Claim | None:
    codes, plane = (_values(runs, f"test/{name}") for name in ("knn_accuracy", "knn_accuracy_plane"))
    if codes is None or plane is None:
        return None
    measurement = (
        f"at d = {dimension} nearest neighbours classify {_spread(100 * codes, 1)} % of the test images correctly from "
        f"their codes, and {_spread(100 * plane, 1)} % from the plane of the two leading principal components of "
        "training codes"
    )
    for name, label in [("", "the plane of those of test codes"), ("_tsne", "a t-SNE picture")]:
        kept = [_mean(runs, f"test/{measure}{name}") for measure in ("trustworthiness", "continuity")]
        if None not in kept:
            measurement += (
                f"; {label} preserves neighbourhoods with trustworthiness {kept[0]:.3f} and continuity {kept[1]:.3f}"
            )
    criterion = "accuracy is lower in the plane than from the codes"
    claim = "Beyond two dimensions a latent plot is a reduction, “resulting in loss of information and ambiguity”"
    return Claim(claim, measurement, criterion, _above(codes, plane))


def _smoothness(runs: Sequence[Run]) -> Claim | None:
    """All parts must be shown, so p is the largest of theirs (an intersection-union test, Berger 1982).

    Even steps alone are no merit: a cross-fade of pixels and a decoder before training have them, too.
    """
    names = ("path_unevenness", "halfway_distance", "halfway_distance_crossfade", "halfway_distance_untrained")
    found = [_values(runs, f"test/{name}_lattice") for name in names]
    steps, halfway, crossfade, untrained = found
    if steps is None or halfway is None or crossfade is None or untrained is None:
        return None
    measurement = (
        f"between cells four apart, the longest of 15 decoded steps is {_spread(100 * steps, 1)} % of the path (6.7 % "
        f"if even); the picture half way is {_spread(halfway, 2)} times as far from the nearest real image as other "
        f"real images are, a cross-fade of the pictures at both ends {_spread(crossfade, 2)} times, and the picture of "
        f"a decoder before training {_spread(untrained, 2)} times"
    )
    parts = [_above(-steps, -0.25), _above(crossfade, halfway, MARGIN), _above(untrained, halfway, MARGIN)]
    p = None if None in parts else max(part for part in parts if part is not None)
    criterion = (
        "the longest step is less than a quarter of the path, and the picture half way is nearer than both the "
        f"cross-fade and that of the untrained decoder, by more than {MARGIN}"
    )
    return Claim(
        "The 2-d lattice shows smooth transitions, “not too bad, for a latent dimensionality of 2”",
        measurement,
        criterion,
        p,
    )


def _above(values: np.ndarray, others: np.ndarray | float, margin: float = 0.0) -> float | None:
    """The p-value of a paired t-test that a mean over seeds is above another one; None for seeds without spread."""
    apart = values - others
    if len(values) < 2 or without_spread(apart, values, others):
        return None
    return float(stats.ttest_1samp(apart, margin, alternative="greater").pvalue)


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
