# The doors of the house. Each one sets itself up: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench tables clean

help: ## Show the doors
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,dev]'
	@touch $@

setup: $(STAMP) ## Make .venv with everything that the other doors need

# Accelerate's launcher gives a process one thread unless told otherwise.
CORES     := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
DEMO_RUN  := runs/demo
DEMO_BASE := recipes/data/files/SmolLM2-135M-Instruct.Q4_1.gguf
demo: $(STAMP) ## Train, judge, push, pull and use a sentiment prompt on a real model (minutes, on a CPU)
	$(BIN)/python recipes/data/demo_base.py
	$(BIN)/python recipes/data/amazon_reviews.py
	$(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no \
		--dynamo_backend no --num_cpu_threads_per_process $(CORES) recipes/classification.py --config recipes/configs/sentiment.yaml \
		--max_steps 60 --max_test_examples 300 --output_dir $(DEMO_RUN)
	$(BIN)/softhub push $(DEMO_RUN)/adapter demo/sentiment --message "Trained by make demo"
	$(BIN)/softhub list
	$(BIN)/softhub pull demo/sentiment
	$(BIN)/softhub predict demo/sentiment --base $(DEMO_BASE) "I would buy it again tomorrow." "It broke after two days."

test: $(STAMP) ## Run every test
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(STAMP) ## Check style, types, the floors of the house, and the documentation's links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict

bench: $(STAMP) ## Measure training speed against stock PEFT; results go to benchmarks/results
	$(BIN)/python benchmarks/train_step.py

tables: $(STAMP) ## Run the committed comparisons as far as rows are missing, and write their tables (hours)
	$(BIN)/python benchmarks/comparisons.py

clean: ## Remove caches and builds, but neither .venv nor runs
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
