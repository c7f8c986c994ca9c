# Every target that runs Python makes its environment first; nothing has to be installed by hand.
#
#   PYTHON       interpreter the environment is made with (3.10 or newer)
#   VENV         folder of the environment
#   PYTEST_ARGS  further arguments for pytest, e.g. PYTEST_ARGS="-n 2 tests/layers"

PYTHON ?= python3
PYTEST_ARGS ?=

# Whoever works in an environment that has Detectron2 keeps it: what is missing is added there and no .venv is made.
# Naming a VENV always wins over the active environment.
ifeq ($(origin VENV),undefined)
ACTIVE := $(shell python -c 'import importlib.util, sys; print(sys.executable if importlib.util.find_spec("detectron2") else "")' 2>/dev/null)
endif
VENV ?= .venv

ifeq ($(ACTIVE),)
PY := $(VENV)/bin/python
INSTALL := "$(PYTHON)" tools/install_environment.py --venv "$(VENV)"
else
PY := $(ACTIVE)
INSTALL := "$(ACTIVE)" tools/install_environment.py
endif

.DEFAULT_GOAL := help
.PHONY: help environment demo test docs lint types clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

environment: ## make or complete the Python environment (quick when it is there)
	@$(INSTALL)

demo: environment ## generate a small data set, train on it, evaluate and draw (minutes on a CPU)
	"$(PY)" tools/run_demo.py

test: environment ## run the tests
	"$(PY)" -m pytest tests -q $(PYTEST_ARGS)

docs: environment ## make a web site of guides and docstrings in build/docs
	"$(PY)" tools/build_docs.py

lint: environment ## check style and formatting with ruff
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .

types: environment ## check types with mypy
	"$(PY)" -m mypy rec_attend_d2

clean: ## remove caches and build products (keeps environment, data sets and training output)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find rec_attend_d2 research tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
