# One virtual environment for everything; torch first and pinned, because an unpinned request
# replaces a CPU build by gigabytes of CUDA.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
# The oldest transformers that pyproject.toml admits; another one: make oldest OLDEST=transformers==5.20.*
OLDEST ?= transformers==5.18.*
OLD := .venv-oldest/bin
LAWS := tests/families tests/engine tests/test_processors.py

.PHONY: setup demo test slow oldest perf lint docs clean

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet -e ".[dev,plot]"
	touch $@

demo: setup
	$(BIN)/python -m foveate.demo --out demo_out

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: setup
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow

oldest:
	test -d .venv-oldest || $(PYTHON) -m venv .venv-oldest
	$(OLD)/python -c "import torch" 2>/dev/null || $(OLD)/pip install --quiet "$(TORCH)"
	$(OLD)/pip install --quiet -e ".[dev]" "$(OLDEST)"
	OMP_NUM_THREADS=1 $(OLD)/python -m pytest -n 2 -p no:cacheprovider $(LAWS)

perf: setup
	$(BIN)/python -m perf --out perf/results

docs: setup
	$(BIN)/python -m docs.pictures
	$(BIN)/python -m docs.build

clean:
	rm -rf $(VENV) .venv-oldest demo_out
