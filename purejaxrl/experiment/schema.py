"""Versions of what config.json holds, and how the content of an older one becomes that of the present one.

Every run folder records its `schema_version`; those written before there was one have version 0. Whoever adds, renames
or removes a hyperparameter or an option appends a function to MIGRATIONS, which raises the version by one:

    def _to_2(content: Content, family: str | None) -> Content:
        return with_hyperparameters(content, {"clip": None}) if family == "vpg" else content

Values are literals that train as the package did before: later changes of a default must not change older run folders.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from purejaxrl.errors import InputError, in_brief

Content = dict[str, Any]


def migrate(content: Content, family: str | None = None) -> Content:
    """The content of a config.json, of any version up to the present one, as the present version would have it.

    Args:
        content: What config.json holds, or what a checkpoint holds of it; it is left as it is.
        family: The built-in algorithm whose hyperparameters those of the content are, where it is another than its own
            `algorithm`: that of an agent of a user's own whose Config extends a built-in one.

    Raises:
        InputError: If a newer version of the package wrote it, or `schema_version` is no version.
    """
    version = version_of(content)
    if version > SCHEMA_VERSION:
        raise InputError(newer(content))
    family = content.get("algorithm") if family is None else family
    for step in MIGRATIONS[version:]:
        content = step(content, family if isinstance(family, str) else None)
    return {**content, "schema_version": SCHEMA_VERSION}


def version_of(content: Content) -> int:
    """The schema version of a config.json's content. Raises InputError where that is no version."""
    version = content.get("schema_version", 0)
    if type(version) is not int or version < 0:
        raise InputError(
            f"config.json: schema_version {in_brief(version)} is not allowed; it is a whole number from 0 to "
            f"{SCHEMA_VERSION}"
        )
    return version


def newer(content: Content, unknown: list[str] | None = None) -> str:
    """What to say of a content whose version is newer than the present one. unknown: its fields that are not known."""
    names = f", and does not know {', '.join(map(in_brief, unknown))}" if unknown else ""
    return (
        f"config.json: schema_version is {version_of(content)}, as {writer(content)} wrote it; this version reads up "
        f"to {SCHEMA_VERSION}{names}"
    )


def writer(content: Content) -> str:
    """The package and the version of it that wrote a content, in words."""
    versions = content.get("versions")
    version = versions.get("purejaxrl") if isinstance(versions, dict) else None
    return f"purejaxrl {in_brief(version)}" if isinstance(version, str) else "purejaxrl of an unknown version"


def with_options(content: Content, values: Content) -> Content:
    """A content with these values of the options that it lacks."""
    return {**values, **content}


def with_hyperparameters(content: Content, values: Content) -> Content:
    """A content with these values of the hyperparameters that it lacks. In a sweep all settings share them."""
    shared, settings = content.get("config"), content.get("settings", [])
    if not isinstance(shared, dict) or not isinstance(settings, list):
        # Whoever reads it says what is wrong.
        return content
    known = {name for setting in settings if isinstance(setting, dict) for name in setting}
    return {**content, "config": {**{name: values[name] for name in values if name not in known}, **shared}}


# Hyperparameters that version 0 gained in its time.
_IMAGES = {
    "image": None,
    "frames": 2,
    "frame_spacing": 1,
    "image_size": [40, 90],
    "channels": 3,
    "motion_scale": None,
    "torso": "mlp",
    "conv_channels": [16, 32],
    "conv_kernels": [8, 4],
    "conv_strides": [4, 2],
    "network": None,
}
_OF_ALL = {"reward_scale": 1.0, "normalize_observations": False, **_IMAGES}
_GAINED = {"vpg": _OF_ALL, "a3c": _OF_ALL, "dqn": {**_OF_ALL, "n_steps": 1}}


def _to_1(content: Content, family: str | None) -> Content:
    """Version 0 is all that was written before versions were recorded; what came meanwhile may be missing."""
    content = with_options(content, {"renderer": None, "checkpoint_every": 5.0, "fail_on_nan": False})
    env, settings = content.get("env"), content.get("settings")
    if isinstance(env, str) and not env.startswith("custom: "):
        # Before they were recorded, a name stood for its defaults. Those of a user's own object are not known.
        content = with_options(content, {"env_params": None})
    if isinstance(settings, list) and settings and isinstance(settings[0], dict):
        content = with_options(content, {"swept": list(settings[0])})
    return with_hyperparameters(content, _GAINED.get(family or "", {}))


def _to_2(content: Content, family: str | None) -> Content:
    """Version 2 names the arrays of learners differently, see RENAMED."""
    return content


# MIGRATIONS[v] makes a content of version v + 1 of one of version v.
MIGRATIONS: tuple[Callable[[Content, str | None], Content], ...] = (_to_1, _to_2)
SCHEMA_VERSION = len(MIGRATIONS)

# What the parts of a Learner were called before version 2, by algorithm: the beginnings of names, present -> earlier.
_OF_ALL_LEARNERS = {"params/statistics/": "moments/"}
RENAMED = {
    "vpg": {
        **_OF_ALL_LEARNERS,
        "params/pi/": "pi_params/",
        "params/v/": "v_params/",
        "optimizer/pi/": "pi_opt_state/",
        "optimizer/v/": "v_opt_state/",
    },
    "a3c": {
        **_OF_ALL_LEARNERS,
        "params/pi/": "theta/pi/",
        "params/v/": "theta/v/",
        "optimizer/": "opt_state/",
        "extra/theta/": "worker_theta/",
        "extra/taken_at": "taken_at",
    },
    "dqn": {
        **_OF_ALL_LEARNERS,
        "params/q/": "params/",
        "extra/": "target_params/",
        "optimizer/": "opt_state/",
        "memory/": "replay/",
    },
}


def earlier_name(name: str, family: str) -> str:
    """What an array of a Learner, as params/q/kernel_0, was called before version 2."""
    for present, earlier in RENAMED.get(family, {}).items():
        if name.startswith(present):
            return earlier + name.removeprefix(present)
    return name


def rename_params(arrays: dict[str, Any], family: str, version: int) -> dict[str, Any]:
    """The params that a file of params/ holds under their present names.

    Args:
        arrays: The file's arrays by name. Before version 2 it held other parts of the learner, too.
        family: The algorithm.
        version: The schema version that the file was written with.

    Returns:
        The params by name.
    """
    if version >= 2:
        return arrays
    renamed: dict[str, Any] = {}
    for present, earlier in RENAMED.get(family, {}).items():
        if present.startswith("params/"):
            found = {name: array for name, array in arrays.items() if name.startswith(earlier)}
            part = present.removeprefix("params/")
            renamed |= {part + name.removeprefix(earlier): array for name, array in found.items()}
    return renamed
