"""Devices that are not at hand are stood in for by objects that tell what such devices would."""

import subprocess
import sys
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from purejaxrl.components.hyperparameters import MAX_INT
from purejaxrl.training import devices


def device_of(platform, memory=None):
    device = Mock(spec=jax.Device, platform=platform)
    device.memory_stats.return_value = memory
    return device


def test_an_accelerator_takes_all_of_its_runs_side_by_side():
    mesh = Mock(spec=Mesh, size=2, devices=np.array([device_of("gpu"), device_of("gpu")]))
    assert devices.group_size(mesh, 9, 2**30) == 5
    assert devices.widest_batch([device_of("gpu")], (200, 16)) == MAX_INT


def test_memory_is_that_of_the_smallest_accelerator():
    share = devices.MEMORY_SHARE
    sizes = [{"bytes_limit": 1000}, {"bytes_limit": 500}, None, {}]
    assert devices.memory_of([device_of("gpu", size) for size in sizes]) == int(share * 500)
    assert devices.memory_of([device_of("gpu"), device_of("gpu", {})]) == sys.maxsize


def test_idle_cores_give_a_warning(monkeypatch):
    monkeypatch.setattr(devices, "usable_cores", lambda: 4)
    with pytest.warns(UserWarning, match="one of 4 cores"):
        devices.warn_about_idle_cores([device_of("cpu")], None, 8)
    # These have nothing to say: one run, a limit that was asked for, an accelerator.
    devices.warn_about_idle_cores([device_of("cpu")], None, 1)
    devices.warn_about_idle_cores([device_of("cpu")], 1, 8)
    devices.warn_about_idle_cores([device_of("gpu")], None, 8)


def test_what_was_asked_of_xla_already_is_kept(monkeypatch):
    flags = "--xla_force_host_platform_device_count=3 --xla_backend_extra_options=some"
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert devices.ask_for_cpu_devices(5)
    assert devices.os.environ["XLA_FLAGS"] == flags


def test_once_jax_has_started_it_is_too_late(monkeypatch):
    jax.devices()
    monkeypatch.setenv("XLA_FLAGS", "")
    assert not devices.ask_for_cpu_devices(jax.device_count() + 1)
    assert devices.os.environ["XLA_FLAGS"] == ""


def test_a_process_forked_after_jax_has_started_gets_an_error_and_does_not_hang(tmp_path):
    code = (
        "import os, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"  # JAX warns of every fork.
        "import jax\n"
        "from purejaxrl import evaluate, resume, sweep, train\n"
        "from purejaxrl.errors import UnsupportedError\n"
        "if os.fork() == 0:\n"
        "  from purejaxrl.training.devices import check_process\n"
        "  check_process()\n"
        "  os._exit(0)\n"
        "assert os.wait()[1] == 0\n"
        "jax.devices()\n"
        "if os.fork() == 0:\n"
        "  for call in (lambda: train('vpg'), lambda: sweep('vpg'), lambda: evaluate('run'), lambda: resume('run')):\n"
        "    try: call()\n"
        "    except UnsupportedError as error: print(error, flush=True)\n"
        "  os._exit(0)\n"
        "os.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all("forked from one in which JAX had started" in line and "'spawn'" in line for line in lines)
