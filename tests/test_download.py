"""Downloads from a real HTTP server on loopback."""

import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from shared import start_command
from test_sources import write_mnist

from vae_lightning.data.sources import DataError, TorchvisionMNIST


class Mirror(ThreadingHTTPServer):
    """Serves files below /good, damaged ones below /corrupt and /truncated, and nothing else; counts requests."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.requests: Counter[str] = Counter()

    def address(self, kind: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{kind}/"


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        _, kind, name = self.path.split("/")
        self.server.requests[self.path] += 1
        content = self.server.files.get(name)
        if content is None or kind == "absent":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if kind == "corrupt":
            content = content[:50] + bytes([content[50] ^ 255]) + content[51:]
        self.wfile.write(content[:-20] if kind == "truncated" else content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def source(tmp_path: Path) -> TorchvisionMNIST:
    return TorchvisionMNIST("KMNIST", mirrors=[])


@pytest.fixture
def mirror(tmp_path: Path, source: TorchvisionMNIST) -> Iterator[Mirror]:
    server = Mirror(write_mnist(tmp_path / "made", source))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.mark.parametrize("first", ["good", "corrupt", "truncated", "absent", "down"])
def test_mirrors_are_tried_in_order(tmp_path: Path, source: TorchvisionMNIST, mirror: Mirror, first: str) -> None:
    address = "http://127.0.0.1:9/" if first == "down" else mirror.address(first)
    source.mirrors = (address, mirror.address("good"))
    source.prepare(tmp_path / "data")
    assert source.load(tmp_path / "data", train=True).images.shape == (12, 1, 28, 28)
    names = {path.name for path in (tmp_path / "data" / "KMNIST" / "raw").iterdir()}
    assert names - {".download.lock"} == set(mirror.files)  # and no half of a file


def test_when_no_mirror_has_it_the_message_says_all(tmp_path: Path, source: TorchvisionMNIST, mirror: Mirror) -> None:
    source.mirrors = tuple(mirror.address(kind) for kind in ("absent", "corrupt", "truncated"))
    with pytest.raises(DataError) as caught:
        source.prepare(tmp_path / "data")
    message = str(caught.value)
    assert f"tried {mirror.address('absent')}train-images-idx3-ubyte.gz: HTTP 404" in message
    assert f"tried {mirror.address('corrupt')}train-images-idx3-ubyte.gz: the downloaded file" in message
    assert str(tmp_path / "data" / "KMNIST" / "raw") in message
    assert all(name in message for name in mirror.files)
    assert "data.root=FOLDER" in message
    assert "data=glyphs" in message


def test_a_damaged_file_is_replaced_and_the_others_are_kept(
    tmp_path: Path, source: TorchvisionMNIST, mirror: Mirror
) -> None:
    source.mirrors = (mirror.address("good"),)
    source.prepare(tmp_path)
    damaged = tmp_path / "KMNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    damaged.write_bytes(b"half")
    source.prepare(tmp_path)
    assert damaged.read_bytes() == mirror.files[damaged.name]
    assert sorted(mirror.requests.values()) == [1, 1, 1, 2]


def test_two_processes_download_once(tmp_path: Path, source: TorchvisionMNIST, mirror: Mirror) -> None:
    program = textwrap.dedent(f"""
        from pathlib import Path
        from vae_lightning.data.sources import TorchvisionMNIST
        source = TorchvisionMNIST("KMNIST", mirrors=[{mirror.address("good")!r}])
        source.checksums = {source.checksums!r}
        source.prepare(Path({str(tmp_path)!r}))
        print(len(source.load(Path({str(tmp_path)!r}), train=True).images))
    """)
    (tmp_path / "download.py").write_text(program)
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    started = [start_command("download", cwd=tmp_path, said=folder) for folder in folders]
    assert [process.wait(120) for process in started] == [0, 0]
    assert [(folder / "stdout").read_text().strip() for folder in folders] == ["12", "12"]
    assert sorted(mirror.requests.values()) == [1, 1, 1, 1]
