"""The command `list`."""

from __future__ import annotations

import json
import textwrap

from purejaxrl.errors import InputError

HELP = """usage: purejaxrl list [--json]

Algorithms, environments and tuned presets.
"""
WIDTH = 100


def _list_all(words: list[str]) -> int:
    """Run `purejaxrl list`."""
    for word in words:
        if word not in ("--help", "-h", "--json"):
            raise InputError(f"list: unexpected {word!r}; it takes nothing but --json")
    if {"--help", "-h"} & set(words):
        print(HELP, end="")
        return 0
    from purejaxrl.agents import AGENTS
    from purejaxrl.envs import names
    from purejaxrl.experiment.presets import TUNED

    algorithms = {name: agent.summary.partition(" (")[0] for name, agent in AGENTS.items()}
    if "--json" in words:
        content = {"algorithms": algorithms, "environments": names(), "tuned": [list(key) for key in TUNED]}
        print(json.dumps(content, indent=2))
    else:
        lines = [f"  {name:<6}{text}" for name, text in algorithms.items()]
        lines = ["algorithms", *lines, "  purejaxrl train NAME --help shows all flags"]
        print("\n\n".join(["\n".join(lines), _format_environments(names()), _format_presets()]))
    return 0


def _format_environments(names: list[str]) -> str:
    """The environments; those with a threshold or images in lines of their own."""
    from purejaxrl.envs import ENVIRONMENTS

    lines, rest = [], []
    for name in names:
        entry = ENVIRONMENTS.get(name)
        notes = [f"solved at {entry.solved_at:g}"] if entry and entry.solved_at is not None else []
        notes += ["images"] if entry and entry.renderer else []
        if notes:
            lines.append(f"  {name:<14}{', '.join(notes)}")
        else:
            rest.append(name)
    wrapped = textwrap.wrap(", ".join(rest), WIDTH, break_on_hyphens=False)
    return "\n".join(["environments", *lines, *(f"  {line}" for line in wrapped)])


def _format_presets() -> str:
    """A table of tuned presets: environments and observation types by algorithms."""
    from purejaxrl.experiment.presets import TUNED, VARIANTS

    columns = list(dict.fromkeys((key[0], key[3:]) for key in TUNED))
    heads = [" ".join([name, *(f"--{VARIANTS[name]} {value}" for value in variant)]) for name, variant in columns]
    rows = list(dict.fromkeys(key[1:3] for key in TUNED))
    lines = ["presets", "  original      every algorithm and environment; the default", "  tuned         those marked:"]
    lines.append("    --env         --observation_type  " + "  ".join(heads))
    for env, observation_type in rows:
        marks = [
            ("x" if (name, env, observation_type, *variant) in TUNED else "-").ljust(len(head))
            for (name, variant), head in zip(columns, heads, strict=True)
        ]
        lines.append(f"    {env:<14}{observation_type:<20}{'  '.join(marks)}".rstrip())
    lines.append("  PATH.json     the best.json that a search for hyperparameters has found")
    return "\n".join(lines)


COMMANDS = {"list": _list_all}
