# Two commands do all the set-up: `make checks` (the audit and its report) and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: checks test lint types contracts notebooks bench clean

checks: $(VENV)/.checks
	$(BIN)/python -m paper_checks --level quick --out report

test: $(VENV)/.dev
	HYPOTHESIS_PROFILE=$${HYPOTHESIS_PROFILE:-ci} $(BIN)/python -m pytest -n auto

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

notebooks: $(VENV)/.dev
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=60 notebooks

bench: $(VENV)/.checks
	$(BIN)/python -m benchmarks.moments
	$(BIN)/python -m benchmarks.simulation
	$(BIN)/python -m benchmarks.oracle

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.checks: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[checks]"
	touch $@

$(VENV)/.dev: $(VENV)/.checks
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) report report-only runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
