# Every target does its own set-up and is safe to repeat. `make help` lists them.

.DEFAULT_GOAL := help
PY := .venv/bin/python

# What is wanted of a target: make test STEPS="lint unit", make notebooks CHAPTERS=chapters/02-*
STEPS :=
CHAPTERS :=
OPTIONS :=

# A set-up is good for this folder and these pins; a moved or half-made one is made again.
ifneq ($(shell cat .venv/ready 2>/dev/null),$(shell pwd -P))
.venv/ready: stale
endif

.venv/ready: requirements.txt pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" sh tools/setup.sh

.PHONY: stale
stale:

.PHONY: help
help: ## list what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | \
	  awk -F '\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

.PHONY: book
book: site ## build the book and serve it on localhost
	@$(PY) tools/serve.py

.PHONY: site
site: .venv/ready ## build the book into _build/html
	@$(PY) tools/build_site.py

.PHONY: downloads
downloads: .venv/ready ## make the PDF and the zip, in _build/html/downloads
	@$(PY) tools/downloads.py

.PHONY: publish
publish: .venv/ready ## run the notebooks, then build the book with its address, PDF and zip
	@$(PY) tools/publish_site.py

.PHONY: publish-check
publish-check: .venv/ready ## prove here that a published copy works: buttons, install, every chapter
	@$(PY) tools/publish_check.py $(CHAPTERS)

.PHONY: test
test: .venv/ready ## run everything that has to hold (STEPS="lint unit" for some of it)
	@$(PY) tools/run_tests.py $(STEPS)

.PHONY: lab
lab: .venv/ready ## open the chapters in JupyterLab
	@$(PY) -m jupyterlab chapters $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: notebooks
notebooks: .venv/ready ## run the chapters and their solutions (CHAPTERS=... for some)
	@$(PY) tools/notebooks.py $(CHAPTERS) && $(PY) tools/solutions.py --write $(CHAPTERS)

.PHONY: normalise
normalise: .venv/ready ## bring the chapters to normal form without executing them
	@$(PY) tools/notebooks.py --normalise-only $(CHAPTERS)

.PHONY: listings
listings: .venv/ready ## write listing cells and tables of names from their sources
	@$(PY) tools/notation.py --write && $(PY) tools/listings.py --write

.PHONY: pictures
pictures: .venv/ready ## draw the front page's pictures
	@$(PY) tools/pictures.py

.PHONY: editions
editions: .venv/ready ## notebooks for students and instructors, and slides (CHAPTERS=... for some)
	@$(PY) tools/editions.py $(CHAPTERS)

.PHONY: lint
lint: .venv/ready ## check style, spelling and workflows
	@$(PY) tools/run_tests.py lint format

.PHONY: links
links: .venv/ready ## ask every external link whether it still leads somewhere
	@$(PY) tools/links.py

.PHONY: format
format: .venv/ready ## format the code and correct what ruff can
	@$(PY) -m ruff check --fix . && $(PY) -m ruff format .

.PHONY: bench-site
bench-site: site ## measure the built pages: payload, cold load, interaction
	@$(PY) tools/bench_site.py

# A borrowed machine has no .venv, and its own Python has torch.
.PHONY: gpu-check
gpu-check: ## run what a GPU is needed for, 8 minutes at most (OPTIONS="--minutes 4" for less)
	@$(if $(wildcard $(PY)),$(PY),python3) tools/gpu_check.py $(OPTIONS)

.PHONY: setup
setup: .venv/ready ## make .venv, which every target does by itself

.PHONY: clean
clean: ## remove what was built
	rm -rf _build build .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: clean-venv
clean-venv: ## remove .venv too, to set up from nothing
	rm -rf .venv attnlib.egg-info
