"""Damage that knows the format: of configurations, weights, states of training, and whatever else has parts."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import yaml

DEEP = 100_000

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 2**31, 2**63, -(2**63), 10**30, 0.5, 1e308, float("nan"), float("inf"), -0.0),
    *("", "x", "\x00", "\ufeff", "../../etc/passwd", "/dev/zero", "a" * 10_000, "1e9", "\ud7ff", "é" * 300),
    *([], {}, [[], []], {"": {}}, [None], ["a"] * 1000, {"kind": "x"}, {"name": "cnn"}, [10**9] * 9),
)


def alter(value: Any, rng: random.Random) -> Any:
    """A value made of mappings, lists, tensors and plain values, with another part somewhere."""
    if isinstance(value, torch.Tensor):
        return _other_tensor(value, rng)
    if not isinstance(value, dict | list | tuple) or not value or rng.random() < 0.1:
        return rng.choice(ODD)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        way = rng.random()
        rest = {k: v for k, v in value.items() if k != key}
        if way < 0.15:
            return rest
        if way < 0.25:
            return {**rest, rng.choice(("", "x", str(key) + "2", str(key).upper())): value[key]}
        return {**value, key: alter(value[key], rng)}
    at = rng.randrange(len(value))
    middle = [[], [value[at]] * 2, [alter(value[at], rng)], [alter(value[at], rng)]][rng.randrange(4)]
    return type(value)([*value[:at], *middle, *value[at + 1 :]])


def _other_tensor(tensor: torch.Tensor, rng: random.Random) -> torch.Tensor:
    ways: tuple[Callable[[], torch.Tensor], ...] = (
        lambda: torch.zeros(0),
        lambda: torch.full(tensor.shape, float("nan")),
        lambda: torch.zeros(1).expand(10**10),
        lambda: tensor.flatten()[:-1].clone(),
        lambda: tensor[None],
        lambda: tensor.to(rng.choice((torch.float64, torch.int8, torch.bool, torch.complex64, torch.float16))),
        lambda: -tensor if tensor.dtype != torch.bool else ~tensor,
        lambda: torch.empty(tensor.shape, device="meta"),
        lambda: tensor.to_sparse() if tensor.is_floating_point() else tensor.float(),
    )
    return rng.choice(ways)()


# -- configurations --------------------------------------------------------------------------------------


def other_yaml(data: bytes, rng: random.Random) -> bytes:
    """Another YAML document instead of one."""
    if rng.random() < 0.7:
        return yaml.safe_dump(alter(yaml.safe_load(data), rng), allow_unicode=True).encode(errors="replace")
    layers = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    text = rng.choice(
        (
            "a0: &a0 [x, x]\n" + layers,
            "a: &a\n  b: *a\n",
            "[" * DEEP,
            "{a: " * 5_000,
            "- " * 5_000 + "x",
            "? " * 2_000 + "x",
            "model: !!python/object/apply:os.system [ls]\n",
            "model: !!binary x\n",
            "model: !own {}\n",
            "train:\n\tbudget: 3\n",
            "a: 1\n---\nb: 2\n",
            "seed: " + "9" * 10_000,
            "seed: 0x" + "f" * 10_000,
            "seed: " + "1:" * 5_000 + "1",
            "seed: 2020-99-99",
            "<<: [1, 2]\n",
            "? [1, 2]\n: x\n",
            "? {a: b}\n: x\n",
            "data: {data: {data: {data: x}}}\n",
            "train: 3\nmodel: x\ndata: []\n",
            "\ufeffformat: 3\n",
            "format: '3'\n",
            "'" * 99,
            "%YAML 9.9\n---\na: b\n",
            "\x85\u2028a: b",
        )
    )
    return text.encode()


def other_json(data: bytes, rng: random.Random) -> bytes:
    """Another JSON document instead of one."""
    if rng.random() < 0.7:
        return json.dumps(alter(json.loads(data), rng)).encode()
    return rng.choice(odd_json())


def odd_json() -> tuple[bytes, ...]:
    """Documents that are valid JSON, or nearly."""
    return (
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        b'{"format": ' + b"9" * 10_000 + b"}",
        b'{"format": 1e999, "source": -1e999, "target": NaN}',
        b'{"source": Infinity, "target": 1}',
        b'{"source": "\\ud800", "target": "\\udc00"}',
        b'{"source": "a", "source": "b", "target": "\\u0000"}',
        b'"' + b"\\" * 999,
        b"\xef\xbb\xbf{}",
        '{"source": "a", "target": "b"}'.encode("utf-16"),
        b"null",
        b"0",
        b'{"source": ["a"], "target": {"b": ["c"]}}',
        b'{"": "a", " ": "b"}',
        b"[[[]], [1], {}]",
        b'{"data": {"data": {"data": []}}}',
        b'{"a": [], "b": []}',
        b'{"images": [{"id": 1}], "annotations": [{"image_id": [], "caption": {}}]}',
    )


# -- weights ---------------------------------------------------------------------------------------------


_DTYPES = ("F8_E4M3", "F8_E5M2", "F64", "I64", "BOOL", "F16", "BF16", "U8", "F4", "C64", "X", 3, None)


def other_weights(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header, or other numbers."""
    (length,) = struct.unpack("<Q", data[:8])
    header, weights = json.loads(data[8 : 8 + length]), data[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    entry, other = header[name], header[rng.choice(names)]
    way = rng.randrange(12)
    if way == 0:
        entry["data_offsets"] = other["data_offsets"]
    elif way == 1:
        at = rng.choice((-1, 0, 1, 2**31, 2**62, 2**64 - 1))
        entry["data_offsets"] = [at, at + rng.choice((-1, 0, 4, len(weights)))]
    elif way == 2:
        entry["dtype"] = rng.choice(_DTYPES)
    elif way == 3:
        entry["dtype"] = rng.choice(("I32", "U32", "F32"))  # of the same size
    elif way == 4:
        shape = entry["shape"]
        entry["shape"] = rng.choice(([], [0], [-1], [2**32, 2**32], [2**63], [1, *shape], shape[::-1]))
    elif way == 5:
        header["__metadata__"] = rng.choice(({"a": 1}, [], "x", {"": "x" * 10**6}, {"a": {"b": "c"}}, None))
    elif way == 6:
        header[rng.choice(("", name + "2", "\x00", "__metadata__x", "decoder." * 99))] = header.pop(name)
    elif way == 7:
        header = alter(header, rng)
    elif way == 8:
        at = rng.randrange(0, len(weights) // 4) * 4
        some = struct.pack("<f", rng.choice((float("nan"), float("inf"), -float("inf"), 3e38)))
        weights = weights[:at] + some + weights[at + 4 :]
    text = json.dumps(header).encode()
    if way == 9:
        text = text[:-1] + b"," + text[1:]  # every key twice
    elif way == 10:
        others = (b"\xff" + text, text[:-9], b"[" * DEEP, b'{"a":' * 2000, b"[]", b"1", text + b" " * 10**6)
        text = rng.choice(others)
    length = rng.choice((2**63, 2**64 - 1, 10**8, 0, len(text) + 1, len(text) - 1)) if way == 11 else len(text)
    return struct.pack("<Q", length) + text + weights


# -- states of training ----------------------------------------------------------------------------------


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit(99)",))


def other_training(data: bytes, rng: random.Random) -> bytes:
    """Another state of a training."""
    buffer = io.BytesIO()
    if rng.random() < 0.75:
        state = torch.load(io.BytesIO(data), weights_only=True)
        torch.save(alter(state, rng), buffer)
        return buffer.getvalue()
    way = rng.randrange(6)
    if way == 0:
        torch.save({"progress": _Evil()}, buffer)
        return buffer.getvalue()
    if way == 1:
        return pickle.dumps({"progress": rng.choice((_Evil(), 1))})
    if way == 2:
        torch.save({"progress": 1}, buffer, _use_new_zipfile_serialization=False)
        return buffer.getvalue()
    if way == 3:
        return _zip({"x/data.pkl": b"\x80\x02\x8d" + struct.pack("<Q", 1 << 40), "x/version": b"3\n"})
    if way == 4:
        return _zip({"x/data.pkl": b"\x80\x02" + b"]" * DEEP + b".", "x/version": b"3\n"})
    return _bomb()


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@cache
def _bomb() -> bytes:
    """An archive of torch with a pickle of 4 GB in 4 MB."""
    size, name = (1 << 32) - (1 << 20), b"x/data.pkl"
    packer, packed, block = zlib.compressobj(1, zlib.DEFLATED, -15), [], b"]" * (1 << 20)
    packed = [packer.compress(block) for _ in range(size >> 20)] + [packer.flush()]
    data = b"".join(packed)
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0, 0, len(data), size, len(name), 0)
    local = b"PK\x03\x04" + fields + name + data
    central = b"PK\x01\x02\x14\x00" + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + b"PK\x05\x06" + end
