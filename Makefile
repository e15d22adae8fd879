# Everything a person or CI does here. `make help` lists it.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PY := .venv/bin/python
READY := .venv/.ready
# Test files at a time: most wait for processes of their own.
JOBS := 3
# Tests against a real API server at a time: most of each is waiting for it.
CLUSTER_JOBS := 4
CLUSTER_FLAGS :=
NODE_FLAGS :=
# Which images, and how: `make images IMAGE_FLAGS='operator --engine buildah'`.
IMAGE_FLAGS :=
# Extras of pyproject.toml whose packages `make wheels` fetches; `rm manifests/images/wheels/*.whl` undoes it.
WHEELS_OF := operator

.PHONY: help setup demo test test-fast test-cluster test-trainings test-kueue test-kubeflow test-images test-node lint fmt verify generate images wheels bench bench-gpu bench-serving bench-controller clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */\1\t/' | expand -t 14

setup: $(READY)  ## a .venv with everything in it (by uv, which is installed if missing)

$(READY): requirements.lock pyproject.toml .ci/setup
	@.ci/setup

demo: $(READY)  ## the main job on real pictures: train on 4 nodes, package, serve, answer (5 minutes at most)
	@$(PY) manifests/samples/01-digits/demo.py

test: $(READY)  ## all tests, with real torch processes and a real TorchServe
	@$(PY) -m pytest tests -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-fast: $(READY)  ## the tests that need seconds
	@$(PY) -m pytest tests -m "not slow" -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-cluster: $(READY)  ## against a real API server: KUBECONFIG's, or one built here (Go; minutes the first time)
	@$(PY) -m pytest tests/conformance tests/cluster --api-server shared -m "not training" \
		-n $(CLUSTER_JOBS) --dist loadgroup --no-loadscope-reorder $(CLUSTER_FLAGS)

test-trainings: $(READY)  ## real trainings against such a server: drained, from buckets, watched, the samples (20 minutes)
	@$(PY) -m pytest tests/cluster --api-server shared -m training -n 2 --dist loadgroup --no-loadscope-reorder

test-kueue: $(READY)  ## beside the real Kueue, which is built once from its module (minutes)
	@$(PY) -m pytest tests/kueue -q

test-kubeflow: $(READY)  ## beside Kubeflow's own operator, which is built once from its module (Go; minutes)
	@$(PY) -m pytest tests/kubeflow -q

test-images: $(READY)  ## build the operator's image with buildah and run it (as root; a minute or two)
	@$(PY) -m pytest tests/images tests/images/real -q

test-node: $(READY)  ## real containers on one real node, which is started here (as root; Go; half an hour)
	@$(PY) -m pytest tests/node -v $(NODE_FLAGS)

lint: $(READY)  ## ruff, mypy strict, import contracts
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@PYTHONPATH=platform .venv/bin/lint-imports

fmt: $(READY)  ## format the code
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

generate: $(READY)  ## what is generated: the lock file, docs/reference, manifests, the charts' READMEs
	@.ci/lock
	@$(PY) -m trainserve.cli.reference docs/reference
	@$(PY) -m trainserve.cli.manifests manifests/base helm/platform-operator
	@$(PY) helm/generate.py
	@$(PY) manifests/samples/generate.py

verify: $(READY)  ## generate all but the lock file, and fail if anything differs from what is committed
	@$(PY) -m trainserve.cli.reference docs/reference
	@$(PY) -m trainserve.cli.manifests manifests/base helm/platform-operator
	@$(PY) helm/generate.py
	@$(PY) manifests/samples/generate.py
	@git diff --exit-code -- docs/reference manifests/base manifests/components manifests/samples helm

images:  ## the container images trainer, server, operator, with docker, podman or buildah
	@python3 manifests/images/build.py $(IMAGE_FLAGS)

wheels:  ## packages of WHEELS_OF (operator) into the build context, for image builds that reach no package index
	@python3 manifests/images/install.py download $(WHEELS_OF)

bench: $(READY)  ## speed, as ratios measured side by side in one run
	@$(PY) tests/benchmarks/bench.py

bench-gpu: $(READY)  ## the same on a GPU; says so and skips where there is none
	@$(PY) tests/benchmarks/bench.py --gpu

bench-serving: $(READY)  ## the native engine against TorchServe: requests a second, latency (two minutes)
	@$(PY) tests/benchmarks/serving.py

bench-controller: $(READY)  ## the controller beside Kubeflow's Training Operator on one API server (15 minutes)
	@$(PY) tests/benchmarks/controller.py

clean:  ## remove what make made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-out
