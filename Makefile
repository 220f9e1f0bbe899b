.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# No call leaves for hosts that the user did not name.
export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION = 1
export RAY_USAGE_STATS_ENABLED = 0
export ORT_DISABLE_TELEMETRY = 1

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: setup
setup: $(VENV)/.installed ## Create .venv with everything that simulation, tests and benchmarks need

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

.PHONY: simulate
simulate: setup ## Run the main job on real data and show the result
	$(BIN)/fedstill simulate $(SCENARIO) $(ARGS)

.PHONY: test
test: setup ## Run the whole test suite, two files at a time
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

.PHONY: test-deploy
test-deploy: setup ## Run the tests of real servers and devices, as processes and, as root with Docker, as containers
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then bash scripts/ci-packages.sh; fi
	@if bash scripts/deploy-packages.sh; then PYTHON=$(BIN)/python bash scripts/deploy-images.sh; fi
	$(BIN)/python -m pytest -m deploy --numprocesses 2 --dist loadfile $(ARGS) tests/deploy

.PHONY: soak
soak: setup ## Run a fleet of 20 device processes for an hour, with random kills (not in CI)
	$(BIN)/python -m tests.deploy.soak $(ARGS)

.PHONY: images
images: ## Build the container images of server, proxy and devices
	docker build -f deploy/images/server.Dockerfile -t fedstill/server .
	docker build -f deploy/images/proxy.Dockerfile -t fedstill/proxy .
	docker build -f deploy/images/client.Dockerfile -t fedstill/client .
	docker build -f deploy/images/client.Dockerfile --build-arg EXTRA=edge-train -t fedstill/client:train .

.PHONY: format
format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: lint
lint: setup ## Check style, types, import rules and generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/generate_protos.py --check

.PHONY: protos
protos: setup ## Generate the code of protos/*.proto
	$(BIN)/python scripts/generate_protos.py

.PHONY: clean
clean: ## Remove the environment and caches (runs stay)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
