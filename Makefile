# Everything happens in .venv; `runs/` is yours and no target deletes it.
PYTHON ?= python3
BIN := .venv/bin
RECIPE ?= recipes/quickstart.yaml
UNTIL ?=

.PHONY: help install quickstart test check fmt clean

help:
	@echo "make quickstart   install, climb $(RECIPE), end with the transcript and the report"
	@echo "                  (UNTIL=format climbs no higher than that stage)"
	@echo "make install      make .venv and install what running needs"
	@echo "make test         install the test extras and run every test"
	@echo "make check        lint, formatting, types and the house test"
	@echo "make fmt          format"
	@echo "make clean        remove .venv and caches"

$(BIN)/python:
	$(PYTHON) -m venv .venv

# torch first and pinned: an unpinned resolver may fetch gigabytes that a CPU never needs
.venv/installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: .venv/installed

quickstart: install
	$(BIN)/matura run $(RECIPE) $(if $(UNTIL),--until $(UNTIL))
	@echo "talk to it: $(BIN)/matura chat runs/quickstart"

# two workers of one thread each: torch's own threads would only wait for each other. Bytecode is kept
# even where that is switched off, or each worker and each process they start compiles everything anew
test: .venv/installed-dev
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_house.py tests/test_readme.py -p no:cacheprovider

fmt: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './runs/*' -prune -exec rm -rf {} +
