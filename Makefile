# `make serve` and `make test` do all set-up themselves. Variables for any of them:
#   PYTHON=python3.12   which Python makes .venv (3.11, 3.12 or 3.13)
#   ENGINE=torch        plain torch instead of IPEX; stays so until ENGINE=ipex
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup serve demo-confidential test test-long bench conformance conformance-docs lint format lock clean

PYTHON ?= python3
ENGINE ?=
# First port of the demos; empty is TorchServe's 8080. `make serve` takes three, the other one four.
PORTS_FROM ?=
# For `make conformance` and `make bench`: an environment with TorchServe (empty: one is made
# under build/). For conformance: scenarios that have this in their names. For bench: a directory
# with transformers, and further options (bench/README.md).
REFERENCE ?=
ONLY ?=
TRANSFORMERS ?=
OPTIONS ?=
BIN := .venv/bin
TORCH_FREE := build/torch-free

help:
	@echo 'make serve      train a digit classifier, serve it, ask it, stay up'
	@echo 'make demo-confidential  seal, attest, verify, predict sealed, tamper: all simulated'
	@echo 'make test       lint, types, tests, coverage (under 10 minutes)'
	@echo 'make test-long  what takes longer, and the tests that need no torch without torch'
	@echo 'make bench      compare with the real TorchServe (bench/README.md; about 15 minutes)'
	@echo 'make conformance  ask the real TorchServe and Torchkeep the same (docs/conformance.md)'
	@echo 'make setup      only the set-up: .venv with locked dependencies'
	@echo 'make lint       ruff and mypy;  make format  apply ruff'
	@echo 'make lock       renew requirements/ (needs uv);  make clean  remove what make made'

setup:
	@PYTHON='$(PYTHON)' requirements/install '$(ENGINE)'

serve: setup
	@exec $(BIN)/python demo/serve_digits.py $(if $(PORTS_FROM),--ports-from $(PORTS_FROM))

demo-confidential: setup
	@exec $(BIN)/python demo/confidential_walkthrough.py \
		$(if $(PORTS_FROM),--ports-from $(PORTS_FROM))

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Whole servers wait more than they compute, so their tests run beside all others, in three runs.
# Measuring coverage doubles what a server costs (it imports torch), so it is measured in those of
# MEASURED alone, which have all parts of a server at work, and in all tests of parts.
# The sum of the closing lines of pytest comes last, below the coverage they measured.
NOT_LONG = -m pytest -m 'not long'
MEASURED = $(patsubst %,tests/system/test_%.py,attestation logs plugins sealed snapshots tls)
PROCESS = $(wildcard tests/frontend tests/test_*.py) $(MEASURED)
PARTS = $(filter-out $(PROCESS) tests/system tests/handlers tests/support %.py,$(wildcard tests/*))
test: lint
	@mkdir -p build && rm -f .coverage .coverage.*
	@$(BIN)/coverage run $(NOT_LONG) $(PARTS) > build/test-parts.log 2>&1 & parts=$$!; \
	$(BIN)/coverage run $(NOT_LONG) $(PROCESS) > build/test-process.log 2>&1 & process=$$!; \
	status=0; \
	$(BIN)/python $(NOT_LONG) tests/system $(addprefix --ignore ,$(MEASURED)) \
		| tee build/test-system.log || status=$$?; \
	for run in $$parts $$process; do wait $$run || status=$$?; done; \
	cat build/test-{parts,process}.log; \
	$(BIN)/coverage combine --quiet || status=1; \
	$(BIN)/coverage report || status=1; \
	$(BIN)/python tests/support/closing_line.py build/test-{parts,process,system}.log; \
	exit $$status

test-long: setup test-torch-free
	@# Code 5 is pytest's "none is marked so": not a failure.
	$(BIN)/python -m pytest -m long || [ $$? -eq 5 ]

# The server itself needs no torch: an environment without it must pass every test but torch's.
# By pip on purpose: `make setup` prefers uv, so this is where pip meets a lock.
.PHONY: test-torch-free
test-torch-free:
	rm -rf $(TORCH_FREE)
	'$(PYTHON)' -m venv $(TORCH_FREE)
	$(TORCH_FREE)/bin/pip --disable-pip-version-check install --require-hashes -r requirements/base.txt
	$(TORCH_FREE)/bin/pip --disable-pip-version-check install --no-deps --no-build-isolation -e .
	! $(TORCH_FREE)/bin/python -c 'import torch' 2> /dev/null
	$(TORCH_FREE)/bin/python -m pytest -m 'not long'

# Not part of any test: its figures are worth something on a quiet machine only.
bench: setup
	$(BIN)/python -m bench.run $(if $(REFERENCE),--reference '$(REFERENCE)') \
		$(if $(TRANSFORMERS),--transformers '$(TRANSFORMERS)') $(OPTIONS)

conformance: setup
	@$(BIN)/python -m conformance.run $(if $(REFERENCE),--reference '$(REFERENCE)') \
		$(if $(ONLY),--only '$(ONLY)')

conformance-docs: setup
	$(BIN)/python -m conformance.documents

# Universal locks: versions and hashes for every platform. Already locked versions stay
# unless UPGRADE=--upgrade is given.
COMPILE = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-annotate --quiet $(UPGRADE)
lock:
	$(COMPILE) --extra client --extra dev -o requirements/base.txt
	$(COMPILE) --extra client --extra dev --extra demo --extra ipex -o requirements/ipex.txt
	$(COMPILE) --extra client --extra dev --extra demo --extra torch -o requirements/torch.txt
	@# For Dockerfile.tdx, which takes its torch from elsewhere: not the one with CUDA, nor CUDA.
	$(COMPILE) --extra torch --constraint requirements/torch.txt --output-file /dev/stdout \
		| awk '/^[a-z]/ {keep = !/^(torch|torchvision|triton|nvidia-.*|cuda-.*)==/} keep' \
		> requirements/image.txt

clean:
	rm -rf .venv .demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
