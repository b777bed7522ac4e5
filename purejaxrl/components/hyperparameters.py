"""Hyperparameters of agents: how a Config declares them, and how their values are checked.

A Config is a frozen dataclass and a pytree. Real-valued hyperparameters are leaves, so that a batch of runs can hold
a different value each without compiling again; whatever decides a shape or the length of a loop is static. Each field
is one line, from which its flag, its help text and its range follow. A Config of your own is written the same way, and
may extend another one:

    @config
    class Config(ImageConfig):
        epochs: int | None = static(50, "updates", at_least=1, optional=True)
        lr: Real = leaf(1e-2, "learning rate", at_least=0)
        hidden_sizes: tuple[int, ...] = static((32,), "units of hidden layers", length=0, at_least=1)
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, dataclass_transform

import jax
import numpy as np

from purejaxrl.errors import InputError, in_brief

T = TypeVar("T")

# The type of leaves in a Config: a float where a user writes it, an array [runs] in a batch, a tracer inside a program.
Real = Any

BUDGETS = ("epochs", "episodes", "env_steps")
# Options of earlier versions, and what to say of them.
REMOVED = dict.fromkeys(
    ("coordinator", "num_processes", "process_id"),
    "the package's own network protocol is gone; the workers of a cluster train sweeps over several hosts",
)
MAX_INT = 2**31 - 1
MAX_ENV_STEPS = MAX_INT
# Whole numbers below are told apart by a float.
MAX_EXACT = 2**53


class Spec(NamedTuple):
    """What one field of a Config allows; `leaf` and `static` make it, and keep it in the field's metadata.

    Attributes:
        help: What the field means, in a few words for help texts.
        is_leaf: Whether runs of one compiled program may hold different values.
        kind: int, float, bool, str, or object; of the entries, where the value is a tuple.
        length: None for a single value, else the length of a tuple; 0 for any length but 0.
        above: Exclusive lower bound of numbers.
        at_least: Inclusive lower bound of numbers.
        at_most: Inclusive upper bound of numbers.
        choices: The only values allowed, if not None.
        optional: Whether None is allowed, too.
        is_budget: Whether it says how long a run trains.
        before: Value assumed for run folders that are older than the field, which trains as the package did then; `...`
            if every run folder has the field.
    """

    help: str
    is_leaf: bool
    kind: type
    length: int | None = None
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    choices: tuple[Any, ...] | None = None
    optional: bool = False
    is_budget: bool = False
    before: Any = ...

    @property
    def is_object(self) -> bool:
        """Whether values are Python objects, such as modules and functions, which flags and files cannot hold."""
        return self.kind is object

    @property
    def allowed(self) -> str:
        """The allowed values in words, for help texts, which leave out that integers have 32 bits."""
        return (self._replace(at_most=None) if self.at_most == MAX_INT else self).allowed_in_full

    @property
    def allowed_in_full(self) -> str:
        """The allowed values in words."""
        if self.is_object:
            return "an object, from Python only"
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        if self.kind is bool:
            return "true or false"
        if self.kind is str:
            return "text"
        words = "a whole number" if self.kind is int else "a finite number"
        bounds = [("above", self.above), ("at least", self.at_least), ("at most", self.at_most)]
        limits = " and ".join(f"{name} {_show(bound)}" for name, bound in bounds if bound is not None)
        if self.length is not None:
            count = "one or more" if self.length == 0 else str(self.length)
            words = f"{count} {words[words.index(' ') + 1 :]}s"
        return f"{words} {limits}".rstrip()


def leaf(default: Any, help: str, *, length: int | None = None, **bounds: Any) -> Any:
    """Declare a real-valued hyperparameter, which may differ between the runs of a batch: a leaf of the pytree.

    Args:
        default: Its default value.
        help: What it means, in a few words for help texts.
        length: Length of a tuple of numbers; None for a single number.
        **bounds: `above`, `at_least`, `at_most` and `before`, as of a `Spec`; `optional`, whether None is allowed, too.

    Returns:
        A dataclass field.
    """
    spec = Spec(help, is_leaf=True, kind=float, length=length)._replace(**bounds)
    return dataclasses.field(default=default, metadata={"spec": spec})


def static(
    default: Any,
    help: str,
    *,
    kind: type = int,
    length: int | None = None,
    choices: Sequence[Any] | None = None,
    optional: bool = False,
    **bounds: Any,
) -> Any:
    """Declare a hyperparameter that is part of the compiled program, as it decides a shape, a loop or a branch.

    Args:
        default: Its default value.
        help: What it means, in a few words for help texts.
        kind: int (int32 inside a program), float, bool, str, or object: anything that can be hashed, such as a Flax
            module or a function.
        length: Length of a tuple of such values, 0 for any positive length; None for a single value.
        choices: The only values allowed, which also decide the kind.
        optional: Whether None is allowed, too.
        **bounds: `above`, `at_least`, `at_most` and `before`, as of a `Spec`.

    Returns:
        A dataclass field.
    """
    if kind is int and not choices:
        bounds.setdefault("at_most", MAX_INT)
    spec = Spec(
        help=help,
        is_leaf=False,
        kind=type(choices[0]) if choices else kind,
        length=length,
        choices=tuple(choices) if choices else None,
        optional=optional,
    )._replace(**bounds)
    return dataclasses.field(default=default, metadata={"spec": spec})


def budget(default: int | None, help: str) -> Any:
    """Field that says how long a run trains, named by its unit: `epochs`, `episodes` or `env_steps`.

    A Config may have several, of which exactly one is given and the others are None.

    Args:
        default: The amount by default, None for none.
        help: What is counted, for help texts.

    Returns:
        A dataclass field.
    """
    spec = Spec(f"budget: {help}", False, int, at_least=1, at_most=MAX_INT, optional=True, is_budget=True)
    return dataclasses.field(default=default, metadata={"spec": spec})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(leaf, static, budget))
def config(cls: type[T]) -> type[T]:
    """Make a class with `leaf` and `static` fields a Config: a frozen dataclass, and a pytree of its leaves.

    Args:
        cls: The class; it may extend another Config.

    Returns:
        The class, whose constructor takes all fields by keyword.
    """
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    specs = field_specs(cls)
    leaves = [name for name, spec in specs.items() if spec.is_leaf]
    statics = [name for name, spec in specs.items() if not spec.is_leaf]
    return jax.tree_util.register_dataclass(cls, data_fields=leaves, meta_fields=statics)


def field_specs(config_or_class: Any) -> dict[str, Spec]:
    """Return the `Spec` of every field of a Config, or of its class, by name.

    The fields of the class itself come first, in order of declaration, then those of the class that it extends.
    """
    own = inspect.get_annotations(config_or_class if isinstance(config_or_class, type) else type(config_or_class))
    fields = sorted(dataclasses.fields(config_or_class), key=lambda field: field.name not in own)
    return {field.name: field.metadata["spec"] for field in fields}


def check_fields(config: Any) -> None:
    """Check the values of a Config.

    Args:
        config: The Config. The values of leaves that are scalar arrays or tracers are not checked.

    Raises:
        InputError: If a value is not allowed; the message names the first such field.
    """
    for name, spec in field_specs(config).items():
        check_value(name, getattr(config, name), spec)


def make_checked(kind: Callable[..., T], values: dict[str, Any]) -> T:
    """Make a record of options and check its values, but for objects.

    Args:
        kind: Its class, decorated with `config`.
        values: Values by name; what is not given has its default, and whole numbers may be written as 1e5.

    Returns:
        The record.

    Raises:
        InputError: If a value is not allowed.
    """
    specs = field_specs(kind)
    made = kind(**with_whole_numbers(values, specs))
    for name, spec in specs.items():
        if not spec.is_object:
            check_value(name, getattr(made, name), spec)
    return made


def check_value(name: str, value: Any, spec: Spec) -> None:
    """Check one value.

    Args:
        name: Name of the hyperparameter or option.
        value: The value.
        spec: What is allowed.

    Raises:
        InputError: If the value is not allowed.
    """
    if value is None and spec.optional:
        return
    if spec.is_object:
        _check_hashable(name, value)
    elif not _is_allowed(value, spec):
        raise InputError(f"--{name}: {_show(value)} is not allowed; {_expected(value, spec)}")


def _expected(value: Any, spec: Spec) -> str:
    """Say what a field takes, in reply to a value that it does not take."""
    if spec.length is not None and not isinstance(value, tuple):
        return f"it takes a tuple of {spec.allowed}"
    numbers: list[Any] = [entry for entry in (value if isinstance(value, tuple) else (value,)) if _is_number(entry)]
    if spec.kind is float:
        for number in numbers:
            rounded = _in_float32(number)
            if number not in (0, math.inf, -math.inf) and rounded in (0, math.inf, -math.inf):
                found = "0" if rounded == 0 else "infinite"
                return f"in float32 {_show(number)} is {found}, and it takes {spec.allowed}"
    at_most: Any = math.inf if spec.at_most is None else spec.at_most
    is_beyond = any(number > at_most for number in numbers)
    return f"it takes {spec.allowed_in_full if is_beyond else spec.allowed}"


def as_whole(value: Any) -> Any:
    """Convert floats that are whole numbers, such as 1e3, to ints, also in tuples and lists; leave all else alone."""
    if type(value) in (tuple, list):
        return type(value)(map(as_whole, value))
    if isinstance(value, float | np.floating) and abs(float(value)) < MAX_EXACT and float(value).is_integer():
        return int(value)
    return value


def with_whole_numbers(values: dict[str, Any], specs: dict[str, Spec]) -> dict[str, Any]:
    """Apply `as_whole` to the values, by name, of integer fields.

    Args:
        values: Values of fields, by name.
        specs: The `Spec` of each field, see `field_specs`.

    Returns:
        All of the values.
    """
    return {
        name: as_whole(value) if name in specs and specs[name].kind is int else value for name, value in values.items()
    }


def _check_hashable(name: str, value: Any) -> None:
    """Raise InputError unless an object can be hashed, as what a program is compiled for must be."""
    try:
        hash(value)
    except TypeError as error:
        raise InputError(
            f"--{name}: {type(value).__name__} cannot be hashed; it must hold no lists (but tuples), dicts or arrays"
        ) from error


def _is_allowed(value: Any, spec: Spec) -> bool:
    if spec.length is not None:
        right_length = isinstance(value, tuple) and len(value) > 0 and spec.length in (0, len(value))
        return right_length and all(_is_allowed(entry, spec._replace(length=None)) for entry in value)
    if isinstance(value, jax.Array):
        return spec.is_leaf and value.ndim == 0
    if spec.choices:
        return value in spec.choices and not isinstance(value, bool)
    if spec.kind is bool:
        return isinstance(value, bool | np.bool_)
    if spec.kind is str:
        return isinstance(value, str)
    accepted = (int, np.integer) if spec.kind is int else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, accepted):
        return False
    if spec.kind is float:
        value = _in_float32(value)
    return bool(
        math.isfinite(value)
        and (spec.above is None or value > spec.above)
        and (spec.at_least is None or value >= spec.at_least)
        and (spec.at_most is None or value <= spec.at_most)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _in_float32(value: Any) -> float:
    """Round as programs do: a number that is fine in float64 may be infinite there, or denormal, which is 0."""
    try:
        with np.errstate(over="ignore"):
            number = float(np.float32(value))
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    return number if not abs(number) < np.finfo(np.float32).tiny else 0.0


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(_show(entry) for entry in value) or "an empty tuple"
    if isinstance(value, np.number):
        value = value.item()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value or value != value else repr(value)
    return in_brief(value)


@config
class ImageConfig:
    """Hyperparameters of image observations and of the network; the Config of every built-in agent extends it.

    `image` is None if observations are vectors; the other defaults are those of the preset `original`.

    Attributes:
        image: `stack` of frames, or `difference` of the last two.
        frames: Frames of a stack.
        frame_spacing: Environment steps from one frame of a stack to the next.
        image_size: Height and width in pixels.
        channels: 1 for grey, 3 for RGB.
        motion_scale: If given, older frames of a stack are shown as so many times their difference to the newest.
        torso: `mlp` flattens images, `conv` begins with convolutions.
        conv_channels: Outputs of each convolution.
        conv_kernels: Side of each convolution's square kernel, in pixels.
        conv_strides: Stride of each convolution, in pixels.
        network: A Flax module, inputs [B, ...] -> features [B, F], in place of `hidden_sizes` and `torso`.
    """

    image: str | None = static(
        None,
        "stack: the last frames side by side; difference: of the last two, 0 at an episode's first and terminal step",
        choices=("stack", "difference"),
        optional=True,
    )
    frames: int = static(2, "frames of a stack", at_least=1, at_most=64)
    frame_spacing: int = static(1, "env steps from one frame of a stack to the next", at_least=1, at_most=64)
    image_size: tuple[int, ...] = static((40, 90), "height and width in pixels", length=2, at_least=8, at_most=1024)
    channels: int = static(3, "1: grey; 3: RGB", choices=(1, 3))
    motion_scale: Real | None = leaf(
        None, "show older frames of a stack as so many times their difference to the newest", optional=True, above=0
    )
    torso: str = static("mlp", "mlp: images are flattened; conv: convolutions come first", choices=("mlp", "conv"))
    conv_channels: tuple[int, ...] = static((16, 32), "outputs of every convolution", length=0, at_least=1)
    conv_kernels: tuple[int, ...] = static((8, 4), "side of every convolution's square kernel", length=0, at_least=1)
    conv_strides: tuple[int, ...] = static((4, 2), "stride of every convolution", length=0, at_least=1)
    network: Any = static(
        None,
        "a Flax module, inputs [B, ...] -> features [B, F], in place of hidden_sizes and torso",
        kind=object,
        optional=True,
    )


class Budget(NamedTuple):
    """How long a run trains.

    Attributes:
        kind: What is counted: `epochs` (iterations), `episodes`, or `env_steps`, of all actors together.
        amount: How many; inside a program a scalar int32 array, so that it can be extended without compiling again.
        stop_at: If given, the run ends early, with the iteration in which the mean return of its last 100 episodes
            reaches this.
    """

    kind: str
    amount: Any
    stop_at: float | None = None


def budget_names(config_or_class: Any) -> list[str]:
    """The fields of a Config that are budgets, in the order of BUDGETS."""
    specs = field_specs(config_or_class)
    return [name for name in BUDGETS if name in specs and specs[name].is_budget]


def without_budget(config: Any) -> Any:
    """Return a Config whose budget fields are None.

    Args:
        config: The Config.

    Returns:
        The Config, for programs, which take the amount of the budget as data.
    """
    return dataclasses.replace(config, **dict.fromkeys(budget_names(config)))


def find_budget(config: Any) -> Budget:
    """Find the budget in a Config: the one of its budget fields that is not None.

    Raises:
        InputError: If there is none, or several.
    """
    names = budget_names(config)
    given = [(name, getattr(config, name)) for name in names if getattr(config, name) is not None]
    known = [f"--{name}" for name in names]
    if len(given) != 1:
        found = " and ".join(f"--{name} {amount}" for name, amount in given) or "no budget"
        raise InputError(f"{found}: give exactly one budget of {', '.join(known)}")
    return Budget(*given[0])
