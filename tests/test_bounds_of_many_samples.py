"""MIWAE, PIWAE, CIWAE and DReG against their formulas, in float64."""

import math

import pytest
import torch
from small_models import PIXELS, D, LinearGaussian, SmallModel, small_images, small_model
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from vae_lightning.data.batch import Batch
from vae_lightning.objectives import CIWAE, IWAE, MIWAE, PIWAE, DReG, Objective, Terms


@pytest.fixture
def model() -> SmallModel:
    return small_model()


@pytest.fixture
def images() -> Tensor:
    return small_images()


def terms_of(objective: Objective, model: SmallModel, images: Tensor) -> Terms:
    torch.manual_seed(3)
    objective.check(model)
    return objective(model, Batch(images))


def weights_of(model: SmallModel, images: Tensor, samples: int) -> Tensor:
    """Importance weights `(samples, B)`, calculated from probabilities."""
    torch.manual_seed(3)
    posterior, prior = model.encode(images), model.prior.distribution()
    z = posterior.rsample((samples,))
    pixels = model.decoder(z).sigmoid().view(samples, *images.shape)
    likelihood = (pixels**images * (1 - pixels) ** (1 - images)).prod(-1).prod(-1).prod(-1)
    return likelihood * prior.log_prob(z).exp() / posterior.log_prob(z).exp()


def gradients(term: Tensor, model: SmallModel, *names: str) -> list[Tensor]:
    parameters = dict(model.named_parameters())
    return list(torch.autograd.grad(term.sum(), [parameters[name] for name in names], retain_graph=True))


ENCODER = ("head.mean.weight", "head.log_variance.bias")
DECODER = ("decoder.weight", "decoder.bias")


def test_miwae_is_the_mean_of_bounds(model: SmallModel, images: Tensor) -> None:
    weights = weights_of(model, images, 6)
    expected = -(weights[:3].mean(0).log() + weights[3:].mean(0).log()) / 2
    terms = terms_of(MIWAE(bounds=2, samples=3), model, images)
    torch.testing.assert_close(terms["loss"], expected)
    torch.testing.assert_close(terms["distortion"] + terms["rate"], -weights.log().mean(0))
    torch.testing.assert_close(terms_of(MIWAE(1, 6), model, images)["loss"], -weights.mean(0).log())


def test_ciwae_lies_between_the_elbo_and_iwae(model: SmallModel, images: Tensor) -> None:
    weights = weights_of(model, images, 5)
    elbo, iwae = weights.log().mean(0), weights.mean(0).log()
    torch.testing.assert_close(terms_of(CIWAE(0.3, 5), model, images)["loss"], -(0.3 * elbo + 0.7 * iwae))


def test_piwae_is_iwae_for_the_decoder_and_miwae_for_the_encoder(model: SmallModel, images: Tensor) -> None:
    objective = PIWAE(bounds=2, samples=3)
    terms = terms_of(objective, model, images)
    iwae, miwae = terms_of(IWAE(6), model, images)["loss"], terms_of(MIWAE(2, 3), model, images)["loss"]
    torch.testing.assert_close(terms["loss"], iwae)
    assert {name: player.module for name, player in objective.players().items()} == {"encoder_loss": model.head}
    assert list(objective.parameters()) == []
    ours, theirs = gradients(terms["loss"], model, *DECODER), gradients(iwae, model, *DECODER)
    ours += gradients(terms["encoder_loss"], model, *ENCODER)
    theirs += gradients(miwae, model, *ENCODER)
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(theirs[2], gradients(iwae, model, *ENCODER)[0], rtol=1e-3)


def test_dreg_is_the_formula(model: SmallModel, images: Tensor) -> None:
    """With the derivatives of a Bernoulli likelihood, a standard prior and a normal posterior by hand."""
    terms = terms_of(DReG(5), model, images)
    torch.testing.assert_close(terms["loss"], -weights_of(model, images, 5).mean(0).log())
    torch.testing.assert_close(terms["rate"], terms_of(IWAE(5), model, images)["rate"])
    with torch.no_grad():
        weights = weights_of(model, images, 5)
        normalised = (weights / weights.sum(0)).unsqueeze(-1)
        torch.manual_seed(3)
        posterior = model.encode(images)
        z = posterior.rsample((5,))
        residual = images.flatten(1) - model.decoder(z).sigmoid()
        of_z = residual @ model.decoder.weight - z + (z - posterior.mean) / posterior.variance
        of_mean = -(normalised**2 * of_z).sum(0)
        of_log_variance = -(normalised**2 * of_z * (z - posterior.mean) / 2).sum(0)
        expected = [of_mean.T @ images.flatten(1), of_log_variance.sum(0), -(normalised * residual).sum((0, 1))]
    found = gradients(terms["loss"], model, *ENCODER, "decoder.bias")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        gradients(terms["loss"], model, *DECODER),
        gradients(terms_of(IWAE(5), model, images)["loss"], model, *DECODER),
    )


def test_dreg_where_samples_meet_in_batch_norm(model: SmallModel, images: Tensor) -> None:
    """Each log w_k is weighted by its own w̃_k², whichever codes it depends on: every derivative by itself."""
    norm = nn.BatchNorm1d(PIXELS).double()
    linear, model.decoder = model.decoder, nn.Sequential(Rows(), model.decoder, norm)  # type: ignore[assignment]
    terms = terms_of(DReG(3), model, images)
    torch.manual_seed(3)
    z = model.encode(images).rsample((3,))
    posterior = model.encode(images)
    fixed = Normal(posterior.mean.detach(), posterior.stddev.detach())

    def log_weights(code: Tensor) -> Tensor:
        logits = functional.batch_norm(linear(code).flatten(0, 1), None, None, norm.weight, norm.bias, training=True)
        pixels = logits.view(*code.shape[:-1], PIXELS)
        found = -functional.binary_cross_entropy_with_logits(
            pixels, images.flatten(1).expand_as(pixels), reduction="none"
        )
        return found.sum(-1) + Normal(0.0, 1.0).log_prob(code).sum(-1) - fixed.log_prob(code).sum(-1)

    found = log_weights(z.detach())
    torch.testing.assert_close(terms["loss"], math.log(3) - found.logsumexp(0))
    derivatives = torch.autograd.functional.jacobian(log_weights, z.detach())  # (K, B, K, B, D)
    of_codes = -torch.einsum("kb,kbjcd->jcd", found.softmax(0) ** 2, derivatives)
    expected = torch.autograd.grad((of_codes * z).sum(), [model.head.mean.weight, model.head.log_variance.bias])
    torch.testing.assert_close(gradients(terms["loss"], model, *ENCODER), list(expected))


class Rows(nn.Module):
    """Codes `(…, D)` as the rows that batch norm takes."""

    def forward(self, z: Tensor) -> Tensor:
        return z.flatten(0, -2)


def of_shift(objective: Objective, images: Tensor, value: float) -> Tensor:
    """Gradients `(B, D)` with respect to a shift of the posterior mean from the exact one, for each image."""
    model = LinearGaussian(exact=True)
    shift = torch.full((len(images), D), value, dtype=torch.float64, requires_grad=True)
    model.shift = shift  # type: ignore[assignment]
    torch.manual_seed(0)
    (found,) = torch.autograd.grad(objective(model, Batch(images))["loss"].sum(), shift)
    return found


def test_dreg_vanishes_at_the_exact_posterior(images: Tensor) -> None:
    assert of_shift(DReG(4), images, 0.0).abs().max() < 1e-6
    assert of_shift(IWAE(4), images, 0.0).abs().max() > 0.1


def test_dreg_is_unbiased_with_less_variance(images: Tensor) -> None:
    many = images[:1].repeat(20_000, 1, 1, 1)
    dreg, iwae = (of_shift(objective, many, 0.2) for objective in (DReG(4), IWAE(4)))
    error = ((dreg.var(0) + iwae.var(0)) / len(many)).sqrt()
    assert ((dreg.mean(0) - iwae.mean(0)).abs() < 4 * error).all()
    assert (dreg.mean(0).abs() > 10 * error).any()
    assert (dreg.var(0) < 0.5 * iwae.var(0)).all()


def test_a_posterior_that_cannot_be_stopped_is_refused(model: SmallModel, images: Tensor) -> None:
    from torch.distributions import Laplace

    class Other(SmallModel):
        def encode(self, x: Tensor, labels: Tensor | None = None) -> Laplace:
            return Laplace(self.head.mean(x.flatten(1)), 1.0)

    with pytest.raises(ValueError, match="posterior: the parameters of Laplace .* register posteriors.stopped"):
        DReG(2)(Other().double(), Batch(images))
