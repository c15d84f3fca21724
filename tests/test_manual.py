"""The manual: its links lead somewhere, its commands are commands, its Python runs; every public name is in it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

import gen as toolkit
from data.docs import manual
from gen.base import config as base_config
from gen.search.info import ModelInfo
from gen.training.registry import find_task
from tasks.cli import _find, run_command
from tests.test_readme import blocks, desk  # noqa: F401  # a fixture

DOCS = manual.ROOT / "data" / "docs"
WRITTEN = {path.relative_to(DOCS).as_posix(): path.read_text("utf-8") for path in sorted(DOCS.rglob("*.md"))}
RUNS = {"book": "text", "titles": "text", "en-de": "translate", "captions": "caption", "news": "classify"}


@pytest.fixture(scope="module")
def pages():
    return WRITTEN | manual.pages()


def test_every_page_is_in_the_contents(pages):
    def leaves(nav):
        for each in nav:
            yield from (
                [each] if isinstance(each, str) else leaves([v for several in each.values() for v in several])
            )

    nav = list(leaves(yaml.safe_load((manual.ROOT / "data" / "mkdocs.yml").read_text("utf-8"))["nav"]))
    assert sorted(nav) == sorted(pages)


def test_links_lead_somewhere(pages):
    def anchors(text):
        titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
        return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}

    broken, count = [], 0
    for page, text in pages.items():
        plain = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", plain):
            if "://" in link:
                continue
            count += 1
            path, _, anchor = link.partition("#")
            target = (DOCS / page).parent.joinpath(path).resolve().relative_to(DOCS).as_posix() if path else page
            if target not in pages or (anchor and anchor not in anchors(pages[target])):
                broken.append((page, link))
    assert broken == []
    assert count > 25


def test_every_public_name_is_in_the_reference():
    stub = (Path(toolkit.__file__).parent / "__init__.pyi").read_text("utf-8")
    names = {*re.findall(r"^from \S+ import \w+ as (\w+)$", stub, re.M), *re.findall(r"^def (\w+)\(", stub, re.M)}
    assert names == set(dir(toolkit)) - {"__version__"}
    entries = [entry for text in WRITTEN.values() for entry in re.findall(r"^::: ([\w.]+)$", text, re.M)]
    assert {f"gen.{name}" for name in names} <= set(entries)
    assert len(entries) == len(set(entries))


class Parsed(Exception):
    """The options were read."""


def typed(text):
    """The commands in blocks of a shell."""
    for language in ("", "sh"):
        for line in "\n".join(blocks(language, text)).replace("\\\n", "").splitlines():
            words = shlex.split(line, comments=True)
            if "gen" in words[:4] and (words[0] == "gen" or words[words.index("gen") - 1] == "-m"):
                words = words[words.index("gen") + 1 :]
                yield words[: next((i for i, word in enumerate(words) if word in "<>"), len(words))]


def test_commands_are_commands(desk, monkeypatch):  # noqa: F811
    """Each is read with its options, and checked; nothing is done."""
    for name, task in RUNS.items():
        folder = Path("runs", name)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(f"format: 3\ntask: {task}\n")
        (folder / "model.safetensors").write_bytes(b"")
    real = base_config.build

    def build(kind, values):
        made = real(kind, values)
        if hasattr(made, "check"):
            made.check()
        raise Parsed

    monkeypatch.setattr(base_config, "build", build)
    commands = [words for text in WRITTEN.values() for words in typed(text) if words != ["--help"]]
    assert len(commands) > 60
    for words in commands:
        name, command, rest = _find(words)
        with pytest.raises(Parsed):
            run_command(name, command, rest)


def test_python_runs(desk):  # noqa: F811
    """With an untrained model in place of the one that a reader has."""
    task = find_task("translate").from_options(
        train="train.{en,de}", valid="val.{en,de}", level="word", hidden_size=8, encoder_size=8, embedding_size=8
    )
    model = task.build(task.config.model, task.split)
    model.info = ModelInfo(task="translate", search=task.search_defaults(model))
    model.save("runs/en-de")
    code = [block for text in WRITTEN.values() for block in blocks("python", text)]
    assert code
    for block in code:
        exec(block, {})


def test_it_builds_without_a_warning(tmp_path, monkeypatch):
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings_handlers.python")
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(manual.ROOT / "data" / "mkdocs.yml"), site_dir=str(tmp_path / "site"))
    assert config["strict"]
    build(config)  # raises an error at the first warning
    reference = (tmp_path / "site" / "reference" / "use.html").read_text("utf-8")
    assert 'id="gen.Model.generate"' in reference
    assert "http" not in "".join(re.findall(r'<(?:link|script)[^>]+(?:href|src)="([^"]*)"', reference))
