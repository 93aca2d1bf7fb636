# `make demo`, `make test` and `make lint` need nothing but Python 3.11 or 3.12 and a C++ compiler:
# each makes .venv from requirements.lock, and again only when the lock or pyproject.toml changed.

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
DATA ?= $(DEMO)/sample
CONFIG ?= configs/demo.yaml

# of `make results`; GPU=1 is at the recipe's own size, with its own encoder
PHOTOS ?= ../shared/data/taco
RESULTS_CONFIG := configs/results$(if $(GPU),_gpu).yaml

.PHONY: install demo test faults results bench bench-search bench-trials docs lint clean-demo
.DELETE_ON_ERROR:

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
		|| { echo "error: $(PYTHON) is not Python 3.11 or 3.12: run make PYTHON=python3.11"; exit 2; }
	@command -v c++ >/dev/null \
		|| { echo "error: no C++ compiler (c++), which pydensecrf2 is built with: install g++"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

# sample data -> search -> five folds of the two best -> ensemble, in $(DEMO)/
demo: .venv/installed
	@test ! -e $(DEMO)/runs/demo \
		|| { echo "error: $(DEMO)/runs/demo exists: run make clean-demo first"; exit 2; }
	@test -e $(DATA) || $(BIN)/python launch.py data sample $(DATA)
	$(BIN)/python launch.py search --space aug_loss --data $(DATA) --config $(CONFIG) --name demo \
		--storage $(DEMO)/runs --tracking-uri sqlite:///$(DEMO)/mlflow.db
	$(BIN)/python launch.py ensemble --name demo --storage $(DEMO)/runs
	@echo
	@echo "Made, from the photos in $(DATA):"
	@echo "  $(DEMO)/runs/demo/leaderboard.csv         all trials, best first"
	@echo "  $(DEMO)/runs/demo/ensemble/metrics.json   scores with and without the CRF"
	@echo "  $(DEMO)/runs/demo/ensemble/masks/         a mask for each photo, out of fold"
	@echo "Open:"
	@echo "  $(BIN)/python launch.py ui --name demo --storage $(DEMO)/runs"
	@echo "  $(BIN)/python launch.py demo --model $(DEMO)/runs/demo/ensemble"

clean-demo:
	rm -rf $(DEMO)

# Three files at a time, and their threads let others run: the slow tests wait for Ray, for servers and for the
# time that Ray gives nodes.
test: export OMP_WAIT_POLICY := PASSIVE
test: .venv/installed
	$(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder

# searches that are killed at random moments and taken up again: 30 to 40 minutes
faults: .venv/installed
	$(BIN)/python -m tests.faults.campaign

# what helped: two to three hours on 2 cores, and the same command goes on after a kill
results: .venv/installed
	@test -d $(PHOTOS) || { echo "error: $(PHOTOS) is no folder of photos: run make results PHOTOS=DIR"; exit 2; }
	$(BIN)/python launch.py results --data $(PHOTOS) --config $(RESULTS_CONFIG) --storage results/runs \
		--tracking-uri sqlite:///results/mlflow.db
	cp results/runs/results/results.md results/runs/results/results.json docs/

# speed, each hot spot against what its users would otherwise run: under 20 minutes on 2 cores
bench: .venv/installed
	$(BIN)/python -m bench

# how many epochs a search needs, simulated: one to three hours on 2 cores; the same command goes on after a kill, and
# after a change of our policy runs that alone
bench-search: .venv/installed
	$(BIN)/python -m bench.search_efficiency

# what a trial costs in searches of up to 5,000, which make bench has no time for: an hour
bench-trials: .venv/installed
	$(BIN)/python -m bench.trials --all

# the documentation, from docs/ and the code, into site/: to be read with any browser, without a network
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "Open site/index.html"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy docs/settings_page.py docs/repository_pages.py
	$(BIN)/lint-imports
