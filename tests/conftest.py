from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread each, or workers wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HOME", os.path.join(tempfile.gettempdir(), "gen-tests-huggingface"))

import torch

from gen.inputs.tokenizer import CharTokenizer
from gen.metrics.attention import plot_attended
from gen.models.decoder import DecoderConfig
from gen.models.model import Model
from gen.search.info import ModelInfo
from gen.training import session, task
from tasks.cli import main
from tasks.text.task import Text

pytest.register_assert_rewrite("tests.browsing")

with contextlib.suppress(ImportError):
    import hypothesis

    hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
    hypothesis.settings.load_profile("same")

os.fsync = lambda descriptor: None  # no test survives a power failure; a training waits for the disk 40 times
Text.SAMPLE_LENGTH = dict.fromkeys(Text.SAMPLE_LENGTH, 20)  # or writing samples takes longer than tiny trainings

with contextlib.suppress(ImportError, AttributeError):
    # torch has onnxscript parse all its operators for each graph, a third of an export: here, once for all
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))

TEXT = "the cat sat on the mat. the dog ran to the cat, and the cat ran off the mat.\n"


SLOW = ("test_web.py", "test_page.py", "test_readme.py", "test_lessons.py", "test_caption.py", "test_faults.py")
SLOW += ("test_streamed.py", "test_distributed.py", "test_fuzz.py", "test_gpu.py", "test_manual.py")


def pytest_collection_modifyitems(items):
    """The slowest files come first and the shortest last, so that no worker is left alone with a slow one."""
    items.sort(key=lambda item: (item.path.name not in SLOW, -item.path.stat().st_size))


def _plot_unless_in_a_run(model, item, found, to):
    if to.parent.name != "plots":
        plot_attended(model, item, found, to)


@pytest.fixture(autouse=True)
def _clean(tmp_path_factory, monkeypatch):
    """No test sees another one's cache, seed or dtype, or draws the plots of a training: fixtures do that look."""
    monkeypatch.setenv("GEN_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(session, "plot_losses", lambda records, to, **_: to.write_bytes(b""))
    monkeypatch.setattr(task, "plot_attended", _plot_unless_in_a_run)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def tokenizer():
    return CharTokenizer.train([TEXT])


@pytest.fixture
def model(tokenizer):
    """A small untrained model, its output sharpened so that choices are clear."""
    return make_model(tokenizer)


def make_model(tokenizer, seed=0, encoder=None, **sizes):
    torch.manual_seed(seed)
    sizes = {"embedding_size": 12, "hidden_size": 16, "num_layers": 2, **sizes}
    encoder = encoder or {"name": "none"}
    model = Model(encoder, DecoderConfig(len(tokenizer), **sizes), tokenizer, ModelInfo(task="text"))
    with torch.no_grad():
        model.decoder.output.weight *= 6
        model.decoder.first_state_bias.normal_()
    return model.eval()


@pytest.fixture
def book(tmp_path):
    """A file that a tiny model can learn something from."""
    path = tmp_path / "book.txt"
    path.write_text(TEXT * 40)
    return path


@pytest.fixture
def gen(capsys):
    """Runs `gen` as a user types it, inside this process: (status, stdout, stderr)."""

    def run(*argv):
        capsys.readouterr()
        try:
            status = main([str(a) for a in argv])
        except SystemExit as stop:  # --help
            status = stop.code or 0
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


SMALL_TRANSLATOR = {
    "level": "char",
    "hidden_size": 16,
    "encoder_size": 16,
    "embedding_size": 8,
    "num_layers": 1,
    "encoder_layers": 1,
}
TINY = (
    "--hidden-size",
    "16",
    "--embedding-size",
    "8",
    "--batch-size",
    "2",
    "--chunk",
    "16",
    "--validations",
    "2",
    "--precision",
    "fp32",
    "--device",
    "cpu",
)


@pytest.fixture(scope="session")
def _trained(tmp_path_factory):
    """A folder with a book, a finished tiny run on it, and the cache of its data."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "book.txt").write_text(TEXT * 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN_CACHE", str(folder / "cache"))
        command = ["train", "text", "--data", str(folder / "book.txt"), "--out", str(folder / "run")]
        assert main([*command, "--budget", "30 steps", *TINY]) == 0
    return folder


@pytest.fixture
def trained(_clean, _trained, book, tmp_path):
    """The folder of a finished tiny run on `book`: a copy, as if it had been made here."""
    shutil.copytree(_trained / "cache", os.environ["GEN_CACHE"], dirs_exist_ok=True)
    out = shutil.copytree(_trained / "run", tmp_path / "run")
    for file in (*out.rglob("*.yaml"), *out.rglob("README.md")):
        file.write_text(file.read_text().replace(str(_trained), str(tmp_path)))
    return out


@pytest.fixture(scope="module")
def browser():
    """Chromium; tests of pages are marked with `needs_browser`."""
    from tests.browsing import ARGUMENTS, CHROMIUM, sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def cache():
    """A cache with ONNX Runtime for browsers, for all runs of the tests."""
    from gen.base.errors import UserError
    from gen.web.assets import onnxruntime_web

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN_CACHE", os.path.join(tempfile.gettempdir(), "gen-tests-web"))
        try:
            onnxruntime_web()
        except UserError as error:
            pytest.skip(str(error))
        yield


@pytest.fixture(scope="session")
def page_exports(tmp_path_factory):
    """Folders of the exported `page_models` by name, made once for all workers."""
    pytest.importorskip("onnxscript")
    from gen.base.folders import locked
    from gen.models.export import export
    from tests.serving import page_models

    root, models = tmp_path_factory.getbasetemp(), page_models()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # all workers', of this run alone
    folders = {name: root / "page-exports" / name for name in models}
    (root / "page-exports").mkdir(exist_ok=True)
    with locked(root / "page-exports" / ".lock"):
        for name, folder in folders.items():
            if not folder.exists():
                export(models[name], folder)
    return folders
