# make demo: four photos in the styles of six paintings, by the included model. make test: lint and all tests.
# Each alone sets up .venv on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

demo: .venv/installed
	$(BIN)/python stylize.py --content data/samples/content --style data/samples/style --output runs/demo_pictures
	@echo "four photos in six styles: runs/demo_pictures/; now try: $(BIN)/python stylize.py --content PHOTO --style PAINTING --output OUT.png"

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

bench: .venv/installed
	$(BIN)/python benchmarks/train_step.py --batch 8
	$(BIN)/python benchmarks/stylize.py
	$(BIN)/python benchmarks/stylize.py --size 1024 --rounds 3
	$(BIN)/python benchmarks/command.py
	$(BIN)/python benchmarks/large.py
	$(BIN)/python benchmarks/many.py

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: expected Python 3.11 or newer, but " + sys.version.split()[0] + " came; make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python requirements.txt constraints.txt
	$(BIN)/pip install -q -r requirements.txt -c constraints.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt requirements-metrics.txt requirements-video.txt
	$(BIN)/pip install -q -r requirements-dev.txt -c constraints.txt
	@touch $@

.PHONY: demo test bench
