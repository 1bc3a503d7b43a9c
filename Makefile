# The two commands to know: `make demo` and `make test`. Both install what is missing first.
PYTHON ?= python3
BIN := .venv/bin
DEMO := experiments/synthetic/tokenpose/demo.yaml

.PHONY: install demo test lint torture

install: .venv/installed

.venv/installed: requirements.txt setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.txt
	touch $@

demo: install
	$(BIN)/python tools/make_synthetic.py --out data/synthetic
	$(BIN)/python tools/train.py --cfg $(DEMO)
	$(BIN)/python tools/test.py --cfg $(DEMO)

test: install lint
	$(BIN)/python -m pytest

# Minutes of kills, damaged files and hostile input.
torture: install
	$(BIN)/python -m pytest tests/torture -s

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
