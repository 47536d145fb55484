# Everything runs in .venv, made from requirements.lock at the first call.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# numpy's own threads would fight with torch's over small arrays.
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: demo test slow lint types docs bench clean install ci

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	# LAC's setup script wants pkg_resources, which newer setuptools dropped.
	$(BIN)/pip install --quiet --disable-pip-version-check setuptools==80.10.2 wheel==0.48.0
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps lac==2.1.2
	# Models that the ONNX tests read; the package itself is not imported.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps rapidocr_onnxruntime==1.4.4
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

demo: $(STAMP)
	$(BIN)/millstream run examples/recognize_digits.py
	$(BIN)/millstream run examples/tag_sentences.py

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not oracle"

slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not oracle"

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy millstream

docs: $(STAMP)
	$(BIN)/python docs/generate.py

bench: $(STAMP)
	$(BIN)/python -m bench --out bench/results

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
