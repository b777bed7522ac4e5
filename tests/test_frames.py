"""How far it is from `train` to the line that learns: CONTRIBUTING names these frames and files."""

import re
import traceback
from functools import partial
from pathlib import Path

import pytest

import purejaxrl
from purejaxrl.agents import dqn

ROOT = Path(__file__).parents[1]


@pytest.fixture
def frames(untyped, monkeypatch):
    """The package's functions on the stack where the target of a temporal difference is computed."""
    found = []

    def target(*arguments):
        stack = [frame for frame in traceback.extract_stack() if "/purejaxrl/" in frame.filename]
        names = [f"{Path(frame.filename).relative_to(ROOT / 'purejaxrl')}: {frame.name}" for frame in stack]
        if "experiment/run.py: train_groups" in names:
            found.append([*names, "agents/dqn.py: q_target"])
        return dqn.q_target(*arguments)

    agent = dqn.agent._replace(name="watched", update=partial(dqn.update, td_target=target))
    purejaxrl.train(agent, preset="tuned", env_steps=200)
    return min(found, key=len)


@pytest.mark.slow
def test_ten_frames_lead_to_the_target(frames):
    assert len(frames) <= 10
    page = (ROOT / "CONTRIBUTING.md").read_text()
    listed = re.search(r"```text\n(api\.py: train\n.*?)```", page, re.DOTALL).group(1)
    assert listed.splitlines() == frames
