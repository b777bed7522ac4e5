"""What the documentation says works: examples in docstrings, and the Python of README and pages, in small."""

import dataclasses
import doctest
import importlib
import re
from pathlib import Path

import jax
import matplotlib
import pytest

import purejaxrl
from purejaxrl import api

ROOT = Path(__file__).parents[1]
WITH_EXAMPLES = (
    "envs.registry",
    "components.distributions",
    "components.exploration",
    "components.replay",
    "components.returns",
    "analysis.statistics",
    "analysis.tuning",
    "experiment.labels",
    "experiment.settings",
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Pages that tests of their own run.
RUN_ELSEWHERE = ("bring-your-own", "differentiate-training", "write-your-own-agent")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")
SMALL = {"vpg": 2000, "a3c": 3200, "dqn": 600}


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings(name):
    found = doctest.testmod(importlib.import_module(f"purejaxrl.{name}"))
    assert found.attempted > 0
    assert found.failed == 0


def in_small(train):
    """The same call with two seeds and a budget that takes moments."""

    def call(algorithm, **arguments):
        name = algorithm if isinstance(algorithm, str) else "dqn"
        kept = {key: value for key, value in arguments.items() if key not in ("epochs", "episodes")}
        seeds = min(arguments.get("seeds", 1), 2)
        return train(algorithm, **{**kept, "seeds": seeds, "env_steps": SMALL[name]})

    return call


def tune_in_small(algorithm, **arguments):
    """The same search among four settings."""
    small = {"settings": 4, "seeds": 2, "confirm_seeds": 2, "env_steps": SMALL[algorithm]}
    return api.tune(algorithm, **{name: value for name, value in arguments.items() if name != "time"} | small)


def make_train_in_small(agent, config, env):
    """One short epoch of it."""
    return api.make_train(agent, dataclasses.replace(config, epochs=1, steps_per_epoch=200, train_v_iters=1), env)


def has_python(page):
    return page.stem not in RUN_ELSEWHERE and BLOCK.search(page.read_text())


SOON = ("getting-started",)


@pytest.mark.parametrize(
    "page",
    [page if page.stem in SOON else pytest.param(page, marks=pytest.mark.slow) for page in PAGES if has_python(page)],
    ids=lambda page: page.stem,
)
def test_python_of_pages(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(purejaxrl, "train", in_small(api.train), raising=False)
    monkeypatch.setattr(purejaxrl, "sweep", in_small(api.sweep), raising=False)
    monkeypatch.setattr(purejaxrl, "tune", tune_in_small, raising=False)
    monkeypatch.setattr(purejaxrl, "make_train", make_train_in_small, raising=False)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    matplotlib.use("agg")
    names = {}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []
