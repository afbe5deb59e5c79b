# `make help` lists what there is. Everything runs in .venv, which `make setup` makes from the hashed lock.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs api pictures lock benchmark clean

PYTHON ?= $(firstword $(shell command -v python3.11) $(shell command -v python3.12) python3)
BIN := .venv/bin
DAY ?= 1998-04-20
WHAT ?= main_job
OPTIONS ?=
WORKERS ?= 2
WEIGHTS := .venv/share/millrace/smollm2-135m-instruct
# $(call timed,what,command): run a command and say how long it took.
timed = echo "== $(1)"; s=$$SECONDS; $(2); echo "== $(1): $$((SECONDS - s)) s"

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: .venv/.ready ## install everything into .venv: packages, Spark's libraries, the small language model

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else f"Python 3.11 or 3.12 is needed, this is {v[0]}.{v[1]}. Name one: make setup PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@# The installer itself comes from the lock too, by its hash.
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.lock.txt
	@$(call timed,installer,$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.lock.txt)
	@$(call timed,packages (about 5 GB installed: PyTorch brings its CUDA libraries),$(BIN)/uv pip sync --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock)
	@$(call timed,millrace,$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .)
	@touch $@

.venv/.ready: .venv/.installed
	@$(call timed,Spark with Delta and Deequ (libraries, class archive),$(BIN)/python -m lakehouse.rehearsal)
	@$(call timed,language model (SmolLM2-135M converted, vLLM tried),$(BIN)/python -m models.llm.rehearsal $(WEIGHTS))
	@touch $@

demo: setup ## set up and run the nightly job for one day (DAY=1998-04-20); ends with the report's path and how to open the page
	@$(call timed,nightly job for $(DAY),$(BIN)/pyflyte -c flyte.yaml run workflows/nightly.py nightly --day $(DAY))
	@$(BIN)/millrace runs
	@$(BIN)/millrace sql --format csv "select report from runs order by finished_at desc limit 1" | sed -n '2s/^/Report: /p'
	@echo "Page:   $(BIN)/millrace serve --clock lake --no-auth   and open http://127.0.0.1:8080/"

test: setup ## run all the tests: lint, types, layers, and pytest on the real engines (WORKERS=2 processes)
	@$(call timed,lint and types,$(MAKE) -s lint)
	@$(call timed,tests,$(BIN)/python -m pytest -n $(WORKERS))

lint: .venv/.installed ## ruff, mypy --strict, the import layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

docs: .venv/.installed ## build the documentation's site into build/site (strict: a link that leads nowhere ends it)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "Site:   $(BIN)/python -m http.server -d build/site 8000   and open http://127.0.0.1:8000/ (as plain files, all but the search works)"

api: .venv/.installed ## write the list of the public interface, docs/api.txt, anew; a test compares it with the sources
	@$(BIN)/python docs/api.py --write

pictures: .venv/.installed ## draw the documents' pictures anew from the newest run (after make demo; needs Chromium)
	@$(BIN)/python docs/pictures.py

lock: ## resolve the environment anew into requirements.lock (hashes, no index)
	@$(BIN)/uv pip compile pyproject.toml --extra all --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-header --no-emit-index-url --no-annotate --upgrade -q -o requirements.lock

benchmark: setup ## time and memory (WHAT=main_job, lakehouse, features, features_online, drift, recommender, precision, training_cost, transformer, llm, orchestration or serving; results: docs/benchmarks.md)
	@$(BIN)/python -m benchmarks.$(WHAT) $(OPTIONS)

clean: ## remove what runs leave behind (.millrace) and caches; the environment stays
	@rm -rf .millrace .mypy_cache .ruff_cache .pytest_cache .hypothesis
