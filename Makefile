# `make demo` and `make test` set up everything they need (one virtual environment, made once) and run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
TEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test coverage check bench soak clients runtime docs clean

demo: $(READY)
	$(BIN)/gen demo

test: $(READY)
	$(TEST)

# The tests, and the share of the lines that they run; takes half as long again.
coverage: $(READY)
	$(TEST) --cov=gen --cov=tasks

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m tests.bench

# Kills, damaged and hostile input, for an hour and more.
soak: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'schemathesis>=4'
	$(BIN)/python -m tests.soak
	$(BIN)/python -m tests.soak_serve

# The JavaScript package `openai` against `gen serve`; needs node and npm.
clients: $(READY)
	$(BIN)/python -m tests.clients

# The small distribution that runs exported models without torch, as a wheel in dist/.
runtime: $(READY)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist ./gen/runtime

# The manual, in build/docs.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --config-file data/mkdocs.yml

# Rebuilt when the dependencies change; the install is editable, so code changes need nothing.
# Gigabytes come over the network, and a broken or damaged download ends pip. So it is tried again; what has come is in
# pip's cache, which the last try does without, since a damaged file may be in there too.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) || $(INSTALL) || $(INSTALL) --no-cache-dir
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache
