# Two commands: `make demo` runs a federation on this machine, `make test` runs the tests. Both set up what they need.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests that run beside each other, those of one file one after the other: most of them wait for processes of theirs.
# 0 runs them in one process, as a debugger needs it.
WORKERS ?= 2
PYTEST = $(RUN)/pytest -n $(WORKERS) --dist loadfile
# Where tests and demo find the clinical data sets; what needs them is skipped, loudly, without.
export FEDWARD_DATA ?= $(if $(wildcard ../shared/data),$(abspath ../shared/data))

.PHONY: help setup demo test check unit component contract integration learning sweep bench chaos soak fuzz clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(READY): pyproject.toml constraints.txt
	@echo "== setup: virtual environment in $(VENV), pinned packages from PyPI (torch is the large one)"
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[agent,appliance,coordinator,traces,sandbox,dev]'
	@touch $@

setup: $(READY)  ## make the virtual environment

demo: $(READY)  ## run a federation of four hospitals here; ARGS="--help" lists the options
	$(RUN)/fedward demo $(ARGS)

# mosquitto, PostgreSQL and Prometheus are installed where that is possible; where not, their tests are skipped and say
# which line installs them.
test: $(READY) mosquitto postgresql prometheus  ## all tests but the sweep and those of the containers, minutes
	$(PYTEST) -m "not sweep and not containers" $(ARGS)

.PHONY: mosquitto
mosquitto:
	@PATH=$$PATH:/usr/sbin:/usr/local/sbin; command -v mosquitto >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "== setup: mosquitto, the broker that the tests run against (apt-get)"; \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends mosquitto >/dev/null; } \
	      || echo "== mosquitto could not be installed: its tests are skipped"; \
	  else echo "== mosquitto is not installed: its tests are skipped; 'sudo apt-get install mosquitto' runs them"; fi; }

.PHONY: postgresql
postgresql:
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "== setup: PostgreSQL, which a ledger may be in (apt-get)"; \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql >/dev/null; } \
	      || echo "== PostgreSQL could not be installed: its tests are skipped"; \
	  else echo "== PostgreSQL is not installed: its tests are skipped; 'sudo apt-get install postgresql' runs them"; fi; }

.PHONY: prometheus
prometheus:
	@command -v promtool >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "== setup: Prometheus, which the alerts are tested with (apt-get)"; \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus >/dev/null; } \
	      || echo "== Prometheus could not be installed: its tests are skipped"; \
	  else echo "== Prometheus is not installed: its tests are skipped; 'sudo apt-get install prometheus' runs them"; fi; }

check: $(READY)  ## style and types: ruff, mypy --strict
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

unit: $(READY)  ## rules and parts one by one: seconds, no network, no torch
	$(PYTEST) tests/unit tests/compat $(ARGS)

component contract integration learning: $(READY) mosquitto postgresql prometheus  ## one group of tests
	$(PYTEST) tests/$@ $(ARGS)

.PHONY: dashboards prove-dashboards pictures
dashboards: $(READY)  ## write monitoring/dashboards/*.json
	$(RUN)/python -m monitoring.dashboards

prove-dashboards: $(READY) mosquitto prometheus  ## ask a real Prometheus every query of every dashboard
	$(RUN)/pytest tests/integration/test_dashboards.py $(ARGS)

pictures: $(READY) mosquitto prometheus  ## run a federation for some minutes and draw its dashboards: docs/pictures
	$(RUN)/python -m monitoring.draw --out docs/pictures

bench: $(READY)  ## every benchmark, beside its bound
	$(RUN)/python -m benchmarks.codecs
	$(RUN)/python -m benchmarks.fold
	$(RUN)/python -m benchmarks.memory
	$(RUN)/python -m benchmarks.accuracy
	$(RUN)/python -m benchmarks.pneumonia
	$(RUN)/python -m benchmarks.upload
	$(RUN)/python -m benchmarks.ways
	$(RUN)/python -m benchmarks.wire
	$(RUN)/python -m benchmarks.egress
	$(RUN)/python -m benchmarks.version_time
	$(RUN)/python -m benchmarks.joiner
	$(RUN)/python -m benchmarks.poisoning

soak: $(READY)  ## 20 minutes of a federation; what grows in memory, files and threads
	$(RUN)/python -m benchmarks.soak $(ARGS)

fuzz: $(READY)  ## 2 million hostile inputs for all that reads what others send, minutes
	$(RUN)/python -m benchmarks.fuzz $(ARGS)

sweep: $(READY) mosquitto postgresql  ## what takes minutes: every durable step killed just before and just after, wrong clocks, tasks that kill
	$(PYTEST) -m "sweep and not containers" $(ARGS)

chaos: $(READY) mosquitto  ## 100 kills over agents, broker and coordinator, an account of every update, a replay
	$(RUN)/python -m benchmarks.chaos $(ARGS)

TOOLS := build/tools
# With the plugin that docker/tools.sh has fetched, where this machine's own client has none.
COMPOSE = $$([ ! -x $(TOOLS)/cli-plugins/docker-compose ] || echo env DOCKER_CONFIG=$(abspath $(TOOLS))) \
  docker compose -f docker/compose.yaml

.PHONY: images tools locks compose-up compose-down test-containers
tools: $(READY)
	@docker/tools.sh $(PYTHON)

images: tools  ## container images, with no registry: build/images; IMAGES="agent-cuda" for others, BASE= to build on another
	$(RUN)/python docker/images.py --syft $(TOOLS)/venv/bin/syft $(if $(BASE),--base $(BASE)) $(IMAGES)

locks: tools  ## docker/locks: every package of every image with its hashes, made anew
	docker/locks.sh $(TOOLS)/venv/bin/pip-compile

compose-up:  ## a federation of containers, from `make images`: up, healthy, training
	$(COMPOSE) up --detach --wait

compose-down:  ## ... down, and everything of it deleted
	$(COMPOSE) down --volumes

# Where no Docker daemon can be had it says so and ends: docker/with-daemon.sh.
test-containers: $(READY)  ## build all images and test them in containers, minutes
	docker/with-daemon.sh $(MAKE) images containers

.PHONY: containers sweep-containers
containers: $(READY)
	$(PYTEST) -m "containers and not sweep" tests/containers $(ARGS)

sweep-containers: $(READY)  ## the appliance killed at every step of a change, 11 minutes
	docker/with-daemon.sh $(PYTEST) -m "containers and sweep" tests/containers $(ARGS)

.PHONY: chart
chart: $(READY)  ## what helm/coordinator has from elsewhere here, made anew: settings, rules, dashboards, its table
	$(RUN)/python helm/prepare.py

clean:  ## delete the virtual environment, what was built and what the demo left; images stay at the daemon
	rm -rf $(VENV) build fedward-demo
