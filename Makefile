# `make demo` and `make test` install what they need into .venv first.
PYTHON ?= python3
BIN := .venv/bin
DEMO := experiments/synthetic/tokenpose/demo.yaml

.PHONY: install demo test lint unit torture

install: .venv/installed

.venv/installed: requirements.txt requirements-lowest.txt setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.txt
	touch $@

# Synthetic people, a small network trained on them, its test scores; then the network of
# models/people on a photograph.
demo: install
	$(BIN)/python tools/make_synthetic.py --out data/synthetic
	$(BIN)/python tools/train.py --cfg $(DEMO) AUTO_RESUME true
	$(BIN)/python tools/test.py --cfg $(DEMO)
	$(BIN)/python tools/predict.py --input docs/photo.jpg --boxes docs/photo_boxes.json

test: lint unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One single-threaded process per core.
unit: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup

# Several minutes of killed processes, damaged files and hostile input.
torture: install
	$(BIN)/python -m pytest tests/torture -s
