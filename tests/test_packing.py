"""Archives of runs: the same files come out, and nothing else does whoever made them."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from shared import Swept, call

from vae_lightning import load_run
from vae_lightning.errors import UsageError
from vae_lightning.runs import Run, claimed, sweep_runs
from vae_lightning.runs.__main__ import main
from vae_lightning.runs.packing import pack, unpack


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def archive(file: Path, members: dict[str, bytes | tarfile.TarInfo], digests: dict[str, str] | None = None) -> Path:
    """An archive made by hand, with the right digests unless others are given."""
    right = {name: hashlib.sha256(found).hexdigest() for name, found in members.items() if isinstance(found, bytes)}
    listed = json.dumps(right if digests is None else digests).encode()
    with tarfile.open(file, "w:gz") as packed:
        for name, found in {"digests.json": listed, **members}.items():
            if isinstance(found, tarfile.TarInfo):
                packed.addfile(found)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(found)
            packed.addfile(info, io.BytesIO(found))
    return file


def test_runs_come_out_as_they_went_in(swept: Swept, tmp_path: Path) -> None:
    runs = sweep_runs(swept.folder)[:2]
    file = pack(runs, tmp_path / "runs.tar.gz")
    found = unpack(file, tmp_path / "there")
    assert [run.folder for run in found] == [tmp_path / "there" / run.name for run in runs]
    for before, after in zip(runs, found, strict=True):
        assert content(after.folder) == content(before.folder)
        assert load_run(after.folder).metrics == before.metrics
    assert [path.name for path in (tmp_path / "there").glob(".*")] == []
    again = pack([Run(run.folder) for run in found], tmp_path / "again.tar.gz")
    with tarfile.open(file) as one, tarfile.open(again) as other:
        assert [(m.name, m.size, m.mtime, m.uid) for m in one] == [(m.name, m.size, m.mtime, m.uid) for m in other]
    with pytest.raises(UsageError, match="is there already"):
        unpack(file, tmp_path / "there")
    with pytest.raises(UsageError, match="exists already"):
        pack(runs, file)
    failed = tmp_path / "failed" / "early"
    for name in (".hydra/config.yaml", ".hydra/hydra.yaml", "train.log"):
        (failed / name).parent.mkdir(parents=True, exist_ok=True)
        (failed / name).write_text(name)
    early = unpack(pack([Run(failed)], tmp_path / "early.tar.gz"), tmp_path / "early")
    assert content(early[0].folder) == content(failed)
    (failed / "checkpoints").symlink_to(runs[0].folder / "checkpoints")
    with pytest.raises(UsageError, match="early/checkpoints: is a link, which an archive does not follow"):
        pack([Run(failed)], tmp_path / "linked.tar.gz")
    with claimed(found[0]), pytest.raises(UsageError, match="is being trained"):
        pack(found, tmp_path / "third.tar.gz")


CONFIG = {"run/config.yaml": b"seed: 0\n"}


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("members", "digests", "message"),
    [
        ({**CONFIG, "../out": b"x"}, None, "not a plain file below"),
        ({**CONFIG, "run/../../out": b"x"}, None, "not a plain file below"),
        ({**CONFIG, "/tmp/out-of-an-archive": b"x"}, None, "not a plain file below"),
        ({**CONFIG, "run/l": link("run/l", tarfile.SYMTYPE, "/etc")}, None, "not a plain file below"),
        ({**CONFIG, "run/l": link("run/l", tarfile.LNKTYPE, "run/config.yaml")}, None, "not a plain file below"),
        ({**CONFIG, "run/p": link("run/p", tarfile.FIFOTYPE, "")}, None, "not a plain file below"),
        ({**CONFIG, "run/d": link("run/d", tarfile.DIRTYPE, "")}, None, "not a plain file below"),
        ({**CONFIG, "run/a": b"x"}, {"run/config.yaml": hashlib.sha256(b"seed: 0\n").hexdigest()}, "not in digests"),
        (CONFIG, {"run/config.yaml": "0" * 64}, "is not what its digest says"),
        (CONFIG, {"run/config.yaml": hashlib.sha256(b"seed: 0\n").hexdigest(), "run/b": "0"}, "'run/b' is missing"),
        ({**CONFIG, "run/a/b": b"x", "run/a": b"y"}, None, "there twice"),
        ({"other/a": b"x"}, None, "'other/a' belongs to no run"),
        ({"config.yaml": b"seed: 0\n"}, None, "belongs to no run"),
        ({**CONFIG, "run/large": b"x" * 5000}, None, "more than 4,000 bytes"),
        (CONFIG, [1], "is not a list of files"),
    ],
)  # fmt: skip
def test_what_others_made_is_refused_and_leaves_nothing(tmp_path: Path, members, digests, message: str) -> None:
    file = archive(tmp_path / "runs.tar.gz", members, digests)
    with pytest.raises(UsageError, match=message):
        unpack(file, tmp_path / "there", limit=4000)
    assert list((tmp_path / "there").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs.tar.gz", "there"]
    assert not Path("/tmp/out-of-an-archive").exists()


def test_what_is_no_archive(tmp_path: Path) -> None:
    whole = archive(tmp_path / "whole.tar.gz", {**CONFIG, "run/a": b"x" * 10_000}).read_bytes()
    for number, found in enumerate((b"", b"no archive", whole[: len(whole) // 2], b"\x1f\x8b" + bytes(50))):
        file = tmp_path / f"{number}.tar.gz"
        file.write_bytes(found)
        with pytest.raises(UsageError, match="is not an archive of runs"):
            unpack(file, tmp_path / "there")
    with pytest.raises(FileNotFoundError):
        unpack(tmp_path / "nowhere.tar.gz", tmp_path / "there")


def test_the_command(
    swept: Swept, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs: Callable = lambda *words: call(main, "vae-runs", *words, capture=capfd, patch=monkeypatch)  # noqa: E731
    packed = runs(swept.folder, "--where", "latent_dim == 3", "--pack", "three.tar.gz")
    assert packed.stdout == "packed     2 in three.tar.gz\n"
    assert runs("--unpack", "three.tar.gz", "there").stdout.splitlines() == [
        "unpacked   there/latent_dim-3_seed-0", "unpacked   there/latent_dim-3_seed-1",
    ]  # fmt: skip
    assert runs("--unpack", "three.tar.gz", "there").returncode == 2
    several = runs("--unpack", "three.tar.gz", "one", "other")
    assert (several.returncode, Path("one").exists()) == (2, False)
    assert "--unpack three.tar.gz: takes one FOLDER, not 2" in several.stderr
    missing = runs("--unpack", "nowhere.tar.gz")
    assert (missing.returncode, "Traceback" in missing.stderr) == (1, False)
    assert "nowhere.tar.gz: No such file" in missing.stderr
