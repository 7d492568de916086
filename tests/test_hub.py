"""torch.hub, and the Hugging Face Hub through a server on this machine."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_python

import stylenet
from stylenet import Stylizer, hub, push
from stylenet.applying.stylizer import SHIPPED_MODEL
from stylenet.errors import WeightsError

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")


class Server(BaseHTTPRequestHandler):
    """As much of the hub's interface as a download and an upload of small files need."""

    files: dict[str, bytes] = {}
    posted: list[str] = []

    def do_HEAD(self):
        self.answer_file(has_body=False)

    def do_GET(self):
        self.answer_file(has_body=True)

    def answer_file(self, has_body):
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "RepoNotFound")
        content = content or b""
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if has_body:
            self.wfile.write(content)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.posted.append(self.path)
        address = f"http://{self.headers['Host']}/owner/mine"
        answer = {"url": address}
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            answer = {
                "files": [
                    {"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names
                ]
            }
        if "/commit/" in self.path:
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    name = f"/owner/mine/resolve/main/{item['value']['path']}"
                    self.files[name] = base64.b64decode(item["value"]["content"])
            answer = {"commitUrl": f"{address}/commit/1", "commitOid": "1" * 40}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture
def server(tmp_path):
    """The server's address and files."""
    Server.files, Server.posted = {}, []
    running = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", Server
    running.shutdown()


def elsewhere(code, address, tmp_path):
    """Python code in a process of its own, since the package reads its variables at import."""
    return run_python(
        "-c",
        code,
        HF_ENDPOINT=address,
        HF_HOME=str(tmp_path),
        HF_TOKEN="hf_x",
        NO_PROXY="127.0.0.1",
    )


def test_a_model_of_the_hub(server, tmp_path):
    address, handler = server
    handler.files["/owner/mine/resolve/main/model.safetensors"] = SHIPPED_MODEL.read_bytes()
    code = """
import torch
from stylenet import Stylizer
picture = torch.rand(3, 32, 32)
ours, theirs = Stylizer.load(device="cpu"), Stylizer.load("hf:owner/mine", device="cpu")
assert torch.equal(ours(picture, picture), theirs(picture, picture))
print("equal")
"""
    done = elsewhere(code, address, tmp_path)
    assert "equal" in done.stdout, done.stderr


def test_push_uploads_the_model_and_a_card(server, tmp_path):
    address, handler = server
    code = f"import stylenet; print(stylenet.push({str(SHIPPED_MODEL)!r}, 'hf:owner/mine'))"
    done = elsewhere(code, address, tmp_path)
    assert "/commit/1" in done.stdout, done.stderr
    stored = handler.files["/owner/mine/resolve/main/model.safetensors"]
    assert stored == SHIPPED_MODEL.read_bytes()
    card = handler.files["/owner/mine/resolve/main/README.md"].decode()
    assert card.startswith("---\nlicense: mit") and 'Stylizer.load("hf:owner/mine")' in card
    assert "| model | compact |" in card
    # what was pushed can be loaded from a folder, as a run's
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/model.safetensors").write_bytes(stored)
    assert Stylizer.load(tmp_path / "copy", device="cpu").family.takes_styles


def test_an_absent_model_and_a_foreign_file_are_one_line(server, tmp_path):
    address, _ = server
    for code, message in (
        ("Stylizer.load('hf:owner/absent')", "expected model.safetensors on the hub"),
        ("Stylizer.load('hf:no/such/name')", "expected model.safetensors on the hub"),
        (f"push({str(ROOT / 'README.md')!r}, 'hf:owner/mine')", "expected"),
    ):
        done = elsewhere(
            f"""
from stylenet import Stylizer, push
from stylenet.errors import StylenetError
try:
    {code}
except StylenetError as error:
    print("ours:", error)
""",
            address,
            tmp_path,
        )
        assert f"ours: {message}" in done.stdout, done.stderr


def test_push_without_a_network_is_one_line(tmp_path):
    code = f"""
from stylenet import push
from stylenet.errors import StylenetError
try:
    push({str(SHIPPED_MODEL)!r}, "hf:owner/mine")
except StylenetError as error:
    print("ours:", error)
"""
    done = elsewhere(code, "http://127.0.0.1:9", tmp_path)
    assert "ours: expected to upload to hf:owner/mine" in done.stdout, done.stderr


def test_a_training_state_is_not_pushed(trained_run):
    state = next((Path(trained_run) / "checkpoints").glob("*.pt"))
    with pytest.raises(WeightsError, match="a training state"):
        push(state, "hf:owner/mine")


def test_a_card_names_the_source_of_an_encoder(trained_run, monkeypatch):
    cards = []
    monkeypatch.setattr(hub, "upload", lambda file, card, name: cards.append(card))
    push(trained_run, "hf:owner/mine")
    push(SHIPPED_MODEL, "hf:owner/small")
    assert "license: cc-by-4.0" in cards[0] and "VGG19 (Visual Geometry Group" in cards[0]
    assert "license: mit" in cards[1] and "Visual Geometry" not in cards[1]


def test_without_the_package_it_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match="pip install huggingface_hub"):
        hub.fetch("hf:owner/name")


def test_torch_hub_finds_the_stylizer():
    stylizer = torch.hub.load(str(ROOT), "stylizer", source="local", device="cpu")
    picture = torch.rand(3, 24, 24)
    assert torch.equal(stylizer(picture, picture), Stylizer.load(device="cpu")(picture, picture))
    assert stylenet.push.__name__ == "push"
