"""Models without noise in their codes: no rate and no bound, and everything else."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from shared import TINY, compose_config, run_command

from vae_lightning import generate, load_run
from vae_lightning.data.batch import Batch
from vae_lightning.posteriors import moments, point, spread
from vae_lightning.rates import known_rate, rates
from vae_lightning.runs import Run, score

NONE = ["model/posterior=none", "model/objective=wae_mmd"]


def test_a_point_has_no_density() -> None:
    torch.manual_seed(0)
    model = instantiate(compose_config(*TINY, *NONE, "model.latent_dim=3").model, _convert_="all").eval()
    assert not model.has_bound
    images = torch.rand(4, 1, 28, 28)
    posterior, prior = model.encode(images), model.prior_distribution()
    code = model.encoder.head.weight @ model.encoder.trunk(images).flatten(1).T + model.encoder.head.bias[:, None]
    torch.testing.assert_close(point(posterior), code.T)
    assert torch.equal(posterior.rsample((2,)), point(posterior).expand(2, 4, 3))
    assert (spread(posterior) == 0).all()
    assert (moments(posterior)[1] == 0).all()
    assert known_rate(posterior, prior, posterior.mean) == {}
    assert rates(posterior, prior).shape == (4, 0)
    with pytest.raises(ValueError, match="codes without noise have no rate"):
        posterior.log_prob(posterior.mean)
    terms = model.objective(model, Batch(images))
    assert "rate" not in terms
    torch.testing.assert_close(terms["distortion"], -model.decode(posterior.mean).log_prob(images))


def test_the_score_of_a_search() -> None:
    assert score({"test/elbo": -3.0, "test/loss": 9.0}) == -3.0
    assert score({"test/elbo": -3.0, "test/loss": 9.0, "val/elbo": -4.0, "val/loss": 8.0}) == -4.0
    assert score({"test/loss": 9.0}) == -9.0
    assert score({"test/loss": 9.0, "val/loss": 8.0}) == -8.0


@pytest.mark.slow
def test_everything_but_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Beside a model with a bound, in one sweep: measured, drawn, reported, compared; and sampled by a fitted prior."""
    options = [
        *TINY,
        NONE[1],
        "model/posterior=diagonal,none",
        "model.latent_dim=3",
        "--multirun",
        "hydra.sweep.dir=sweep",
    ]
    done = run_command("vae_lightning.cli", *options, "data.validation_size=16", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 of 2 runs finished" in done.stdout
    with_noise, without = (Run(tmp_path / "sweep" / f"posterior-{kind}") for kind in ("diagonal", "none"))
    missing = {name for name in with_noise.metrics if name.startswith(("test/", "val/"))} - without.metrics.keys()
    bound = {"elbo", "elbo_stderr", "rate", "iw_bound", "iw_bound_stderr", "iw_bound_rise", "iw_bound_rise_stderr"}
    bound |= {"effective_sample_share", "distortion_above_floor", "elbo_training"}
    bound |= {"generalisation_gap", "generalisation_gap_stderr", "dimensionwise_kl"}
    between = {"mutual_information", "marginal_kl", "total_correlation"}
    bound |= {f"{name}_{side}" for name in between for side in ("lower", "upper")}
    assert missing == {f"test/{name}" for name in bound} | {"val/elbo", "val/rate", "val/distortion_above_floor"}
    assert all(map(math.isfinite, json.loads(without.metrics_file.read_text()).values()))
    assert f"tested     loss {without.metrics['test/loss']:.2f}, distortion" in done.stdout
    drawn = [{path.name for path in run.figures.glob("*.png")} for run in (with_noise, without)]
    assert drawn[0] == drawn[1] | {"bound.png"}
    with np.load(without.curves_file) as curves:
        assert "rate" not in curves
    table = pd.read_csv(tmp_path / "sweep" / "report" / "metrics.csv")
    assert table["test/elbo"].isna().tolist() == [False, True]
    page = (tmp_path / "sweep" / "report" / "index.html").read_text()
    assert "The test elbo is" in page
    assert not re.search(r"[:,\[] *NaN", page)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["x", "fit-prior", str(without.folder), "--kind", "gaussian_mixture", "--steps", "5"]
    )
    generate.main()
    assert "elbo" not in capsys.readouterr().out
    assert load_run(without.folder).model.sample(2).shape == (2, 1, 28, 28)
    refused = run_command("vae_lightning.cli", *TINY, "model/posterior=none", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "model.objective: codes without noise have no rate; choose an objective without one"
    )
