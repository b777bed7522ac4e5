"""Schema versions of config.json, and the migration of older content to the current version.

Every run folder records its `schema_version`; those written before there was one have version 0. A new hyperparameter
or option says by `before=` what older run folders had, and needs no migration. Whoever renames or removes one, or gives
it another meaning, appends a function to MIGRATIONS, which raises the version by one.

Values are literals that train as the package did before: later changes of a default must not change older run folders.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from purejaxrl.errors import InputError, in_brief

Content = dict[str, Any]


def migrate(content: Content, family: str | None = None) -> Content:
    """Migrate the content of a config.json of any older version to the current version.

    Args:
        content: Content of config.json, also as held by a checkpoint; it is not modified.
        family: The built-in algorithm that the hyperparameters belong to, where it is not the content's own
            `algorithm`: for a user's agent whose Config extends a built-in one.

    Returns:
        The content of the current version.

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
    """Return the schema version of a config.json's content.

    Args:
        content: Content of config.json.

    Returns:
        The version, 0 if none is recorded.

    Raises:
        InputError: If it is not a whole number from 0.
    """
    version = content.get("schema_version", 0)
    if type(version) is not int or version < 0:
        raise InputError(
            f"config.json: schema_version {in_brief(version)} is not allowed; it is a whole number from 0 to "
            f"{SCHEMA_VERSION}"
        )
    return version


def newer(content: Content, unknown: list[str] | None = None) -> str:
    """Build the error message for content of a newer version.

    Args:
        content: Content of config.json.
        unknown: Fields that the current version does not know.

    Returns:
        The message.
    """
    names = f", and does not know {', '.join(map(in_brief, unknown))}" if unknown else ""
    return (
        f"config.json: schema_version is {version_of(content)}, as {writer(content)} wrote it; this version reads up "
        f"to {SCHEMA_VERSION}{names}"
    )


def writer(content: Content) -> str:
    """Name the package version that wrote the content of a config.json.

    Args:
        content: Content of config.json.

    Returns:
        The name, for messages.
    """
    versions = content.get("versions")
    version = versions.get("purejaxrl") if isinstance(versions, dict) else None
    return f"purejaxrl {in_brief(version)}" if isinstance(version, str) else "purejaxrl of an unknown version"


def with_options(content: Content, values: Content) -> Content:
    """Add options that the content of a config.json lacks."""
    return {**values, **content}


def with_hyperparameters(content: Content, values: Content) -> Content:
    """Add hyperparameters that the content of a config.json lacks, for all settings of a sweep.

    Args:
        content: Content of config.json.
        values: Values of the hyperparameters.

    Returns:
        The completed content.
    """
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
    """Migrate version 0, all that was written before versions were recorded; later fields may be missing."""
    content = with_options(content, {"renderer": None, "checkpoint_every": 5.0, "fail_on_nan": False})
    env, settings = content.get("env"), content.get("settings")
    if isinstance(env, str) and not env.startswith("custom: "):
        # Before they were recorded, a name stood for its defaults. Those of a user's own object are not known.
        content = with_options(content, {"env_params": None})
    if isinstance(settings, list) and settings and isinstance(settings[0], dict):
        content = with_options(content, {"swept": list(settings[0])})
    return with_hyperparameters(content, _GAINED.get(family or "", {}))


def _to_2(content: Content, family: str | None) -> Content:
    """Migrate version 1, which names the arrays of learners differently, see RENAMED."""
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
    """Return the name that an array of a Learner had before version 2.

    Args:
        name: Current name, such as params/q/kernel_0.
        family: The algorithm.

    Returns:
        The earlier name.
    """
    for present, earlier in RENAMED.get(family, {}).items():
        if name.startswith(present):
            return earlier + name.removeprefix(present)
    return name


def rename_params(arrays: dict[str, Any], family: str, version: int) -> dict[str, Any]:
    """Rename the params that a file of params/ holds to their current names.

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
