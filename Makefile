# Every target does its own set-up and is safe to repeat. `make help` lists them.

.DEFAULT_GOAL := help
PY := .venv/bin/python
TOOLS := $(PY) -m tools

# Limits a target: make test STEPS="lint attnlib", make notebooks CHAPTERS=chapters/scaling.ipynb
STEPS :=
CHAPTERS :=
OPTIONS :=

# A set-up belongs to this folder and these pins; a moved or interrupted one is made again.
ifneq ($(shell cat .venv/ready 2>/dev/null),$(shell pwd -P))
.venv/ready: stale
endif

.venv/ready: requirements.txt requirements-model.txt pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" sh tools/setup.sh

.PHONY: stale
stale:

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | \
	  awk -F '\t' '{ printf "  make %-13s %s\n", $$1, $$2 }'

.PHONY: book
book: site ## build the book and serve it on localhost
	@$(TOOLS) serve

.PHONY: site
site: .venv/ready ## build the book into _build/html
	@$(TOOLS) build

.PHONY: downloads
downloads: .venv/ready ## make the PDF and the zip, in _build/html/downloads
	@$(TOOLS) downloads

.PHONY: publish
publish: .venv/ready ## run the notebooks, then build the book with its address, PDF and zip
	@$(TOOLS) publish

.PHONY: publish-check
publish-check: .venv/ready ## prove locally that a published copy works: buttons, install, chapters
	@$(TOOLS) publish-check $(CHAPTERS)

.PHONY: test
test: .venv/ready ## run all checks and tests (STEPS="lint attnlib" for some of them)
	@$(TOOLS) test $(STEPS)

.PHONY: lab
lab: .venv/ready ## open the chapters in JupyterLab
	@$(PY) -m jupyterlab chapters $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: notebooks
notebooks: .venv/ready ## execute the chapters and their solutions (CHAPTERS=... for some)
	@$(TOOLS) notebooks $(CHAPTERS) && $(TOOLS) solutions $(CHAPTERS)

.PHONY: normalise
normalise: .venv/ready ## bring the chapters to canonical form without executing them
	@$(TOOLS) normalise $(CHAPTERS)

.PHONY: listings
listings: .venv/ready ## write listing cells, tables of names and lists of chapters
	@$(TOOLS) notation && $(TOOLS) listings && $(TOOLS) minutes && $(TOOLS) contents

.PHONY: pictures
pictures: .venv/ready ## draw the front page's pictures
	@$(TOOLS) pictures

.PHONY: editions
editions: .venv/ready ## notebooks for students and instructors, and slides (CHAPTERS=... for some)
	@$(TOOLS) editions $(CHAPTERS)

.PHONY: lint
lint: .venv/ready ## check style, spelling and workflows
	@$(TOOLS) test lint

.PHONY: coverage
coverage: .venv/ready ## measure which branches of floor 1 the tests of attnlib run
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n2 --cov --cov-report=term tests/attnlib

.PHONY: links
links: .venv/ready ## check every external link; needs a network
	@$(TOOLS) links

.PHONY: format
format: .venv/ready ## format the code and correct what ruff can
	@$(PY) -m ruff check --fix . && $(PY) -m ruff format .

.PHONY: lock
lock: .venv/ready ## pin in requirements.txt what requirements.in needs (UPGRADE=1: newest)
	@.venv/bin/uv pip compile --quiet --universal --python-version 3.10 --no-emit-index-url \
	  --no-annotate --custom-compile-command "make lock" \
	  $(if $(UPGRADE),--upgrade) --output-file requirements.txt requirements.in

# A borrowed machine has no .venv, and its own Python has torch.
.PHONY: gpu-check
gpu-check: ## run what a GPU is needed for, 8 minutes at most (OPTIONS="--minutes 4" for less)
	@$(if $(wildcard $(PY)),$(PY),python3) tools/gpu_check.py $(OPTIONS)

.PHONY: setup
setup: .venv/ready ## make .venv, which every target does by itself

.PHONY: clean
clean: ## remove what was built
	rm -rf _build build .coverage .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: clean-venv
clean-venv: ## remove .venv too, to set up from nothing
	rm -rf .venv attnlib.egg-info
