# `make demo` and `make test` are all a newcomer needs. Each makes .venv first and installs what is pinned; the second run starts at once.
#
#   make demo PYTHON=/path/to/python3.11     build .venv with this Python (3.11 to 3.13)
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu     get torch from PyTorch's CPU builds (plain PyPI on Linux: gigabytes of CUDA)
#   make demo ARGS="--data DIR"              pass options on to the command

BIN := .venv/bin
SOURCES := src tests benchmarks
COVERED := core store risk execution
LEAST_COVERAGE := 95
BENCHES := engine planner evolution networks risk skill drift execution decisions streams rollout serving

export PYTHON TORCH_INDEX
# One thread per process: two test processes on two cores, and timings that can be compared.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

.PHONY: demo test test-lengthy test-all e2e-lifecycle chaos check bench venv lock format config chart clean
.DEFAULT_GOAL := demo

demo: venv  ## three acts: a planted edge, pure noise, real data, each judged against baselines
	@$(BIN)/cryptoalpha demo $(ARGS)

test: venv  ## everything but the lengthy and the slow tests, and coverage of the rooms that handle money
	@$(BIN)/python -m pytest -n 2 -m "not slow and not lengthy" $(COVERED:%=--cov=cryptoalpha.%) --cov-report= $(ARGS)
	@for room in $(COVERED); do \
		$(BIN)/python -m coverage report --include="*/cryptoalpha/$$room/*" --fail-under=$(LEAST_COVERAGE) --format=total \
			| sed "s/^/coverage of $$room, percent: /"; \
		$(BIN)/python -m coverage report --include="*/cryptoalpha/$$room/*" --fail-under=$(LEAST_COVERAGE) >/dev/null \
			|| { $(BIN)/python -m coverage report --show-missing --skip-covered --include="*/cryptoalpha/$$room/*"; exit 1; }; \
	done

test-lengthy: venv  ## the lengthy tests: kills at every step, real servers, error rates
	@$(BIN)/python -m pytest -n 2 -m "lengthy and not slow" $(ARGS)

test-all: venv  ## every test, the slow ones too
	@$(BIN)/python -m pytest -n 2 $(ARGS)

e2e-lifecycle: venv  ## a model's whole life on a simulated market: its edge dies, drift, retraining, gates, canary; worse ones rolled back
	@$(BIN)/python -m pytest -s tests/end_to_end/test_lifecycle.py $(ARGS)

chaos: venv  ## hundreds of seeded schedules of faults and kills on the path of real orders; goes on where it was stopped
	@$(BIN)/python -m cryptoalpha.app.chaos $(ARGS)

check: venv  ## style, types, who may import whom, sizes and names
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m pytest tests/unit/test_house.py

bench: venv  ## speed, as ratios measured in one run; writes benchmarks/RESULTS.md; goes on where it was stopped
	@for name in $(BENCHES); do $(BIN)/cryptoalpha bench $$name --keep benchmarks --resume $(ARGS) || exit $$?; done

format: venv  ## put the sources into the house's form
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

# The user's own numbers where they differ from the defaults, and the caution of production on top; the rest of both files are defaults.
USERS := risk.max_position=0.1 risk.risk_tolerance=0.02
CAUTION := data.exchange.attempts=8 data.exchange.backoff_seconds=2 data.exchange.grace_seconds=300 \
	store.bar_gate.conflicting_duplicate=refuse store.bar_gate.known_too_early=refuse \
	risk.max_drawdown=0.25 execution.costs.half_spread=0.0002

config: venv  ## write config/seed.yaml and config/production.yaml anew from the settings' own documentation
	@$(BIN)/cryptoalpha init config/seed.yaml --force $(USERS:%=--set %) --set nets.preset=seed
	@$(BIN)/cryptoalpha init config/production.yaml --force $(USERS:%=--set %) $(CAUTION:%=--set %)

chart: venv  ## write what the Helm chart reads of the code anew: alert rules and the Grafana dashboard
	@$(BIN)/python -m cryptoalpha.app.rendering deploy/helm/cryptoalpha/files

venv:
	@sh .ci/venv

lock:  ## resolve pyproject.toml anew into requirements.lock
	@sh .ci/lock

clean:  ## remove .venv and all caches
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage dist build
	@find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
