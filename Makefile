# `make demo` and `make test` are all a newcomer needs. Each makes .venv first and installs what is pinned; the second run starts at once.
#
#   make demo PYTHON=/path/to/python3.12     build .venv with this Python (3.11 to 3.13)
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu     get torch from PyTorch's CPU builds (plain PyPI on Linux: gigabytes of CUDA)
#   make demo ARGS="--data DIR"              pass options on to the command

BIN := .venv/bin
SOURCES := src tests benchmarks
COVERED := core store risk execution
LEAST_COVERAGE := 95

export PYTHON TORCH_INDEX
# One thread per process: two test processes on two cores, and timings that can be compared.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

.PHONY: demo test test-all check bench venv lock format clean
.DEFAULT_GOAL := demo

demo: venv  ## three acts: a planted edge is found, pure noise is not traded, real data is judged against baselines
	@$(BIN)/cryptoalpha demo $(ARGS)

test: venv  ## everything but the slow tests, and coverage of the rooms that handle money
	@$(BIN)/python -m pytest -n 2 -m "not slow" $(COVERED:%=--cov=cryptoalpha.%) --cov-report= $(ARGS)
	@for room in $(COVERED); do \
		$(BIN)/python -m coverage report --include="*/cryptoalpha/$$room/*" --fail-under=$(LEAST_COVERAGE) --format=total \
			| sed "s/^/coverage of $$room, percent: /"; \
		$(BIN)/python -m coverage report --include="*/cryptoalpha/$$room/*" --fail-under=$(LEAST_COVERAGE) >/dev/null \
			|| { $(BIN)/python -m coverage report --show-missing --skip-covered --include="*/cryptoalpha/$$room/*"; exit 1; }; \
	done

test-all: venv  ## the slow tests too
	@$(BIN)/python -m pytest -n 2 $(ARGS)

check: venv  ## style, types, who may import whom, sizes and names
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m pytest tests/unit/test_house.py

bench: venv  ## speed, as ratios measured in one run
	@$(BIN)/cryptoalpha bench engine $(ARGS)

format: venv  ## put the sources into the house's form
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

venv:
	@sh .ci/venv

lock:  ## resolve pyproject.toml anew into requirements.lock
	@sh .ci/lock

clean:  ## remove .venv and all caches
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage dist build
	@find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
