"""What README.md and pages show of a run is what the run prints, and their sentences have the measured numbers."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from purejaxrl.cli import main

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import documented
import machine

sys.path.pop(0)

ROOT = Path(__file__).parents[1]
KEPT = json.loads(documented.FILE.read_text())


@pytest.mark.parametrize("page", documented.PAGES)
def test_pages_show_what_the_documented_run_printed(page):
    assert KEPT["command"] == f"purejaxrl {documented.COMMAND}"
    assert documented.shown(page) == [documented.block(page, KEPT["output"])]


def test_the_documented_command_is_the_one_that_is_given(tmp_path, monkeypatch, capsys):
    """By `make demo`, the first of whose trainings it is, and by the page, where the run folder is the default."""
    demo = re.search(
        r"^demo:.*\n\t\$\(BIN\)/purejaxrl (.*) --out (\S+) --overwrite$", (ROOT / "Makefile").read_text(), re.M
    )
    assert demo.groups() == (documented.COMMAND, documented.PAGES["README.md"])
    assert f"\npurejaxrl {documented.COMMAND}\n" in (ROOT / "docs" / "getting-started.md").read_text()
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(documented.COMMAND), "--dry_run"]) == 0
    assert json.loads(capsys.readouterr().out)["out"] == documented.PAGES["docs/getting-started.md"]


def test_sentences_have_the_measured_numbers():
    assert documented.contradicted() == []


def test_a_sentence_with_another_number_is_found(monkeypatch):
    monkeypatch.setattr(documented, "sentences", lambda: {"README.md": ["9 of 8 runs"], "docs/images.md": ["# Images"]})
    assert documented.contradicted() == ["README.md should say: 9 of 8 runs"]


@pytest.mark.slow
def test_the_documented_run_prints_it():
    """Line by line on the machine and versions of what is kept; elsewhere, where bits differ, a run more or less."""
    found = documented.run()
    now = json.loads(json.dumps(machine.describe()))
    if all(KEPT["machine"][name] == now[name] for name in ("processor", "cores", "versions")):
        assert found == KEPT["output"]
    assert [re.sub(r"[\d.]+", "#", line) for line in found] == [re.sub(r"[\d.]+", "#", line) for line in KEPT["output"]]
    numbers = [
        [float(number) for number in re.findall(r"\d+\.?\d*", "\n".join(lines))] for lines in (found, KEPT["output"])
    ]
    assert numbers[0] == pytest.approx(numbers[1], abs=10)
    solved = [int(re.search(r": (\d+) of 8 runs", "\n".join(lines))[1]) for lines in (found, KEPT["output"])]
    assert abs(solved[0] - solved[1]) <= 1
