# Everything happens in .venv, installed from requirements.lock; `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-full lint bench bench-quick bench-learning lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else f"Python 3.11 or later is needed, {sys.executable} is {sys.version.split()[0]}; give PYTHON=...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(INSTALLED) ## train DQN, VPG and A3C, 8 seeds each, and say where the curves lie
	$(BIN)/purejaxrl train dqn --preset tuned --seeds 8 --out results/demo-dqn --overwrite
	$(BIN)/purejaxrl train vpg --preset tuned --seeds 8 --out results/demo-vpg --overwrite
	$(BIN)/purejaxrl train a3c --preset tuned --seeds 8 --out results/demo-a3c --overwrite

# Most of the suite's time is compiling; without LLVM's optimisations that takes half as long, and nothing else changes.
test: $(INSTALLED) ## the test suite, under ten minutes on two cores
	XLA_FLAGS="$(XLA_FLAGS) --xla_backend_optimization_level=0" $(BIN)/python -m pytest -n 2 -m "not slow"

test-full: $(INSTALLED) ## the test suite with the slow learning tests, then faults planted on purpose
	$(BIN)/python -m pytest -n 2
	$(BIN)/python tests/mutations.py

lint: $(INSTALLED) ## format, style, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED) ## speed and memory, into benchmarks/speed.json, sweeps.json and frames.json
	$(BIN)/python benchmarks/speed.py --out benchmarks/speed.json
	$(BIN)/python benchmarks/sweeps.py --out benchmarks/sweeps.json
	$(BIN)/python benchmarks/frames.py --out benchmarks/frames.json
	$(BIN)/python benchmarks/report.py

bench-quick: $(INSTALLED) ## the same with fewer repetitions, printed only
	$(BIN)/python benchmarks/speed.py --quick

bench-learning: $(INSTALLED) ## the learning results of benchmarks/RESULTS.md
	$(BIN)/python benchmarks/learning.py
	$(BIN)/python benchmarks/delay.py
	$(BIN)/python benchmarks/pixels.py
	$(BIN)/python benchmarks/report.py

lock: $(INSTALLED) ## write requirements.lock anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --python-version 3.11 --extra dev pyproject.toml -o requirements.lock

clean: ## remove the environment and caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist *.egg-info
