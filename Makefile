# Each target sets itself up: `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-lowest resolve lint bench gpu-check tables clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,dev]'
	@touch $@

setup: $(STAMP) ## Create .venv with everything that the other targets need

# Accelerate's launcher gives a process one thread unless told otherwise.
CORES     := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
DEMO_RUN  := runs/demo
DEMO_BASE := recipes/data/files/SmolLM2-135M-Instruct.Q4_1.gguf
demo: $(STAMP) ## Train, evaluate, push, pull and use a sentiment prompt on a real model (minutes, on a CPU)
	$(BIN)/python recipes/data/demo_base.py
	$(BIN)/python recipes/data/amazon_reviews.py
	$(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no \
		--dynamo_backend no --num_cpu_threads_per_process $(CORES) recipes/classification.py --config recipes/configs/sentiment.yaml \
		--max-steps 60 --max-test-examples 300 --output-dir $(DEMO_RUN) --overwrite
	$(BIN)/softhub push $(DEMO_RUN)/adapter demo/sentiment --message "Trained by make demo"
	$(BIN)/softhub list
	$(BIN)/softhub pull demo/sentiment
	$(BIN)/softhub predict demo/sentiment --base $(DEMO_BASE) "I would buy it again tomorrow." "It broke after two days."

test: $(STAMP) ## Run the tests, except the slow ones
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: $(STAMP) ## Run the slow tests: whole runs, real models, several processes, interruptions
	$(BIN)/python -m pytest -n auto --dist worksteal -m "slow and not live"

# The rest of the environment stays as it is: the folder of the lowest release comes first in the path.
LOWEST := transformers==$(shell sed -n 's/.*"transformers>=\([0-9.]*\),.*/\1/p' pyproject.toml).0
test-lowest: $(STAMP) ## Run all tests on the lowest release of transformers that is supported
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target build/lowest $(LOWEST)
	PYTHONPATH=build/lowest $(BIN)/python -c "import transformers; print('transformers', transformers.__version__)"
	PYTHONPATH=build/lowest $(BIN)/python -m pytest -n auto --dist worksteal -m "not live"

resolve: ## Check that the extras for serving can be installed together; installs and builds nothing
	$(PYTHON) -m venv build/resolve
	build/resolve/bin/python -m pip install --quiet "uv>=0.9,<1"
	for extras in "--extra vllm" "--extra serve --extra vllm"; do \
		build/resolve/bin/uv pip compile --quiet --only-binary vllm --python-version 3.11 --no-header \
			$$extras pyproject.toml --output-file build/resolve/requirements.txt || exit 1; \
		grep -E '^(vllm|transformers|fastapi|huggingface-hub)==' build/resolve/requirements.txt; \
	done

lint: $(STAMP) ## Check style, types, import layers, and the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict

bench: $(STAMP) ## Compare the time of a training step with plain PEFT; writes benchmarks/results
	$(BIN)/python benchmarks/train_step.py

gpu-check: $(STAMP) ## Check exactness, speed and training on one GPU (six minutes); writes benchmarks/results
	$(BIN)/python benchmarks/gpu_check.py

tables: $(STAMP) ## Compute missing rows of the committed comparisons, and write their tables (hours)
	$(BIN)/python benchmarks/comparisons.py

clean: ## Remove caches and builds, but not .venv or runs
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
