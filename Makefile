# Every target does its own set-up in .venv; the second time that costs nothing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# In this order; each of them says at its top what it compares. Half an hour on two cores.
BENCHMARKS := throughput profile_step whole growth together search checkpoints plugins
MEASURED   ?= runs/bench

.PHONY: demo test slow check torture lint bench gpu-test gpu-bench reproduce priors gallery diagnosis clean

demo: $(READY)
	$(BIN)/latentforge demo

# One thread per process: more would wait for one another. Bytecode is stored even if the environment
# forbids it, because the tests start many processes.
TESTS := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

# As many processes as cores.
test: $(READY)
	$(TESTS) -m "not slow" -n auto --dist loadfile

# tests/conftest.py puts tests/slow first; the last option keeps this order.
slow: $(READY)
	$(TESTS) -m slow -n auto --dist loadfile --no-loadscope-reorder

# Both in one call, which is faster than one after the other.
check: $(READY)
	$(TESTS) -n auto --dist loadfile --no-loadscope-reorder --durations=40

torture: $(READY)
	$(BIN)/python tests/torture.py
	$(BIN)/python tests/fuzz.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench
	@mkdir -p $(MEASURED)
	@set -e; for name in $(BENCHMARKS); do \
	  $(BIN)/python benchmarks/$$name.py --json $(MEASURED)/$$name.json; \
	done

# With the torch that is on the machine: a CPU build in .venv would see no GPU.
gpu-test:
	$(PYTHON) -m pytest tests/gpu

gpu-bench:
	$(PYTHON) benchmarks/gpu.py

reproduce: $(READY)
	$(BIN)/python benchmarks/reproduce.py $(foreach name,$(ONLY),--only $(name))

# Hours on a CPU. The results of finished trainings are kept in runs/priors.
priors: $(READY)
	$(BIN)/python benchmarks/priors.py --more 5 --long 60 $(if $(ONLY),,--write) $(foreach name,$(ONLY),--only $(name))

gallery: $(READY)
	$(BIN)/python benchmarks/gallery.py $(if $(RUNS),--runs $(RUNS)) $(foreach name,$(ONLY),--only $(name))

diagnosis: $(READY)
	$(BIN)/python benchmarks/diagnosis.py --page docs/diagnosis.md

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "LatentForge needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	@echo "setting up $(VENV): this takes a minute or two, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $(READY)

$(VENV)/.bench: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
