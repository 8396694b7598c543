"""Runs of someone else: what could run code is refused before anything is made."""

import json
import os
import pickle
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from omegaconf import OmegaConf
from shared import Swept, run_command

from vae_lightning import LoadError, load_run

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def foreign(swept: Swept, tmp_path: Path) -> Path:
    """A run that its test may spoil."""
    return Path(shutil.copytree(swept.folder / "latent_dim-2_seed-0", tmp_path / "foreign"))


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return Path(self.path).touch, ()


def refused(run: Path, message: str, trust: tuple[str, ...] = ()) -> None:
    with pytest.raises(LoadError, match=message) as caught:
        load_run(run, trust=trust)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "builtins.eval", "subprocess.Popen", "pathlib.Path.touch", "torch.hub.load", "torch.load", "eval",
        "torch.optim.adam.torch.hub.load", "torch.nn.modules.module.torch.load", "vae_lightning.training.os.system",
        "vae_lightning.runs.write_json", "vae_lightning.data.sources.gzip.open", "torch.nn.init.normal_", "",
        "torch.nn.functional.relu", "vae_lightning.nothing.There", "torchvision.models.resnet18", 3, None, ["os"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["model", "encoder", "optimizer"])
def test_hostile_targets_are_refused_before_anything_is_made(
    foreign: Path, place: str, target: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vae_lightning.runs.loading.instantiate", lambda *_, **__: pytest.fail("something was made"))
    config = OmegaConf.to_container(OmegaConf.load(foreign / "config.yaml"))
    node = config["model"] if place == "model" else config["model"][place]
    node["_target_"] = target
    OmegaConf.save(config, foreign / "config.yaml")
    refused(foreign, "_target_=")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("_args_", ["echo"], "_args_ is not allowed"),
        ("_recursive_", False, "_recursive_ is not allowed"),
        ("width", "${oc.env:HOME}", "interpolations are not allowed"),
        ("width", "${run_name:a,b}", "interpolations are not allowed"),
        ("nested", [{"_target_": "os.system"}], "_target_=os.system: only classes of this package"),
        ("width", -3, "model: "),
        ("no_such_option", 1, "model: "),
    ],
)
def test_hostile_options(foreign: Path, key: str, value: object, message: str) -> None:
    config = OmegaConf.to_container(OmegaConf.load(foreign / "config.yaml"))
    config["model"]["encoder"][key] = value
    (foreign / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    refused(foreign, message)


def test_a_model_of_very_many_layers_takes_no_time(foreign: Path) -> None:
    config = OmegaConf.to_container(OmegaConf.load(foreign / "config.yaml"))
    encoder = {"_target_": "vae_lightning.architectures.resnet.ResNetEncoder", "width": 1, "blocks": 10**9}
    config["model"]["encoder"].pop("stages", None)
    config["model"]["encoder"].update(encoder)
    (foreign / "config.yaml").write_text(json.dumps(config))
    started = time.perf_counter()
    refused(foreign, "more than 10,000 modules")
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize(("place", "key"), [("model", "latent_dim"), ("encoder", "width"), ("decoder", "width")])
def test_a_model_that_is_much_larger_than_its_checkpoint_takes_no_memory(foreign: Path, place: str, key: str) -> None:
    config = OmegaConf.to_container(OmegaConf.load(foreign / "config.yaml"))
    for node in (config["model"], config["model"]["encoder"], config["model"]["decoder"]):
        if key in node and (key == "latent_dim" or node is config["model"].get(place)):
            node[key] = 10**8 if key == "latent_dim" else 10**5
    (foreign / "config.yaml").write_text(json.dumps(config))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(foreign, r"describes a model of [\d,]{9,} numbers, and the checkpoint has")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_tags_in_a_configuration_run_nothing(foreign: Path, tmp_path: Path) -> None:
    text = f"model: !!python/object/apply:os.system ['touch {tmp_path / 'ran'}']\ndata: {{}}\n"
    (foreign / "config.yaml").write_text(text)
    refused(foreign, "config.yaml is damaged")
    assert not (tmp_path / "ran").exists()


def test_data_are_not_taken_from_hostile_targets(foreign: Path) -> None:
    config = OmegaConf.load(foreign / "config.yaml")
    config.data.source = {"_target_": "os.system", "command": "true"}
    OmegaConf.save(config, foreign / "config.yaml")
    run = load_run(foreign)
    with pytest.raises(LoadError, match=r"data\.source\._target_=os\.system"):
        run.test_images(1)


def test_hostile_checkpoints_run_nothing(foreign: Path, tmp_path: Path) -> None:
    checkpoint, ran = foreign / "checkpoints" / "last.ckpt", tmp_path / "ran"
    torch.save({"state_dict": {}, "payload": Payload(ran)}, checkpoint)
    refused(foreign, "cannot be read as a checkpoint of tensors")
    checkpoint.write_bytes(pickle.dumps(Payload(ran)))
    refused(foreign, "cannot be read as a checkpoint of tensors")
    assert not ran.exists()
    pickle.loads(pickle.dumps(Payload(ran)))
    assert ran.exists()  # so it would have


def test_damaged_runs(foreign: Path, swept: Swept) -> None:
    checkpoint = foreign / "checkpoints" / "last.ckpt"
    whole = checkpoint.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"PK\x03\x04 and more"):
        checkpoint.write_bytes(content)
        refused(foreign, "cannot be read as a checkpoint of tensors")
    shutil.copy(swept.folder / "latent_dim-3_seed-0" / "checkpoints" / "last.ckpt", checkpoint)
    refused(foreign, "does not fit the model that config.yaml describes")
    torch.save({"no": "state"}, checkpoint)
    refused(foreign, "cannot be read as a checkpoint of tensors")
    checkpoint.unlink()
    refused(foreign, "has no checkpoint")
    metrics = (foreign / "metrics.json").read_text()
    (foreign / "metrics.json").write_text("{")
    refused(foreign, "metrics.json is damaged")
    (foreign / "metrics.json").unlink()
    refused(foreign, "is not a finished run: not finished")
    (foreign / "metrics.json").write_text(metrics)
    (foreign / "config.yaml").write_text("- a list")
    refused(foreign, "config.yaml is damaged")
    (foreign / "config.yaml").write_text("data: {}")
    refused(foreign, "has no model")


def test_an_architecture_from_elsewhere_needs_trust(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from vae_lightning.architectures.conv import ConvEncoder\nclass Mine(ConvEncoder):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    config = OmegaConf.load(foreign / "config.yaml")
    config.model.encoder["_target_"] = "mine.Mine"
    OmegaConf.save(config, foreign / "config.yaml")
    refused(foreign, "_target_=mine.Mine: only classes .*; if you trust it, add --trust mine")
    assert load_run(foreign, trust=["mine"]).model.sample(2).shape == (2, 1, 28, 28)
    arguments = ["export", "foreign", "-o", "mine.pt"]
    refusal = run_command("vae_lightning.generate", *arguments, cwd=tmp_path, PYTHONPATH=path)
    assert refusal.returncode == 2
    assert "if you trust it, add --trust mine" in refusal.stderr
    done = run_command("vae_lightning.generate", *arguments, "--trust", "mine", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine.pt").stat().st_size > 0


def test_all_untrusted_modules_are_named_and_none_is_imported(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = OmegaConf.load(foreign / "config.yaml")
    for module, base in [("mine_a", "objective"), ("mine_b", "encoder"), ("mine_c", "decoder")]:
        package, _, name = config.model[base]["_target_"].rpartition(".")
        Path(f"{module}.py").write_text(
            f"from pathlib import Path\nPath('ran').touch()\nfrom {package} import {name}\n"
        )
        config.model[base]["_target_"] = f"{module}.{name}"
    OmegaConf.save(config, foreign / "config.yaml")
    python = r", or trust=\['mine_a', 'mine_b', 'mine_c'\] in Python"
    refused(foreign, f"if you trust mine_a, mine_b, mine_c, add --trust mine_a,mine_b,mine_c{python}")
    refused(foreign, "if you trust it, add --trust mine_c, or", trust=("mine_a,mine_b,",))
    assert not Path("ran").exists()
    for trust in ["mine_a, mine_b", "mine_c"], "mine_a,mine_b,mine_c":
        assert load_run(foreign, trust=trust).model.sample(2).shape == (2, 1, 28, 28)


@pytest.mark.parametrize("trust", ["", ",", " , "])
def test_nothing_is_trusted_by_an_empty_name(foreign: Path, trust: str) -> None:
    config = OmegaConf.load(foreign / "config.yaml")
    config.model.encoder["_target_"] = "eval"
    OmegaConf.save(config, foreign / "config.yaml")
    refused(foreign, "_target_=eval: only classes of this package and PyTorch are loaded$", trust=(trust,))


def test_a_trusted_module_that_cannot_be_imported(foreign: Path, generate: Command) -> None:
    config = OmegaConf.load(foreign / "config.yaml")
    config.model.encoder["_target_"] = "dense_nowhere.Dense"
    OmegaConf.save(config, foreign / "config.yaml")
    done = generate("sample", foreign, "--trust", "dense_nowhere")
    assert done.returncode == 2
    assert "PYTHONPATH" in done.stderr
    assert len(done.stderr.splitlines()) == 1
