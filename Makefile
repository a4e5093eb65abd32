# Two commands on a fresh machine: `make demo` and `make test`. Everything they need goes into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs

# Test processes share the cores: one thread each is faster than all of them spinning (the frameworks default to all).
TEST_ENV := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE MPLBACKEND=Agg

.PHONY: help demo setup test test-all check golden clean

help:  ## Show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

demo: setup  ## Train the same small YOLOv3 on PyTorch, MindSpore and Paddle; AP per epoch side by side
	$(BIN)/portdet align yolov3_scenes train.project=$(RUNS)

setup: $(VENV)/.done  ## Make .venv with portdet and the three frameworks

$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info[:2] == (3, 11), f"portdet needs Python 3.11, this is {sys.version}"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[torch,mindspore,paddle,dev]"
	touch $@

test: setup  ## Run the tests (not the slow ones)
	$(TEST_ENV) $(BIN)/python -m pytest -m "not slow and not hardware" -n 2 --dist loadfile --durations=15

test-all: setup  ## Run all tests, minutes-long and hardware ones too
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadfile --durations=30

check: setup  ## What CI checks besides the tests: style, types, generated sources
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

golden: setup  ## Write the golden files anew; read the difference before you commit it
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/lower/test_golden_source.py

clean:  ## Remove .venv and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
