# Every target installs what it needs first (images/setup) and says what it installed.
SHELL := /bin/bash
.SHELLFLAGS := -Eeuo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup setup-run setup-image demo image test vm-test bench lint record mutants soak fuzz

CARGO ?= cargo
# Of `make fuzz` and `make soak`; bash has a variable of the same name, so it is passed under another.
unexport SECONDS

help: ## This list
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 16

setup: ## Install what building and testing need
	@images/setup build run test
setup-run:
	@images/setup build run
setup-image:
	@images/setup image

demo: setup-run ## A verifier and three hosts on software TPMs, until Ctrl-C
	@echo 'building verifier, hostd and the demo: some minutes the first time'
	@$(CARGO) build --quiet --locked -p hostmark-hostd -p hostmark-verifier -p hostmark-tests --bins
	@$(CARGO) run --quiet --locked -p hostmark-tests --bin demo

test: ## Format, lints, dependency rules, fuzz smoke, demo, the host image and every test
	@.ci/test

vm-test: setup image ## Booted hosts: everything that `make test` does with one, and what takes longer
	@$(CARGO) nextest run --workspace --locked --profile ci --run-ignored all --no-capture -E 'binary(booted)'

lint: setup ## Format, lock files, clippy, licences and dependency rules only
	@.ci/test fmt locks attacks clippy deny direction

bench: setup-run ## Figures beside their floors, measured in the same run
	@$(CARGO) build --quiet --locked --profile bench -p hostmark-hostd -p hostmark-verifier -p hostmark-tests --bins
	@$(CARGO) bench --quiet --locked -p hostmark-tests --bench figures

image: setup-image ## The host image for QEMU, into images/out/host; at once when nothing changed: [PROFILE=release]
	@images/host/build $(if $(PROFILE),--profile '$(PROFILE)')

record: setup-image ## Boot a measured guest in QEMU and record its logs and quote: NAME=… [GUEST=host TAMPER=…] [CMDLINE=…] [NONCE=hex]
	@images/record $(if $(GUEST),--guest '$(GUEST)') $(foreach what,$(TAMPER),--tamper '$(what)') $(if $(NAME),--name '$(NAME)') $(if $(CMDLINE),--cmdline '$(CMDLINE)') $(if $(NONCE),--nonce '$(NONCE)')

mutants: setup ## Remove each security check in turn; lists attack rows that stay green
	@tests/mutants $(if $(ROWS),--rows '$(ROWS)')

soak: setup ## The end-to-end tests again and again for SECONDS=600
	@.ci/soak $(or $(SECONDS),600)

fuzz: setup-run ## Every parser for SECONDS=5 each; FULL=1: with coverage feedback
	@tests/fuzz/run $(if $(FULL),--guided) $(or $(SECONDS),5)
