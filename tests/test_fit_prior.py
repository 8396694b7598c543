"""Priors fitted to the codes of a finished run, and the verbs of vae-generate for codes on a sphere."""

import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from PIL import Image
from shared import TINY, UNDRAWN, UNMEASURED, run_command
from sklearn.mixture import GaussianMixture as Known
from test_trust import Payload
from torch import Tensor

from vae_lightning import LoadError, load_run
from vae_lightning.priors import FlowPrior, GaussianMixture, Prior, TwoStage, fit
from vae_lightning.runs.fitted_priors import load_prior

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    on_sphere = ["model/posterior=von_mises_fisher", "model/prior=uniform_sphere", "model.latent_dim=3"]
    labels = ["data.source.train_size=300", "data.source.test_size=100", "data.binarize=dynamic"]
    for name, options in (("plane", labels), ("sphere", [*on_sphere, *UNMEASURED])):
        command = [*TINY, *UNDRAWN, *options, f"hydra.run.dir={name}"]
        done = run_command("vae_lightning.cli", *dict.fromkeys(command), cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def plane(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs / "plane", tmp_path / "plane"))


def two_clusters(count: int = 3000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    side = (torch.rand(count, 1, generator=generator) < 0.3).float()
    noise = torch.randn(count, 2, generator=generator) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])
    return 0.5 * noise + torch.tensor([6.0, -4.0]) * side + 3


@pytest.mark.parametrize(
    ("prior", "steps", "gap"),
    [
        pytest.param(GaussianMixture(2, components=2, full=True), 100, 0.02, id="full"),
        pytest.param(GaussianMixture(2, components=6), 100, 0.2, id="diagonal"),
        pytest.param(FlowPrior(2), 200, 0.25, id="flow"),
        pytest.param(TwoStage(2, hidden=(64, 64)), 1000, 0.8, id="two_stage", marks=pytest.mark.slow),
    ],
)
def test_each_kind_learns_where_codes_are(prior: Prior, steps: int, gap: float) -> None:
    """Its log-likelihood of other codes of the same two clusters comes close to the true density's."""
    codes = two_clusters(4000)
    known = Known(2, random_state=0).fit(codes)
    others = two_clusters(6000)[4000:]
    torch.manual_seed(0)
    shares: list[float] = []
    fit(prior, codes, steps, shares.append)
    assert sum(shares) == pytest.approx(1)
    with torch.no_grad():
        reached = prior.distribution().log_prob(others).mean().item()
        samples = prior.distribution().sample((2000,))
    assert reached > known.score(others) - gap
    torch.testing.assert_close(samples.mean(0), codes.mean(0), rtol=0, atol=0.4)
    torch.testing.assert_close(samples.T.cov(), codes.T.cov(), rtol=0.25, atol=0.3)


def test_expectation_maximisation_is_scikit_learns() -> None:
    codes = two_clusters()
    for full in (False, True):
        prior = GaussianMixture(2, components=2, full=full)
        torch.manual_seed(0)
        fit(prior, codes, 100)
        seed = int(torch.manual_seed(0) and torch.randint(2**31, ()))
        known = Known(2, covariance_type="full" if full else "diag", max_iter=100, random_state=seed)
        known.fit(codes.double().numpy())
        with torch.no_grad():
            found = prior.distribution().log_prob(codes)
        np.testing.assert_allclose(found, known.score_samples(codes.double().numpy()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["gaussian_mixture", "flow", "two_stage"])
def test_a_fitted_prior_is_kept_and_sampled_from(plane: Path, generate: Command, tmp_path: Path, kind: str) -> None:
    done = generate("fit-prior", plane, "--kind", kind, "--steps", 20, "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{plane}/priors/mine.pt: {kind} fitted to 20,100 codes; elbo ")
    assert "UserWarning" not in done.stderr
    kept = torch.load(plane / "priors" / "mine.pt", weights_only=True)
    before, after = kept["found"]["frechet_before"], kept["found"]["frechet_after"]
    assert after != before
    assert f" {before:.1f} before, {after:.1f} after" in done.stdout
    # Before is what was measured after the training, but for the noise.
    assert kept["found"]["elbo_before"] == pytest.approx(load_run(plane).metrics["test/elbo"], rel=0.02)
    assert f"elbo {kept['found']['elbo_before']:.2f} before, {kept['found']['elbo_after']:.2f} after" in done.stdout
    assert before == pytest.approx(load_run(plane).metrics["test/frechet_samples"], rel=0.2)
    run = load_run(plane)
    prior = load_prior(run, "mine")
    assert not any(parameter.requires_grad for parameter in prior.parameters())
    for name, options in (("own", []), ("mine", ["--prior", "mine"])):
        assert generate("sample", plane, "-n", 50, "-o", f"{name}.npz", *options).returncode == 0
    own, mine = (np.load(tmp_path / f"{name}.npz")["images"] for name in ("own", "mine"))
    assert not np.array_equal(own, mine)
    torch.manual_seed(0)
    expected = run.model.decode(prior.distribution().sample((50,))).mean
    np.testing.assert_allclose(mine / 255, expected, atol=0.003)


def test_what_is_refused(plane: Path, runs: Path, generate: Command) -> None:
    def refuse(*arguments: object) -> str:
        done = generate(*arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        return done.stderr

    mixture = ["fit-prior", plane, "--kind", "gaussian_mixture"]
    assert "the name of a prior has letters, digits" in refuse(*mixture, "--name", "../../x")
    assert "--transforms 2: --kind gaussian_mixture has none" in refuse(*mixture, "--transforms", 2)
    assert "--components 2: --kind flow has none" in refuse("fit-prior", plane, "--kind", "flow", "--components", 2)
    assert "--components 30000: is more than the 20,100 codes" in refuse(*mixture, "--components", 30_000)
    assert "has no fitted prior a; vae-generate fit-prior" in refuse("sample", plane, "--prior", "a")
    assert generate(*mixture, "--steps", 3, "--images", 50).returncode == 0
    assert "exists already; overwrite it with --force, or choose another --name" in refuse(*mixture)
    assert generate(*mixture, "--steps", 3, "--images", 50, "--force", "--components", 2).returncode == 0
    assert "has no fitted prior a; it has gaussian_mixture" in refuse("sample", plane, "--prior", "a")
    assert "the name of a prior has" in refuse("sample", plane, "--prior", "../priors/gaussian_mixture")
    on_sphere = refuse("fit-prior", runs / "sphere", "--kind", "flow")
    assert "--kind flow: is one of codes on R^d, but this run's lie on the unit sphere" in on_sphere


def test_priors_are_loaded_as_carefully_as_runs(
    plane: Path, generate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert generate("fit-prior", plane, "--kind", "flow", "--steps", 2, "--images", 50).returncode == 0
    file, run, ran = plane / "priors" / "flow.pt", load_run(plane, trust=["wordless"]), tmp_path / "ran"
    whole = torch.load(file, weights_only=True)

    def refused(message: str) -> None:
        with pytest.raises(LoadError, match=message) as caught:
            load_prior(run, "flow")
        assert "\n" not in str(caught.value)

    for target in ("os.system", "builtins.eval", "subprocess.Popen"):
        torch.save(whole | {"config": {"_target_": target, "command": f"touch {ran}"}}, file)
        refused(rf"config\._target_={target}: only classes of this package")
    torch.save(whole | {"config": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2}}, file)
    refused("cannot be made")
    (tmp_path / "wordless.py").write_text("def prior():\n    raise EOFError\n")
    monkeypatch.syspath_prepend(tmp_path)
    torch.save(whole | {"config": {"_target_": "wordless.prior"}}, file)
    refused("cannot be made: EOFError")
    torch.save(whole | {"config": {"_target_": "vae_lightning.priors.UniformSphere", "latent_dim": 2},
                        "state_dict": {}}, file)  # fmt: skip
    refused("is no prior of this run's codes")
    torch.save(whole | {"payload": Payload(ran)}, file)
    refused("cannot be read as a prior")
    file.write_bytes(pickle.dumps(Payload(ran)))
    refused("cannot be read as a prior")
    assert not ran.exists()
    torch.save(whole | {"weights": "other"}, file)
    refused("was fitted to other weights than the run has now; fit it again, with --force")
    torch.save(whole, file)
    load_prior(run, "flow")


def test_verbs_on_a_sphere(runs: Path, generate: Command, tmp_path: Path) -> None:
    run = runs / "sphere"
    for arguments in (["sample", run, "-n", 9], ["encode", run, "--test", 4], ["interpolate", run, 0, 5, "--steps", 5],
                      ["traverse", run, "--steps", 3], ["lattice", run, "--cells", 4],
                      ["lattice", run, "--cells", 4, "--quantiles", "-o", "even.npz"]):  # fmt: skip
        done = generate(*arguments)
        assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.linalg.norm(np.load(tmp_path / "encode.npz")["means"], axis=1), 1, rtol=1e-5)
    assert Image.open(tmp_path / "traverse.png").size == (3 * 29 + 1, 3 * 29 + 1)
    assert np.load(tmp_path / "even.npz")["images"].shape == (16, 1, 28, 28)
    for option, verb in (("--temperature", "sample"), ("--extent", "lattice")):
        done = generate(verb, run, option, "2", "--force")
        assert done.returncode == 2
        assert f"{option} 2: " in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_codes_of_a_codebook_get_an_autoregressive_prior(generate: Command, tmp_path: Path) -> None:
    options = ["model/posterior=vq", "model/prior=uniform_codes", "model/objective=vq", "model.latent_dim=8"]
    options += ["model/likelihood=discretized_logistic", "hydra.run.dir=run", "trainer.max_epochs=4"]
    done = run_command("vae_lightning.cli", *TINY, *UNDRAWN, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = load_run(tmp_path / "run")
    assert 1 <= run.metrics["test/code_perplexity"] <= run.metrics["test/codes_used"] <= 256
    assert run.metrics["test/rate"] == pytest.approx(2 * math.log(256))
    refused = generate("fit-prior", "run", "--kind", "flow")
    assert refused.returncode == 2
    assert "for them there is autoregressive" in refused.stderr
    done = generate("fit-prior", "run", "--kind", "autoregressive", "--steps", 30)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "run" / "priors" / "autoregressive.pt", weights_only=True)["found"]
    assert found["elbo_before"] == pytest.approx(run.metrics["test/elbo"], rel=1e-5)
    # The distortion is the same, so the elbo rises by as much as the rate falls.
    prior = load_prior(run, "autoregressive")
    images, _ = run.test_images(40)
    with torch.no_grad():
        rate = -prior.distribution().log_prob(run.model.encode(images).mean).mean().item()
    assert rate < 2 * math.log(256)
    assert found["elbo_after"] - found["elbo_before"] == pytest.approx(2 * math.log(256) - rate, rel=1e-3)
    assert found["bits_per_dim_after"] == pytest.approx(-found["elbo_after"] / (784 * math.log(2)), rel=1e-5)
    assert generate("sample", "run", "--prior", "autoregressive", "-n", 4, "-o", "s.npz").returncode == 0
    assert np.load(tmp_path / "s.npz")["images"].shape == (4, 1, 28, 28)
