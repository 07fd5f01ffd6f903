# make demo: from nothing to an aligned chat model and its report. make test: everything the checks hold.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo smollm2 test test-all lint clean

# .venv is whole when its stamp is newer than what it was made from
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

setup: $(VENV)/.ready

demo: setup
	$(BIN)/ayni run recipes/tiny.yaml

smollm2: setup
	$(BIN)/ayni run recipes/smollm2-135m-quick.yaml

lint: setup
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
