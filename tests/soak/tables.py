"""Tables that somebody has made by hand: Parquet, JSON Lines, text with delimiters; and lines of text."""

from __future__ import annotations

import base64
import datetime
import decimal
import io
import json
import random
import struct
from typing import Any

from tests.soak.structures import DEEP, alter, odd_json

_ROWS = 40


def other_parquet(data: bytes, rng: random.Random) -> bytes:
    """Another Parquet file: of other types, or with a footer that says what is not so."""
    import pyarrow as pa
    from pyarrow import parquet

    texts = [f"the cat {n}" for n in range(_ROWS)]
    columns: dict[str, Any] = {
        "struct": [{"source": t, "target": {"de": t}} for t in texts],
        "list": [[t] * (n % 4) for n, t in enumerate(texts)],
        "map": pa.array([[(t, t)] for t in texts], pa.map_(pa.string(), pa.string())),
        "binary": [t.encode() + b"\xff" for t in texts],
        "decimal": [decimal.Decimal("1.23")] * _ROWS,
        "time": [datetime.datetime(1, 1, 1)] * _ROWS,
        "dictionary": pa.array(texts).dictionary_encode(),
        "null": pa.nulls(_ROWS),
        "half null": [t if n % 3 else None for n, t in enumerate(texts)],
        "float": [float("nan")] * _ROWS,
        "long": ["x" * 200_000] * _ROWS,
        "empty": [""] * _ROWS,
        "line ends": ["a\nb\r\u2028c\x00"] * _ROWS,
        "large": pa.array(texts, pa.large_string()),
        "bool": [True] * _ROWS,
        "text": texts,
    }
    kinds = [rng.choice(list(columns)) for _ in range(rng.randint(0, 3))]
    names = rng.sample(("source", "target", "Source", "", "a.b", "\x1b[31m", "1", "caption"), len(kinds))
    if rng.random() < 0.5:
        names[:2] = ["source", "target"][: len(names)]
    if rng.random() < 0.1 and len(names) > 1:
        names[1] = names[0]
    table = pa.Table.from_arrays([pa.array(columns[kind]) for kind in kinds], names=names)
    table = table.slice(0, rng.choice((0, 1, _ROWS, _ROWS)))
    plain = all(kind in ("text", "empty", "long", "line ends") for kind in kinds)
    encoding = {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"} if plain and kinds else {}
    buffer = io.BytesIO()
    parquet.write_table(
        table,
        buffer,
        compression=rng.choice(("none", "snappy", "gzip", "brotli", "zstd", "lz4")),
        version=rng.choice(("1.0", "2.6")),
        data_page_version=rng.choice(("1.0", "2.0")),
        row_group_size=rng.choice((1, 7, None)),
        **(encoding if rng.random() < 0.5 else {}),
    )
    made = buffer.getvalue()
    return made if rng.random() < 0.5 else _other_footer(rng.choice((made, data)), rng)


def _other_footer(data: bytes, rng: random.Random) -> bytes:
    way = rng.randrange(6)
    (length,) = struct.unpack("<I", data[-8:-4])
    body, footer = data[: -8 - length], data[-8 - length : -8]
    if way == 0:
        return rng.choice((b"PAR2", b"PARE", b"\x1f\x8b\x08\x00")) + data[4:]
    if way == 1:
        return data[:-4] + rng.choice((b"PARE", b"PAR2"))
    if way == 2:
        length = rng.choice((0, 2**32 - 1, 2**31, length + 1, length - 1))
        return body + footer + struct.pack("<I", length) + b"PAR1"
    if way == 3:  # numbers of rows and values, as thrift writes them: a field of 64 bits and a zigzag
        rows = bytes([0x16, 2 * _ROWS])
        most = rng.choice((2**31, 2**40, 2**62, 10**9))
        footer = footer.replace(rows, b"\x16" + _varint(2 * most), rng.choice((1, 2, 99)))
    elif way == 4:
        at = rng.randrange(len(footer))
        footer = footer[:at] + bytes([rng.randrange(256)]) + footer[at + 1 :]
    else:
        at = rng.randrange(len(body))
        body = body[:at] + bytes([rng.randrange(256)]) * rng.choice((1, 8)) + body[at + 8 :]
    return body + footer + struct.pack("<I", len(footer)) + b"PAR1"


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def other_json_lines(data: bytes, rng: random.Random) -> bytes:
    """JSON Lines, some of which are odd; or one JSON document."""
    lines = data.splitlines()
    way = rng.random()
    if way < 0.1:
        return rng.choice(odd_json())
    if way < 0.2:
        rows = [json.loads(line) for line in lines]
        return json.dumps(alter(rng.choice((rows, {"data": rows}, dict(enumerate(rows)))), rng)).encode()
    for _ in range(rng.choice((1, 1, 3, len(lines)))):
        at = rng.randrange(len(lines))
        if rng.random() < 0.6:
            lines[at] = json.dumps(alter(json.loads(data.splitlines()[at]), rng)).encode()
        else:
            lines[at] = rng.choice(odd_json())
    return rng.choice((b"\n", b"\n", b"\r\n", b"\r", b"\n\n", b",\n")).join(lines)


def other_delimited(data: bytes, rng: random.Random) -> bytes:
    """Text with delimiters in which something is odd."""
    text = data.decode()
    first, rest = text.split("\n", 1)
    mark = "\t" if "\t" in first else ","
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    odd = rng.choice(
        (
            '"',
            '"a' + mark + "b",
            mark * DEEP,
            '""' * 999 + '"',
            "x" * 10**6,
            "\x00",
            "\ufeff",
            "9" * 10_000,
            f"=cmd|' /C calc'!A0{mark}b",
            mark.join("ab"),
            mark,
            "\x1b[2J" + mark + "\x07",
            "sep=" + mark,
            "\\" + mark + '\\"',
            "é" * 70_000,
        )
    )
    ways = (
        "\n".join([*lines[:at], odd, *lines[at:]]),
        "\n".join([*lines[:at], odd, *lines[at + 1 :]]),
        odd + "\n" + text,
        text.replace(mark, rng.choice((";", "|", "\t", " ", "\x00", ",,"))),
        text.replace("\n", rng.choice(("\r", "\r\n", "\x0b", "\u2028", "", "\n\n"))),
        first * 9999 + "\n" + rest,
        (mark.join(map(str, range(5000))) + "\n") * 3,
        "\n".join(line.split(mark)[0] for line in lines),
        "\n".join(mark.join(["1", "2"]) for _ in lines),
        "\n".join([lines[0]] * 9999),
    )
    return rng.choice(ways).encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig", "utf-7")))


def other_text(data: bytes, rng: random.Random) -> bytes:
    """A text that is odd, or none."""
    text = data.decode()
    ways = (
        text.replace(" ", ""),
        text.replace("\n", ""),
        text.replace("\n", "\r"),
        "\x00" * 5000,
        "\n" * 5000,
        " " * 5000,
        "a",
        "ab" * 50_000,
        "e" + "\u0301" * 50_000 + text,
        "".join(chr(rng.choice((rng.randrange(1, 0xD800), rng.randrange(0xE000, 0x110000)))) for _ in range(5000)),
        "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 900,
        "<s> </s> <unk> <pad> \u2581 " * 99,
        "\u202e\ufeff\u200b" * 900 + text,
        "\x1b[31m" + text,
        "\n".join(text[:60]),
    )
    made = rng.choice(ways).encode(rng.choice(("utf-8", "utf-8", "utf-16", "utf-32", "utf-8-sig")))
    return rng.choice((made, made, made, base64.b85encode(made), b"\x1f\x8b" + made, b"\xff\xfe" + made))
