"""Who may import whom, and what is imported when."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import MUTANTS

PACKAGE = Path(__file__).parents[1] / "vae_lightning"
MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in PACKAGE.rglob("*.py")}

# Rooms from the ground up: each may import those that are named, all of them above it. So there is no cycle.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "plots": set(),
    "progress": set(),
    "engine": {"errors"},
    "latent_spaces": {"errors"},
    "precision": set(),
    "distributions": {"precision"},
    "likelihoods": {"distributions", "engine"},
    "rates": set(),
    "posteriors": {"distributions", "engine", "latent_spaces", "precision", "rates"},
    "priors": {"distributions", "latent_spaces", "posteriors"},
    "conditioning": set(),
    "architectures": {"conditioning", "posteriors"},
    "data": {"engine", "errors"},
    "objectives": {"conditioning", "data", "engine", "posteriors", "precision", "rates"},
    "vae": {"conditioning", "data", "engine", "likelihoods", "objectives", "posteriors", "priors"},
    "metrics": {"data", "objectives", "posteriors", "rates"},
    "measuring": {"data", "metrics", "posteriors", "progress", "vae"},
    "runs": {"errors"},
    "config": {"errors", "runs"},
    "report": {"errors", "plots", "runs"},
    "generate": {
        "conditioning",
        "data",
        "engine",
        "errors",
        "metrics",
        "latent_spaces",
        "objectives",
        "plots",
        "posteriors",
        "priors",
        "runs",
    },
    "loggers": {"errors", "runs"},
    "console": set(),
    "callbacks": {
        "conditioning",
        "data",
        "engine",
        "errors",
        "metrics",
        "latent_spaces",
        "loggers",
        "measuring",
        "plots",
        "posteriors",
        "progress",
        "runs",
        "vae",
    },
    "contracts": {"data", "errors", "likelihoods", "vae"},
    "building": {"callbacks", "config", "contracts", "data", "engine", "errors", "loggers", "runs", "vae"},
    "training": {"building", "callbacks", "config", "console", "data", "engine", "errors", "loggers", "runs", "vae"},
    "again": {"config", "errors", "runs", "training"},
    "evaluating": {
        "callbacks",
        "conditioning",
        "config",
        "console",
        "data",
        "engine",
        "errors",
        "metrics",
        "progress",
        "report",
        "runs",
        "vae",
    },
    "cli": {"config", "engine", "errors", "again", "report", "runs", "training"},
    "__init__": {"config", "evaluating", "report", "runs", "training"},
}
HYDRA = {"cli", "config", "runs"}
OMEGACONF = {*HYDRA, "building", "evaluating", "again", "training"}  # which are handed a configuration
ENGINE_FOR_ALL = {"shards", "lightning_internals"}  # modules of the engine that any room may import
PUBLIC = {"_exit", "_fields", "_replace", "_target_", "_validate_args"}  # documented names, and one of PyTorch
ENGINE = {"callbacks": {"signals"}, "generate": {"devices"}}  # and more of them, by room


def imports(path: Path) -> set[str]:
    """What a module imports at run time: its parts of this package by name, and other packages."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1].relative_to(PACKAGE).parts
            names = [(*base, *node.module.split("."))] if node.module else [(*base, alias.name) for alias in node.names]
            found |= {f"project:{'.'.join(name[:2])}" for name in names}
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports(module: str) -> None:
    room = module.split("/")[0]
    found = imports(MODULES[module])
    project = {name.removeprefix("project:") for name in found if name.startswith("project:")}
    assert {name.split(".")[0] for name in project} <= ALLOWED[room] | {room}
    if room not in ("engine", "building", "training", "evaluating", "cli"):
        engine = {name.split(".")[1] for name in project if name.startswith("engine")}
        assert engine <= ENGINE_FOR_ALL | ENGINE.get(room, set())
    assert room in HYDRA or "hydra" not in found
    assert room in OMEGACONF or "omegaconf" not in found


def test_there_is_no_cycle() -> None:
    order = list(ALLOWED)
    assert all(order.index(other) < order.index(room) for room in order for other in ALLOWED[room])
    assert set(order) == {module.split("/")[0] for module in MODULES}


def test_the_model_knows_nothing_of_how_it_is_executed() -> None:
    text = MODULES["vae"].read_text()
    assert len(text.splitlines()) <= 160
    machinery = "cuda|graph|rng|seed|world_size|rank|global_step|steps_per_call|autocast|memory_format|isinstance"
    assert re.findall(machinery, text) == []


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"engine/lightning_internals"}))
def test_private_attributes_of_lightning_are_used_in_one_file(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr) and node.attr not in PUBLIC:
            assert ast.unparse(node.value) in ("self", "cls", "func"), ast.unparse(node)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_type_of_distribution_is_asked_for_where_any_will_do(module: str) -> None:
    if module.split("/")[0] in ("callbacks", "metrics", "measuring", "report", "generate"):
        named = re.findall(r"^from torch\.distributions import (.*)$", MODULES[module].read_text(), re.MULTILINE)
        assert set(named) <= {"Distribution"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_says_what_it_is_for_and_what_it_offers(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    assert ast.get_docstring(tree)
    if not module.endswith("__init__"):
        assert any(getattr(getattr(node, "targets", [None])[0], "id", "") == "__all__" for node in tree.body)


def test_the_commands_start_without_torch() -> None:
    modules = "vae_lightning.cli, vae_lightning.evaluating, vae_lightning.generate, vae_lightning.report.__main__"
    program = f"import sys, {modules}; print([m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant[0]}: {mutant[1].strip()[:40]}")
def test_mutants_are_of_the_code_as_it_is(mutant: tuple[str, ...]) -> None:
    file, old, new, tests, _ = mutant
    assert (PACKAGE / file).read_text().count(old) == 1
    assert old != new
    assert Path(__file__).with_name(tests).is_file()
