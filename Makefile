# `make demo` trains by the paper's proposal and by the best curriculum, and compares them; `make
# test` runs every check; `make bench DATA=DIR` measures speed against peers on the MNIST in DIR. All
# work on a bare machine with Python 3.11 or newer. `make docs` builds the site; `make dist` builds what is published,
# `make dist-check` installs it in fresh environments, `make minimum` tests the oldest dependencies.
PYTHON ?= python3
BIN := .venv/bin

DATA ?= data

.PHONY: demo test test-integrations bench docs dist dist-check minimum install install-dev install-bench install-docs install-dist clean

demo: install
	rm -rf runs/demo
	$(BIN)/robustdiff train --noise 0.3 --curriculum dynamics-uncond --out runs/demo/dynamics-uncond
	$(BIN)/robustdiff eval runs/demo/dynamics-uncond
	$(BIN)/robustdiff train --noise 0.3 --curriculum crossfit --out runs/demo/crossfit
	$(BIN)/robustdiff eval runs/demo/crossfit
	$(BIN)/robustdiff compare runs/demo

test: install-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist worksteal --durations 25

# The tests about other libraries, and the tour: their installation takes minutes.
test-integrations: install-dev
	$(BIN)/pip install --quiet --editable '.[integrations]'
	$(BIN)/pytest -n auto -m 'not gpu' tests/robustdiff/trainers tests/robustdiff/published tests/robustdiff/reports/test_logs.py tests/robustdiff/data/test_sources.py tests/examples

bench: install-bench
	$(BIN)/python -m benchmarks.speed --data-dir $(DATA) --out runs/speed

docs: install-docs
	$(BIN)/mkdocs build

dist: install-dist
	$(BIN)/python .ci/dist.py

dist-check: dist
	PATH="$(CURDIR)/$(BIN):$$PATH" .ci/dist-check $(PYTHON)

# Of old versions only errors count: newer ones of what they use tell them that a name is deprecated.
MINIMUM_TESTS ?= tests/test_docstrings.py tests/robustdiff/data tests/robustdiff/metrics tests/robustdiff/reports tests/robustdiff/review tests/robustdiff/training tests/cli/test_cli.py
minimum: install-dist
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-minimum
	$(BIN)/uv pip install --quiet --python .venv-minimum/bin/python --resolution lowest-direct --editable '.[dev]'
	.venv-minimum/bin/python -m pytest -q -W ignore::DeprecationWarning $(MINIMUM_TESTS)

install: .venv/installed
install-dev: .venv/installed-dev
install-bench: .venv/installed-bench
install-docs: .venv/installed-docs
install-dist: .venv/installed-dist

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-dev: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch .venv/installed $@

.venv/installed-bench: .venv/installed
	$(BIN)/pip install --quiet --editable '.[bench]'
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

.venv/installed-dist: .venv/installed
	$(BIN)/pip install --quiet --editable '.[dist]'
	touch $@

clean:
	rm -rf .venv .venv-minimum build dist site *.egg-info
