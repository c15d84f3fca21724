"""Models on a hub: a small endpoint on this machine stands in for the real one."""

from __future__ import annotations

import base64
import hashlib
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import gen as toolkit
from gen.base.errors import UserError
from gen.base.hub import fetch, push
from tests.test_saved import ARCHIVE

pytest.importorskip("huggingface_hub")


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub's interface as pushing and fetching a small model needs."""

    repositories: dict[str, dict[str, bytes]] = {}
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, value, status=200, headers=()):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, content in (("Content-Length", str(len(body))), *headers):
            self.send_header(name, content)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self.path.split("?")[0].strip("/").split("/")
        name = "/".join(parts[2:4])
        if parts[1:] == ["repos", "create"]:
            name = "tester/" + json.loads(body)["name"]
            self.repositories.setdefault(name, {})
            return self.reply({"url": f"{self.url}/{name}", "name": name, "id": name})
        if parts[1:] == ["validate-yaml"]:
            return self.reply({"errors": [], "warnings": []})
        if "preupload" in parts:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self.reply({"files": files})
        if "commit" in parts:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.repositories[name][line["value"]["path"]] = content
                elif line["key"] == "deletedFile":
                    del self.repositories[name][line["value"]["path"]]
            return self.reply({"commitUrl": f"{self.url}/{name}/commit/{SHA}", "commitOid": SHA, "success": True})
        return self.reply({"error": f"POST {self.path}"}, 404)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "whoami-v2"]:
            return self.reply({"name": "tester", "type": "user"})
        if parts[0] == "api":
            name = "/".join(parts[2:4])
            if name not in self.repositories:
                return self.reply({"error": "Repository not found"}, 404, [("X-Error-Code", "RepoNotFound")])
            if "tree" in parts:
                return self.reply(
                    [
                        {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                        for path, data in self.repositories[name].items()
                    ]
                )
            siblings = [{"rfilename": path} for path in self.repositories[name]]
            return self.reply({"id": name, "sha": SHA, "siblings": siblings, "private": False, "tags": []})
        name, path = "/".join(parts[:2]), "/".join(parts[4:])
        data = self.repositories.get(name, {}).get(path)
        if data is None:
            return self.reply({"error": "Entry not found"}, 404, [("X-Error-Code", "EntryNotFound")])
        tag = hashlib.sha1(data).hexdigest()
        return self.reply(data, headers=[("ETag", f'"{tag}"'), ("X-Repo-Commit", SHA)])

    do_HEAD = do_GET


SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    FakeHub.repositories = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield FakeHub
    server.shutdown()
    server.server_close()


def test_pushed_and_fetched(hub, gen, trained):
    """What comes back writes what the original writes, and nothing but the model went up."""
    (trained / "best" / "secret.txt").write_text("not part of a model")
    status, out, err = gen("push", trained, "tester/book")
    assert status == 0, err
    assert 'gen.load("hf:tester/book")' in out
    assert sorted(hub.repositories["tester/book"]) == [
        "README.md",
        "config.yaml",
        "model.safetensors",
        "tokenizer.bin",
    ]
    # What another model left there goes, what is not of a model stays.
    hub.repositories["tester/book"] |= {"runtime.json": b"{}", "step.onnx": b"", "notes.txt": b"mine"}
    assert gen("push", trained, "tester/book")[0] == 0
    assert {"runtime.json", "step.onnx", "notes.txt"} & {*hub.repositories["tester/book"]} == {"notes.txt"}
    card = hub.repositories["tester/book"]["README.md"].decode()
    assert card.startswith("---\nlibrary_name: gen-toolkit\ntags: [gen-toolkit, text]\n---\n")
    assert "book.txt" in card.split("Data: ")[1].split("\n")[0]
    assert "gen train text --data" in card
    assert "| loss |" in card
    assert "## Samples\n\n````text\n**greedy**" in card
    assert "Characters that its training text lacks are unknown to it." in card
    assert "| batch_size | 2 |  |" in card
    fetched, whole = toolkit.load("hf:tester/book"), toolkit.load(trained)
    assert fetched.generate("the", seed=3)[0].text == whole.generate("the", seed=3)[0].text
    status, out, err = gen("generate", "hf:tester/book", "--max-new-tokens", "5")
    assert status == 0, err


def test_an_exported_model(hub, gen, tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    exported = tmp_path / "translate-exported"
    (exported / "secret.txt").write_text("not part of a model")
    assert gen("push", exported, "tester/small")[0] == 0
    there = {path.name for path in exported.iterdir()} - {"secret.txt"}
    assert set(hub.repositories["tester/small"]) == there
    words = ("--text", "a dog", "--max-new-tokens", 5)
    assert gen("translate", "hf:tester/small", *words)[:2] == gen("translate", exported, *words)[:2]
    assert toolkit.load("hf:tester/small").precision == "float32"
    (exported / "step.onnx").write_bytes(b"damaged")
    assert gen("push", exported, "tester/other")[0] == 2
    assert "tester/other" not in hub.repositories


def test_a_model_that_is_not_there(hub, gen):
    status, _, err = gen("info", "hf:tester/nothing")
    assert status == 2
    assert err.startswith("gen: hf:tester/nothing: could not be downloaded")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["book", "a/b/c", "../up/book", "tester/..", "hf:"])
def test_names(name, tmp_path):
    with pytest.raises(UserError, match="is named user/name"):
        push(tmp_path, name)
    with pytest.raises(UserError, match="is named user/name"):
        fetch(f"hf:{name}")


def test_a_damaged_model_is_not_pushed(hub, gen, trained):
    (trained / "best" / "model.safetensors").write_bytes(b"damaged")
    status, _, err = gen("push", trained, "tester/book")
    assert status == 2
    assert "damaged" in err
    assert hub.repositories == {}


def test_pushing_without_a_hub(monkeypatch, gen, trained):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    status, _, err = gen("push", trained, "tester/book")
    assert status == 2
    assert "tester/book: could not be uploaded" in err


def test_pushed_from_python(hub, trained):
    model = toolkit.load(trained)
    address = model.push_to_hub("tester/mine", message="From Python")
    assert address.endswith("/tester/mine")
    assert sorted(hub.repositories["tester/mine"]) == [
        "README.md",
        "config.yaml",
        "model.safetensors",
        "tokenizer.bin",
    ]
    fetched = toolkit.load("hf:tester/mine")
    assert fetched.generate("the", seed=3).text == model.generate("the", seed=3).text
    with pytest.raises(UserError, match="is named user/name"):
        model.push_to_hub("mine")
