"""Who may import whom, and what is imported when."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vae_lightning"
MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in PACKAGE.rglob("*.py")}

PLAIN = {"architectures", "likelihoods", "objectives", "parts", "priors", "data", "evaluation", "plots"}
ALLOWED = {
    "vae": {"capture", "objectives", "parts", "priors"},
    "parts": set(),
    "processes": {"runs"},
    "callbacks": {"plots", "evaluation", "parts", "runs", "vae"},
    "report": {"plots", "evaluation", "runs", "report"},
    "capture": set(),
    "checkpoints": {"callbacks", "errors", "runs"},
    "measurements": {"callbacks", "evaluation", "vae"},
    "resuming": {"errors", "runs"},
    "runs": set(),
    "errors": set(),
    "loading": {"errors", "runs"},
    "generate": {"errors", "loading", "runs", "image_files", "data", "evaluation", "plots"},
    "image_files": {"errors", "plots"},
    "__init__": {"loading"},
    "schema": {"errors", "runs"},
    "train": {
        "errors",
        "runs",
        "schema",
        "report",
        "callbacks",
        "checkpoints",
        "parts",
        "processes",
        "resuming",
        "vae",
    },
}
HYDRA = {"schema", "train", "resuming", "runs", "report", "errors", "loading"}


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
            found |= {f"project:{name[0]}" for name in names}
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports(module: str) -> None:
    part = module.split("/")[0]
    found = imports(MODULES[module])
    project = {name.removeprefix("project:") for name in found if name.startswith("project:")}
    assert project <= ALLOWED.get(part, PLAIN if part in PLAIN else set()) | {part}
    assert part in HYDRA or not {"hydra", "omegaconf"} & found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_says_what_it_is_for_and_what_it_offers(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    assert ast.get_docstring(tree)
    if not module.endswith("__init__"):
        assert any(getattr(getattr(node, "targets", [None])[0], "id", "") == "__all__" for node in tree.body)


def test_the_commands_start_without_torch() -> None:
    modules = "vae_lightning.cli, vae_lightning.generate, vae_lightning.report.__main__"
    program = f"import sys, {modules}; print([m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"
