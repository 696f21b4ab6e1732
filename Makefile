# SPDX-License-Identifier: GPL-3.0-or-later
# What people type. The work is done by tools/ in a virtual environment of pinned versions.
MAKEFLAGS += --no-print-directory
export CIVITAS_STARTED := $(shell date +%s)
# Only what the pinned environment holds: a person's own modules and settings stay outside.
export PYTHONNOUSERSITE := 1
unexport PYTHONHOME

PYTHON ?= python3
# exec: a signal for make reaches Python, which removes its hosts, and not a shell in between.
RUN := exec env PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python -m
# The stamp carries the hash of the requirements: a changed file or a half-made environment is made anew.
STAMP := .venv/.made-$(shell cksum < requirements-dev.txt | tr ' ' '-')
LINK := .cache/collections/ansible_collections/civitas/hosting

.PHONY: help demo demo-down test lint unit sanity molecule bench docs clean
.DEFAULT_GOAL := help

help: ## this list
	@echo "civitas.hosting: make TARGET"
	@awk -F ':.*## ' '/^[a-z].*:.*## / { printf "  %-22s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) $(LINK) ## a whole server in a container, answering over HTTPS
	@$(RUN) tools.demo up

demo-down: $(STAMP) ## remove the demo
	@$(RUN) tools.demo down

test: $(STAMP) $(LINK) ## everything that CI runs
	@$(RUN) tools.testrun

lint unit sanity: $(STAMP) $(LINK) ## single parts
	@$(RUN) tools.testrun $@

molecule: $(STAMP) $(LINK) ## scenarios: S="postgres nginx" (default all), DISTROS="debian13", DO=converge|verify|login|destroy
	@$(RUN) tools.testrun $(if $(DO),--do "$(DO)") $(if $(DISTROS),--distros "$(DISTROS)") $(if $(S),$(addprefix molecule/,$(S)),molecule)

bench: $(STAMP) $(LINK) ## runs of the single server; certificate checks, handshakes and requests at the edge; backups
	@$(RUN) tools.bench

docs: $(STAMP) $(LINK) ## regenerate the generated parts of the pages
	@$(RUN) tools.pages

clean: ## remove all hosts, the package cache, and everything made at run time
	@if [ -x .venv/bin/python ]; then ($(RUN) tools.bed down); fi
	rm -rf .venv .cache .demo .ansible .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(STAMP):
	@sh tools/make-venv "$(PYTHON)" "$@"

# Relative, so that a moved or copied checkout stays whole.
$(LINK):
	@mkdir -p $(@D)
	@ln -sfn ../../../.. $@
