"""How a training of a Plan shows itself: in a terminal, in a notebook, or not at all."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from typing import Any

from purejaxrl.errors import InputError
from purejaxrl.ledger import extent_of
from purejaxrl.plan import Plan
from purejaxrl.presets import TUNED, as_dict, tuned_key
from purejaxrl.results.labels import counted
from purejaxrl.results.progress import Goal, Reporter, Silent, Terminal
from purejaxrl.training.sweep import group_settings


def reporter_of(progress: Any, plan: Plan) -> Reporter:
    """What `progress` asks for.

    None: a bar where somebody looks on, else nothing. True or False: a bar or not. A Reporter, or a function
    (Plan) -> Reporter, is taken as it is. Raises InputError for all else.
    """
    if progress is None:
        progress = is_watched()
    if isinstance(progress, bool):
        return bar_of(plan) if progress else Silent()
    if isinstance(progress, Reporter):
        return progress
    if not callable(progress):
        raise InputError(f"progress: {progress!r} is not allowed; it takes True, False or a Reporter")
    make: Callable[[Plan], Reporter] = progress
    return make(plan)


def is_watched() -> bool:
    """Whether somebody sits before this Python: in a notebook, in IPython or at the interpreter's own prompt."""
    return hasattr(builtins, "__IPYTHON__") or hasattr(sys, "ps1")


def bar_of(plan: Plan) -> Reporter:
    """One line that is drawn again and again; in a notebook on standard output, as its errors have a red ground.

    Where a program has no such stream, as pythonw has none, nothing is shown.
    """
    stream = sys.stdout if "ipykernel" in sys.modules else sys.stderr
    if stream is None:
        return Silent()
    return Terminal("", plan.agent.name, goal_of(plan), stream=stream, is_live=True)


def terminal_of(plan: Plan) -> Terminal:
    """What the command line shows."""
    seeds, kind = counted(plan.options.seeds, "seed"), plan.options.preset
    title = f"{plan.agent.name} on {plan.env}, preset {kind}, {seeds}"
    if plan.is_sweep:
        programs = len(group_settings([setting.config for setting in plan.settings]))
        count = counted(len(plan.settings), "setting")
        title += f" x {count} = {plan.runs} runs, {counted(programs, 'program')} to compile"
    return Terminal(title, plan.agent.name, goal_of(plan))


def goal_of(plan: Plan) -> Goal:
    """What progress is shown against, and which preset would be quicker."""
    first = plan.settings[0]
    is_tuned = tuned_key(plan.agent, plan.env, str(plan.options.observation_type), as_dict(first.config)) in TUNED
    return Goal(
        first.budget.amount,
        first.budget.kind.replace("_", " "),
        extent_of(plan),
        plan.solved_at is not None,
        "; the preset tuned is quicker" if plan.options.preset == "original" and is_tuned else "",
        plan.labels if plan.is_sweep else (),
    )
