# Everything runs in .venv, which is built from pyproject.toml with the exact pins of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
ARGS ?=
DATA ?= kmnist
SWEEP ?= $(shell ls -dt multirun/*/ 2>/dev/null | head -n 1)

.DEFAULT_GOAL := help
.PHONY: help demo compare report tensorboard bench test test-all coverage audit sbom licences lock

help:  ## this list
	@echo "make TARGET [DATA=…] [ARGS=\"KEY=VALUE …\"]"
	@echo
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "DATA is one of kmnist (default), kmnist10k, glyphs, mnist, fashion_mnist."
	@echo "ARGS are options for vae-train, as in: make compare DATA=kmnist10k ARGS=\"trainer.max_epochs=10\""

demo: $(INSTALLED)  ## latent dimension 2 against 128 on the built-in data, no download
	@$(BIN)/vae-train experiment=latent_sweep data=glyphs callbacks.losses.every_n_batches=15 callbacks.grids.every_n_batches=15 $(ARGS)

compare: $(INSTALLED)  ## the same on Kuzushiji-MNIST, or on DATA; RESUME=FOLDER resumes a sweep
	@$(BIN)/vae-train experiment=latent_sweep data=$(DATA) $(if $(RESUME),hydra.sweep.dir=$(RESUME) resume=true) $(ARGS)

report: $(INSTALLED)  ## remake the report of SWEEP, by default the newest sweep
	@test -n "$(SWEEP)" || { echo "There is no sweep in multirun/ yet: make demo"; exit 2; }
	@$(BIN)/vae-report "$(SWEEP)"

tensorboard: $(INSTALLED)  ## TensorBoard on all sweeps
	@$(BIN)/tensorboard --host 127.0.0.1 --logdir multirun

bench: $(INSTALLED)  ## time a training step against a hand-written loop; ARGS=--quick for a first look
	@$(BIN)/python tests/benchmarks/bench.py $(ARGS)

test: $(INSTALLED)  ## lint, types and tests, in minutes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest -m "not slow" $(ARGS)

test-all: $(INSTALLED)  ## all tests, including the slow ones
	$(BIN)/pytest $(ARGS)

coverage: $(INSTALLED)  ## line coverage of all tests, including other processes
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

audit: $(INSTALLED)  ## known vulnerabilities of the pinned packages, from the package index
	$(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement constraints.txt

sbom: $(INSTALLED)  ## a bill of materials of what is installed, with licences, as outputs/sbom.json (CycloneDX)
	@mkdir -p outputs
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-file outputs/sbom.json .venv

licences: $(INSTALLED)  ## the licence of every installed package
	@$(BIN)/pip-licenses --from=mixed --order=license --with-urls

lock: $(INSTALLED)  ## pin what pyproject.toml asks for, with hashes; ARGS=--upgrade for newer versions
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" --output-file constraints.txt $(ARGS)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into .venv: PyTorch and the rest, several GB, a few minutes the first time …"
	@$(PYTHON) -m venv .venv || { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement constraints.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
	@echo "Installed."
