"""The page as a folder for any static host, or as a single file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from gen import runtime
from gen.base.errors import UserError
from gen.base.folders import write_bytes, write_folder
from gen.serve.models import describe
from gen.web.assets import onnxruntime_web
from gen.web.bundle import bundle
from gen.web.pack import pack

HERE = Path(__file__).parent
PAGE = HERE.parent / "serve" / "page"
MARK = '<meta name="generator" content="gen export --web">'
_SCRIPT = '<script type="module" src="main.js"></script>'
_STYLES = '<link rel="stylesheet" href="theme.css">\n<link rel="stylesheet" href="style.css">'
_POLICY = (
    "default-src 'none'; script-src {scripts} 'wasm-unsafe-eval'; worker-src {worker}; style-src {styles}; "
    "connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'"
)


def write_site(models: Mapping[str, Path], output: Path, single: bool = False) -> int:
    """Writes a page with some models, whole or not at all.

    Args:
        models: name → the folder of the exported model, in the order shown.
        output: the folder; with ``single``, or the name of an .html file.
        single: one file with everything in it, which opens without a server.

    Returns:
        Its size in bytes.

    Raises:
        UserError: ONNX Runtime is not there and cannot be fetched; a model does what the page cannot.
    """
    files = _files(models)
    if single:
        files = {"index.html": _single(files)}
    if single and output.suffix == ".html":
        output.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(output, files["index.html"])
    else:
        write_folder(output, lambda folder: _fill(folder, files))
    return sum(map(len, files.values()))


def check_output(output: Path, single: bool = False) -> None:
    """Raises `UserError` if the page cannot be written there, or something else is there already."""
    page = output / "index.html" if output.is_dir() else output
    ours = page.is_file() and MARK.encode() in page.read_bytes()[:2000]
    pages = {*(path.name for path in PAGE.iterdir()), "index.html", "models.json", "models", "engine"}
    ours = ours and (not output.is_dir() or {path.name for path in output.iterdir()} <= pages)
    if output.suffix == ".html" and not single:
        raise UserError(f"--output {output}: is a file: --single-file writes one, else name a folder")
    if output.exists() and not ours and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"--output {output}: exists and holds other things than such a page: name another one")
    parent = next(path for path in output.absolute().parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"--output {output}: cannot be written ({parent} is no writable folder)")


def _fill(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def _files(models: Mapping[str, Path]) -> dict[str, bytes]:
    """Name → content of everything that the folder has."""
    assets, license_ = onnxruntime_web(), (HERE / "onnxruntime-LICENSE.txt").read_bytes()
    files = {path.name: path.read_bytes() for path in sorted(PAGE.iterdir())}
    files |= {f"engine/{path.name}": path.read_bytes() for path in sorted((HERE / "engine").glob("*.js"))}
    files["api.js"] = files.pop("engine/api.js")
    files |= {f"engine/{path.name}": path.read_bytes() for path in assets.glob("ort.*")}
    files["engine/onnxruntime-LICENSE.txt"] = license_
    known = []
    for number, (name, folder) in enumerate(models.items()):
        model = runtime.load(folder, threads=1)
        file = f"models/{number}-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-') or 'model'}.bin"
        files[file] = pack(model, folder)
        known.append({**describe(name, model), "file": file, "precision": model.precision})
    files["models.json"] = json.dumps(known, ensure_ascii=False).encode()
    policy = _POLICY.format(scripts="'self'", styles="'self'", worker="'self'")
    files["index.html"] = _index(policy, html.escape(license_.decode())).encode()
    return files


def _index(policy: str, license_: str) -> str:
    text = (HERE / "index.html").read_text(encoding="utf-8")
    mark = f'{MARK}\n<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">'
    return text.replace("<!-- policy -->", mark).replace("<!-- licence -->", license_)


def _single(files: Mapping[str, bytes]) -> bytes:
    """Everything in one HTML file: scripts and styles by their hashes, all else in base64."""
    text = {name: data.decode() for name, data in files.items() if name.endswith((".js", ".css"))}
    script, style = "\n" + bundle(text, "main.js"), text["theme.css"] + text["style.css"]
    parts = {name: data for name, data in files.items() if name.startswith("models") or name == "engine/ort.wasm"}
    parts["worker.js"] = bundle(text, "engine/worker.js").encode()
    policy = _POLICY.format(scripts=_hash(script), styles=_hash(style), worker="blob:")
    page = _index(policy, html.escape(files["engine/onnxruntime-LICENSE.txt"].decode()))
    icon = "data:image/svg+xml;base64," + base64.b64encode(files["icon.svg"]).decode()
    holds = "".join(
        f'<script type="text/plain" id="{name}">{base64.b64encode(data).decode()}</script>\n'
        for name, data in parts.items()
    )
    for before, after in (
        ('href="icon.svg"', f'href="{icon}"'),
        (_STYLES, f"<style>{style}</style>"),
        (_SCRIPT, ""),
        ("</body>", f'{holds}<script type="module">{script}</script>\n</body>'),
    ):
        page = page.replace(before, after)
    return page.encode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
