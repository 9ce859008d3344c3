# One virtual environment for everything; torch first and pinned, because an unpinned request
# replaces a CPU build by gigabytes of CUDA.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0

.PHONY: setup demo test slow perf lint docs clean

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

perf: setup
	$(BIN)/python -m perf --out perf/results

docs: setup
	$(BIN)/python -m docs.build

clean:
	rm -rf $(VENV) demo_out
