"""Checkpoints on disk: whole or not at all, every byte verified, nothing read that was not expected."""

import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from purejaxrl.errors import CheckpointError, ResourceError
from purejaxrl.kernels.threefry import unrolled, wrap_keys
from purejaxrl.storage import checkpoint as disk
from purejaxrl.storage.checkpoint import Rows

ARRAYS = {
    "state/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "state/count": np.int32(7),
    "state/flags": np.array([True, False, True]),
    "metrics/steps": np.array([2**40, -1]),
    "metrics/nothing": np.empty((0, 4)),
    "state/half": np.array([1.5, -2.0], ml_dtypes.bfloat16),
}


def write_small(parent, value=1.0):
    return disk.write(parent, {"x": np.full(3, value, np.float32)}, {"value": value})


def test_arrays_come_back_as_they_were(tmp_path):
    disk.write(tmp_path, ARRAYS, {"why": "a test"})
    found, wrong = disk.newest(tmp_path)
    assert wrong == []
    assert found.metadata["why"] == "a test"
    read = disk.read(found, ARRAYS)
    assert read.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        assert read[name].dtype == np.asarray(values).dtype
        assert read[name].shape == np.shape(values)
        assert read[name].tobytes() == np.asarray(values).tobytes()


def test_keys_and_shards_come_back_as_they_were(tmp_path):
    keys = jax.vmap(unrolled)(jax.random.split(jax.random.key(3), 4))
    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:2]), ("runs",))
    spread = jax.device_put(jnp.arange(8.0).reshape(4, 2), jax.NamedSharding(mesh, jax.P("runs")))
    disk.write(tmp_path, {"key": Rows(keys, 3), "x": Rows(spread, 3)}, {})
    template = {"key": jax.ShapeDtypeStruct((3,), keys.dtype), "x": jax.ShapeDtypeStruct((3, 2), jnp.float32)}
    read = disk.read(disk.newest(tmp_path)[0], template)
    np.testing.assert_array_equal(read["x"], np.arange(6.0).reshape(3, 2))
    again = wrap_keys(jnp.asarray(read["key"]), template["key"])
    assert again.dtype == keys.dtype
    np.testing.assert_array_equal(jax.random.normal(again[2]), jax.random.normal(keys[2]))


def test_the_files_are_what_other_programs_take_them_for(tmp_path):
    simple = {name: values for name, values in ARRAYS.items() if "half" not in name}
    path = disk.write(tmp_path, simple, {})
    for name, values in load_file(path / "arrays.safetensors").items():
        np.testing.assert_array_equal(values, simple[name])
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=path, check=True)


def test_any_flipped_byte_is_detected(tmp_path):
    path = write_small(tmp_path)
    generator = random.Random(0)
    count = 0
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for place in range(len(whole)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << generator.randrange(8)
            file.write_bytes(damaged)
            with pytest.raises(CheckpointError, match="damaged"):
                disk.verify(path)
            count += 1
        file.write_bytes(whole)
    assert count > 300
    disk.verify(path)


def test_any_cut_or_longer_file_is_detected(tmp_path):
    path = write_small(tmp_path)
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for length in (*range(0, len(whole), 7), len(whole) - 1):
            file.write_bytes(whole[:length])
            with pytest.raises(CheckpointError, match="damaged"):
                disk.verify(path)
        file.write_bytes(whole + b"\n")
        with pytest.raises(CheckpointError, match="damaged"):
            disk.verify(path)
        file.unlink()
        with pytest.raises(CheckpointError, match="damaged"):
            disk.verify(path)
        file.write_bytes(whole)


def test_the_previous_checkpoint_replaces_a_damaged_one(tmp_path):
    for value in (1.0, 2.0, 3.0):
        write_small(tmp_path, value)
    assert disk.numbers(tmp_path) == [3, 2]
    (tmp_path / "000003" / "facts.json").write_text("{}")
    found, wrong = disk.newest(tmp_path)
    assert found.metadata["value"] == 2.0
    assert len(wrong) == 1
    assert "000003" in wrong[0]
    (tmp_path / "000002" / "arrays.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"000003.*000002.*no other"):
        disk.newest(tmp_path)


def test_where_there_is_none_there_is_none(tmp_path):
    assert disk.newest(tmp_path / "nothing") == (None, [])
    (tmp_path / "notes").mkdir()
    (tmp_path / "12345").mkdir()
    (tmp_path / "²²²²²²").mkdir()
    assert disk.newest(tmp_path) == (None, [])


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ({"x": jax.ShapeDtypeStruct((3,), jnp.bfloat16)}, r"x is float32\[3\], and bfloat16\[3\] is expected"),
        ({"x": jax.ShapeDtypeStruct((3,), jnp.int32)}, r"int32\[3\] is expected"),
        ({"x": jax.ShapeDtypeStruct((1, 3), jnp.float32)}, r"float32\[1,3\] is expected"),
        ({"y": jax.ShapeDtypeStruct((3,), jnp.float32)}, r"x is float32\[3\], and None is expected"),
        ({}, r"None is expected"),
        ({"x": jax.ShapeDtypeStruct((3,), jnp.float32), "z": np.zeros(2)}, r"z is None, and float64\[2\] is expected"),
    ],
)
def test_nothing_is_read_that_is_not_expected(tmp_path, template, text):
    write_small(tmp_path)
    with pytest.raises(CheckpointError, match=text):
        disk.read(disk.newest(tmp_path)[0], template)


def rewrite(path, arrays=None, metadata=None):
    """Contents of somebody else's making, with hashes that are right."""
    if arrays is not None:
        (path / "arrays.safetensors").write_bytes(arrays)
    if metadata is not None:
        (path / "facts.json").write_text(json.dumps(metadata))
    names = ("arrays.safetensors", "facts.json")
    lines = [f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (path / "SHA256SUMS").write_text("".join(lines))


def test_a_header_that_promises_too_much_takes_no_memory(tmp_path):
    path = write_small(tmp_path)
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    rewrite(path, arrays=len(header).to_bytes(8, "little") + header)
    huge = {"x": jax.ShapeDtypeStruct((2**40,), jnp.float32)}
    metadata = {"format": 1, "arrays": {"x": f"float32[{2**40}]"}}
    rewrite(path, metadata=metadata)
    with pytest.raises(CheckpointError, match="damaged"):
        disk.read(disk.verify(path), huge)


def test_arrays_and_metadata_must_agree(tmp_path):
    path = write_small(tmp_path)
    rewrite(path, metadata={"format": 1, "arrays": {"x": "int32[3]"}})
    with pytest.raises(CheckpointError, match=r"not what facts\.json says"):
        disk.read(disk.verify(path), {"x": jax.ShapeDtypeStruct((3,), jnp.int32)})


@pytest.mark.parametrize("metadata", [[], {"format": 2, "arrays": {}}, {"format": 1}, {"format": 1, "arrays": []}])
def test_another_format_is_refused(tmp_path, metadata):
    path = write_small(tmp_path)
    rewrite(path, metadata=metadata)
    with pytest.raises(CheckpointError, match="another format"):
        disk.verify(path)


def test_two_leaves_of_one_name_are_refused():
    with pytest.raises(CheckpointError, match="same name"):
        disk.named_leaves({"a/b": 1, "a": {"b": 2}})


def test_a_full_disk_is_an_error_and_the_earlier_checkpoint_stays(tmp_path):
    write_small(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(ResourceError, match=r"cannot write .*000002: File too large"):
            disk.write(tmp_path, {"x": np.zeros(100_000, np.float32)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [entry.name for entry in tmp_path.iterdir()] == ["000001"]
    assert disk.newest(tmp_path)[0].metadata["value"] == 1.0


def test_leftovers_of_an_interrupted_save_go_with_the_next(tmp_path):
    leftover = tmp_path / "000001.partial"
    leftover.mkdir()
    (leftover / "arrays.safetensors").write_bytes(b"half")
    assert disk.newest(tmp_path) == (None, [])
    write_small(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["000001"]


def test_leftovers_that_cannot_go_are_an_error(tmp_path):
    (tmp_path / "000001.partial").write_text("a file, which no save leaves")
    with pytest.raises(ResourceError, match=f"cannot clean {tmp_path}: Not a directory"):
        disk.remove_leftovers(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(ResourceError, match=r"cannot write .*checkpoints"):
        write_small(tmp_path / "checkpoints")


SAVER = """
import sys
from pathlib import Path
import numpy as np
from purejaxrl.storage import checkpoint as disk
for value in range(10**6):
    disk.write(Path(sys.argv[1]), {f"x{k}": np.full(20_000, value + k) for k in range(8)}, {"value": value})
"""


def kill_while_saving(folder, seed):
    """Kill a process that does nothing but save at a random moment after its first checkpoint."""
    earlier = max(disk.numbers(folder), default=0)
    process = subprocess.Popen([sys.executable, "-c", SAVER, str(folder)], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 60
    while max(disk.numbers(folder), default=0) <= earlier and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random.Random(seed).uniform(0, 0.2))
    process.kill()
    assert process.wait() == -9


def check_killed(tmp_path, kills):
    for seed in range(kills):
        kill_while_saving(tmp_path, seed)
        found, wrong = disk.newest(tmp_path)
        assert wrong == []
        template = {f"x{k}": np.empty(20_000, np.int64) for k in range(8)}
        for k, values in enumerate(disk.read(found, template).values()):
            np.testing.assert_array_equal(values, found.metadata["value"] + k)
        disk.remove_leftovers(tmp_path)
        assert not list(tmp_path.glob("*.partial"))
        assert len(os.listdir(tmp_path)) <= disk.KEPT + 1


def test_killed_while_saving_the_newest_whole_one_loads(tmp_path):
    check_killed(tmp_path, 5)


@pytest.mark.slow
def test_killed_while_saving_fifty_times(tmp_path):
    check_killed(tmp_path, 50)
