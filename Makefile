# The two commands of the README, and those that CI runs. Everything is installed in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-cluster test-pipelines bench bench-check lint types layers house format clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "regroup needs Python 3.11 or newer: name one with PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/regroup demo --store demo-store --output demo-results

# Most tests wait more than they compute, so two halves run in parallel, each with one thread: with two
# threads each on two cores, the threads of one half would wait for threads that the other displaces.
test test-cluster test-pipelines: export OMP_NUM_THREADS = 1
OTHER_HALF := tests/faults tests/pipelines tests/objectstore tests/regroup

test: $(VENV)/.installed-dev
	@echo "Two test processes run in parallel for about twenty minutes on two cores; each prints its output when it ends."
	$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target test-cluster test-pipelines

test-cluster: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(addprefix --ignore=,$(OTHER_HALF))

test-pipelines: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(OTHER_HALF)

# On the CPU, one after the other, each with all cores: run nothing else at the same time. Less than a
# quarter of an hour on two cores. GPU: python -m benchmarks.NAME --device cuda. The other modules in
# benchmarks/ take longer, or need images or weights: see their docstrings.
BENCHMARKS := allocator extraction scoring kernels rescoring released_demo classifier_latency overhead workers
RESULTS := benchmarks/results
FRESH := build/benchmarks

bench: $(VENV)/.installed-dev
	@missed=; for name in $(BENCHMARKS); do \
		$(BIN)/python -m benchmarks.$$name --json $(RESULTS)/$$name.json || missed="$$missed $$name"; \
	done; test -z "$$missed" || { echo "Failed, or a target is NOT MET:$$missed"; exit 1; }

# The committed results merge two runs, if possible hours apart: `python -m benchmarks.merge_runs`.
# Missed targets are reported by `bench`; here only regressions count.
bench-check: $(VENV)/.installed-dev
	@rm -rf $(FRESH)
	@$(MAKE) --no-print-directory bench RESULTS=$(FRESH) || true
	$(BIN)/python -m benchmarks.check $(FRESH)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# Which way imports go (pyproject.toml, importlinter).
layers: $(VENV)/.installed-dev
	$(BIN)/lint-imports

# Figures of the tree, each with its bound: circles, folders, late imports, names.
house: $(VENV)/.installed-dev
	$(BIN)/python -m tests.house

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo-store demo-results
