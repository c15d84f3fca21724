"""Uploading models to the Hugging Face Hub and downloading them, with the `huggingface_hub` library."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from gen.base.errors import UserError, reason_of

PREFIX = "hf:"
FILES = [
    *("config.yaml", "model.safetensors", "tokenizer.bin", "encoder-*", "confidence.json", "README.md"),
    *("runtime.json", "encoder.onnx", "step.onnx", "processor-*", "reader-*"),
]
"""The files of a model folder and of an exported one; nothing else is uploaded or downloaded."""


def push(folder: Path, name: str, *, private: bool = False, message: str = "Upload a model") -> str:
    """Uploads a model folder, exported or not.

    Args:
        folder: the model folder.
        name: ``user/name``; created if it does not exist.
        private: create it as a private repository.
        message: the commit message.

    Returns:
        The URL of the model.

    Raises:
        UserError: the library is missing, nobody is logged in, or the hub refuses the upload.
    """
    _check(name)
    library = _library()
    api = library.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            folder_path=folder,
            repo_id=name,
            commit_message=message,
            allow_patterns=FILES,
            delete_patterns=FILES,  # what an exported model left, for one, would be loaded instead of this one
        )
    except Exception as error:  # the library also raises its HTTP client's errors
        raise UserError(f"{name}: could not be uploaded ({reason_of(error)}); `hf auth login` logs in") from error
    return str(address)


def fetch(name: str) -> Path:
    """Downloads a model, or finds it in the cache of earlier downloads.

    Args:
        name: ``hf:user/name``, or ``hf:user/name@revision``.

    Returns:
        The model folder.

    Raises:
        UserError: the library is missing, or the model does not exist.
    """
    name, _, revision = name.removeprefix(PREFIX).partition("@")
    _check(name)
    library = _library()
    try:
        found = library.snapshot_download(
            name, revision=revision or None, allow_patterns=FILES, endpoint=os.environ.get("HF_ENDPOINT")
        )
    except Exception as error:
        raise UserError(f"{PREFIX}{name}: could not be downloaded ({reason_of(error)})") from error
    return Path(found)


def _check(name: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or ".." in name:
        raise UserError(f"{name}: a model on the hub is named user/name")


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError("the Hugging Face Hub needs its library: pip install 'gen-toolkit[hub]'") from error
    return huggingface_hub
