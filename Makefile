# Everything here works from a fresh clone: each target sets up .venv first, which takes seconds once it is done.
# What can be chosen, for example `make setup TORCH_INDEX=<index of the CPU builds>`: see .ci/setup.sh.
export PYTHON TORCH TORCH_INDEX QT CONSTRAINTS

BIN := .venv/bin
# Arguments for pytest, as in: make test ARGS="-m 'not slow' -k prompts"
ARGS ?=
# A hang in foreign code, which pytest-timeout cannot interrupt, ends here.
LIMIT := $(if $(shell command -v timeout),timeout --foreground --signal=INT --kill-after=60 3600)

.PHONY: help setup demo test lint napari bench pictures clean

help:
	@echo "make demo      track a structure through the sample loop, results in demo/"
	@echo "make test      run all tests (make test ARGS=... goes to pytest)"
	@echo "make napari    open napari with the sample loop and the panel"
	@echo "make bench     compare speed and memory with the official SAM2 predictor"
	@echo "make pictures  make the docs' pictures of the viewer anew"
	@echo "make lint      check the code's form"
	@echo "make setup     only make the environment, .venv"
	@echo "make clean     remove .venv and everything that was built"

setup:
	@.ci/setup.sh

demo: setup
	@$(BIN)/uniultra demo --out demo

test: setup
	@OMP_NUM_THREADS=1 NAPARI_ENSURE_PLUGIN_MAIN_THREAD=1 .ci/with-display.sh $(LIMIT) $(BIN)/python -m pytest $(ARGS)

lint: setup
	@$(BIN)/ruff check .

napari: setup
	@$(BIN)/napari sample_data/heart_a4c.dcm --plugin napari-uniultra --with napari-uniultra "Segment loop"

bench: setup
	@$(BIN)/uniultra bench

pictures: setup
	@.ci/with-display.sh $(BIN)/python docs/pictures.py

clean:
	rm -rf .venv build dist demo *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
