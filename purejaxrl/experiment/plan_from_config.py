"""Restoring a Plan from the config.json of a run folder, and checking what may differ from the Plan before.

Names in the file are looked up in fixed tables; objects of a user's own, which have only labels there, must be given.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from purejaxrl.agents import AGENTS
from purejaxrl.components.hyperparameters import BUDGETS, as_whole, field_specs, find_budget
from purejaxrl.envs import env_name, with_params
from purejaxrl.envs.gymnax_params import check_same as check_params
from purejaxrl.envs.gymnax_params import replace
from purejaxrl.errors import CheckpointError, InputError, in_brief, warn
from purejaxrl.experiment import schema
from purejaxrl.experiment.labels import show
from purejaxrl.experiment.options import FOR_RESUMING, Options, check_whole, make_options
from purejaxrl.experiment.plan import (
    Plan,
    agent_of,
    is_built_in,
    plan_settings,
    recorded,
    recorded_params,
)
from purejaxrl.experiment.presets import as_dict, family_of
from purejaxrl.experiment.run_config import CUSTOM, as_tuple
from purejaxrl.experiment.settings import Setting
from purejaxrl.experiment.validation import uses_fraction
from purejaxrl.storage.files import plain
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.types import Agent, Env

# Options that config.json does not hold, or not by value.
NOT_RECORDED = ("random", "yes", "debug")
OBJECTS = ("env", "env_params", "renderer")
RECORDED = tuple(field.name for field in dataclasses.fields(Options) if field.name not in (*NOT_RECORDED, *OBJECTS))
OTHERS = ("schema_version", "algorithm", "config", "swept", "settings", "versions", "processes", "tune")
KNOWN = {*RECORDED, *OBJECTS, *OTHERS}

# Fields of config.json that do not decide what is learned; budgets may grow, too.
MAY_CHANGE = (*FOR_RESUMING, "processes", "versions")


def replan(
    content: dict[str, Any],
    *,
    extend: int | None = None,
    agent: Agent | None = None,
    env: Any = None,
    env_params: Any = None,
    renderer: Any = None,
    **changes: Any,
) -> Plan:
    """Restore the Plan from the content of a config.json, of any schema version up to the current one.

    Args:
        content: Content of config.json.
        extend: A larger budget, in its own unit, or None.
        agent: The user's own agent, where config.json only names it.
        env: The user's own environment, where config.json only names it.
        env_params: Its parameters, where config.json does not hold them by value.
        renderer: The user's own renderer, where config.json only names it.
        **changes: Options that replace the recorded ones, and objects among hyperparameters, such as `network`, of
            which config.json only has labels (a list where they were swept); None for no change.

    Returns:
        The Plan.

    Raises:
        InputError: If the content is not allowed, lacks an object, or was written by a newer version.
    """
    refuse_newer(content)
    agent = _find_agent(content, agent)
    content = up_to_date(content, agent)
    specs = field_specs(agent.Config)
    objects = {name: changes.pop(name) for name in [*changes] if name in specs and specs[name].is_object}
    changes = {name: value for name, value in changes.items() if value is not None}
    unknown = sorted(changes.keys() - {field.name for field in dataclasses.fields(Options)})
    if unknown:
        raise InputError(f"{unknown[0]}: {agent.name} has no such hyperparameter")
    options = make_options(_recorded_options(content) | _found_objects(content, env, env_params, renderer) | changes)
    found = [(values, config_of(agent, fields)) for values, fields in _with_objects(content, agent, objects)]
    settings = [Setting({name: getattr(config, name) for name in values}, config) for values, config in found]
    if extend is not None:
        settings = [setting._replace(config=extend_budget(setting.config, extend)) for setting in settings]
    plan = plan_settings(agent, options, settings, is_sweep="settings" in content)
    if extend is not None:
        _check_extendable(plan)
    return plan


def refuse_newer(content: dict[str, Any]) -> None:
    """Check that the schema version of a config.json is not newer than the current one.

    Args:
        content: Content of config.json.

    Raises:
        InputError: If it is newer, naming the fields that are unknown.
    """
    if schema.version_of(content) > schema.SCHEMA_VERSION:
        label = content.get("algorithm")
        agent = AGENTS.get(label) if isinstance(label, str) else None
        raise InputError(schema.newer(content, unknown_names(content, agent)))


def unknown_names(content: dict[str, Any], agent: Agent | None) -> list[str]:
    """Find the fields of a config.json that are neither options nor hyperparameters of the agent.

    Args:
        content: Content of config.json.
        agent: The agent; None leaves hyperparameters unchecked.

    Returns:
        The names.
    """
    unknown = sorted(content.keys() - KNOWN)
    settings = content.get("settings")
    parts = [content.get("config"), *(settings if isinstance(settings, list) else [])]
    fields = {name for part in parts if isinstance(part, dict) for name in part}
    return unknown + ([] if agent is None else sorted(fields - field_specs(agent.Config).keys()))


def up_to_date(content: dict[str, Any], agent: Agent) -> dict[str, Any]:
    """Migrate the content of a config.json to the current version of the package and of the agent.

    Fields that a user's own agent has gained since are filled in with its defaults, as nothing else records their
    values.

    Args:
        content: Content of config.json.
        agent: The agent.

    Returns:
        The migrated content.

    Raises:
        InputError: If it has unknown fields, naming them.
    """
    family = family_of(agent)
    is_ours = family in AGENTS and issubclass(agent.Config, AGENTS[family].Config)
    content = schema.migrate(content, family if is_ours else "")
    content = schema.with_options(content, plain(_before(Options)))
    content = schema.with_hyperparameters(content, plain(recorded(agent, _before(agent.Config))))
    unknown = unknown_names(content, agent)
    if unknown:
        names = ", ".join(map(in_brief, unknown))
        raise InputError(f"config.json: this version does not know {names}; {schema.writer(content)} wrote it")
    if is_built_in(agent):
        return content
    completed = schema.with_hyperparameters(content, plain(recorded(agent, as_dict(agent.Config()))))
    if completed != content:
        gained = completed["config"].keys() - content["config"].keys()
        values = ", ".join(f"{name} {in_brief(completed['config'][name])}" for name in sorted(gained))
        warn(f"config.json does not say what {agent.name} had here; its defaults are used: {values}", stacklevel=2)
    return completed


def _before(fields: Any) -> dict[str, Any]:
    """Collect what older run folders had in place of the fields that were added since."""
    return {name: spec.before for name, spec in field_specs(fields).items() if spec.before is not ...}


def _find_agent(content: dict[str, Any], agent: Agent | None) -> Agent:
    """Return the Agent that a config.json names, or the user's own agent."""
    label = content.get("algorithm")
    if isinstance(label, str) and label.startswith(CUSTOM):
        name = label.removeprefix(CUSTOM)
        if agent is None:
            raise InputError(f"config.json: algorithm {name!r} is an agent of your own; give it as agent=")
        if agent.name != name:
            raise InputError(f"agent: {agent.name!r} was given, and config.json names {name!r}")
        return agent_of(agent)
    if agent is not None:
        raise InputError(f"agent: config.json names {label!r}, which needs none")
    if not isinstance(label, str) or label not in AGENTS:
        raise InputError(
            f"config.json: algorithm {label!r}, of {schema.writer(content)}, is not one of {', '.join(AGENTS)}"
        )
    return AGENTS[label]


def _found_objects(content: dict[str, Any], env: Any, env_params: Any, renderer: Any) -> dict[str, Any]:
    """Return the environment and renderer that a config.json names, or the user's own."""
    found: dict[str, Any] = {}
    for name, given in (("env", env), ("renderer", renderer)):
        label = content.get(name)
        if label is not None and not isinstance(label, str):
            raise InputError(f"config.json: {name} {label!r} is not a name")
        is_custom = str(label).startswith(CUSTOM)
        if is_custom and given is None:
            own_name = str(label).removeprefix(CUSTOM)
            raise InputError(f"config.json: {name} {own_name!r} is an object of your own; give {name}=")
        if not is_custom and given is not None:
            raise InputError(f"{name}: config.json names {label!r}, which needs none")
        found[name] = given if is_custom else label
    return found | {"env_params": _found_params(content, found["env"], env_params)}


def _found_params(content: dict[str, Any], env: Any, given: Any) -> Any:
    """Return the env_params of a training, or the user's where config.json does not hold them."""
    recorded = content.get("env_params")
    if env is None or isinstance(env, Env):
        return given
    if isinstance(recorded, str):
        if given is None:
            own_name = recorded.removeprefix(CUSTOM)
            raise InputError(f"config.json: env_params {own_name!r} is an object of your own; give env_params=")
        return given
    if recorded is not None and not isinstance(recorded, dict):
        raise InputError(f"config.json: env_params {recorded!r} is neither values by name nor a label")
    if "env_params" not in content:
        if given is None:
            text = f"config.json does not say which env_params {env_name(env)} had; its defaults are used"
            warn(f"{text}, unless you give env_params=", stacklevel=2)
        return given
    if recorded is None and given is None:
        return None
    _, _, default = with_params(env, None)
    before = default if recorded is None else replace("config.json: env_params", default, recorded)
    if given is not None:
        check_params(with_params(env, given)[1], before)
    return None if recorded is None else before


def objects_of(plan: Plan) -> dict[str, Any]:
    """Collect the user's own objects that `replan` needs besides config.json to restore a Plan.

    Args:
        plan: The plan.

    Returns:
        Arguments of `replan` by name.
    """
    given = {name: getattr(plan.options, name) for name in ("env", "env_params", "renderer")}
    given["env"] = None if isinstance(given["env"], str) else given["env"]
    if not isinstance(recorded_params(plan.options.env, plan.options.env_params), str):
        given["env_params"] = None
    given["agent"] = None if is_built_in(plan.agent) else plan.agent
    for name in [name for name, spec in field_specs(plan.agent.Config).items() if spec.is_object]:
        values = [getattr(setting.config, name) for setting in plan.settings]
        given[name] = list({show(value): value for value in values if value is not None}.values()) or None
    return {name: value for name, value in given.items() if value is not None}


def _recorded_options(content: dict[str, Any]) -> dict[str, Any]:
    """Read the options from the content of a config.json."""
    missing = [name for name in RECORDED if name not in content]
    if missing:
        raise InputError(f"config.json: {missing[0]} is missing")
    options = {name: content[name] for name in RECORDED}
    # Several where settings differ, each by its default.
    if isinstance(options["log_every"], list):
        options["log_every"] = None
    for name in ("preset", "device", "episodes_log", "observation_type"):
        if not isinstance(options[name], str):
            raise InputError(f"config.json: {name} {options[name]!r} is not a text")
    return options


def _recorded_settings(content: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Read the settings from the content of a config.json."""
    shared, settings, swept = content.get("config"), content.get("settings", [{}]), content.get("swept", [])
    is_sound = (
        isinstance(shared, dict)
        and isinstance(settings, list)
        and settings
        and all(isinstance(setting, dict) for setting in settings)
        and isinstance(swept, list)
        and all(isinstance(name, str) and name in setting for setting in settings for name in swept)
    )
    if not is_sound:
        raise InputError("config.json: config, settings and swept do not belong together")
    return [({name: as_tuple(own[name]) for name in swept}, {**(shared or {}), **own}) for own in settings]


def _with_objects(
    content: dict[str, Any], agent: Agent, given: dict[str, Any]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Read the settings like `_recorded_settings`, with the user's own objects in place of their labels."""
    settings = _recorded_settings(content)
    for name in [name for name, spec in field_specs(agent.Config).items() if spec.is_object]:
        values = given.get(name)
        by_label = {
            show(value): value for value in (values if isinstance(values, list) else [values]) if value is not None
        }
        labels = {str(fields[name]) for _, fields in settings if fields.get(name) is not None}
        for label in sorted(labels):
            own_name = label.removeprefix(CUSTOM)
            if not by_label:
                raise InputError(f"config.json: {name} {own_name!r} is an object of your own; give {name}=")
            if own_name not in by_label:
                raise InputError(f"{name}: {', '.join(by_label)} was given, and config.json names {own_name!r}")
        if by_label and not labels:
            raise InputError(f"{name}: config.json names none, and {', '.join(by_label)} was given")
        for _, fields in settings:
            if fields.get(name) is not None:
                fields[name] = by_label[str(fields[name]).removeprefix(CUSTOM)]
    return settings


def config_of(agent: Agent, fields: dict[str, Any]) -> Any:
    """Build the Config of recorded fields, whose values are checked with the plan.

    Args:
        agent: The agent.
        fields: Hyperparameters by name.

    Returns:
        The Config.

    Raises:
        InputError: If one is missing.
    """
    for name in field_specs(agent.Config):
        if name not in fields:
            raise InputError(f"config.json: {name} is missing among {agent.name}'s fields")
    return agent.Config(**{name: as_tuple(value) for name, value in fields.items()})


def extend_budget(config: Any, amount: Any) -> Any:
    """Replace the budget of a Config with a larger one.

    Args:
        config: The Config.
        amount: The larger amount, in the budget's own unit.

    Returns:
        The Config with the larger budget.

    Raises:
        InputError: If it is not larger.
    """
    budget, amount = find_budget(config), as_whole(amount)
    check_whole("extend", amount, at_least=1)
    if amount <= budget.amount:
        raise InputError(f"--extend: {amount} is not more than the {budget.amount} {budget.kind} there were")
    return dataclasses.replace(config, **{budget.kind: amount})


@standard_jax()
def _check_extendable(plan: Plan) -> None:
    """Check that no schedule of the agent depends on the budget, so that a larger one keeps the training so far valid.

    Dependence is detected in the agent's own program, so no agent needs to declare it.
    """
    for setting in plan.settings:
        name = uses_fraction(plan.agent, setting.config, setting.env)
        if name is not None:
            raise InputError(
                f"--extend: {name} of {plan.agent.name} depends on the share of the budget that is used "
                "(progress.fraction), as with --lr_anneal, so the budget cannot change"
            )


def check_same(plan: Plan, earlier: dict[str, Any]) -> None:
    """Check that a Plan agrees with a checkpoint, except in the fields that may change.

    Args:
        plan: The plan.
        earlier: Content of config.json in the checkpoint, `up_to_date`.

    Raises:
        CheckpointError: If they differ, naming every field that does.
    """
    now = plain(plan.as_dict())
    # Those of a user's own environment were not recorded at first.
    now, before = flat({name: now[name] for name in now if name != "env_params" or name in earlier}), flat(earlier)
    differing = [name for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]
    wrong = [name for name in differing if not _may_differ(name, before.get(name), now.get(name))]
    if wrong:
        shown = ", ".join(f"{name} {before.get(name)!r} -> {now.get(name)!r}" for name in wrong)
        raise CheckpointError(f"config.json differs from what the checkpoint was written with: {shown}")


def _may_differ(name: str, before: Any, now: Any) -> bool:
    """Check whether a field may change while a training is interrupted."""
    parts = name.split("/")
    if parts[0] in MAY_CHANGE:
        return True
    is_budget = parts[0] in ("config", "settings") and parts[-1] in BUDGETS
    return is_budget and isinstance(before, int) and isinstance(now, int) and now > before


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts and lists into one dict, with names such as settings/0/lr.

    Args:
        content: Dicts, lists and other values.
        prefix: Beginning of all names.

    Returns:
        Values by name.
    """
    if not isinstance(content, dict | list) or not content:
        return {prefix: content}
    items = content.items() if isinstance(content, dict) else enumerate(content)
    entries: dict[str, Any] = {}
    for name, value in items:
        entries |= flat(value, f"{prefix}/{name}" if prefix else str(name))
    return entries
