# What can be done with this repository. `make` alone lists it.

.DEFAULT_GOAL := help
.PHONY: help tools build image check-image deny test-faults demo playground fmt fmt-check lint layers test \
	test-matrix oracle generate check-generated doc bench bench-cluster bench-audit bench-steps profile bench-check bench-accept bench-hostile

help: ## list what there is
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

tools: # say at once what is missing
	@hack/check-tools

build: tools ## build the programs, optimised, into target/release
	cargo build --release --package hardening-controller --package kubectl-harden

image: tools ## the controller's image for amd64 and arm64, as an archive in target/image, with its bills of materials
	@hack/image

check-image: tools ## whether a build elsewhere gives the same image, byte for byte; builds everything twice
	@hack/check-image

demo: tools ## show what the product does, on a control plane that is started for it
	@hack/demo demo

playground: tools ## the same set-up to try things on, until Ctrl-C
	@hack/demo playground

test: tools ## everything that can fail: lints, unit, property, example and API-server tests, the demo, quick faults
	@hack/test

test-matrix: tools ## the API-server tests on each supported version of Kubernetes; an hour or more
	@hack/test-matrix

lint: fmt-check layers deny ## formatting, clippy, who may depend on whom, and what on whose terms
	@hack/clippy

deny: ## every dependency held to deny.toml: licences, sources, bans, and known vulnerabilities
	@hack/deny

fmt: ## format the code
	cargo fmt --all

fmt-check:
	cargo fmt --all --check

layers: ## each crate compiles alone, and depends only on what is below it
	@hack/check-alone
	cargo test --quiet --package hardening-tests --test fast -- layers::

test-faults: tools ## the installed chart under every fault, at full length, as a table; wants root, and takes long
	cargo test --workspace --test faults

oracle: tools ## PodSecurityPolicy's own code of Kubernetes 1.24 against ours, on 20,000 generated pairs, as figures
	cargo test --quiet --package hardening-psp --test fidelity -- --nocapture

generate: ## write crds/, docs/reference/, docs/compatibility.md, the chart's values.yaml and what tests expect, after a change that is meant
	UPDATE_EXPECT=1 cargo test --quiet --package hardening-controller --test program -- crds::
	UPDATE_EXPECT=1 cargo test --quiet --package hardening-tests --test chart -- generated:: rights::each_service_account
	UPDATE_EXPECT=1 cargo test --quiet --package hardening-tests --test fast
	UPDATE_EXPECT=1 cargo test --quiet --package hardening-tests --test node -- compatibility::the_page
	UPDATE_EXPECT=1 cargo test --quiet --package hardening-tests --test browser -- picture::
	UPDATE_EXPECT=1 cargo test --quiet --package hardening-engine --test golden

check-generated: ## whether what `make generate` writes is up to date
	cargo test --quiet --package hardening-controller --test program -- crds::
	cargo test --quiet --package hardening-tests --test fast -- reference:: examples::
	cargo test --quiet --package hardening-tests --test chart -- generated::
	cargo test --quiet --package hardening-tests --test node -- compatibility::the_page
	cargo test --quiet --package hardening-tests --test browser -- picture::

doc: ## the crates' own documentation, warnings denied
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --document-private-items

bench: tools ## what a review costs, under load beside a no-op, and with many policies; wants a quiet machine and h2load
	@hack/bench webhook scale

bench-cluster: tools ## what a pod costs end to end on a control plane, beside other ways to fill it in; wants a quiet machine
	@hack/bench cluster

bench-audit: tools ## what an audit of 10,000 pods takes, beside kubectl listing them; wants a quiet machine
	cargo build --release --package hardening-bench --package kubectl-harden
	target/release/hardening-bench audit

bench-steps: tools ## how long each step of a review takes
	cargo bench --package hardening-bench --bench time

profile: tools ## count what the programs do in the benches, by which the released one is compiled; wants h2load and llvm-tools
	@hack/profile

bench-hostile: tools ## how much longer honest calls take among a thousand hostile clients; wants two processors that do nothing else
	HARDENING_HOSTILE_FIGURES=1 cargo test --release --package hardening-controller --test program -- hostile::a_thousand --nocapture

bench-check: tools ## the instructions of each step of a review, held against those that were accepted
	@hack/count-instructions

bench-accept: tools ## accept the instructions that the steps take now, after a change that is worth it
	@hack/count-instructions accept
