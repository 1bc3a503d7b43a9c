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

# A process a core, each with one thread.
test: install lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

# Minutes of kills, damaged files and hostile input.
torture: install
	$(BIN)/python -m pytest tests/torture -s

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
