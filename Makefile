# `make demo` and `make test` do all their own set-up: a private uv (unless one is on PATH) and .venv.
PYTHON ?= python3
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
INSTALL := $(UV) pip install --quiet --python .venv --constraint constraints.txt --editable .

# Without bytecode every command would start seconds later.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo docs ladder tighten test lint clean
.DELETE_ON_ERROR:

demo: .venv/.runtime  ## forecast a 70B-parameter, 1.4T-token model from the Chinchilla runs
	.venv/bin/bayescale forecast chinchilla --params 70e9 --tokens 1.4e12

ladder: .venv/.trainer  ## train the default ladder on this machine's CPU cores
	.venv/bin/python -m bayescale_trainer ladders/zipf-facts.toml -o runs/zipf-facts

tighten: .venv/.trainer  ## plan, train and refit until a forecast is narrow enough, on CPU
	.venv/bin/bayescale tighten ladders/zipf-facts-start.toml --target params=131e3,tokens=4e6 \
	  --law outer-exponent --budget 5e12 --width 0.02 -o runs/tighten

test: lint  ## format, lint, types, documentation, then the whole suite
	.venv/bin/sphinx-build -q -W --keep-going -D nb_execution_mode=off docs docs/_build/unexecuted
	.venv/bin/pytest -n 2 --dist worksteal

docs: .venv/.dev  ## the documentation site, notebooks executed, in docs/_build/html
	.venv/bin/sphinx-build -q -W --keep-going docs docs/_build/html

lint: .venv/.dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

clean:
	rm -rf .venv .uv

.venv/.runtime: pyproject.toml constraints.txt | $(UV)
	$(UV) venv --quiet --allow-existing .venv
	$(INSTALL)
	touch $@

.venv/.dev: .venv/.runtime
	$(INSTALL)[trainer,ray] --group dev
	touch $@

.venv/.trainer: .venv/.runtime
	$(INSTALL)[trainer]
	touch $@

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
