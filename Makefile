# Everything from nothing but Python and make. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
# Packages as uv installs them are compiled when they are first imported; where that may not be kept, by every program anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env demo test lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make env    create .venv with attrtrain and all that demo and tests need"
	@echo "make demo   draw a toy COCO, shard it, train on it, evaluate, and show what was learnt (minutes)"
	@echo "make test   run the tests"
	@echo "make lint   formatting, lint, types, import contracts"
	@echo "make bench  measure attrtrain beside the machine's limits and beside peers (hours; make bench BENCH=eval for one)"
	@echo "make clean  remove what the demo wrote"

env: .venv/.complete

# uv where it is installed; else one inside .venv, so that nothing outside this folder changes.
.venv/.complete: pyproject.toml constraints.txt
	@if command -v uv >/dev/null; then \
		uv venv --quiet --allow-existing --python $(PYTHON) .venv; \
	else \
		$(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; \
	fi
	@echo "installing attrtrain and its dependencies into .venv ..."
	@PATH="$(BIN):$$PATH" uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group dev --editable .
	@touch $@

demo: env
	@rm -rf data/toy shards/toy runs/demo
	@$(BIN)/python -m tools.make_toy_coco data/toy
	$(BIN)/attrtrain shard --labels data/toy/cocottributes.pkl \
		--instances data/toy/annotations/instances_train2017.json data/toy/annotations/instances_val2017.json \
		--images data/toy/train2017 data/toy/val2017 --out shards/toy --shard-objects 200
	$(BIN)/accelerate launch --quiet --config_file accelerate_configs/cpu.yaml -m attrtrain.train demo --data.shards shards/toy --track.wandb disabled
	$(BIN)/attrtrain evaluate --model runs/demo --shards shards/toy --out runs/demo/evaluation
	@echo
	@echo "What the model learnt: open runs/demo/report.html in a browser."
	@echo "The model itself: runs/demo/bundle. Try it:"
	@echo "  $(BIN)/attrtrain predict --model runs/demo data/toy/val2017/$$(ls data/toy/val2017 | head -n 1)"

# Files of tests are dealt out to processes, in order: those of integration/, of which some take minutes, before those of unit/, which fill
# what is left. Most of their time goes into starting programs, one core each.
TEST_PROCESSES ?= 2

test: env
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# An environment of its own, because peers hold back versions. One that cannot be installed is named in the tables, and costs no other.
BENCH ?= all
BENCH_OUT ?= bench

bench: .venv-bench/.complete
	.venv-bench/bin/python -m tools.bench $(BENCH) --out $(BENCH_OUT)

.venv-bench/.complete: .venv/.complete pyproject.toml constraints.txt
	@PATH="$(BIN):$$PATH" uv venv --quiet --allow-existing --python $(BIN)/python .venv-bench
	@PATH="$(BIN):$$PATH" uv pip install --quiet --python .venv-bench/bin/python --constraint constraints.txt --editable .
	@PATH="$(BIN):$$PATH" .venv-bench/bin/python -m tools.bench.install
	@touch $@

clean:
	rm -rf data/toy shards/toy runs/demo
