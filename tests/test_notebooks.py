"""Notebooks are committed as they were written, and run from top to bottom without a word of complaint."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
# So long a cell hangs: the slowest takes half a minute.
LONGEST_CELL = 1800


def read(path):
    return nbformat.read(path, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def complaints(notebook):
    """What was written to stderr, and outputs that warn."""
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    texts = [json.dumps(output) for output in outputs]
    return [
        text for output, text in zip(outputs, texts, strict=True) if output.get("name") == "stderr" or "Warning" in text
    ]


def test_are_all_there():
    assert [name[:2] for name in NAMES] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_is_committed_as_written(path):
    notebook = read(path)
    nbformat.validate(notebook)
    for cell in code_of(notebook):
        assert not cell.outputs
        assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_begins_with_its_installation(path):
    first = code_of(read(path))[0].source
    assert [line.strip() for line in first.splitlines() if "pip" in line] == ["%pip install --quiet purejaxrl"]
    assert 'find_spec("purejaxrl") is None' in first


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_links_lead_somewhere(path):
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        assert (path.parent / target).exists(), target


def test_figures_are_those_of_the_results():
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text().splitlines()
    text = "\n".join(cell.source for cell in read(NOTEBOOKS[-1]).cells if cell.cell_type == "markdown")
    rows = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    assert rows
    for row in rows:
        assert row in results


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_runs(path, tmp_path, monkeypatch):
    # XLA remarks on slow compilation on stderr, which is the machine's affair.
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    notebook = read(path)
    NotebookClient(
        notebook, timeout=LONGEST_CELL, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert not complaints(notebook)
