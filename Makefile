# Set-up happens by itself: every target that needs the environment makes it first, with uv where there is one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= a red apple
OUT ?= demo.png

# Training: PROFILE is cpu or gpu, RUNS the folder of data and checkpoints. TRAIN_PYTHON names a Python that has torch;
# without it the extra [training] is installed beside the rest.
PROFILE ?= cpu
RUNS ?= training/runs
ifdef TRAIN_PYTHON
STAGE = PYTHONPATH=src $(TRAIN_PYTHON) -m training
else
STAGE = $(BIN)/python -m training
TRAINING := $(VENV)/.training
endif

.PHONY: setup demo serve test long chaos fuzz check format bench clean
.PHONY: train-data train-captions train-ae train-upscaler train-flow train-study train-distil eval-models export-models
.PHONY: train-motion-data train-motion ship-motion ship-mini

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

long: $(VENV)/.ready  ## the tests that run for minutes: storms, full disks, more examples
	@$(BIN)/python -m pytest -m long

chaos: $(VENV)/.ready  ## 500 kills on SQLite and 200 on PostgreSQL, full disks, lost connections, jumping clocks; build/chaos.json
	@PYTHONPATH=tests $(BIN)/python -m chaos $(CHAOS)

fuzz: $(VENV)/.ready  ## every operation of the served OpenAPI document, all phases of schemathesis, four minutes
	@PYTHONPATH=tests $(BIN)/python -m fuzz

check: $(VENV)/.ready  ## style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(VENV)/.ready
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: $(VENV)/.ready  ## measure, print, and write build/bench.json
	@$(BIN)/python -m bench

$(VENV)/.training: $(VENV)/.ready
	@if command -v uv >/dev/null 2>&1; then VIRTUAL_ENV=$(VENV) uv pip install -q -e '.[training]'; \
	else $(BIN)/python -m pip install -q -e '.[training]'; fi
	@touch $@

train-data: $(TRAINING)  ## fetch the pictures and the words by package name and version
	@$(STAGE).data --root $(RUNS)

train-captions: $(TRAINING)  ## scenes, captions and what the text encoder makes of them
	@$(STAGE).captions --root $(RUNS) --profile $(PROFILE)

train-ae: $(TRAINING)  ## the autoencoder
	@$(STAGE).train_ae --root $(RUNS) --profile $(PROFILE)

train-upscaler: $(TRAINING)  ## the upscaler
	@$(STAGE).train_upscaler --root $(RUNS) --profile $(PROFILE)

train-flow: $(TRAINING)  ## the flow transformer
	@$(STAGE).train_flow --root $(RUNS) --profile $(PROFILE)

train-study: $(TRAINING)  ## what the flow draws badly, so that its next run learns more of that
	@$(STAGE).study --root $(RUNS) --profile $(PROFILE)

train-distil: $(TRAINING)  ## guidance learnt by heart: half the work a step
	@$(STAGE).train_distil --root $(RUNS) --profile $(PROFILE)

train-motion-data: $(TRAINING)  ## fetch the animated emoji by package name and version
	@$(STAGE).motion_data --root $(RUNS)

train-motion: $(TRAINING)  ## how a still picture moves: a fit of every clip, then the network
	@$(STAGE).train_motion --root $(RUNS) --profile $(PROFILE)

ship-mini: $(TRAINING)  ## the exported graphs into the service, and what it looks prompts up in
	@$(STAGE).ship_mini --root $(RUNS) --profile $(PROFILE)
	@$(STAGE).meanings --root $(RUNS)

ship-motion: $(TRAINING)  ## the motion graphs into the service, figures and strips into docs/models
	@$(STAGE).ship_motion --root $(RUNS) --profile $(PROFILE)

eval-models: $(TRAINING)  ## the figures, and contact sheets in docs/models
	@$(STAGE).evaluate --root $(RUNS) --profile $(PROFILE)

export-models: $(TRAINING)  ## the ONNX graphs and their card, in RUNS/onnx
	@$(STAGE).export --root $(RUNS) --profile $(PROFILE)

clean:
	rm -rf $(VENV) build dist sdks/typescript/node_modules sdks/typescript/dist .mypy_cache .ruff_cache .pytest_cache
