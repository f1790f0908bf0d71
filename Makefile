# `make demo` trains and evaluates; `make test` runs every check. Both work on a bare machine with
# Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test install install-dev clean

demo: install
	$(BIN)/robustdiff train --noise 0.3 --curriculum dynamics-uncond
	$(BIN)/robustdiff eval

test: install-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest

install: .venv/installed
install-dev: .venv/installed-dev

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
