# make demo: from nothing to an aligned chat model and its report. make test: everything the checks hold.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup demo smollm2 bench lint test test-all clean

# A stamp is touched last: a set-up that was stopped half-way starts again.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) -e '.[dev]'
	touch $@

setup: $(VENV)/.ready

demo: setup
	$(BIN)/ayni run recipes/tiny.yaml

smollm2: setup
	$(BIN)/ayni run recipes/smollm2-135m-quick.yaml

# Row by row; what is measured stays measured until its definition changes (--fresh measures again).
bench: $(VENV)/.ready-dev
	$(BIN)/python -m bench
	$(BIN)/python -m bench.growth

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -m 'not slow'

test-all: lint
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) runs
