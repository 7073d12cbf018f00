# From a clean clone to a running demo, or to every test run: `make demo`, `make test`. `make` alone lists the rest.
# Needs GNU make, /bin/sh and a Python of 3.11 or newer; as root on Debian and Ubuntu it installs what else it needs.

VENV ?= .venv
# Tests at once; on 2 cores 3, since most of them wait for a scheduler, a grace time or a server.
JOBS ?= 3
# Without its dependencies: it asks for a torch of its own choice.
TORCHDATA ?= torchdata==0.11.0
# The one place that names the PyTorch the tests run with. Without a GPU: PIP_INDEX_URL of PyTorch's CPU wheels is smaller.
TORCH ?= torch==2.13.0
# What hpc_resume has adapters for, 0.9 GB; its tests say so loudly where it is missing. None of them brings a torch.
FRAMEWORKS ?= lightning==2.6.6 transformers==5.23.0 accelerate==1.15.0 keras==3.15.1 jax==0.10.2 orbax-checkpoint==0.12.8 \
  hydra-core==1.3.8 hydra-submitit-launcher==1.2.0
PYTEST ?=

PY := $(VENV)/bin/python
# -qq: pip's warnings about the index's pages are not about us; its errors still show.
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore $(PY) -m pip install -qq
# One test at a time to each worker: xdist's chunks left one with the last four minutes.
SHARED := -n $(JOBS) --maxschedchunk=1
APT := DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120
SBIN := PATH="$$PATH:/usr/local/sbin:/usr/sbin:/sbin"

.ONESHELL:
.SHELLFLAGS := -euc
.DELETE_ON_ERROR:
.PHONY: help env demo test test-fast lint bench survival side-by-side soak slurm clean torch frameworks slurm-packages test-packages

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
	  || sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' $(MAKEFILE_LIST)
	echo "  Variables: VENV=$(VENV) JOBS=$(JOBS) PYTEST='-k name' (more words for pytest)"

# --- the environment: quick the second time, made again when pyproject.toml changes ---------------------------------

$(PY):
	@python=
	for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3; do
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi
	done
	if [ -z "$$python" ]; then
	  echo "hpc_resume needs Python 3.11 or newer and found none; install one, or name it: make PYTHON=/path/to/python3" >&2
	  exit 1
	fi
	if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	    echo "== installing python3-venv"
	    $(APT) update && $(APT) install -y --no-install-recommends python3-venv >/dev/null
	  else
	    echo "$$python cannot make an environment (no ensurepip); on Debian, as root: apt-get install python3-venv" >&2
	    exit 1
	  fi
	fi
	echo "== making $(VENV) with $$python"
	$$python -m venv $(VENV)

$(VENV)/.made: pyproject.toml | $(PY)
	@echo "== installing hpc_resume into $(VENV)"
	$(PIP) -e .
	touch $@

$(VENV)/.made-dev: $(VENV)/.made
	@echo "== installing the tools of its tests"
	$(PIP) -e '.[dev]'
	touch $@

env: $(VENV)/.made-dev ## the environment, in VENV

# Without PyTorch, or without Slurm, the tests that need it say so at the end of the run (and fail it with CI=true).
torch: $(VENV)/.made-dev
	@if [ "$$(cat $(VENV)/.made-torch 2>/dev/null)" != "$(TORCH)" ]; then
	  echo "== installing $(TORCH)"
	  if $(PIP) '$(TORCH)' && $(PIP) --no-deps '$(TORCHDATA)'; then echo '$(TORCH)' >$(VENV)/.made-torch
	  else echo "== no $(TORCH) here" >&2; fi
	fi

frameworks: torch
	@if [ "$$(cat $(VENV)/.made-frameworks 2>/dev/null)" != "$(FRAMEWORKS)" ]; then
	  echo "== installing $(FRAMEWORKS)"
	  if $(PIP) $(FRAMEWORKS); then echo '$(FRAMEWORKS)' >$(VENV)/.made-frameworks; else echo "== no frameworks here" >&2; fi
	fi

slurm-packages:
	@if $(SBIN) command -v slurmctld >/dev/null && $(SBIN) command -v slurmd >/dev/null \
	  && $(SBIN) command -v munged >/dev/null; then exit 0; fi
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	  echo "== installing Slurm (slurm-wlm, munge)"
	  log=$$(mktemp)
	  if ! { $(APT) update && $(APT) install -y --no-install-recommends slurm-wlm munge; } >"$$log" 2>&1; then
	    cat "$$log" >&2
	  fi
	  rm -f "$$log"
	fi

# For the tests alone: what makes file-system calls fail is a library in C, and `time` is a wrapper that a training may have.
test-packages: slurm-packages
	@missing=
	if ! { command -v cc || command -v gcc || command -v clang; } >/dev/null; then missing="gcc libc6-dev"; fi
	if [ ! -x /usr/bin/time ]; then missing="$$missing time"; fi
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	  echo "== installing $$missing"
	  $(APT) update && $(APT) install -y --no-install-recommends $$missing >/dev/null || echo "== no $$missing here" >&2
	fi

# --- what it is for ---------------------------------------------------------------------------------------------------

demo: $(VENV)/.made ## one job interrupted three times, without Slurm: ends with a table
	@$(PY) examples/demo.py

test: torch frameworks test-packages ## every test; as root on Debian installs Slurm for them
	@echo "== running every test"
	$(PY) -m pytest $(SHARED) $(PYTEST)

test-fast: $(VENV)/.made-dev ## the tests that need neither Slurm nor PyTorch
	@$(PY) -m pytest $(SHARED) -m 'not slurm and not torch and not frameworks and not soak' $(PYTEST)

soak: torch frameworks test-packages ## the long tests
	@$(PY) -m pytest -m soak --timeout=1800 $(PYTEST)

lint: $(VENV)/.made-dev ## types, style and import contracts
	@$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

bench: torch frameworks slurm-packages ## the figures of README, measured here, and `survival`
	@$(PY) benchmarks/bench.py
	$(MAKE) --no-print-directory survival side-by-side

survival: torch slurm-packages ## what survives which interruption, on a real cluster: benchmarks/survival.md
	@$(PIP) 'uv>=0.9' || echo "== no uv here: its cells are not played" >&2
	$(PY) benchmarks/survival.py

side-by-side: torch frameworks slurm-packages ## one model under submitit, Lightning and us: benchmarks/side_by_side.md
	@$(PY) benchmarks/side_by_side.py

slurm: $(VENV)/.made slurm-packages ## a shell on a real Slurm cluster of its own
	@PATH="$(abspath $(VENV))/bin:$$PATH" $(PY) tests/slurm/cluster.py shell

clean: ## removes VENV, caches and builds
	@if [ -f $(VENV)/pyvenv.cfg ]; then rm -rf $(VENV); fi
	rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
