# Each target is one line of what to run; scripts/ and plainroute-lab do the work.
LAB ?= single-tor
TIME ?= 60
CARGO ?= cargo

.PHONY: help setup setup-labs build demo test check lint docs crds bench scale fuzz image manifests lab-up lab-down clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## install what is missing: Debian packages, rustfmt and clippy, the test cluster's binaries
	@scripts/setup.sh

build: ## build the agent and the lab runner
	$(CARGO) build --locked --bin plainroute --bin plainroute-lab

# What the labs need.
setup-labs:
	@scripts/setup.sh --without-cluster

demo: setup-labs build ## run the lab LAB step by step, with the real output of everything
	@target/debug/plainroute-lab demo $(LAB)

test: setup build ## run every test: unit, property, pair, real routers, real kernel, real Kubernetes, labs
	@scripts/test.sh

check: lint docs test ## everything that .ci/run checks

lint: ## formatting, clippy and the house rules
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@scripts/house-rules.sh

docs: ## build the documentation of the crates, without warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

crds: ## write the CustomResourceDefinitions of the kinds into config/crd
	UPDATE=1 $(CARGO) test --locked -p plainroute-config --test crds -q

bench: setup ## measure Plainroute, its peers and the floor in one run; BENCH="--quick --rows a" for less
	@scripts/bench.sh $(BENCH)

scale: setup ## measure agents in a cluster of 5,000 nodes and 100,000 Pods; five minutes
	@scripts/scale.sh

fuzz: ## run each fuzz target for TIME seconds
	@scripts/fuzz.sh $(TIME)

image: ## build the container image and its SBOM into target/image/release; IMAGE_PROFILE=dev builds faster
	@scripts/image.sh

manifests: ## render the plain manifests of config/helm into config/manifests and config/rbac
	@scripts/manifests.sh

lab-up: setup build ## realise labs/LAB in network namespaces and leave it running
	@target/debug/plainroute-lab up $(LAB)

lab-down: ## take labs/LAB down
	@target/debug/plainroute-lab down $(LAB)

clean: ## remove what the build made
	$(CARGO) clean
