"""Models as ONNX graphs, for `gen.runtime`: the encoder, and one step of the decoder with its states as inputs."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gen import runtime
from gen.base.errors import UserError, reason_of
from gen.base.folders import write_folder
from gen.models.cells import Cell
from gen.models.checkpoint import not_finite
from gen.models.decoder import Decoder, DecoderState
from gen.models.memory import Memory
from gen.models.model import Model
from gen.search.confidence import calibration_files
from gen.search.info import ModelInfo

_OPSET = 20


def export(model: Model, folder: Path) -> None:
    """Writes a model, in float32, as a folder that `gen.runtime.load` reads; all of it or nothing.

    Args:
        model: its encoder must have `processors`.
        folder: replaced if it exists.

    Raises:
        UserError: the encoder has no processors, its `forward` cannot be traced, weights are NaN or infinite, or a
            package is missing.
    """
    if not model.processors:
        raise UserError(
            f"the encoder {type(model.encoder).__name__} cannot be exported, it has no `processors`; see "
            "`gen.inputs.processors`"
        )
    if name := not_finite(model.state_dict()):
        raise UserError(f"the model cannot be exported: {name} holds NaN or infinite values; train it again")
    graphs = _graphs(model)
    config = {
        "format": runtime.FORMAT,
        "precision": "float32",
        "tokenizer": model.tokenizer.kind,
        "fingerprint": model.fingerprint,
        "processors": {
            name: {"kind": p.kind, "optional": p.optional, **p.config()} for name, p in model.processors.items()
        },
        **model.info.to_dict(),
    }

    def fill(path: Path) -> None:
        """Graphs, tokenizer, the processors' files, and the configuration."""
        for name, graph in graphs.items():
            (path / name).write_bytes(graph)
        (path / runtime.TOKENIZER).write_bytes(model.tokenizer.to_bytes())
        for name, processor in model.processors.items():
            for file, data in processor.files().items():
                (path / f"processor-{name}-{file}").write_bytes(data)
        for file, data in calibration_files(model.calibration).items():
            (path / file).write_bytes(data)
        write_config(path, config)

    write_folder(folder, fill)


def note(exported: Path, metrics: dict[str, Any]) -> None:
    """Adds figures to the metadata of an exported model."""
    config = json.loads((exported / runtime.CONFIG).read_text(encoding="utf-8"))
    config["metrics"] |= metrics
    write_config(exported, config)


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Writes the configuration, and the model card that is made from it."""
    text = json.dumps(config, ensure_ascii=False, indent=1, default=str)
    (folder / runtime.CONFIG).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    what = f"Exported as ONNX graphs in {config['precision']}."
    use = "from gen import runtime\nmodel = runtime.load"
    card = ModelInfo.of(config).card(what, f"torch {torch.__version__}", use)
    (folder / "README.md").write_text(card, encoding="utf-8", errors="backslashreplace")


# -- graphs ----------------------------------------------------------------------------------------------


class _Beginning(nn.Module):
    """Everything before the first token: source → the memory that a step reads, and the first state."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        """``tensors`` are the source, in the order of the processors."""
        decoder = self.model.decoder
        source = dict(zip(self.model.processors, tensors, strict=True))
        memory = decoder.prepare(self.model.encoder(source))
        states = _flat(decoder.init_state(memory))
        return {**_seen(decoder, memory), **{f"state_{i}": s for i, s in enumerate(states)}}


class _OneStep(nn.Module):
    """One more token: log-probabilities of the next one, states, and attention."""

    def __init__(self, decoder: Decoder, in_parts: bool) -> None:
        super().__init__()
        self.decoder = decoder
        self.in_parts = in_parts  # the memory has `Memory.part_masks`

    def forward(self, token_ids: Tensor, states: list[Tensor], seen: list[Tensor]) -> list[Tensor]:
        """Reads ``token_ids`` (R,) from ``states``, (R, H) each, layer by layer; ``seen`` is what `_seen` made.

        Returns:
            Log-probabilities (R, V), the next states, features (R, F) and, with attention, its weights (R, S).
        """
        size = len(states) // self.decoder.config.num_layers
        layers = tuple(tuple(states[i : i + size]) for i in range(0, len(states), size))
        if seen:
            mask, values, *keys = seen
            part_masks = keys.pop() if self.in_parts else None
            tokens = keys.pop() if self.decoder.copy_gate is not None else None
            memory = Memory(values, mask, values[:, 0], tuple(keys), tokens, part_masks)
        else:
            memory = Memory.empty(1)
        output = self.decoder(token_ids[:, None], DecoderState(layers), memory)
        log_probs = output.logits.flatten(0, 1).log_softmax(-1)  # indexing would copy
        looked = [] if output.attention is None else [output.attention.flatten(0, 1)]
        return [log_probs, *_flat(output.state), output.features.flatten(0, 1), *looked]


def _flat(state: DecoderState) -> list[Tensor]:
    return [s for layer in state.layers for s in layer]


def _seen(decoder: Decoder, memory: Memory) -> dict[str, Tensor]:
    """The tensors of a memory that a step reads, and the mask; none for an empty memory."""
    if memory.values.size(-1) == 0:
        return {}
    if decoder.attention.context_size == 0:
        return {"mask": memory.mask}
    keys = {f"key_{i}": key.contiguous() for i, key in enumerate(memory.attention_cache or ())}
    tokens = {} if decoder.copy_gate is None or memory.tokens is None else {"tokens": memory.tokens}
    parts = {} if memory.part_masks is None else {"part_masks": memory.part_masks}
    return {"mask": memory.mask, "values": memory.values, **keys, **tokens, **parts}


def _graphs(model: Model) -> dict[str, bytes]:
    """File name → graph."""
    require("onnx", "onnxscript")
    if not hasattr(torch.onnx, "ops"):
        raise UserError("gen export needs torch 2.8 or later: pip install --upgrade torch")
    model = copy.deepcopy(model).float().cpu().eval()
    model.encoder.prepare_for_export()
    source = {name: torch.from_numpy(p.example()) for name, p in model.processors.items()}
    tensors = list(source.values())
    beginning = _Beginning(model).eval()
    with torch.no_grad():
        made = beginning(tensors)
    if clash := sorted({*source} & {*made, "token_ids"}):
        raise UserError(f"the input name {clash[0]!r} is used by exported graphs; choose another")
    for cell in (m for m in model.modules() if isinstance(m, Cell)):
        cell.prepare_for_export()
    named = [n for n in made if not n.startswith("state_")]
    states = [made[n].repeat_interleave(_ROWS, 0) for n in made if n.startswith("state_")]
    seen = [made[n] for n in named] if model.decoder.attention.context_size else []
    names = [f"state_{i}" for i in range(len(states))]
    step = _OneStep(model.decoder, "part_masks" in named).eval()
    token_ids = torch.full((len(tensors[0]) * _ROWS,), model.tokenizer.bos_id)
    looked = ["attention"] if seen else []
    return {
        runtime.ENCODER: _trace(
            beginning,
            (tensors,),
            list(source),
            list(made),
            one_shape={name for name, processor in model.processors.items() if processor.one_shape},
        ),
        runtime.STEP: _trace(
            step,
            (token_ids, states, seen),
            ["token_ids", *names, *(named if seen else [])],
            ["log_probs", *(f"next_{name}" for name in names), "features", *looked],
        ),
    }


_ROWS = 2  # rows per input in the traced example; a search may have any number


def _trace(
    module: nn.Module,
    args: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
    one_shape: Collection[str] = (),
) -> bytes:
    """A module as an ONNX graph. Every input axis that the module lets vary is dynamic; of the inputs that have
    ``one_shape`` the first alone: tracing a CNN for pictures of any height and width takes half as long again."""
    tensors, spec = torch.utils._pytree.tree_flatten(args)
    axes = [1 if name in one_shape else t.ndim for name, t in zip(inputs, tensors, strict=True)]
    varying = torch.utils._pytree.tree_unflatten(
        [dict.fromkeys(range(each), torch.export.Dim.AUTO) for each in axes], spec
    )
    try:
        with torch.no_grad(), quiet():
            program = torch.onnx.export(
                module,
                args,
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=varying,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = reason_of(error.__cause__ or error)
        raise UserError(f"{type(module).__name__}: cannot be exported ({reason})") from error
    assert program is not None
    return program.model_proto.SerializeToString()


def require(*packages: str) -> None:
    """Raises `UserError` if one of the packages that exporting needs is missing."""
    from importlib.util import find_spec

    if missing := [name for name in packages if find_spec(name) is None]:
        raise UserError(f"gen export needs {', '.join(missing)}: pip install 'gen-toolkit[export]'")


@contextlib.contextmanager
def quiet() -> Any:
    """Hides the exporters' own warnings and progress messages."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
