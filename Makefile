# Set-up happens by itself: every target that needs the environment makes it first, with uv where there is one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= a red apple
OUT ?= demo.png

.PHONY: setup demo serve test long check format bench clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" sh scripts/setup.sh $(VENV)
	@touch $@

demo: $(VENV)/.ready  ## make a picture through the HTTP API: make demo PROMPT="a blue whale" OUT=whale.png
	@PROMPT='$(subst ','\'',$(PROMPT))' OUT='$(subst ','\'',$(OUT))' $(BIN)/python scripts/demo.py

serve: $(VENV)/.ready  ## run the service in the foreground
	@$(BIN)/pixeldojo serve

test: $(VENV)/.ready check  ## the whole default test suite
	@$(BIN)/python -m pytest -n 3 --dist worksteal

long: $(VENV)/.ready  ## the tests that run for minutes: chaos, full disks, more examples
	@$(BIN)/python -m pytest -m long

check: $(VENV)/.ready  ## style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(VENV)/.ready
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: $(VENV)/.ready  ## measure, print, and write build/bench.json
	@$(BIN)/python -m bench

clean:
	rm -rf $(VENV) build dist sdks/typescript/node_modules sdks/typescript/dist .mypy_cache .ruff_cache .pytest_cache
