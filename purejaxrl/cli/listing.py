"""`list`: what there is to choose from."""

from __future__ import annotations

import json
import textwrap

from purejaxrl.errors import InputError

HELP = """usage: purejaxrl list [--json]

Algorithms, environments and tuned presets.
"""
WIDTH = 100


def list_all(words: list[str]) -> int:
    """`purejaxrl list`."""
    for word in words:
        if word not in ("--help", "-h", "--json"):
            raise InputError(f"list: unexpected {word!r}; it takes nothing but --json")
    if {"--help", "-h"} & set(words):
        print(HELP, end="")
        return 0
    from purejaxrl.envs import names
    from purejaxrl.experiment.presets import TUNED

    if "--json" in words:
        content = {"algorithms": algorithms(), "environments": names(), "tuned": [list(key) for key in TUNED]}
        print(json.dumps(content, indent=2))
    else:
        print("\n\n".join([algorithms_in_words(), environments_in_words(names()), presets_in_words()]))
    return 0


def algorithms() -> dict[str, str]:
    """Every algorithm's name, and what it is."""
    from purejaxrl.agents import AGENTS

    return {name: agent.summary.partition(" (")[0] for name, agent in AGENTS.items()}


def algorithms_in_words() -> str:
    """A line for each."""
    lines = [f"  {name:<6}{text}" for name, text in algorithms().items()]
    return "\n".join(["algorithms", *lines, "  purejaxrl train NAME --help shows all flags"])


def environments_in_words(names: list[str]) -> str:
    """Those with a threshold or pictures in lines of their own."""
    from purejaxrl.envs import ENVIRONMENTS

    lines, rest = [], []
    for name in names:
        entry = ENVIRONMENTS.get(name)
        facts = [f"solved at {entry.solved_at:g}"] if entry and entry.solved_at is not None else []
        facts += ["images"] if entry and entry.renderer else []
        if facts:
            lines.append(f"  {name:<14}{', '.join(facts)}")
        else:
            rest.append(name)
    wrapped = textwrap.wrap(", ".join(rest), WIDTH, break_on_hyphens=False)
    return "\n".join(["environments", *lines, *(f"  {line}" for line in wrapped)])


def presets_in_words() -> str:
    """A table: environments and what is observed, by algorithms."""
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
    return "\n".join(lines)
