"""Discrete codes: quantisation, codebooks and their priors against independent calculations."""

import math
from copy import deepcopy
from itertools import product

import pytest
import torch
from hydra.utils import instantiate
from shared import TINY, compose_config
from torch import Tensor
from torch.distributions import Independent, Normal

from vae_lightning.data.batch import Batch
from vae_lightning.metrics.codes import Usage
from vae_lightning.objectives import VQ
from vae_lightning.posteriors import (
    CodeSequence,
    FiniteScalarHead,
    VectorQuantisedHead,
    moments,
    point,
    spread,
    symbols,
)
from vae_lightning.priors import AutoregressiveCodes, UniformCodes, fit
from vae_lightning.rates import rate


def vectors(head: VectorQuantisedHead, values: Tensor) -> VectorQuantisedHead:
    head.vectors.copy_(values)
    head.sums.copy_(values)
    return head


@pytest.fixture
def quantised() -> VectorQuantisedHead:
    """Features are the encoder's output: 3 positions of 2 dimensions, 5 vectors."""
    torch.manual_seed(0)
    head = VectorQuantisedHead(6, 6, size=5, code_dim=2, decay=0.9, unused=0.0).double()
    return vectors(head, torch.randn(5, 2).double())


def test_the_nearest_vector_is_chosen(quantised: VectorQuantisedHead) -> None:
    x = torch.randn(4, 6).double()
    posterior = quantised.eval()(x)
    for row, indices, code, commitment in zip(x, posterior.indices, posterior.mean, posterior.commitment, strict=True):
        total = 0.0
        for position in range(3):
            part = row[2 * position : 2 * position + 2]
            distances = [math.dist(part.tolist(), vector.tolist()) for vector in quantised.vectors]
            assert indices[position] == distances.index(min(distances))
            assert code[2 * position : 2 * position + 2].tolist() == pytest.approx(
                quantised.vectors[indices[position]].tolist()
            )
            total += min(distances) ** 2
        assert commitment.item() == pytest.approx(total)
    assert torch.equal(quantised.encode(posterior.mean), posterior.indices)
    assert (spread(posterior) == 0).all()
    assert torch.equal(point(posterior), posterior.mean)
    assert (moments(posterior)[1] == 0).all()
    found = symbols(posterior)
    assert found is not None
    assert found[1] == 5


@pytest.mark.parametrize("kind", ["vq", "fsq"])
def test_gradients_pass_as_if_nothing_were_rounded(quantised: VectorQuantisedHead, kind: str) -> None:
    head = quantised.eval() if kind == "vq" else FiniteScalarHead(6, 6, (4, 5)).double()
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 6).double()
    (gradient,) = torch.autograd.grad((head(x).rsample() * weights).sum(), x)
    if kind == "vq":
        torch.testing.assert_close(gradient, weights)
    else:  # those of the squashing alone

        def squashed(inputs: Tensor) -> Tensor:
            return (head._bounded(inputs.unflatten(-1, (3, 2))) / torch.tensor([2, 2])).flatten(-2)

        (expected,) = torch.autograd.grad((squashed(x) * weights).sum(), x)
        torch.testing.assert_close(gradient, expected)
        assert (gradient != 0).all()


def test_the_codebook_follows_by_moving_averages(quantised: VectorQuantisedHead) -> None:
    x = torch.randn(8, 6).double()
    before, uses, sums = (tensor.clone() for tensor in (quantised.vectors, quantised.uses, quantised.sums))
    posterior = quantised.train()(x)
    outputs = x.view(-1, 2)
    for k in range(5):
        mine = [outputs[i] for i in range(24) if posterior.indices.flatten()[i] == k]
        uses[k] = 0.9 * uses[k] + 0.1 * len(mine)
        sums[k] = 0.9 * sums[k] + 0.1 * sum(mine, torch.zeros(2).double())
        torch.testing.assert_close(quantised.vectors[k], sums[k] / uses[k])
    torch.testing.assert_close(
        posterior.mean.view(-1, 2), before[posterior.indices.flatten()]
    )  # chosen before it moved
    after = quantised.vectors.clone()
    quantised.eval()(x)
    with torch.no_grad():
        quantised.train()(x)
    assert torch.equal(quantised.vectors, after)


def test_mixed_precision_changes_no_code_and_no_codebook() -> None:
    torch.manual_seed(0)
    head = VectorQuantisedHead(8, 8, size=64)
    mixed, x = deepcopy(head), torch.randn(32, 8)
    for _ in range(2):
        posterior = head(x)
        with torch.autocast("cpu", torch.bfloat16):
            found = mixed(x)
            assert torch.equal(mixed.encode(mixed.decode(found.indices)), found.indices)
        assert torch.equal(found.indices, posterior.indices)
        assert torch.equal(mixed.vectors, head.vectors)


def test_unused_vectors_are_moved_to_where_outputs_are() -> None:
    head = VectorQuantisedHead(2, 2, size=3, code_dim=2, decay=0.5, unused=0.3).double()
    vectors(head, torch.tensor([[0.0, 0.0], [50.0, 50.0], [60.0, 60.0]]).double())
    x = torch.tensor([[0.1, 0.0], [4.0, 0.0], [0.0, -9.0], [0.0, 0.2]]).double()
    for _ in range(3):
        head.train()(x)
    indices = head.eval()(x).indices.flatten()
    assert len(indices.unique()) == 3
    assert indices[0] == indices[3]
    for _ in range(30):
        head.train()(x)
    found = sorted(head.vectors.tolist())
    assert found[0] == pytest.approx([0.0, -9.0], abs=1e-3)
    assert found[2] == pytest.approx([4.0, 0.0], abs=1e-3)


@pytest.mark.parametrize("levels", [(3,), (4,), (5, 4), (8, 5, 5), (3, 3, 3, 3)], ids=str)
def test_finite_scalars_have_all_their_values(levels: tuple[int, ...]) -> None:
    head = FiniteScalarHead(len(levels), len(levels), levels)
    assert head.size == math.prod(levels)
    every = head.lookup(torch.arange(head.size))
    assert len(every.unique(dim=0)) == head.size
    assert torch.equal(head.nearest(every), torch.arange(head.size))
    assert every.min() == -1
    torch.manual_seed(0)
    posterior = head(torch.empty(20_000, len(levels)).uniform_(-3, 3))
    assert len(posterior.indices.unique()) == head.size
    torch.testing.assert_close(head.decode(posterior.indices), posterior.mean)
    assert head(torch.zeros(1, len(levels))).mean.abs().max() < 1e-6
    for dimension, values in enumerate(levels):
        assert len(posterior.mean[:, dimension].mul(1000).round().unique()) == values


def everything(head: VectorQuantisedHead) -> Tensor:
    """The codes of all sequences."""
    return head.decode(torch.tensor([*product(range(head.size), repeat=head.positions)]))


def test_probabilities_of_all_sequences_add_up_to_one(quantised: VectorQuantisedHead) -> None:
    torch.manual_seed(0)
    learned = AutoregressiveCodes(3, 5, width=8, layers=1, heads=2).double()
    for prior in (UniformCodes(), learned):
        prior.attach(quantised)
        assert all("codebook" not in name for name, _ in prior.named_parameters())
        log_probabilities = prior.distribution().log_prob(everything(quantised))
        torch.testing.assert_close(prior.distribution().log_prob(everything(quantised)[7]), log_probabilities[7])
        assert log_probabilities.exp().sum().item() == pytest.approx(1)
    assert log_probabilities.std() > 0.01
    posterior = quantised.eval()(torch.randn(4, 6).double())
    uniform = UniformCodes()
    uniform.attach(quantised)
    expected = torch.full((4,), 3 * math.log(5)).double()
    torch.testing.assert_close(rate(posterior, uniform.distribution(), posterior.mean), expected)


def test_an_autoregressive_prior_samples_what_it_says(quantised: VectorQuantisedHead) -> None:
    torch.manual_seed(0)
    prior = AutoregressiveCodes(3, 5, width=8, layers=1, heads=2).double()
    prior.logits.weight.data.mul_(3)
    prior.attach(quantised)
    distribution = prior.distribution()
    drawn = quantised.encode(distribution.sample((20_000,)))
    number = (drawn * torch.tensor([25, 5, 1])).sum(-1).bincount(minlength=125) / len(drawn)
    expected = distribution.log_prob(everything(quantised)).exp()
    assert ((number - expected).abs() < 5 * (expected * (1 - expected) / len(drawn)).sqrt() + 1e-4).all()


def test_a_prior_is_fitted_to_sequences(quantised: VectorQuantisedHead) -> None:
    """Of two sequences that are equally frequent it is nearly sure: the rate falls from 3 log 5 to log 2."""
    torch.manual_seed(0)
    codes = quantised.decode(torch.tensor([[0, 1, 2], [4, 4, 0]]).repeat(50, 1))
    prior = AutoregressiveCodes(3, 5, width=16, layers=1, heads=2).double()
    prior.attach(quantised)
    fit(prior, codes, 150)
    assert -prior.distribution().log_prob(codes).mean().item() == pytest.approx(math.log(2), abs=0.05)


def test_the_use_of_codes(quantised: VectorQuantisedHead) -> None:
    usage = Usage()
    assert usage.metrics == {}
    usage.update(Independent(Normal(torch.zeros(2, 3), torch.ones(2, 3)), 1))
    assert usage.metrics == {}
    for numbers in ([[0, 0, 1], [0, 0, 1]], [[1, 1, 1], [0, 1, 0]]):
        indices = torch.tensor(numbers)
        z = quantised.decode(indices)
        usage.update(CodeSequence(z, indices, quantised, z.new_zeros(2)))
    assert usage.metrics == pytest.approx({"code_perplexity": 2.0, "codes_used": 2.0})


def test_the_loss_of_a_vq_vae() -> None:
    options = ["model/posterior=vq", "model/prior=uniform_codes", "model/objective=vq", "model.objective.beta=2.5"]
    torch.manual_seed(0)
    model = instantiate(compose_config(*TINY, *options, "model.latent_dim=8").model, _convert_="all").eval()
    images = torch.rand(3, 1, 28, 28)
    terms = model.objective(model, Batch(images))
    assert isinstance(model.objective, VQ)
    posterior = model.encode(images)
    output = model.encoder.head.project(model.encoder.trunk(images).flatten(1))
    commitment = (output - posterior.mean).square().sum(1)
    torch.testing.assert_close(terms["commitment"], commitment)
    expected = -model.decode(posterior.mean).log_prob(images) + 2 * math.log(256) + 2.5 * commitment
    torch.testing.assert_close(terms["loss"], expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VectorQuantisedHead(6, 5, code_dim=2), "latent_dim must be a multiple"),
        (lambda: VectorQuantisedHead(6, 6, code_dim=2, decay=1.0), "decay, unused: must be"),
        (lambda: FiniteScalarHead(6, 6, (5, 2)), "levels: must be numbers of at least 3"),
        (lambda: FiniteScalarHead(6, 6, (5, 5, 5, 5)), "levels: must be"),
        (lambda: UniformCodes().attach(torch.nn.Linear(2, 2)), "is a density on the vectors of a codebook"),
    ],
)
def test_options_that_cannot_be(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
