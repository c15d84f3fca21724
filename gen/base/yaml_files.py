"""YAML of options and records: of limited size, and without what can grow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from gen.base.errors import UserError, first_line
from gen.base.files import read_whole

LARGEST_YAML = 1 << 20
"""Bytes of a YAML file."""

_DIGITS = 100
"""Most digits of a whole number in a YAML file."""


class _Loader(yaml.SafeLoader):
    """YAML without aliases, a few of which can stand for more values than fit into memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(problem="aliases (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > _DIGITS:  # nobody means such a number, and Python refuses to print it
            raise yaml.constructor.ConstructorError(problem=f"a number of {len(node.value):,} digits")
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_implicit_resolver(  # YAML 1.1 reads 1e-3 as a text
    "tag:yaml.org,2002:float", re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+$"), list("+-0123456789")
)


def read_options(path: str) -> Any:
    """The options in a YAML file, which may be a pipe. Raises `UserError` where it cannot be read."""
    try:
        with open(path, "rb") as file:  # --config <(...)
            content = file.read(LARGEST_YAML + 1)
        if len(content) > LARGEST_YAML:
            raise UserError(f"{path}: is larger than {LARGEST_YAML >> 20} MB: this is no file of options")
        values = parse_yaml(content.decode())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from error
    return {} if values is None else values


def parse_yaml(text: str) -> Any:
    """Plain values from YAML. Raises ValueError where it is damaged, nested too deeply, or has aliases.

    Example:
        >>> parse_yaml("train: {learning_rate: 1e-3}")
        {'train': {'learning_rate': 0.001}}
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_yaml(path: Path) -> Any:
    """Plain values from a YAML file of at most `LARGEST_YAML` bytes. Raises OSError and ValueError."""
    return parse_yaml(read_whole(path, LARGEST_YAML).decode())
