# Everything happens in .venv, installed from requirements.lock; `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
BENCH := .venv/.installed-bench
REJAX := .venv-rejax/.installed
OLDEST := .venv-oldest/.installed
NEWEST := .venv-newest/.installed
# On the PATH, or where pyenv keeps them.
NEWEST_PYTHON ?= $(shell for v in 3.14 3.13 3.12; do for p in python$$v $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$v.*/bin/python; do \
	$$p -c '' 2>/dev/null && echo $$p && break 2; done; done)

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit test-notebooks test-full test-oldest test-newest test-shipped coverage audit lint bench bench-quick bench-waiting bench-sweeps bench-clusters bench-tuning bench-scaling bench-learning bench-parity figures docs lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else f"Python 3.11 or later is needed, {sys.executable} is {sys.version.split()[0]}; give PYTHON=...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# PyTorch without CUDA where pip is told of an index or folder that has it (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS).
$(BENCH): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[bench]'
	@touch $@

$(REJAX):
	$(PYTHON) -m venv --clear .venv-rejax
	.venv-rejax/bin/python -m pip install --quiet --disable-pip-version-check rejax==0.1.3 gymnax==0.0.9 jax==0.10.2
	@touch $@

demo: $(INSTALLED) ## train DQN, VPG and A3C, 8 seeds each, and say where the curves lie
	$(BIN)/purejaxrl train dqn --preset tuned --seeds 8 --out results/demo-dqn --overwrite
	$(BIN)/purejaxrl train vpg --preset tuned --seeds 8 --out results/demo-vpg --overwrite
	$(BIN)/purejaxrl train a3c --preset tuned --seeds 8 --out results/demo-a3c --overwrite

# Most of the suite's time is compiling; test-full has all of XLA's optimizations, and notices keys that are used twice.
# A file's tests share programs and trainings, so one process runs them.
quickly = PUREJAXRL_TESTS_KEYS_UNCHECKED=1 XLA_FLAGS="$(XLA_FLAGS) $(shell $(1)/python tests/quickly.py)"

test-unit: $(INSTALLED) ## fast tests for use while editing, under a minute
	$(call quickly,$(BIN)) $(BIN)/python -m pytest -n 2 --dist loadfile tests/unit -m "not slow"

test: $(INSTALLED) ## unit and integration tests; programs are kept for the next time in .pytest_cache
	$(call quickly,$(BIN)) $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

coverage: $(INSTALLED) ## the test suite, and which branches of the package it covers; fails under 95% of them
	@rm -rf .covered && mkdir .covered
	$(call quickly,$(BIN)) PUREJAXRL_COVERAGE=.covered $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"
	$(BIN)/python tests/covering.py .covered 95

test-notebooks: $(BENCH) ## every notebook, from top to bottom; test-full does so too
	$(BIN)/python -m pytest tests/test_notebooks.py

test-full: $(BENCH) ## with slow learning tests and the PyTorch references, then faults planted on purpose
	$(BIN)/python -m pytest -n 2
	$(BIN)/python tests/mutations.py
	$(MAKE) coverage test-shipped test-oldest test-newest docs

# The lowest versions that pyproject.toml admits; what is locked is the newest, by Python 3.12 and later only.
$(OLDEST): pyproject.toml
	$(PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct -e '.[test]'
	@touch $@

test-oldest: $(OLDEST) ## the test suite with the oldest versions that are admitted
	$(call quickly,.venv-oldest/bin) .venv-oldest/bin/python -m pytest -n 2 --dist loadfile -m "not slow"

$(NEWEST): requirements.lock pyproject.toml
	@test -n "$(NEWEST_PYTHON)" || { echo "Python 3.12 or later is needed for the newest versions; give NEWEST_PYTHON=..."; exit 1; }
	$(NEWEST_PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-newest/bin/uv pip install --quiet --python .venv-newest/bin/python --require-hashes -r requirements.lock
	.venv-newest/bin/uv pip install --quiet --python .venv-newest/bin/python --no-deps --no-build-isolation -e .
	@touch $@

# What users have: no flags for XLA, nothing compiled before. The newest versions only where there is a Python for them.
test-shipped: $(INSTALLED) $(OLDEST) $(if $(NEWEST_PYTHON),$(NEWEST)) ## trainings as users have them, by the oldest, the locked and the newest versions
	$(BIN)/python tests/shipped.py .venv .venv-oldest $(if $(NEWEST_PYTHON),.venv-newest)

test-newest: $(NEWEST) ## the test suite with the newest versions, by NEWEST_PYTHON, which is 3.12 or later
	$(call quickly,.venv-newest/bin) .venv-newest/bin/python -m pytest -n 2 --dist loadfile -m "not slow"

audit: $(INSTALLED) ## known vulnerabilities of what is locked, by a public database; fails where that cannot be asked
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --strict --requirement requirements.lock --require-hashes --disable-pip

lint: $(INSTALLED) ## format, style, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(BENCH) $(REJAX) ## speed and memory, beside PyTorch and other libraries; under thirty minutes
	$(BIN)/python benchmarks/floor.py
	$(BIN)/python benchmarks/rivals.py --rejax_python .venv-rejax/bin/python
	$(BIN)/python benchmarks/environment.py --out benchmarks/environment.json
	$(BIN)/python benchmarks/speed.py --out benchmarks/speed.json
	$(BIN)/python benchmarks/waiting.py
	$(BIN)/python benchmarks/frames.py --out benchmarks/frames.json
	$(BIN)/python benchmarks/report.py

bench-quick: $(INSTALLED) ## one and eight seeds with fewer repetitions, printed only
	$(BIN)/python benchmarks/speed.py --quick

bench-waiting: $(INSTALLED) ## from Enter to the prompt, and from call to call, about ten minutes
	$(BIN)/python benchmarks/waiting.py
	$(BIN)/python benchmarks/report.py

bench-sweeps: $(INSTALLED) ## whole sweeps, from pressing Enter to the last file
	$(BIN)/python benchmarks/sweeps.py --out benchmarks/sweeps.json
	$(BIN)/python benchmarks/report.py

bench-clusters: $(INSTALLED) ## a sweep by two Dask workers beside one process, and what a shard costs; six minutes
	$(BIN)/python benchmarks/clusters.py
	$(BIN)/python benchmarks/report.py

bench-tuning: $(INSTALLED) ## searches for hyperparameters, judged on fresh seeds; goes on where it was interrupted
	$(BIN)/python benchmarks/tuning.py
	$(BIN)/python benchmarks/report.py

bench-scaling: $(INSTALLED) ## cost per seed against seeds, cores and actors; goes on where it was interrupted
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/report.py

bench-learning: $(INSTALLED) ## the learning results of benchmarks/RESULTS.md
	$(BIN)/python benchmarks/learning.py
	$(BIN)/python benchmarks/delay.py
	$(BIN)/python benchmarks/pixels.py
	$(BIN)/python benchmarks/report.py

bench-parity: $(BENCH) ## do we learn as PyTorch does, and how soon; goes on where it was interrupted
	$(BIN)/python benchmarks/parity.py
	$(BIN)/python benchmarks/solved.py
	$(BIN)/python benchmarks/report.py

figures: $(INSTALLED) ## train and plot docs/figures, and write what pages show of a run; seven minutes on two cores
	$(BIN)/python benchmarks/figures.py
	$(BIN)/python benchmarks/documented.py

docs: $(INSTALLED) ## the documentation as pages in site/, warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lock: $(INSTALLED) ## write requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --no-annotate --no-header --python-version 3.11 --extra dev pyproject.toml -o requirements.lock

clean: ## remove the environment and caches
	rm -rf .venv .venv-rejax .venv-oldest .venv-newest site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .covered build dist *.egg-info
