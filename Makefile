# make app: the dashboard on http://127.0.0.1:8501 · make test: the whole test suite · both install what they need.
PYTHON ?= python3
PORT ?= 8501
BIN := .venv/bin
STAMPS := .venv/.stamps

.PHONY: app test slow lint bench study-demo clean

app: $(STAMPS)/app
	$(BIN)/python -m streamlit run app.py --server.port $(PORT)

test: $(STAMPS)/dev
	$(BIN)/python -m pytest

slow: $(STAMPS)/dev
	$(BIN)/python -m pytest --slow -m slow

lint: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/mypy audit_core models

# A small study on synthetic wafers, from nothing to a report; stop it and start it again at will.
DEMO := .triplecheck/studies/demo
study-demo: $(STAMPS)/app
	mkdir -p .triplecheck/studies
	$(BIN)/python -m audit_core study preset demo --out $(DEMO).toml
	$(BIN)/python -m audit_core study run $(DEMO).toml --out $(DEMO)
	$(BIN)/python -m audit_core study export $(DEMO) --out $(DEMO).html
	@echo "The report: $(DEMO).html; the Study page of the dashboard shows the same study."

bench: $(STAMPS)/dev
	$(BIN)/python -m tests.bench

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache

# A stamp is younger than its requirements file once that file is installed, so a second run starts at once.
$(STAMPS)/app: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: requirements-dev.txt $(STAMPS)/app
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	# Without its dependencies: it would replace the headless OpenCV that grad-cam brings.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "quantus>=0.6,<0.7"
	touch $@
