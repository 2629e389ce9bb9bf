# The tools of this repository. `make help` lists the targets; `make test` is everything that CI runs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
UV := uv==0.13.8
BIN := $(CURDIR)/.venv/bin
READY := .venv/.ready
# Every tool finds its siblings (molecule calls ansible-playbook by name), and never one from outside.
export PATH := $(BIN):$(PATH)
# The tests start some thousands of processes; one that compiles all that it imports takes twice as long.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(READY) ## Make .venv with all that running and testing need

$(READY): requirements.txt requirements-dev.txt
	@echo "== setting up .venv"
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet $(UV)
	.venv/bin/uv pip install --quiet --system-certs --python .venv/bin/python --requirement requirements-dev.txt
	touch $@

.PHONY: requirements
requirements: $(READY) ## Pin requirements*.txt anew from requirements*.in
	for set in requirements requirements-dev; do \
	    uv pip compile --quiet --system-certs --upgrade --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	        --custom-compile-command "make requirements" $$set.in --output-file $$set.txt; \
	done

# What needs no sandbox first: the sanity tests, which use one core, beside all the rest. Each part can be run alone.
.PHONY: test
test: ## Run all tests
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target sanity lint contract units docs pages
	$(MAKE) --no-print-directory molecule SCENARIOS="$(SOME)"
	$(MAKE) --no-print-directory pytest

.PHONY: lint
lint: $(READY) ## Check style: ruff, ansible-lint (production profile), changelog fragments
	ruff check
	ruff format --check
	ansible-lint --offline --profile production
	antsibull-changelog lint

.PHONY: contract
contract: $(READY) ## Check that each verb, playbook and role has all that it must have, and AWX what they say
	pytest tests/contract tests/awx

.PHONY: awx
awx: $(READY) ## Write the job templates, surveys and workflows for AWX anew from the playbooks
	python -m awx

.PHONY: units
units: $(READY) ## Run the unit tests as ansible-test does
	tests/ansible-test units

.PHONY: sanity
sanity: $(READY) ## Run ansible-test's sanity tests
	tests/ansible-test sanity

# antsibull-docs would also check the markup, but it takes our action routing for renamed modules.
.PHONY: docs
docs: $(READY) ## Check that the documentation of every plugin and role renders
	for type in module callback filter lookup role; do \
	    names=$$(ansible-doc --type $$type --list sre.runbooks 2>/dev/null | awk '/^sre\./ { print $$1 }'); \
	    [ -z "$$names" ] || ansible-doc --type $$type $$names >/dev/null; \
	done

.PHONY: undo-page
undo-page: $(READY) ## Write docs/undo.md anew, from what the verbs say of how they are taken back
	python -m tests.contract.undone > docs/undo.md.part && mv docs/undo.md.part docs/undo.md

# Debian's, since what a browser project offers for download is not in a package registry. Without root the tests skip.
.PHONY: browser
browser: ## Install the browser that the tests of pages look with, where there is none and we may
	@command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || { \
	    echo "== installing chromium"; apt-get update -qq; \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; }

.PHONY: pages
pages: $(READY) browser ## Look at the pages that the runbooks write, on a phone and at a desk
	pytest tests/pages

# One of each kind. What each playbook does is shown by tests/scenarios too; all scenarios take six minutes.
SOME := db_failover disk_full incident kill_queries rollback_deployment security_breach triage undo

.PHONY: molecule
molecule: $(READY) ## Converge, repeat and verify each playbook against a sandbox, or those of SCENARIOS="name name"
	tests/molecule $(SCENARIOS)

# Each worker has a sandbox of its own. Three for two cores, since each test waits a while for what it has started; the long
# ones first, so that no worker is left with one at the end.
.PHONY: pytest
pytest: $(READY) ## Run the tests of whole runs, of the sandbox and of databases, three at a time
	pytest -n 3 --dist worksteal tests/scenarios tests/sandbox tests/databases tests/drills

.PHONY: soak
soak: $(READY) ## Run the long tests that the others leave out
	pytest -m soak tests/awx tests/scenarios tests/sandbox tests/drills

# Each call says which playbook makes it, and each sandbox notes what it takes. As long as the tests, the long ones included; what
# the code of the verbs names besides, `python -m iam --add` adds by itself in a second.
.PHONY: iam
iam: $(READY) ## Write iam/<playbook>.json anew, from the calls that the tests make, and the code
	mkdir -p .cache
	rm -f .cache/observed.jsonl
	SRE_SANDBOX_OBSERVED=$(CURDIR)/.cache/observed.jsonl pytest -n 3 --dist worksteal -m "soak or not soak" tests/scenarios
	python -m iam .cache/observed.jsonl

# The tests use the kubectl on PATH, else this one, else they skip what needs it. Downloading needs no root.
.PHONY: kubectl
kubectl: ## Put Debian's kubectl into .cache (for the tests with it, where none is installed)
	mkdir -p .cache/kubectl
	cd .cache/kubectl && apt-get download kubernetes-client && dpkg -x kubernetes-client_*.deb . && rm kubernetes-client_*.deb

.PHONY: demo
demo: $(READY) ## Kill the primary database under load and watch the recovery
	python -m demo

.PHONY: drill
drill: $(READY) ## Practise: SCENARIO=list, a name, a kind or random; AUTO=1 lets the playbooks recover by themselves
	python -m drills $(or $(SCENARIO),list) $(if $(AUTO),--auto) $(if $(ENV),--env $(ENV) --consent '$(CONSENT)')

# The rulebook starts playbooks in a folder of its own, which is gone afterwards: paths must be absolute, and its one inventory
# file stands for all of ansible.cfg.
.PHONY: eda
eda: $(READY) ## Wait for alerts and start what they call for (needs Java 17, ALERTS_TOKEN and APPROVALS_TOKEN)
	ANSIBLE_CONFIG=$(CURDIR)/ansible.cfg SRE_RUNBOOKS_INCIDENTS=$${SRE_RUNBOOKS_INCIDENTS:-$(CURDIR)/incidents} \
	ANSIBLE_INVENTORY_ENABLED=yaml,ini,host_list,sre.runbooks.configured \
	ansible-rulebook --rulebook sre.runbooks.alerts --inventory extensions/eda/inventory.yml \
	    --vars $${EDA_VARS:-extensions/eda/vars.yml} --env-vars ALERTS_TOKEN,APPROVALS_TOKEN

.PHONY: bench
bench: $(READY) ## Measure the runbooks against the AWS CLI and the modules of amazon.aws
	python -m benchmarks

.PHONY: bench-readiness
bench-readiness: $(READY) ## Look whether 200 services are ready, and how near that comes to what AWS lets an account ask
	python -m benchmarks.readiness

.PHONY: bench-diagnosis
bench-diagnosis: $(READY) ## Play sixty incidents of known cause and count how often it is named
	python -m benchmarks.diagnosis

.PHONY: clean
clean: ## Stop the sandbox and remove all that the other targets made
	[ ! -e .sandbox ] || python -m sandbox down
	rm -rf .venv .cache .sandbox .pytest_cache .ruff_cache .hypothesis sre-runbooks-*.tar.gz
