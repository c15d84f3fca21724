"""What the Tab key completes, in the shells themselves, and how it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks import completion
from tasks.cli import COMMANDS, main

CASES = {
    "gen tra": {"train", "translate"},
    "gen train te": {"text"},
    "gen train ": {"text", "translate", "caption"},
    "gen help pl": {"plot"},
    "gen help train tra": {"translate"},
    "gen generate RUN --max-n": {"--max-new-tokens"},
    "gen generate RUN --precision b": {"bf16"},
    "gen train text --level ": {"char", "word", "subword"},
    "gen translate RUN --jso": {"--json"},
    "gen plot attention RUN --tex": {"--text"},
    "gen train text --data no": {"notes.txt"},
    "gen generate no": {"notes.txt"},
    "gen --show-c": {"--show-completion"},
    "gen --show-completion z": {"zsh"},
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The scripts, and a file to complete."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in completion.SHELLS:
        (folder / shell).write_text(completion.script(shell))
    (folder / "files").mkdir()
    (folder / "files" / "notes.txt").touch()
    return folder


def shell(name, code, scripts):
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    flags = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[name]
    done = subprocess.run(
        [name, *flags, "-c", code], capture_output=True, text=True, cwd=scripts / "files", check=False, timeout=60
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize("name", completion.SHELLS)
def test_scripts_are_well_formed(scripts, name):
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    subprocess.run([name, "-n", scripts / name], check=True, timeout=60)
    text = (scripts / name).read_text()
    assert all(command.split()[-1] in text for command in COMMANDS)


def test_bash_completes(scripts):
    """COMP_WORDS is what bash makes of the line; where the function finds nothing, bash itself completes files."""
    code = f". {scripts}/bash; complete -p gen | grep -q -e '-o default' || exit 1\n"
    for line in CASES:
        words = " ".join(f"'{word}'" for word in line.split(" "))
        code += f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=(); _gen\n"
        code += 'if [ ${#COMPREPLY[@]} = 0 ]; then COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")); fi\n'
        code += 'echo "${COMPREPLY[*]}"\n'
    code += 'COMP_WORDS=(gen train text --cell = l); COMP_CWORD=5; _gen; echo "${COMPREPLY[*]}"\n'
    *found, equals = [set(line.split()) for line in shell("bash", code, scripts).splitlines()]
    assert dict(zip(CASES, found, strict=True)) == CASES
    assert equals == {"lstm"}


def test_zsh_completes(scripts):
    """With zsh's own parts replaced by ones that print what they are given."""
    code = "compdef() {}; compset() {}; _files() { print -l -- *(N) }; compadd() { shift; print -l -- $@ }\n"
    code += f". {scripts}/zsh\n"
    for line in CASES:
        words = " ".join(f"'{word}'" for word in line.split(" "))
        code += f"words=({words}); CURRENT=$#words; print -r -- $(_gen)\n"
    code += "words=(gen train text --cell=l); CURRENT=4; print -r -- $(_gen)\n"
    *found, equals = shell("zsh", code, scripts).splitlines()
    for (line, expected), words in zip(CASES.items(), found, strict=True):
        assert {w for w in words.split() if w.startswith(line.split(" ")[-1])} == expected, line
    assert set(equals.split()) == {"rnn", "gru", "lstm"}


def test_fish_completes(scripts):
    code = f"source {scripts}/fish\n" + "".join(f"complete -C '{line}'; echo =====\n" for line in CASES)
    found = [
        {row.split("\t")[0] for row in part.split("\n") if row}
        for part in shell("fish", code, scripts).split("=====\n")[:-1]
    ]
    assert dict(zip(CASES, found, strict=True)) == CASES
    assert "Recurrent cell" in shell("fish", f"source {scripts}/fish; complete -C 'gen train text --cel'", scripts)


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(completion, "script", lambda shell: f"# {shell}\n")
    return tmp_path


@pytest.mark.parametrize(("name", "start_up"), [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_install_adds_one_line(gen, home, monkeypatch, name, start_up):
    monkeypatch.setenv("SHELL", f"/usr/bin/{name}")
    real = home / "dotfiles"
    real.write_bytes(b"alias x=y\xe9\r\nlast")
    real.chmod(0o600)
    (home / start_up).symlink_to(real)
    status, out, _ = gen("--install-completion")
    path = home / ".local" / "share" / "gen-toolkit" / f"completion.{name}"
    assert status == 0
    assert str(path) in out
    assert f"source {path}" in out
    assert path.read_text() == f"# {name}\n"
    line = f"[ -f {path} ] && . {path}  # tab completion of gen\n".encode()
    assert real.read_bytes() == b"alias x=y\xe9\r\nlast\n" + line
    assert (home / start_up).is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert "already" in gen("--install-completion", name)[1]
    assert real.read_bytes().count(line) == 1
    assert {p.name for p in home.iterdir()} == {start_up, "dotfiles", ".local"}


def test_install_for_fish_and_without_a_start_up_file(gen, home):
    assert gen("--install-completion", "fish")[0] == 0
    assert (home / ".config/fish/completions/gen.fish").read_text() == "# fish\n"
    assert gen("--install-completion", "bash")[0] == 0
    assert (home / ".bashrc").read_text().count("\n") == 1
    assert gen("--show-completion", "zsh")[1] == "# zsh\n"


@pytest.mark.parametrize("words", [("--install-completion", "tcsh"), ("--show-completion", "bash", "zsh"),
                                   ("--show-completion",)])  # fmt: skip
def test_other_shells(gen, home, monkeypatch, words):
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    status, out, err = gen(*words)
    assert (status, out) == (2, "")
    assert err == f"gen: {words[0]}: name a shell, bash, zsh or fish: gen {words[0]} bash\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_start_up_file_that_cannot_be_written(gen, home):
    (home / ".bashrc").write_text("mine")
    Path(home / ".local/share/gen-toolkit").mkdir(parents=True)
    home.chmod(0o500)
    status, _, err = gen("--install-completion", "bash")
    home.chmod(0o700)
    assert status == 2
    assert err.startswith(f"gen: {home}/.bashrc: cannot be written")


def test_a_broken_task_leaves_the_others_alone(monkeypatch, capsys):
    from tasks.cli import Command

    broken = {"info": COMMANDS["info"], "bad": Command("tests.test_completion:broken", "", "")}
    monkeypatch.setattr(completion, "all_commands", lambda: broken)
    assert list(completion._options()) == ["info"]
    assert "gen: bad: no completion (oh)" in capsys.readouterr().err
    assert main(["--version"]) == 0


def broken(argv, command):
    raise RuntimeError("oh")
