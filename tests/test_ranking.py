"""Runs that differ in the seed alone, ranked by what their codes have in common."""

import copy

import pytest
import torch
from shared import Swept

from vae_lightning import disentanglement_ranking, load_run
from vae_lightning.errors import UsageError


def test_a_run_is_ranked_by_how_far_others_find_its_dimensions(swept: Swept) -> None:
    runs = sorted(swept.folder.glob("latent_dim-3_*"))
    assert len(runs) == 2
    scores = disentanglement_ranking(runs, images=40)
    assert list(scores) == [run.name for run in runs]
    assert all(0 <= score <= 1 for score in scores.values())
    # The same model with its dimensions in another order and one of them mirrored is as like as can be.
    one = load_run(runs[0])
    other = copy.deepcopy(one)
    encode = other.model.encode
    turned = torch.tensor([2, 0, 1])

    def in_another_order(*batch: torch.Tensor) -> torch.distributions.Independent:
        found = encode(*batch).base_dist
        means = found.loc[:, turned] * torch.tensor([1, -1, 1])
        return torch.distributions.Independent(torch.distributions.Normal(means, found.scale[:, turned]), 1)

    other.model.encode = in_another_order  # type: ignore[method-assign]
    alike = disentanglement_ranking([one, other, load_run(runs[1])], images=40)
    assert max(alike.values()) > max(scores.values())


def test_runs_that_cannot_be_ranked(swept: Swept) -> None:
    run = next(swept.folder.glob("latent_dim-3_*"))
    with pytest.raises(UsageError, match="runs: must be two or more of equal image shape, got 1 of 1 shapes"):
        disentanglement_ranking([run])
