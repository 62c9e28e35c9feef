# `make demo` and `make test` do all their set-up themselves. They need python3 (3.11 to 3.13), make, and nothing else.
# PYTHON=… chooses another interpreter, ARGS=… is passed on to the command.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
RUN := $(VENV)/bin/python -m
PIP := $(RUN) pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo up test test-postgres test-browser test-compose screenshots check lint types security format constraints clean
.PHONY: simulate simulate-stack explore mutants crashes powercuts recovery load-through-a-fault torture hostile coverage
.PHONY: stories bench

help:  ## Say what can be made.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 28

demo: $(VENV)/.installed  ## Tell the whole story on four real banks.
	@$(RUN) distribank demo $(ARGS)

up: $(VENV)/.installed  ## Run four banks until Ctrl-C.
	@$(RUN) distribank up $(ARGS)

MINUTES ?= 30

torture: $(VENV)/.installed  ## Break five real banks at random for MINUTES (30), while many people pay; check everything.
	@$(RUN) distribank torture --minutes $(MINUTES) $(ARGS)

simulate: $(VENV)/.installed  ## Simulate 100,000 seeds, going on where it was stopped; takes hours.
	@PYTHONHASHSEED=0 $(RUN) distribank simulate --seeds 100000 --record simulation.jsonl $(ARGS)

WORKERS ?= 3
# Files side by side: most of a test's time goes into waiting for banks, so that two cores carry three.
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile

test: $(VENV)/.installed-dev  ## Run the tests, WORKERS (3) files of them at a time.
	@$(RUN) pytest $(SIDE_BY_SIDE) $(ARGS)

PROTOCOL_AND_API := test_transfers test_pitfalls test_adversity test_heuristics test_snapshots test_batches \
	test_account_routes test_transfer_routes test_heuristic_routes test_suspense_routes test_traces test_plans \
	test_linked_accounts test_authority test_showing test_strict_bodies

test-postgres: $(VENV)/.installed-dev  ## Run the tests of protocol and API once more, on real PostgreSQL servers.
# A bank that is killed in the middle of a real connection leaves coroutines half-way, which the collector closes later.
	@DISTRIBANK_TEST_ENGINE=postgres $(RUN) pytest $(SIDE_BY_SIDE) -W default::pytest.PytestUnraisableExceptionWarning \
		$(PROTOCOL_AND_API:%=tests/%.py) $(ARGS)

explore: $(VENV)/.installed-dev  ## Walk every state of the protocol, with figures, and the shortest way to each seeded bug.
	@$(RUN) pytest -s tests/test_exploration.py $(ARGS)

crashes: $(VENV)/.installed-dev  ## Kill banks at every write and every message, 20 times over (ROUNDS=…), and report.
	@$(RUN) tests.crash_points --rounds $(or $(ROUNDS),20) --report docs/reports/crashes.md $(ARGS)

recovery: $(VENV)/.installed-dev  ## Time the recovery of banks with 0, 1,000 and 10,000 transactions in doubt, and report.
	@$(RUN) tests.recovery_times --report docs/reports/recovery.md $(ARGS)

load-through-a-fault: $(VENV)/.installed-dev  ## Kill, freeze and cut off one of five banks under load, and report.
	@$(RUN) tests.load_through_a_fault --report docs/reports/load-through-a-fault.md $(ARGS)

bench: $(VENV)/.installed-bench  ## Measure this machine beside what one would pick instead; writes docs/reports/bench.*; half an hour.
	@$(RUN) distribank bench --report docs/reports/bench.md --plot docs/reports/bench.png --json docs/reports/bench.json \
		$(ARGS)

powercuts: $(VENV)/.installed-dev  ## Cut the power under the store 10,000 times (CUTS=…), and report.
	@$(RUN) tests.power_cuts --cuts $(or $(CUTS),10000) --report docs/reports/power-cuts.md $(ARGS)

mutants: $(VENV)/.installed-dev  ## Plant each seeded bug and run the test that must find it; writes docs/reports/mutants.md.
	@$(RUN) tests.mutating --report docs/reports/mutants.md $(ARGS)

test-compose: $(VENV)/.installed-dev  ## Try the network in containers; needs Docker and Compose v2.
	@$(RUN) pytest -s -rs tests/compose/containers.py tests/compose/replicas.py $(ARGS)

test-browser: $(VENV)/.installed-browser  ## Drive /docs in the chromium or Chrome that is installed, on two real banks.
	@$(RUN) pytest tests/browser -rs $(ARGS)

stories: $(VENV)/.installed-dev  ## Write docs/stories anew, from what happens now.
	@DISTRIBANK_STORIES=write $(RUN) pytest tests/test_stories.py $(ARGS)

simulate-stack: $(VENV)/.installed-dev  ## Run whole banks under faults, in virtual time: SEEDS=0-9999.
	@$(RUN) tests.whole_stack_campaign $(or $(SEEDS),0-999) $(ARGS)

screenshots: $(VENV)/.installed-browser  ## The same, and keep the README's pictures in docs/images.
	@$(RUN) pytest tests/browser -rs --screenshots docs/images

hostile: $(VENV)/.installed-hostile  ## Send a bank all that tests/hostile knows, to the last byte; takes minutes.
	@$(RUN) tests.hostile.campaign $(ARGS)

coverage: $(VENV)/.installed-hostile  ## Count the branches that the tests take: all of core, 90 % of everything.
	@$(RUN) coverage erase
	@$(RUN) coverage run -m pytest $(ARGS)
	@$(RUN) coverage combine --quiet
	@$(RUN) coverage report --include='*/distribank/core/*' --fail-under=100
	@$(RUN) coverage report --fail-under=90

security: $(VENV)/.installed-hostile  ## Look for mistakes that invite attackers.
	@$(RUN) bandit --quiet --recursive --severity-level medium src

check: lint types  ## Run what else has to pass: lint, types.

lint: $(VENV)/.installed-dev  ## Look for mistakes and for formatting.
	@$(RUN) ruff check
	@$(RUN) ruff format --check

types: $(VENV)/.installed-dev  ## Check the types, strictly.
	@$(RUN) mypy

format: $(VENV)/.installed-dev  ## Format the code.
	@$(RUN) ruff check --fix
	@$(RUN) ruff format

constraints:  ## Make constraints.txt and compose/requirements.txt anew, with the newest versions; needs uv.
	@{ sed -n '/^#/p' constraints.txt; uv pip compile --quiet --universal --python-version 3.11 --extra dev --extra browser --extra hostile --extra bench --extra otel \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml; } > constraints.new
	@mv constraints.new constraints.txt
	@{ sed -n '/^#/p' compose/requirements.txt; uv pip compile --quiet --universal --python-version 3.11 --no-header \
		--no-annotate --no-emit-index-url --no-emit-find-links --generate-hashes -c constraints.txt \
		--extra otel --extra postgres pyproject.toml; } > compose/requirements.new
	@mv compose/requirements.new compose/requirements.txt

clean:  ## Remove the environment and what tools have left behind. Banks' data stay.
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find src tests examples -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing what the banks need, into $(VENV) …"
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing what the banks and their tests need, into $(VENV) …"
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-browser: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing what the banks, their tests and the browser's driver need, into $(VENV) …"
	@$(PIP) install -c constraints.txt -e '.[dev,browser]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-dev

$(VENV)/.installed-hostile: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing what the banks, their tests and those who attack them need, into $(VENV) …"
	@$(PIP) install -c constraints.txt -e '.[dev,hostile]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-dev

$(VENV)/.installed-bench: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing what the banks need, and what they are measured beside, into $(VENV) …"
	@$(PIP) install -c constraints.txt -e '.[bench]'
	@touch $@ $(VENV)/.installed

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "DistriBank needs Python 3.11 or newer; python3 here is" \
		"$$(python3 --version 2>&1). Say which to use: make PYTHON=/path/to/python3.12 …" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) …"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "This Python has no venv:" \
		"on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
