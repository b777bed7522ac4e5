"""What MkDocs does not do by itself: equations as MathML, tables made from the code, and pages from outside docs/.

Pages read well on a code host, too: tables stand there as comments, and links lead to the files of the repository.
"""

from __future__ import annotations

import html
import json
import re
import statistics
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/*.md", "benchmarks/*.png", "notebooks/*.ipynb")
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)
TABLE = re.compile(r"<!-- table: (\w+) (\w+) -->")
EXAMPLE = re.compile(r"^(>>> .*(?:\n(?!\s*$).+)*)", re.MULTILINE)
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$", re.MULTILINE)
TERM = re.compile(r"^((?:[a-z]\w+|Config)(?:, \w+)*):\s+(?=\S)")


def on_files(files: Any, config: Any) -> Any:
    """Add pages and images that lie outside docs/."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links lead where pages lie in the site, and make the tables."""
    if page.file.generated_by is None:
        up = "../" * page.file.src_uri.count("/")
        markdown = markdown.replace(f"]({up}../", f"]({up}")
    else:
        markdown = re.sub(r"\]\(((?:\.\./)*)docs/", r"](\1", markdown)
    return TABLE.sub(lambda match: TABLES[match[1]](match[2]), markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Equations as MathML, which browsers render themselves."""
    content = INLINE.sub(lambda match: convert(html.unescape(match[1])), content)
    return BLOCK.sub(lambda match: convert(html.unescape(match[1]), display="block"), content)


def hyperparameters(algorithm: str) -> str:
    """Every field of a Config: its flag, what it is, what it takes, and its value in the presets for CartPole-v0."""
    from purejaxrl.agents import AGENTS
    from purejaxrl.components.hyperparameters import ImageConfig, field_specs
    from purejaxrl.experiment.presets import TUNED

    agent = AGENTS[algorithm]
    tuned = next(entry for key, entry in TUNED.items() if key[:3] == (algorithm, "CartPole-v0", "default"))
    lines = ["| flag | meaning | takes | `original` | `tuned` |", "|---|---|---|---|---|"]
    for name, spec in field_specs(agent.Config).items():
        if name in field_specs(ImageConfig):
            continue
        default = getattr(agent.Config(), name)
        cells = [f"`--{name}`", spec.help, spec.allowed, show(default), show(tuned.get(name, default))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def space(algorithm: str) -> str:
    """What the default space of an algorithm holds, beside the values of its preset original."""
    from purejaxrl.agents import AGENTS
    from purejaxrl.components.hyperparameters import field_specs
    from purejaxrl.experiment.settings import Range
    from purejaxrl.experiment.spaces import SPACES

    agent = AGENTS[algorithm]
    lines = ["| flag | meaning | space | `original` |", "|---|---|---|---|"]
    for name, source in SPACES[algorithm].items():
        values = str(source) if isinstance(source, Range) else ", ".join(map(show, source))
        cells = [f"`--{name}`", field_specs(agent.Config)[name].help, values, show(getattr(agent.Config(), name))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def learning(algorithm: str) -> str:
    """What every learning benchmark of an algorithm came to: benchmarks/learning.json in short."""
    results = json.loads((ROOT / "benchmarks" / "learning.json").read_text())
    lines = ["| command | threshold reached | env steps until then, median (last) | final return, mean of the runs |"]
    lines.append("|---|---|---|---|")
    for result in results.values():
        if result["command"].split()[2] != algorithm:
            continue
        solved = sorted(steps for steps in result["env_steps_to_solve_per_run"] if steps is not None)
        steps = f"{statistics.median(solved):,.0f} ({solved[-1]:,})" if solved else "-"
        reached = f"{len(solved)} of {result['runs']}" if result["solved_at"] else "no threshold"
        final = statistics.mean(value for value in result["final_return_per_run"] if value is not None)
        lines.append(f"| `{result['command']}` | {reached} | {steps} | {final:.1f} |")
    return "\n".join(lines)


def flags(command: str) -> str:
    """The flags of a training command that are no hyperparameters, group by group; of tune those of the search."""
    from purejaxrl.agents import AGENTS
    from purejaxrl.cli.flags import training_parser

    lines = ["| flag | |", "|---|---|"]
    groups = ("search",) if command == "tune" else ("what and how", "sweep", "output")
    for group in training_parser(command, AGENTS["dqn"])._action_groups:
        if group.title in groups:
            lines += [f"| `{action.option_strings[0]}` | {said(action)} |" for action in group._group_actions]
    return "\n".join(lines)


def reference(package: str) -> str:
    """The public names of the package, but for types, hyperparameters and errors, which are documented elsewhere."""
    import purejaxrl

    first = ["train", "sweep", "tune", "resume", "load", "make_train", "Result"]
    names = [name for name in first if name in purejaxrl.__all__]
    names += sorted(set(purejaxrl.__all__) - {"AGENTS", *first})
    homes = {name: purejaxrl.HOMES[name] for name in names}
    elsewhere = (f"{package}.types", f"{package}.errors", f"{package}.components.hyperparameters")
    return "\n".join(f"::: {home}.{name}" for name, home in homes.items() if home not in elsewhere)


def said(action: Any) -> str:
    """The help text of a flag."""
    return str(action.help).replace("%%", "%").replace("|", "\\|")


def show(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value is None:
        return "off"
    return " ".join(map(show, value)) if isinstance(value, tuple) else str(value)


TABLES = {
    "hyperparameters": hyperparameters,
    "space": space,
    "learning": learning,
    "flags": flags,
    "reference": reference,
}


class DocstringsAsMarkdown(griffe.Extension):
    """Docstrings explain arguments and fields as `name: what it is`, a line each; in the site these are lists.

    Those with sections, as Args and Returns, are in the style of Google; in the site these are tables.

    Fields of named tuples, which have no docstrings, stand before that of the class.
    """

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring is not None:
            text = EXAMPLE.sub(r"```pycon\n\1\n```", obj.docstring.value)
            obj.docstring.value = fields_of(obj) + (text if SECTION.search(text) else as_list(text))


def fields_of(obj: griffe.Object) -> str:
    """The fields of a named tuple as code, nothing for other objects."""
    if not obj.is_class or "NamedTuple" not in map(str, obj.bases):
        return ""
    fields = [member for member in obj.members.values() if member.is_attribute and member.annotation is not None]
    lines = [f"{field.name}: {field.annotation}" for field in fields if "property" not in field.labels]
    return "\n".join(["```python", *lines, "```", "", ""])


def as_list(text: str) -> str:
    """Lines that begin with a term as items of a list; what follows such a list is a paragraph of its own."""
    lines: list[str] = []
    is_in_list = False
    for line in text.splitlines():
        if TERM.match(line):
            lines += [] if is_in_list else [""]
            lines.append(TERM.sub(lambda match: f"- **{match[1]}**: ", line))
            is_in_list = True
        elif is_in_list and lines[-1].endswith(".") and line[:1].isupper():
            lines += ["", line]
            is_in_list = False
        else:
            is_in_list = is_in_list and line.strip() != ""
            lines.append(line)
    return "\n".join(lines)
