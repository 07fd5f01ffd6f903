# make demo: from nothing to an aligned chat model and its report. make test: everything the checks hold.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup demo smollm2 reward-real bench lint test test-all clean

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

# Two reward models on real preferences: make reward-real HELPFUL=alpacaeval.jsonl.gz SAFETY=hh_harmless.jsonl.gz
REWARD_REAL := --model models/smollm2 --lr 5e-5 --set pairs=300 --set row_len=512 --set batch_pairs=8 --set micro_rows=4 --set warmup_share=0.03
reward-real: setup
	@test -f "$(HELPFUL)" -a -f "$(SAFETY)" || { echo "say where the preferences are: make reward-real HELPFUL=FILE SAFETY=FILE"; exit 2; }
	test -f models/smollm2/config.json || $(BIN)/ayni import smollm2-135m models/smollm2 --chat-template chatml
	$(BIN)/ayni reward $(REWARD_REAL) --data "$(HELPFUL)" --kind helpfulness --out models/real-helpfulness
	$(BIN)/ayni reward $(REWARD_REAL) --data "$(SAFETY)" --kind safety --out models/real-safety

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
