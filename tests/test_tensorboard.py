"""A sweep in a real TensorBoard server on loopback, asked over HTTP."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
import torch
from shared import TINY, run_command

from vae_lightning.callbacks.tensorboard_views import SPRITE, _sprites
from vae_lightning.data.sizes import shrunk

Ask = Callable[..., bytes]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Requests to a server on a sweep over two latent dimensions."""
    folder = tmp_path_factory.mktemp("tensorboard")
    done = run_command(
        "vae_lightning.cli", *TINY, "--multirun", "model.latent_dim=1,3", "hydra.sweep.dir=sweep", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen([*command, "--logdir", str(folder / "sweep")], stderr=subprocess.DEVNULL)

    def request(path: str, body: dict | None = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/data/{path}", data, headers)
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.read()

    def loaded() -> bool:
        try:
            return len(json.loads(request("plugin/scalars/tags"))) >= 2
        except OSError:
            return False

    deadline = time.monotonic() + 60
    while not loaded():
        assert time.monotonic() < deadline, "TensorBoard has not loaded the sweep"
        time.sleep(0.5)
    yield request
    server.terminate()
    server.wait(10)


@pytest.mark.slow
def test_terms_of_all_runs_are_one_chart_each(ask: Ask) -> None:
    layout = json.loads(ask("plugin/custom_scalars/layout"))
    (category,) = layout["category"]
    assert [chart["title"] for chart in category["chart"]] == ["loss", "distortion", "rate"]
    tags = json.loads(ask("plugin/scalars/tags"))
    for run in ("latent_dim-1/tensorboard", "latent_dim-3/tensorboard"):
        assert {"train/loss", "train/distortion", "train/rate", "test/elbo", "test/knn_accuracy"} <= set(tags[run])
        chart = category["chart"][0]["multiline"]["tag"][0].replace("^", "%5E").replace("/", "%2F")
        answer = json.loads(ask(f"plugin/custom_scalars/scalars?run={run.replace('/', '%2F')}&tag={chart}"))
        assert answer["regex_valid"]
        assert len(answer["tag_to_events"]["train/loss"]) == 6


@pytest.mark.slow
def test_the_projector_has_codes_classes_and_images(ask: Ask) -> None:
    runs = json.loads(ask("plugin/projector/runs"))
    assert len(runs) == 2
    for run in runs:
        quoted = run.replace("/", "%2F")
        (embedding,) = json.loads(ask(f"plugin/projector/info?run={quoted}"))["embeddings"]
        assert embedding["tensorShape"] == [40, 3]
        name = embedding["tensorName"].replace(":", "%3A").replace(" ", "%20")
        assert len(ask(f"plugin/projector/tensor?run={quoted}&name={name}&num_rows=40")) == 4 * 40 * 3
        classes = ask(f"plugin/projector/metadata?run={quoted}&name={name}").decode().split()
        assert len(classes) == 40
        assert set(classes) <= {"o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"}
        assert ask(f"plugin/projector/sprite_image?run={quoted}&name={name}").startswith(b"\x89PNG")


@pytest.mark.slow
def test_hyperparameters_are_what_was_swept(ask: Ask) -> None:
    experiment = json.loads(ask("plugin/hparams/experiment", {"experimentName": ""}))
    assert [info["name"] for info in experiment["hparamInfos"]] == ["latent_dim"]
    metrics = {info["name"]["tag"] for info in experiment["metricInfos"]}
    assert {"test/elbo", "test/rate", "test/iw_bound", "test/frechet_samples"} <= metrics


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 48, 32), (3, 32, 48), (1, 128, 128)], ids=str)
def test_sprites_are_square_and_in_colour(shape: tuple[int, ...]) -> None:
    images = torch.rand(5, *shape)
    side, found = max(shrunk(images, SPRITE).shape[-2:]), _sprites(images)
    assert found.shape == (5, 3, side, side)
    expected = shrunk(images, SPRITE).expand(-1, 3, -1, -1).sum().item()
    assert found.sum().item() == pytest.approx(expected, rel=1e-5)
