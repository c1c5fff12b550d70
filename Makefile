PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the demonstration runs, and what the tests and linters need beside it.
INSTALLED := $(VENV)/.installed
INSTALLED_ALL := $(VENV)/.installed-all
# Python compiles what is imported; compiling all that is installed takes a minute.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check
PIP := $(INSTALL) -c constraints.txt

.PHONY: install demo test test-slow test-peft lint bench bench-modulus docs clean

install: $(INSTALLED_ALL)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[hf]'
	touch $(INSTALLED)

$(INSTALLED_ALL): $(INSTALLED)
	$(PIP) -e '.[test,lint,hf,lora]'
	touch $(INSTALLED_ALL)

# Two cores: what does not need each other runs side by side.
demo: $(INSTALLED)
	{ $(BIN)/python examples/tiny_mixture.py demo-mixture && $(BIN)/gatewise routers inspect demo-mixture \
	    --text README.md --text Makefile --by-domain --out demo-routing --overwrite; } & \
	    $(BIN)/gatewise fit tone --target tuned --features stretchratio --experts 2 --seed 0 --out demo-output --overwrite \
	    && wait $$!
	$(BIN)/gatewise study run quick --out demo-study --jobs 2
	$(BIN)/gatewise study report demo-study --overwrite

# One thread in each of two workers; a file stays in one worker, since its tests share fitted models.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile
# Two workers that begin with an empty cache would each compile everything.
COMPILE := $(BIN)/python -m tests.compiled 0 & $(BIN)/python -m tests.compiled 1 && wait $$!

test: install
	$(COMPILE)
	$(TEST)

test-slow: install
	$(COMPILE)
	$(TEST) -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# All tests of adapters with the oldest and the newest peft that are supported; beside the environment, not in it, and
# without the constraints, which hold one peft.
OLDEST_PEFT := 0.20.0
test-peft: install
	for version in $(OLDEST_PEFT) ''; do \
	  rm -rf $(VENV)/other-peft && \
	  $(INSTALL) --no-deps --target $(VENV)/other-peft peft$${version:+==$$version} && \
	  PYTHONPATH=$(VENV)/other-peft $(TEST) tests/lora tests/cli/test_lora.py || exit 1; \
	done

bench: install
	$(BIN)/python benchmarks/fit.py

# Goes on where it was stopped; --fresh measures everything anew.
bench-modulus: install
	$(BIN)/python benchmarks/modulus.py

docs: install
	$(PIP) -e '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site demo-output demo-study demo-mixture demo-routing
