"""A model as a folder: saved, loaded, shared."""

from __future__ import annotations

from dataclasses import asdict
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from torch import nn

from gen.base import hub
from gen.base.errors import ConfigError, UserError, first_line
from gen.base.folders import read_folder, write_folder
from gen.inputs.tokenizer import TOKENIZERS, Tokenizer
from gen.models import checkpoint
from gen.models.decoder import Decoder, DecoderConfig
from gen.models.device import PRECISIONS
from gen.models.encoders import Encoder, build_encoder
from gen.models.loading import load_module
from gen.search import SearchOptions
from gen.search.confidence import Calibration, calibration_files, read_calibration
from gen.search.info import ModelInfo


class FolderMixin(nn.Module):
    """Adds `save`, `load` and `push_to_hub` to a module with an encoder, a decoder and a tokenizer."""

    encoder: Encoder
    decoder: Decoder
    tokenizer: Tokenizer
    info: ModelInfo
    calibration: Calibration | None
    precision: str

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the model folder, all of it or nothing. See `load`."""
        write_folder(Path(path), self.write)

    def push_to_hub(self, name: str, *, private: bool = False, message: str = "Upload a model") -> str:
        """Uploads the model, with its card, to the Hugging Face Hub.

        Args:
            name: ``user/name``; created if it does not exist.
            private: create it as a private repository.
            message: the commit message.

        Returns:
            The URL of the model.

        Raises:
            UserError: the library is missing, nobody is logged in, or the hub refuses the upload.
        """
        with TemporaryDirectory(prefix="gen-") as folder:
            self.save(Path(folder) / "model")
            return hub.push(Path(folder) / "model", name, private=private, message=message)

    def write(self, folder: Path, info: ModelInfo | None = None) -> None:
        """Puts the model's files into an existing folder, with ``info`` instead of its own metadata if given."""
        info = info or self.info
        encoder = self.encoder
        if not encoder.name or not hasattr(encoder, "config"):
            raise UserError(
                f"the encoder {type(encoder).__name__} cannot be saved: register its class, "
                'and give {"name": ...} or set its `config`'
            )
        config = {
            "encoder": {"name": encoder.name, **encoder.config},
            "decoder": asdict(self.decoder.config),
            "tokenizer": self.tokenizer.kind,
            **info.to_dict(),
        }
        aliases = checkpoint.aliases(self)
        weights = {name: t for name, t in self.state_dict().items() if name not in aliases}
        files = {checkpoint.TOKENIZER: self.tokenizer.to_bytes(), "README.md": self.card(info)}
        files |= {f"encoder-{name}": data for name, data in encoder.files().items()}
        files |= calibration_files(self.calibration)
        checkpoint.write_model(folder, config, weights, files)

    def card(self, info: ModelInfo) -> bytes:
        """The model card; see `ModelInfo.card`."""
        count = sum(p.numel() for p in self.parameters())
        what = f"{count:,} parameters, {self.tokenizer.kind} vocabulary of {len(self.tokenizer):,}."
        return info.card(what, f"torch {torch.__version__}").encode(errors="backslashreplace")

    @classmethod
    def load(cls, path: str | PathLike[str], device: str | torch.device = "cpu", precision: str = "fp32") -> Self:
        """A saved model, ready to use. Nothing in the folder can run code.

        Args:
            path: a model folder; a run folder, whose best model is taken; or "hf:user/name".
            device: where to put it.
            precision: of the products when it generates: "fp32", "bf16", "fp16", or "auto" for bfloat16 (on older
                GPUs float16) where the hardware is fast in it, which pays for a CNN and for many rows at once. In
                fp32 what it writes is the same whatever else is in the batch.

        Raises:
            UserError: the folder is incomplete, damaged, or of a newer version; the message says which.
        """
        if precision not in PRECISIONS:
            raise UserError(f"--precision must be one of {', '.join(PRECISIONS)}, not {precision}")
        model = read_folder(lambda: checkpoint.find_model(path), cls._read)
        model.precision = precision
        return model.to(device).eval()

    @classmethod
    def _read(cls, folder: Path) -> Self:
        """The model of a folder."""
        config = checkpoint.read_config(folder)
        data = checkpoint.read_bytes(folder, checkpoint.TOKENIZER)
        try:
            tokenizer = TOKENIZERS[config["tokenizer"]].from_bytes(data)
            info = ModelInfo.of(config)
            SearchOptions.make(info.search, {})
            decoder = DecoderConfig(**config["decoder"])
            if len(tokenizer) != decoder.vocab_size:
                raise ValueError(f"the vocabulary has {len(tokenizer)} tokens")

            def build() -> Any:
                encoder = build_encoder(
                    config["encoder"], lambda name: checkpoint.read_bytes(folder, f"encoder-{name}")
                )
                make: Any = cls
                return make(encoder, decoder, tokenizer, info)

            model = load_module(folder, build)
        except ConfigError as error:
            raise UserError(f"{folder}: {checkpoint.CONFIG}: {error.errors[0]}") from error
        except UserError:
            raise
        except Exception as error:  # whatever constructors raise for arguments that nobody would give
            what = f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"{folder}: {checkpoint.CONFIG} does not describe a model ({what})") from error
        model.calibration = read_calibration(folder)
        return model
