# `make demo` trains by the paper's proposal and by the best curriculum, and compares them; `make
# test` runs every check; `make bench DATA=DIR` measures speed against peers on the MNIST in DIR. All
# work on a bare machine with Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

DATA ?= data

.PHONY: demo test bench install install-dev install-bench clean

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

bench: install-bench
	$(BIN)/python -m benchmarks.speed --data-dir $(DATA) --out runs/speed

install: .venv/installed
install-dev: .venv/installed-dev
install-bench: .venv/installed-bench

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

.venv/installed-bench: .venv/installed
	$(BIN)/pip install --quiet --editable '.[bench]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
