"""What the Tab key completes, in the shells themselves, and how it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tasks import completion
from tasks.cli import COMMANDS, main

CASES = {
    "gen tra": {"train", "translate"},
    "gen train te": {"text"},
    "gen train ": {"text", "translate", "caption", "classify"},
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
    code = f'eval "$(cat {scripts}/bash)"; complete -p gen >/dev/null || exit 1\n'
    for line in CASES:
        words = " ".join(f"'{word}'" for word in line.split(" "))
        code += f'COMP_WORDS=({words}); COMP_CWORD={line.count(" ")}; _shtab_gen; echo "${{COMPREPLY[*]}}"\n'
    found = [set(line.split()) for line in shell("bash", code, scripts).splitlines()]
    assert dict(zip(CASES, found, strict=True)) == CASES


def test_zsh_completes(scripts, tmp_path):
    """In a terminal of its own, which zsh's module zpty makes: Tab, Tab completes or lists what fits."""
    (tmp_path / ".zshrc").write_text(
        f"PS1=; autoload -Uz compinit; compinit -u -d {tmp_path}/dump; unsetopt beep; LISTMAX=0\n"
        f"bindkey '^I' complete-word; cd {scripts}/files; eval \"$(cat {scripts}/zsh)\"; echo ready\n"
    )
    code = f"zmodload zsh/zpty; zpty z 'TERM=dumb ZDOTDIR={tmp_path} zsh -i'; zpty -r -m z got '*ready*'\n"
    for line in CASES:
        code += f"zpty -w -n z $'{line}\\t\\t'; sleep 0.3; zpty -w -n z $'\\x15'; sleep 0.1\n"
        code += "all=; while zpty -r -t z got; do all+=$got; done; print -r -- ${(q)all}\n"
    found = shell("zsh", code, scripts).splitlines()
    for (line, expected), text in zip(CASES.items(), found, strict=True):
        assert all(word in text for word in expected), line


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
    assert f'this one: eval "$(cat {path})"' in out
    assert path.read_text() == f"# {name}\n"
    line = f'[ -f {path} ] && eval "$(cat {path})"  # tab completion of gen\n'.encode()
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
    (home / ".bashrc").chmod(0o400)
    status, _, err = gen("--install-completion", "bash")
    assert status == 2
    assert err == f"gen: {home}/.bashrc: Permission denied\n"


def test_a_broken_task_leaves_the_others_alone(monkeypatch, capsys):
    from tasks.cli import Command

    broken = {"info": COMMANDS["info"], "bad": Command("tests.test_completion:broken", "", "")}
    monkeypatch.setattr(completion, "all_commands", lambda: broken)
    assert list(completion._parsers()) == ["info"]
    assert "gen: bad: no completion (oh)" in capsys.readouterr().err
    assert main(["--version"]) == 0


def broken(argv, command):
    raise RuntimeError("oh")


def test_without_a_home_the_script_is_still_printed(gen, monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(completion.Path, "home", nobody)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    status, _, err = gen("--install-completion", "bash")
    assert (status, err.count("\n")) == (2, 1)
    assert "gen --show-completion prints" in err
