"""The structure holds: imports go one way, and search needs no torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# A folder imports only what stands to its left.
ORDER = [
    f"gen.{name}"
    for name in [
        "base",
        "inputs",
        "search",
        "runtime",
        "metrics",
        "serve",
        "web",
        "models",
        "datasets",
        "training",
        "bulk",
    ]
]


def modules():
    for path in sorted((ROOT / "gen").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        yield name, path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def place(name):
    found = [i for i, known in enumerate(ORDER) if name == known or name.startswith(known + ".")]
    return found[0] if found else None


def test_every_module_has_its_place():
    assert {name for name, _ in modules() if place(name) is None} == {"gen", "gen.__main__"}
    assert {known for known in ORDER if not any(n == known for n, _ in modules())} == set()


def test_imports_go_one_way():
    wrong = [
        f"{name} imports {imported}"
        for name, path in modules()
        if place(name) is not None
        for imported in imports(path)
        if place(imported) is not None and place(imported) > place(name)
    ]
    assert wrong == []


def test_gen_knows_no_task():
    known = [f"{n} imports {i}" for n, p in modules() for i in imports(p) if i.split(".")[0] in ("tasks", "data")]
    assert known == []


def test_the_first_folders_need_neither_torch_nor_fcntl():
    first = tuple(f"gen.{name}" for name in ("base", "inputs", "search", "runtime", "metrics", "serve", "web"))
    names = ["gen", *(name for name, _ in modules() if name.startswith(first))]
    code = (
        "import sys; from importlib import import_module\n"
        "sys.modules['torch'] = sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        f"for name in {names}: import_module(name)\n"
    )
    assert len(names) > 30
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_module_outside_a_task_asks_which_task_it_is():
    known = "|".join(sorted(path.name for path in (ROOT / "tasks").iterdir() if (path / "task.py").exists()))
    asks = re.compile(
        rf"""(?:info\.task|task|name|made_by)["')\]]*(?: *(?:==|!=|in) *|\.startswith)[("']*(?:{known})\b["']"""
    )
    places = [
        *(ROOT / "gen").rglob("*.py"),
        *(ROOT / "tasks" / "commands").rglob("*.py"),
        ROOT / "tasks" / "cli.py",
    ]
    found = [
        f"{path.name}: {line.strip()}"
        for path in places
        for line in path.read_text().splitlines()
        if asks.search(line)
    ]
    assert found == []


def test_search_and_the_markov_chain_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import gen, gen.search, gen.search.generation, gen.inputs.tokenizer\n"
        "from gen.metrics.markov import MarkovChain\n"
        "from gen.inputs.tokenizer import CharTokenizer\n"
        "t = CharTokenizer.train(['abab'])\n"
        "chain = MarkovChain.fit(t.encode_array('abab' * 9), t, 2)\n"
        "print(chain.generate('a', temperature=0, max_new_tokens=3)[0].text)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "bab\n", done.stderr


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from tasks.cli import main; main(['--help'])\n"
        "heavy = {'torch', 'rich', 'numpy', 'matplotlib', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_loading_a_model_does_not_load_torchs_compiler(model, tmp_path):
    """It takes longer than the model. An embedding made or copied on the meta device would import it."""
    model.save(tmp_path / "model")
    code = (
        "import sys, gen; gen.load(sys.argv[1]).generate('the', max_new_tokens=2)\n"
        "heavy = {'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "model"], cwd=ROOT, check=True)
