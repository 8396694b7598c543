"""Any two of likelihood, objective, posterior and prior go together, or are refused with a reason before training."""

import copy
from functools import cache
from itertools import combinations as pairs
from itertools import product
from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from shared import PARTNERS, TINY, compose_config

from vae_lightning.building import build
from vae_lightning.config import CONFIGURATION
from vae_lightning.config.messages import exit_code, explain
from vae_lightning.config.schema import check, check_calls
from vae_lightning.data.batch import Batch
from vae_lightning.errors import UsageError
from vae_lightning.objectives import Annealed
from vae_lightning.vae import VAE

USUAL = {"likelihood": "bernoulli", "objective": "elbo", "posterior": "diagonal", "prior": "standard"}
NODES = {"posterior": "encoder.posterior"}  # of the groups whose name is not their node's

SPACES = {"von_mises_fisher": "the sphere", "vq": "codes", "fsq": "codes"}  # of posteriors, where it is not R^d
PRIORS = {"uniform_sphere": "the sphere", "uniform_codes": "codes"}  # of priors; vamp's is that of the posterior
FLOWS, CODES = {"iaf", "nsf"}, {"vq", "fsq"}
LEARNED = {"class_conditional", "flow", "gaussian_mixture", "ladder", "vamp"}
ONLY_CODES = {"adversarial", "rae_gp", "rae_l2", "wae_mmd"}  # whose loss has no rate, the only term with the prior
ONLY_MEANS = {"geco", "ms_ssim", "vae_gan"}  # whose loss has no −log p(x|z)
WITH_PARAMETERS = {"discretized_logistic", "gaussian"}
UNLIKE_POINTS = {"vq": "choose model/posterior=vq"}
# A deterministic code: the spread of a posterior that has one is not trained.
SPREAD = {"rae_gp", "rae_l2"}


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGURATION / "model" / group).glob("[!_]*.yaml"))


def combinations() -> list[object]:
    """All pairs of choices of two groups; of the other groups the usual choice, or the one that a choice needs.

    Slow tests are those where neither is the usual choice.
    """
    found: dict[tuple[str, ...], bool] = {}
    for one, other in pairs(USUAL, 2):
        for first, second in product(choices(one), choices(other)):
            chosen = {**USUAL, one: first, other: second}
            for group in (one, other):
                partners = PARTNERS.get(f"model/{group}={chosen[group]}", ())
                for partner in filter(lambda option: option.startswith("model/"), partners):
                    needing, _, choice = partner.removeprefix("model/").partition("=")
                    if needing in USUAL and needing not in (one, other):
                        chosen[needing] = choice
            usual = USUAL[one] == first or USUAL[other] == second
            found.setdefault(tuple(chosen.values()), not usual)
    return [pytest.param(*case, marks=[pytest.mark.slow] * slow) for case, slow in sorted(found.items())]


def refusal(likelihood: str, objective: str, posterior: str, prior: str) -> str:
    """Why a model of these is not built; empty if it is."""
    if prior == "vamp" and posterior in CODES | {"none"}:
        return "vamp needs a posterior with continuous noise"
    if posterior == "none" and prior == "standard" and objective not in ONLY_CODES | UNLIKE_POINTS.keys():
        return "codes without noise have no rate"
    if posterior == "none" and objective in UNLIKE_POINTS and prior == "standard":
        return UNLIKE_POINTS[objective]
    if prior == "ladder" != posterior:
        return "choose model/posterior=ladder"
    if prior != "vamp" and SPACES.get(posterior) != PRIORS.get(prior):
        return "is a density on"
    if objective in ("as_printed", "free_bits") and prior not in ("standard", "ladder" * (objective == "free_bits")):
        return "needs a prior with independent dimensions"
    if objective == "as_printed" and posterior in FLOWS | {"ladder"}:
        return "AsPrinted needs a posterior with a known standard deviation, such as diagonal, got"
    if objective == "tc" and posterior in FLOWS | CODES | {"ladder", "von_mises_fisher"}:
        return "TC needs the posterior's marginals"
    if objective == "dreg" and posterior in FLOWS | {"ladder", "von_mises_fisher"}:
        return "register posteriors.stopped"
    if objective == "dip_ii" and posterior in FLOWS | {"ladder"}:
        return "whose moments have a closed form"
    if objective == "vq" and posterior not in ("vq", "fsq"):
        return "choose model/posterior=vq"
    if objective in ONLY_CODES and prior in LEARNED:
        return "does not train a prior"
    if objective in ONLY_MEANS and likelihood in WITH_PARAMETERS:
        return "does not train a likelihood's parameters"
    return ""


@cache
def composed(group: str, choice: str) -> DictConfig:
    """The configuration with one choice: to compose takes longer than a step."""
    config = compose_config(*TINY, f"model/{group}={choice}", "model.latent_dim=4", "run_dir=nowhere")
    check(config)
    check_calls(config)
    OmegaConf.to_container(config.model, resolve=True, throw_on_missing=True)
    return config


def with_choices(**chosen: str) -> DictConfig:
    """The configuration with a choice for each of some groups, the others as usual."""
    # The labels change the shapes of encoder and decoder.
    config = copy.deepcopy(composed("labels", chosen.pop("labels", "none")))
    for group, choice in chosen.items():
        node = f"model.{NODES.get(group, group)}"
        OmegaConf.update(config, node, OmegaConf.select(composed(group, choice), node), merge=False)
    return config


@pytest.mark.parametrize(("likelihood", "objective", "posterior", "prior"), combinations())
def test_a_step_moves_every_parameter(
    likelihood: str, objective: str, posterior: str, prior: str, tmp_path: Path
) -> None:
    chosen = dict(zip(USUAL, (likelihood, objective, posterior, prior), strict=True))
    config = with_choices(labels="embedded" if objective == "m2" else "none", **chosen)
    if objective == "m2":
        config.model.labels.classes = 2
    if prior == "vamp":
        config.model.prior.components = 5
    torch.manual_seed(0)
    if reason := refusal(likelihood, objective, posterior, prior):
        config.run_dir = str(tmp_path)
        with pytest.raises((InstantiationException, UsageError)) as caught:
            build(config)
        assert exit_code(caught.value) == 2
        assert reason in explain(caught.value)
        assert len(explain(caught.value).splitlines()) == 1
        return
    model = instantiate(config.model, _convert_="all")
    images = (torch.rand(6, 1, 28, 28) * 255).round() / 255
    for _ in range(2):  # where annealing starts, the rate has no weight
        terms = model.objective(model, Batch(images))
        assert all(term.shape == (6,) and term.isfinite().all() for term in terms.values())
        optimizers = model.configure_optimizers()
        model.zero_grad()
        for name, optimizer in zip(model.minimised, optimizers, strict=True):
            own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            terms[name].mean().backward(inputs=own, retain_graph=True)
        without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        for optimizer in optimizers:
            optimizer.step()
    if objective in SPREAD:
        without = [name for name in without if not name.startswith("encoder.head.")]
    assert without == []
    with torch.no_grad():
        assert model.eval().sample(2).shape == (2, 1, 28, 28)


MODEL_GROUPS = ("labels", *USUAL)


@pytest.mark.parametrize(
    ("group", "choice"), [("", name) for name in choices("")] + [(g, c) for g in MODEL_GROUPS for c in choices(g)]
)
def test_a_step_reads_nothing_back_from_the_device(group: str, choice: str) -> None:
    """On the meta device, which holds no values: whatever asks for one fails."""
    if group:
        partners = [option.removeprefix("model/") for option in PARTNERS.get(f"model/{group}={choice}", ())]
        chosen = dict(partner.split("=") for partner in partners if "." not in partner)
        config = with_choices(**chosen | {group: choice})
    else:
        small = [setting for setting in TINY if choice not in ("linear", "mlp") or "width" not in setting]
        config = compose_config(*small, f"model={choice}")
    OmegaConf.update(config, "model.optimizer.foreach", False, force_add=True)  # fused kernels lack meta
    with torch.device("meta"):
        model = instantiate(config.model, _convert_="all")
    optimizers = model.configure_optimizers()
    terms = model.training_step(Batch(torch.rand(6, 1, 28, 28, device="meta"), torch.zeros(6, device="meta").long()))
    for name, optimizer in zip(model.minimised, optimizers, strict=True):
        own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        terms[name].backward(inputs=own, retain_graph=True)
    for optimizer in optimizers:
        optimizer.step()
    assert {term.device.type for term in terms.values()} == {"meta"}


RECIPES = sorted(path.stem for path in (CONFIGURATION / "recipe").glob("*.yaml"))


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=[pytest.mark.slow] * (number % 3 > 0)) for number, name in enumerate(RECIPES)]
)
def test_recipes_are_whole_models(recipe: str) -> None:
    """With the defaults of everything else; any option can still be set."""
    config = compose_config(*TINY, f"recipe={recipe}", "model.latent_dim=8", "run_dir=nowhere")
    check(config)
    check_calls(config)
    assert config.model.latent_dim == 8
    torch.manual_seed(0)
    model = instantiate(config.model, _convert_="all")
    terms = model.objective(model, Batch(torch.rand(4, 1, 28, 28), torch.arange(4)))
    assert all(term.shape == (4,) and term.isfinite().all() for term in terms.values())
    assert model.sample(2).shape == (2, 1, 28, 28)


def test_annealing_counts_optimizer_steps_alone(tmp_path: Path) -> None:
    """Neither the batches whose gradients are gathered, nor validation; and a checkpoint keeps the count."""
    config = compose_config(*TINY, "model/objective=annealed", "data.batch_size=16", "data.validation_size=32")
    model, data = (instantiate(config[key], _convert_="all") for key in ("model", "data"))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, accumulate_grad_batches=2, default_root_dir=tmp_path,
        enable_checkpointing=False, **quiet,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 4
    assert model.objective.taken == 4
    trainer.test(model, datamodule=data, verbose=False)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    other: VAE = instantiate(config.model, _convert_="all")
    other.load_state_dict(torch.load(tmp_path / "model.ckpt", weights_only=True)["state_dict"])
    assert isinstance(other.objective, Annealed)
    assert other.objective.taken == 4


def test_binarized_images_are_drawn_anew_for_training_and_once_for_testing() -> None:
    config = compose_config(*TINY, "data.binarize=dynamic", "data.validation_size=20", "data.scale=256")
    data, same, grey = (instantiate(config.data, _convert_="all") for _ in range(3))
    grey.binarize = "none"
    for module in (data, same, grey):
        module.setup()
    (one, _), (other, _), (exact, _) = (module.examples("test", 40) for module in (data, same, grey))
    assert set(one.unique().tolist()) == {0, 1}
    assert torch.equal(one, other)
    # As often one as the grey value says.
    assert one.mean().item() == pytest.approx(exact.mean().item(), abs=4 * 0.5 / one.numel() ** 0.5)
    assert one[exact == 0].max() == 0

    class Training:
        training = True

    data.trainer = Training()
    batch = data.splits["train"]
    first, second = (data.on_after_batch_transfer(batch, 0)[0] for _ in range(2))
    assert set(first.unique().tolist()) == {0, 1}
    assert not torch.equal(first, second)
    mean = torch.stack([data.on_after_batch_transfer(batch, 0)[0] for _ in range(200)]).mean(0)
    assert (mean - batch.images / 256).abs().max() < 5 * 0.5 / 200**0.5
    Training.training = False
    for name in ("val", "test"):
        images, _ = data.on_after_batch_transfer(data.splits[name], 0)
        assert set(images.unique().tolist()) == {0, 1}
    assert torch.equal(data.on_after_batch_transfer(data.splits["test"], 0)[0], one)
