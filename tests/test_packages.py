"""The pinned packages: everything that `pyproject.toml` asks for, each with the digests of its files."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PINNED = ROOT.joinpath("constraints.txt").read_text().replace("\\\n", " ").splitlines()
PROJECT = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())["project"]


def pinned() -> dict[str, Requirement]:
    lines = [line.split(" --hash")[0].strip() for line in PINNED if not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


def test_every_package_has_digests() -> None:
    lines = [line for line in PINNED if not line.startswith("#")]
    assert len(lines) > 100
    assert [line for line in lines if not re.search(r"==\S+ .*--hash=sha256:[0-9a-f]{64}( |$)", line)] == []


@pytest.mark.parametrize("extra", ["", "parallel", "slurm", "search", "export", "h5", "huggingface", "dev"])
def test_what_the_project_asks_for_is_pinned(extra: str) -> None:
    asked = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    for requirement in map(Requirement, asked):
        if requirement.name != PROJECT["name"]:
            (version,) = pinned()[canonicalize_name(requirement.name)].specifier
            assert requirement.specifier.contains(version.version), requirement
