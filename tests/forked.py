"""A command in a process that is forked from one which has imported everything; see `conftest.run_command`."""

import gc
import os
import runpy
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

import vae_lightning.report.page
import vae_lightning.report.picture
import vae_lightning.training  # noqa: F401

__all__ = ["run"]

gc.freeze()  # nothing that is imported by now is looked through again in the processes that are forked


def run(
    module: str, arguments: Sequence[str], folder: str, environment: Mapping[str, str], stdout: str, stderr: str
) -> None:
    """Does what `python -m module` does, with its output in files."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, file in ((1, stdout), (2, stderr)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    # What multiprocessing has left, and a new interpreter would not have.
    sys.stdin = open(os.devnull)  # noqa: SIM115
    sys.stdout, sys.stderr = (open(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))  # noqa: SIM115
    paths = [os.path.abspath(path) for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]  # noqa: PTH100
    sys.path[:0] = [folder, *paths]
    found = find_spec(module)
    sys.argv = [str(found and found.origin), *arguments]
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
