"""What several test files share: running agents in small."""

import contextlib
import ctypes
import fcntl
import functools
import os
import pty
import re
import resource
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl.components.hyperparameters import find_budget
from purejaxrl.training import devices
from purejaxrl.training.batches import stack_configs
from purejaxrl.training.compilation import compile_program
from purejaxrl.training.loop import make_train
from purejaxrl.training.runner import fit
from purejaxrl.types import Progress

PROGRESS = Progress(jnp.int32(0), jnp.int32(0), jnp.float32(0), jnp.int32(0))


def train_one(agent, config, env, seed=0):
    """RunState and Log of one run, by the pure function."""
    agent.check(config, env)
    return jax.jit(make_train(agent, config, env))(jax.random.key(seed))


def remembered(function):
    """A function that returns what it lately returned for the same arguments; where these have no hash it is called."""
    cached = functools.lru_cache(8)(function)

    def call(*args, **options):
        try:
            hash((*args, *options.values()))
        except TypeError:
            return function(*args, **options)
        return cached(*args, **options)

    return call


@remembered
def program_for(agent, env, structure, budget, local, runs):
    """The Program of every config of that structure, as values come with each call of it."""
    config = jax.tree.unflatten(structure, [0.0] * structure.num_leaves)
    return compile_program(agent, env, config, budget, list(local), runs)


def train_many(agent, config, env, runs, *, seed=0, devices_used=2, configs=None, stop_at=None, **options):
    """Final stacked RunState and the whole Log [iterations, runs, ...] by the host's loop."""
    local = devices.local_devices("cpu", devices_used)
    budget = find_budget(config)._replace(stop_at=stop_at)
    program = program_for(agent, env, jax.tree.structure(config), budget, tuple(local), runs)
    configs = stack_configs([config], runs) if configs is None else configs
    chunks = list(fit(program, configs, np.arange(seed, seed + runs), **options))
    log = jax.tree.map(lambda *parts: np.concatenate(parts), *(chunk.log for chunk in chunks))
    return jax.tree.map(lambda leaf: leaf[:runs], chunks[-1].state), log


def bits(tree):
    """The bytes of every leaf, keys included, to compare trees bitwise."""
    return [bytes_of(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def bytes_of(leaf):
    """The bytes of an array or a key, as an array."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf).ravel().view(np.uint8)


def assert_same_bits(*trees):
    """Fail, naming the array, unless these trees hold the same bits in arrays of the same shapes and types."""
    chex.assert_trees_all_equal_shapes_and_dtypes(*trees)
    chex.assert_trees_all_equal(*(jax.tree.map(bytes_of, tree) for tree in trees))


def flat(tree):
    """All leaves as one vector."""
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def run_page(name, folder):
    """Run the Python blocks of a page of docs/ one after another in a folder, but for those that need more than is
    here, and return what they have defined."""
    text = (Path(__file__).parents[1] / "docs" / name).read_text()
    blocks = [
        block for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if not block.startswith("# Needs")
    ]
    assert blocks
    names = {"__name__": "__main__"}
    with contextlib.chdir(folder):
        for block in blocks:
            exec(compile(block, name, "exec"), names)
    return names


@contextlib.contextmanager
def files_up_to(size):
    """No file of this process grows over so many bytes: what a full disk is like, for an ordinary user."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def unprivileged():
    """Modes of files hold for root, too, in this thread, as they do for everyone else."""
    if os.geteuid() != 0:
        yield
        return
    if not sys.platform.startswith("linux"):
        pytest.skip("root may read and write everything here")
    libc, overriding = ctypes.CDLL(None, use_errno=True), 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    # Version 3 of the interface, this thread; effective, permitted and inheritable capabilities, 32 and 32 more.
    header, found = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, found) == 0
    fewer = (ctypes.c_uint32 * 6)(found[0] & ~overriding, *found[1:])
    assert libc.capset(header, fewer) == 0
    try:
        yield
    finally:
        assert libc.capset(header, found) == 0


@contextlib.contextmanager
def chmodded(path, mode):
    """A file or folder has this mode for a while."""
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


@contextlib.contextmanager
def terminal(columns):
    """A stream to a terminal of that width, and a list of the lines on its screen, filled when the context ends."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    parts, lines = [], []

    def read():
        # Linux reports the end of a terminal as an error.
        with contextlib.suppress(OSError):
            while part := os.read(here, 1000):
                parts.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with os.fdopen(there, "w") as stream:
            yield stream, lines
    finally:
        reader.join()
        os.close(here)
        lines += screen_of(b"".join(parts).decode(), columns or 80)


def screen_of(text, columns):
    """The lines that a terminal of that width shows, without the blanks at their ends."""
    rows, at = [""], 0
    for letter in text:
        if letter == "\r":
            at = 0
        elif letter == "\n":
            rows.append("")
        else:
            assert letter.isprintable()
            if at == columns:
                rows.append("")
                at = 0
            rows[-1] = rows[-1][:at].ljust(at) + letter + rows[-1][at + 1 :]
            at += 1
    rows = [row.rstrip() for row in rows]
    return rows if rows[-1] else rows[:-1]


def assert_passes_untyped(file, *words):
    """The tests of a file pass in a process without the suite's own checks of shapes and types."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:xdist",
            "-p",
            "no:cacheprovider",
            *words,
            Path(__file__).with_name(file),
        ],
        env={**os.environ, "PUREJAXRL_TESTS_UNTYPED": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
