"""`gen generate`: several temperatures, seeds, and a conversation on a terminal."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import make_model

ROOT = Path(__file__).parents[1]


@pytest.fixture
def saved(tokenizer, tmp_path):
    """The folder of an untrained model."""
    make_model(tokenizer).save(tmp_path / "model")
    return tmp_path / "model"


def test_several_temperatures_and_the_seed_that_was_drawn(gen, saved):
    options = ("--temperature", 0.3, 0, 1.3, saved, "--prompt", "the", "--prompt", "a", "--max-new-tokens", 9)
    status, out, err = gen("generate", *options, "--json", "--batch-size", 1)
    assert status == 0, err
    records = [json.loads(line) for line in out.splitlines()]
    wanted = [(prompt, t) for prompt in ("the", "a") for t in (0.3, 0, 1.3)]
    assert [(r["prompt"], r["temperature"]) for r in records] == wanted
    assert ["seed" in r for r in records] == [True, False, True] * 2
    (seed,) = {r["seed"] for r in records if "seed" in r}
    again = gen("generate", *options, "--json", "--seed", seed)[1]
    assert [json.loads(line)["text"] for line in again.splitlines()] == [r["text"] for r in records]
    other = gen("generate", *options, "--json")[1]
    assert json.loads(other.splitlines()[0])["seed"] != seed
    greedy = gen("generate", saved, "--temperature", 0, "--json", "--max-new-tokens", 5)[1]
    assert set(json.loads(greedy)) == {"prompt", "text", "score", "num_tokens", "finished", "temperature"}


def test_a_conversation_on_a_terminal(saved):
    """Lines can be edited and recalled; Ctrl-C cancels a line, Ctrl-D ends."""
    pty = pytest.importorskip("pty")
    pytest.importorskip("readline")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tasks.cli", "generate", saved, "--interactive", "--max-new-tokens", "5"]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = subprocess.Popen(
        [*command, "--device", "cpu"], cwd=ROOT, **streams, start_new_session=True, preexec_fn=_take_terminal
    )
    os.close(theirs)

    def wait_for(text):
        seen = b""
        while text not in seen:
            assert select.select([ours], [], [], 60)[0], seen
            seen += os.read(ours, 4096)
        return seen

    try:
        wait_for(b"> ")
        os.write(ours, b"xyz")
        wait_for(b"xyz")  # it reads: a signal before that would be seen with the next key only
        os.write(ours, b"\x03")  # cancelled: the vocabulary has no x
        while not select.select([ours], [], [], 2)[0]:
            os.write(ours, b"\x03")  # Python sees a signal between two keys with the next one only
        wait_for(b"> ")
        os.write(ours, b"thw\x7fe\n")  # w taken back
        answer = wait_for(b"> ")
        os.write(ours, b"\x1b[A\n")  # the line before, once more
        answer += wait_for(b"> ")
        os.write(ours, b"\x04")
        assert process.wait(60) == 0
        assert b"no character" not in answer
        assert answer.count(b"\nthe") == 2, answer
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _take_terminal():
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs, such as these tests, ignore it
