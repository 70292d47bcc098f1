# make TARGET, on a machine with Python 3.11 or newer; README says what Linux needs besides
#   install      make .venv and install requirements-dev.txt, as every target but colab.zip does first
#   report       run the profile's experiments and build report.pdf: your numbers beside the published ones
#   html         the solution and its companion as pages for a screen: report.html, companion.html
#   test         all tests; test-quick: without those that take more than some seconds; lint: style and types
#   faults       damaged files, kills, full disks and bad input, half an hour of them
#   benchmark    speed beside the textbook loop
#   colab.zip    what the notebooks need in Colab, in one file
#   test-slurm   jobs on a Slurm cluster of one node, as root
#   reference, lint, clean   for maintainers, see CONTRIBUTING.md
#   PYTHON=python3.12   the interpreter          DATA=FOLDER     where data sets lie or are put
#   TORCH_INDEX=URL     another source of torch, such as PyTorch's builds without CUDA, see README
#   PROFILE=assignment  of report: what the assignment asks, the default: about 10 minutes on two cores
#   PROFILE=quick       small data, no download of data, about 5 minutes
#   PROFILE=full        every seed and long run: hours

PYTHON ?= python3
PROFILE ?= assignment
export DATA ?= datasets
BIN := .venv/bin

.PHONY: help install report html colab.zip test test-quick test-slurm faults lint benchmark reference clean

help:
	@sed -n -e '/^#/!q' -e 's/^#   /  /p' -e t -e 's/^# //p' Makefile

install: .venv/installed

report: .venv/installed
	$(BIN)/python -m experiments --profile $(PROFILE) --data "$(DATA)"
	$(BIN)/python -m report --runs runs/$(PROFILE)

# The published documents, each as one page with its pictures in it.
html: .venv/installed
	$(BIN)/python -m report --document report --out report.html
	$(BIN)/python -m report --document companion --out companion.html

# What the notebooks need, as it is committed, in one file: for Colab, as long as the project has no address.
colab.zip:
	git archive -o $@ HEAD . ':!tests' ':!report/figures' ':!*.pdf' ':!*.ipynb'

test: .venv/installed
	$(BIN)/python -m pytest -n auto --dist worksteal

# What takes more than some seconds left out.
test-quick: .venv/installed
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

# Damaged files, kills, full disks and bad input, many more of them than "make test" tries.
faults: .venv/installed
	FAULTS=long $(BIN)/python -m pytest -n auto --dist worksteal tests/faults

# Jobs on a Slurm cluster of one node that the test starts and stops: as root, with slurm-wlm and munge installed.
test-slurm: .venv/installed
	@command -v slurmctld >/dev/null && command -v munged >/dev/null || { echo "no Slurm here: apt-get install slurm-wlm munge"; exit 2; }
	$(BIN)/python -m pytest tests/lab/test_jobs.py -k slurm -rA

# For maintainers and CI: a newcomer's tests run whatever a type checker thinks of tomorrow's libraries.
lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: .venv/installed
	rm -rf runs/speed
	$(BIN)/python -m experiments --profile full --only "*_speed" --out runs/speed
	cat runs/speed/results/*.json
	@echo "medians of turns, in s (VAE) and ms; floor: the matrix products alone"

# Publish what runs/full holds: JSON, figures, the two PDFs and the README's table.
reference: .venv/installed
	$(BIN)/python -m report --runs runs/full --publish

# The stamp is written last, so an installation that broke off is taken up again.
.venv/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: PYTHON=python3.12 make ...")'
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	@echo "Installing into .venv: some minutes, 6 GB on Linux, most of it torch"
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --index-url "$(TORCH_INDEX)" -c requirements.txt torch torchvision)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv
