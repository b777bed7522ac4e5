"""Identity of agents, environments and networks by what they are, so that a compiled program is only used for its own.

A user's function is the same as long as it is the same object and everything that it refers to is the same: global
variables, captured variables, defaults, and what these refer to. A function that was defined again in a notebook is
another one, and so is a function that calls it. Of installed packages the code is enough, and what somebody has put in
its place in the modules that programs are made from.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import os
import sys
import sysconfig
import types
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Folders of Python's library, of installed packages and of this one, as they are called and as links resolve.
FOLDERS = (
    *(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parents[1]),
)
INSTALLED = tuple(f"{path}{os.sep}" for folder in FOLDERS for path in {folder, str(Path(folder).resolve())})
PLAIN = (type(None), bool, int, float, complex, str, bytes, enum.Enum, np.dtype, np.generic, types.EllipsisType)
MAX_ARRAY_BYTES = 2**24
PROGRAM_MODULES = (
    *(f"purejaxrl.{name}" for name in ("agents", "components", "envs", "kernels", "types")),
    *(f"purejaxrl.training.{name}" for name in ("compilation", "devices", "evaluation", "loop", "rollout")),
    "gymnax.environments",
)
# Of these what they offer.
BUILT_ON = ("optax", "flax.linen", "jax.lax", "jax.nn", "jax.nn.initializers", "jax.random")
# Packages of which programs on disk say what version they were made from.
KNOWN = {
    "purejaxrl",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "gymnax",
    "chex",
    "numpy",
    "ml_dtypes",
    *sys.stdlib_module_names,
}
FOREIGN = "foreign "


class UnknownIdentityError(Exception):
    """Raised for an object of which nothing says whether another is the same."""


def identify(value: Any) -> Hashable | None:
    """Return a key that two objects share only if a program compiled for one of them is right for the other.

    Args:
        value: A function, module, environment, hyperparameter, or any tree of them.

    Returns:
        The key, which keeps the objects in it alive; None where it cannot be known.
    """
    try:
        return _Identifier().identify(value)
    except (UnknownIdentityError, RecursionError):
        return None


def stable_text(key: Hashable) -> str:
    """Convert a key of `identify` to a text that means the same in every process.

    Args:
        key: The key.

    Returns:
        The text.

    Raises:
        UnknownIdentityError: If something in it is not of a package in KNOWN.
    """
    return repr(_stable(key))


def _stable(part: Any) -> Any:
    if isinstance(part, tuple):
        if len(part) > 2 and isinstance(part[2], types.CodeType) and not _is_known(str(part[0])):
            raise UnknownIdentityError(str(part[0]))
        # The object itself says no more than the function that it wraps.
        return tuple(_stable(entry) for entry in (part[2:] if part[:1] == ("wrapper",) else part))
    if isinstance(part, frozenset):
        return sorted(repr(_stable(entry)) for entry in part)
    if isinstance(part, types.CodeType):
        return _digest_of_code(part)
    if isinstance(part, type) and _is_installed_class(part) and _is_known(part.__module__):
        return f"{part.__module__}.{part.__qualname__}"
    if isinstance(part, types.BuiltinFunctionType | types.ModuleType) and _is_installed(part.__name__):
        return part.__name__
    if isinstance(part, PLAIN):
        return part
    raise UnknownIdentityError(type(part).__name__)


def _is_known(module: str) -> bool:
    return module.partition(".")[0] in KNOWN


def contents_of_modules() -> dict[str, str]:
    """Hash what the modules that programs are made from hold in this process, as anyone may replace a part of them.

    Returns:
        Hashes by the names of the modules that are loaded; those of modules that hold a user's own functions or objects
        begin with FOREIGN.
    """
    return {
        name: _digest_of_module(name, module)
        # Other threads may be importing.
        for name, module in sorted(sys.modules.copy().items())
        if name.startswith(PROGRAM_MODULES) or name in BUILT_ON
    }


def is_unchanged(modules: Mapping[str, str]) -> bool:
    """Check that the modules loaded in this process hold what they held.

    Args:
        modules: What `contents_of_modules` returned, here or in another process.

    Returns:
        Whether they do; those that were not loaded then played no part.
    """
    return are_alike(modules, contents_of_modules())


def are_alike(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Check that modules hold what they held, but for those that were not loaded then and so played no part."""
    return all(before.get(name, digest) == digest for name, digest in now.items())


def is_installed_alone(modules: Mapping[str, str]) -> bool:
    """Check that modules hold nothing of a user's own, of which another process could have another version.

    Args:
        modules: What `contents_of_modules` returned.

    Returns:
        Whether they do not.
    """
    return not any(digest.startswith(FOREIGN) for digest in modules.values())


def _digest_of_module(name: str, module: types.ModuleType) -> str:
    """Hash the functions, classes and constants of a module."""
    found: list[tuple[Any, ...]] = []
    for attribute, value in sorted(vars(module).copy().items()):
        # Private collections are what a module remembers.
        if attribute.startswith("__") or (attribute.startswith("_") and isinstance(value, dict | list | set)):
            continue
        found.append((attribute, _digest_of(value)))
        if isinstance(value, type) and value.__module__ == name:
            found += [(attribute, method, _digest_of(part)) for method, part in sorted(vars(value).items())]
    text = repr(found)
    return FOREIGN * (repr((FOREIGN,))[:-1] in text) + hashlib.sha256(text.encode()).hexdigest()


def _digest_of(value: Any) -> Any:
    """What tells a value of a module from another one that somebody has put in its place."""
    if isinstance(value, PLAIN):
        return repr(value)
    # Modules may import others when they are asked for an attribute.
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, staticmethod | classmethod | property):
        return _digest_of(value.fget if isinstance(value, property) else value.__func__)
    # Functions under jax.jit have it, and those that wrap another one, which do more than that one does.
    wrapped = _digest_of(value.__wrapped__) if "__wrapped__" in getattr(value, "__dict__", ()) else None
    if isinstance(value, types.FunctionType):
        if not value.__code__.co_filename.startswith((*INSTALLED, "<string>")) or value.__module__ == "__main__":
            return FOREIGN, id(value), hash(identify(value))
        inside = value.__defaults__, value.__kwdefaults__, [_digest_of_cell(cell) for cell in value.__closure__ or ()]
        return value.__module__, value.__qualname__, _digest_of_code(value.__code__), _digest_of_plain(inside), wrapped
    if isinstance(value, type):
        is_own = _is_installed(value.__module__)
        return (value.__module__, value.__qualname__) if is_own else (FOREIGN, id(value), hash(identify(value)))
    if isinstance(value, tuple | list):
        return type(value).__qualname__, *map(_digest_of, value)
    if isinstance(value, dict):
        return tuple((_digest_of(key), _digest_of(entry)) for key, entry in value.items())
    if isinstance(value, functools.partial):
        return "partial", _digest_of(value.func), _digest_of(value.args), _digest_of(value.keywords)
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), hashlib.sha256(value.tobytes()).hexdigest()
    if not _is_installed(type(value).__module__):
        return FOREIGN, id(value), hash(identify(value))
    return type(value).__qualname__, wrapped


def _digest_of_plain(value: Any) -> Any:
    """Describe numbers and texts, in tuples too, and of anything else the type alone."""
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, tuple | list):
        return [*map(_digest_of_plain, value)]
    return type(value).__qualname__


def _digest_of_cell(cell: types.CellType) -> Any:
    """Describe a captured variable, which may not have a value yet."""
    try:
        return cell.cell_contents if isinstance(cell.cell_contents, PLAIN) else type(cell.cell_contents).__qualname__
    except ValueError:
        return None


@functools.lru_cache(2**14)
def _digest_of_code(code: types.CodeType) -> str:
    """Hash what a function does."""
    constants = map(_digest_of_constant, code.co_consts)
    parts = code.co_code, [*constants], code.co_names, code.co_varnames, code.co_freevars, code.co_name
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _digest_of_constant(constant: Any) -> str:
    """Describe a constant of a function; sets in one order."""
    if isinstance(constant, types.CodeType):
        return _digest_of_code(constant)
    return repr(sorted(map(repr, constant))) if isinstance(constant, frozenset) else repr(constant)


class _Identifier:
    """One pass over an object and all that it refers to.

    Attributes:
        found: Keys of the objects seen so far by their ids, None while they are being identified. It keeps the objects
            alive, as ids are used again.
    """

    def __init__(self) -> None:
        self.found: dict[int, tuple[Any, Hashable | None]] = {}

    def identify(self, value: Any) -> Hashable:
        """Return the key of an object; one that refers to itself is told by its place in the pass."""
        if isinstance(value, PLAIN):
            # Not 1 for True, nor 0.0 for -0.0.
            return type(value), repr(value)
        if id(value) not in self.found:
            place = len(self.found)
            self.found[id(value)] = (value, ("seen", place))
            try:
                self.found[id(value)] = (value, self._of(value))
            except UnknownIdentityError:
                del self.found[id(value)]
                raise
        return self.found[id(value)][1]

    def _of(self, value: Any) -> Hashable:
        if isinstance(value, type):
            return value, None if _is_installed_class(value) else self._of_class(value)
        if isinstance(value, types.FunctionType):
            return self._of_function(value)
        if isinstance(value, types.MethodType):
            return "method", self.identify(value.__func__), self.identify(value.__self__)
        if isinstance(value, functools.partial):
            return "partial", self.identify(value.func), self.identify(value.args), self.identify(value.keywords)
        if isinstance(value, types.ModuleType):
            # One of the user's own may be loaded again, which changes what is in it.
            own = {} if _is_installed(value.__name__) else vars(value)
            return "object", value, self.identify({it: own[it] for it in own if not it.startswith("__")})
        if isinstance(value, types.BuiltinFunctionType | jax.tree_util.PyTreeDef):
            return "object", value
        if isinstance(value, np.ndarray | jax.Array):
            return _of_array(value)
        if isinstance(value, tuple | list):
            return self.identify(type(value)), *map(self.identify, value)
        if isinstance(value, dict):
            return dict, *((self.identify(name), self.identify(entry)) for name, entry in value.items())
        if isinstance(value, set | frozenset):
            return set, frozenset(map(self.identify, value))
        if isinstance(value, property):
            return property, self.identify((value.fget, value.fset))
        if isinstance(value, staticmethod | classmethod):
            return type(value), self.identify(value.__func__)
        return self._of_instance(value)

    def _of_instance(self, value: Any) -> Hashable:
        """Key of an instance: its class and its state."""
        kind, state = self.identify(type(value)), getattr(value, "__dict__", None)
        if state is None:
            raise UnknownIdentityError(type(value).__name__)
        if "__wrapped__" in state:
            # As functions under jax.jit have it.
            return "wrapper", value, self.identify(state["__wrapped__"])
        if dataclasses.is_dataclass(value) and type(value).__hash__ not in (None, object.__hash__):
            # By value, as modules of flax are, which hold more than their fields.
            return kind, *(self.identify(getattr(value, field.name)) for field in dataclasses.fields(value))
        return kind, self.identify(state)

    def _of_class(self, value: type) -> Hashable:
        """What the functions and constants of a class and of its bases are."""
        own = {name: part for name, part in vars(value).items() if not _is_bookkeeping(name, part)}
        return self.identify(value.__bases__), self.identify(own)

    def _of_function(self, value: types.FunctionType) -> Hashable:
        """What a function is and refers to: captured variables, defaults and global variables."""
        inside = [cell.cell_contents for cell in value.__closure__ or ()], value.__defaults__, value.__kwdefaults__
        # Not its __module__, which functools.wraps copies from the function that it wraps.
        if _is_installed(str(value.__globals__.get("__name__"))):
            try:
                return value.__module__, value.__qualname__, value.__code__, self.identify(inside)
            except UnknownIdentityError:
                return "object", value
        names = sorted(_names_in(value.__code__))
        used = {name: value.__globals__[name] for name in names if name in value.__globals__}
        return value, self.identify(inside), self.identify(used)


def _is_bookkeeping(name: str, part: Any) -> bool:
    """Whether an attribute of a class says nothing about what its instances do."""
    is_special = name.startswith("__") and name.endswith("__") and not isinstance(part, types.FunctionType)
    return is_special or name.startswith("_abc_") or isinstance(part, types.MemberDescriptorType)


def _names_in(code: types.CodeType) -> set[str]:
    """Names that a function's code, and that of the functions within it, looks up outside."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(_names_in, inner))


def _of_array(value: np.ndarray | jax.Array) -> Hashable:
    """Key of an array by its content."""
    if isinstance(value, jax.core.Tracer) or value.nbytes > MAX_ARRAY_BYTES:
        raise UnknownIdentityError(type(value).__name__)
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    content = np.asarray(value)
    return "array", content.shape, str(content.dtype), content.tobytes()


@functools.lru_cache(1024)
def _is_installed(module: str) -> bool:
    """Whether a module is part of Python, of this package or of an installed one, rather than a user's own."""
    found = sys.modules.get(module)
    if found is None or module == "__main__":
        return False
    path = getattr(found, "__file__", None)
    return path is None or str(Path(path).resolve()).startswith(INSTALLED)


def _is_installed_class(kind: type) -> bool:
    """Whether a class is what an installed module has by its name, and its bases too.

    Those that flax makes of a user's own, as by `nn.remat`, are called after flax's module.
    """
    if kind.__module__ == "builtins":
        # Not all of them have a name there.
        return True
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind and all(_is_installed(base.__module__) for base in kind.__mro__)
