"""Rate and distortion of models that weigh them differently."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.integrate import quad
from shared import call
from written_runs import write_run

from vae_lightning.report import __main__ as command
from vae_lightning.report import compare
from vae_lightning.report.frontier import mean_distortion, reached

WEIGHTS = (0.5, 1.0, 4.0, 16.0)
BETA = {"_target_": "vae_lightning.objectives.Beta"}


def model(dimension: int, weight: float, seed: int) -> tuple[float, float]:
    """The optimum of distortion + β rate where the least distortion is 100 + 80 exp(−R / dimension)."""
    rate = dimension * np.log(max(80 / (dimension * weight), 1.05))
    return rate, 100 + seed + 80 * np.exp(-rate / dimension)


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for dimension in (2, 16):
        for weight in WEIGHTS:
            for seed in (0, 1):
                rate, distortion = model(dimension, weight, seed)
                write_run(
                    tmp_path / "runs" / f"{dimension}-{weight}-{seed}",
                    {"test/rate": rate, "test/distortion": distortion},
                    model__latent_dim=dimension, model__objective={**BETA, "beta": weight}, seed=seed,
                )  # fmt: skip
    return tmp_path / "runs"


def test_the_area_is_that_under_the_lines(sweep: Path) -> None:
    two, sixteen = compare(sweep).frontiers
    assert (two.group, sixteen.group) == ("latent_dim 2", "latent_dim 16")
    smallest, largest = model(16, 16.0, 0)[0], model(16, 0.5, 0)[0]
    assert (two.low, two.high) == pytest.approx((max(smallest, model(2, 16.0, 0)[0]), largest))
    for dimension, found in ((2, two), (16, sixteen)):
        for seed, level in enumerate(found.levels):
            points = sorted(model(dimension, weight, seed) for weight in WEIGHTS)
            area, _ = quad(lambda rate, p=points: np.interp(rate, *np.transpose(p)), two.low, two.high, limit=500)
            assert level == pytest.approx(area / (two.high - two.low), rel=1e-3)
        assert found.level == f"{np.mean(found.levels):.1f} ± 0.7"
        assert list(found.points["rate"]) == pytest.approx([model(dimension, weight, 0)[0] for weight in WEIGHTS])


def test_what_another_model_beats_in_both_is_not_on_the_frontier() -> None:
    rates, distortions = reached(np.array([5.0, 1.0, 3.0, 3.0, 4.0]), np.array([50.0, 90.0, 70.0, 60.0, 60.0]))
    assert rates.tolist() == [1.0, 3.0, 5.0]
    assert distortions.tolist() == [90.0, 60.0, 50.0]
    assert mean_distortion(rates, distortions, 1.0, 9.0) == pytest.approx((2 * 75 + 2 * 55 + 4 * 50) / 8)
    assert mean_distortion(rates, distortions, 2.0, 2.0) == 75.0


def test_it_is_told_drawn_and_forgotten(sweep: Path, capfd: pytest.CaptureFixture[str], monkeypatch) -> None:
    done = call(command.main, "vae-report", str(sweep), capture=capfd, patch=monkeypatch)
    assert done.returncode == 0, done.stderr
    (two, _) = compare(sweep).frontiers
    assert f"mean distortion at rates {two.low:.1f} to {two.high:.1f}" in done.stdout
    assert two.level in done.stdout
    picture = sweep / "report" / "frontier.png"
    assert f"frontier   {picture.relative_to(Path.cwd())}" in done.stdout
    assert len(np.unique(np.asarray(Image.open(picture)).reshape(-1, 3), axis=0)) > 50
    page = (sweep / "report" / "index.html").read_text()
    assert two.level in page
    assert "data:image/png" in page
    assert not compare(sweep, where="beta <= 1").frontiers  # two weights are no frontier
    assert not picture.exists()
    assert "weight of the rate" not in (sweep / "report" / "index.html").read_text()
