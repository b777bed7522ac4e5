import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from purejaxrl.errors import HostError, InputError
from purejaxrl.training import hosts, links

pytestmark = pytest.mark.usefixtures("covered_processes")

PREAMBLE = """
import os, sys, time
import jax
import numpy as np
from purejaxrl.errors import PurejaxrlError
from purejaxrl.training import devices, hosts

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)

def die():
    os.kill(os.getpid(), 9)

def work(seconds):
    end = time.time() + seconds
    while time.time() < end:
        everyone.check()
        time.sleep(0.05)

port, count, index = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
try:
    {before}
    everyone = hosts.start(f"127.0.0.1:{{port}}", count, index, join_timeout={join}, silence_timeout={silence})
    print("started", flush=True)
{body}
    everyone.finish()
    print("finished", flush=True)
except PurejaxrlError as error:
    print(f"purejaxrl: {{error}}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Job:
    """Processes on this machine that run the same script."""

    def __init__(self, folder: Path, body="", before="pass", count=2, only=None, join=20, silence=20):
        script = folder / "job.py"
        indented = "\n".join("    " + line for line in body.strip("\n").splitlines())
        script.write_text(PREAMBLE.format(body=indented, before=before, join=join, silence=silence))
        self.port = free_port()
        env = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_"))}
        self.processes = {
            index: subprocess.Popen(
                [sys.executable, str(script), str(self.port), str(count), str(index)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=env | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), env.get("PYTHONPATH", "")])},
            )
            for index in (only if only is not None else range(count))
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.communicate()

    def wait_for(self, index, line):
        while (got := self.processes[index].stdout.readline()) != line + "\n":
            assert got, self.processes[index].stderr.read()

    def result(self, index, timeout=30):
        out, err = self.processes[index].communicate(timeout=timeout)
        return self.processes[index].returncode, out, err


def connect(port):
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def assert_ends_in_one_line(result, expected):
    code, _, err = result
    assert (code, err) == (1, f"purejaxrl: {expected}\n")


def test_payloads_statuses_and_local_computation(tmp_path):
    body = """
assert (everyone.index, everyone.count) == (index, count) == (jax.process_index(), jax.process_count())
local = devices.local_devices("cpu")
assert len(local) == 2 and len(jax.devices()) == 2 * count
mesh = devices.mesh_for(local, 3)
double = devices.shard_over_runs(lambda runs: runs * 2, mesh, (devices.RUNS,), devices.RUNS, donate=(0,))
runs = devices.place(devices.pad_runs(jax.numpy.full((3, 5), index + 1.0), 4), mesh)
runs = double(double(runs))
assert (np.asarray(runs) == 4 * (index + 1)).all()
# An operation that moves data between the local devices needs no other process either.
assert np.asarray(runs[::-1].sum(axis=0)).tolist() == [16 * (index + 1)] * 5
big = np.random.default_rng(index).integers(0, 256, 80_000_003, dtype=np.uint8).tobytes()
everyone.publish(f"status of {index}".encode())
if index:
    everyone.send("empty", b"")
    everyone.send("big", big)
    everyone.publish(b"newer")
    everyone.send("array", np.asarray(runs).tobytes())
    assert everyone.receive(0, "answer") == b"thanks"
else:
    assert everyone.receive(1, "empty") == b""
    got = everyone.receive(1, "big")
    assert got == np.random.default_rng(1).integers(0, 256, 80_000_003, dtype=np.uint8).tobytes()
    assert np.frombuffer(everyone.receive(1, "array"), np.float32).tolist() == [8.0] * 20
    assert everyone.statuses() == [b"status of 0", b"newer"]
    everyone.send("answer", b"thanks", to=1)
"""
    with Job(tmp_path, body) as job:
        for index in (0, 1):
            assert job.result(index) == (0, "started\nfinished\n", "")


def test_a_process_that_dies_ends_one_that_waits_for_its_data(tmp_path):
    body = "everyone.receive(1, 'never') if index == 0 else time.sleep(60)"
    with Job(tmp_path, body) as job:
        job.wait_for(1, "started")
        job.processes[1].kill()
        killed_at = time.monotonic()
        assert_ends_in_one_line(job.result(0), "process 1 of 2 has stopped; its own output may say why")
        assert time.monotonic() - killed_at < 5


def test_the_end_of_process_0_ends_those_at_work_and_those_that_finish(tmp_path):
    body = "time.sleep(60) if index == 0 else work(60) if index == 1 else None"
    with Job(tmp_path, body, count=3) as job:
        job.wait_for(1, "started")
        job.wait_for(2, "started")
        job.processes[0].kill()
        for index in (1, 2):
            assert_ends_in_one_line(job.result(index), "process 0 of 3 has stopped; its own output may say why")


def test_an_error_in_one_process_is_told_to_all(tmp_path):
    body = """
if index == 1:
    time.sleep(0.5)
    everyone.fail("out of luck")
    sys.exit(6)
work(60)
"""
    with Job(tmp_path, body, count=3) as job:
        assert job.result(1)[::2] == (6, "")
        for index in (0, 2):
            assert_ends_in_one_line(job.result(index), "process 1 of 3 failed: out of luck")


def test_a_process_that_stops_responding_counts_as_lost(tmp_path):
    with Job(tmp_path, "work(60)", count=3, silence=3) as job:
        for index in range(3):
            job.wait_for(index, "started")
        job.processes[1].send_signal(signal.SIGSTOP)
        for index in (0, 2):
            assert_ends_in_one_line(job.result(index), "process 1 of 3 has not responded for 3 s")


def test_long_work_of_everyone_is_no_silence(tmp_path):
    with Job(tmp_path, "time.sleep(3)", silence=1.5) as job:
        for index in (0, 1):
            assert job.result(index) == (0, "started\nfinished\n", "")


@pytest.mark.parametrize("broken", [0, 1])
def test_an_error_while_jax_starts_ends_all(tmp_path, broken):
    before = f"jax.config.update('jax_platforms', 'cuda' if index == {broken} else 'cpu')"
    with Job(tmp_path, before=before) as job:
        code, _, err = job.result(broken)
        assert (code, err.count("\n")) == (1, 1)
        assert err.startswith("purejaxrl: JAX could not start: ")
        reason = err.removeprefix("purejaxrl: ").strip()
        assert_ends_in_one_line(job.result(1 - broken), f"process {broken} of 2 failed: {reason}")


def test_a_process_that_dies_while_jax_starts(tmp_path):
    before = "jax.local_devices = die if index == 1 else jax.local_devices"
    with Job(tmp_path, before=before) as job:
        assert_ends_in_one_line(job.result(0), "process 1 of 2 has stopped; its own output may say why")


def test_jax_that_was_used_before(tmp_path):
    with Job(tmp_path, before="jax.devices() if index else None") as job:
        code, _, err = job.result(1)
        assert (code, err.count("\n")) == (1, 1)
        assert "must be called before any JAX calls" in err


def test_a_process_that_never_comes_but_strangers(tmp_path):
    with Job(tmp_path, count=3, only=[0, 1], join=6) as job, connect(job.port) as stranger, connect(job.port) as other:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        other.close()
        for index in (0, 1):
            assert_ends_in_one_line(job.result(index), "only 2 of 3 processes came within 6 s; missing: 2")


def test_a_process_0_that_never_comes(tmp_path):
    with Job(tmp_path, only=[1], join=1) as job:
        message = f"process 0 did not answer at 127.0.0.1:{job.port} within 1 s (Connection refused)"
        assert_ends_in_one_line(job.result(1), message)


def test_processes_that_were_told_different_things(tmp_path):
    before = "count = 3 if index else 2"
    with Job(tmp_path, before=before, join=4) as job:
        expected = "process 0 was started with --num_processes 2, process 1 with 3"
        assert_ends_in_one_line(job.result(1), expected)
        assert_ends_in_one_line(job.result(0), "only 1 of 2 processes came within 4 s; missing: 1")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("here:1", None, None), "--coordinator: --num_processes and --process_id must be given too"),
        (("auto", 2, None), "--coordinator: --process_id must be given too"),
        ((None, 2, 0), "--num_processes: --coordinator must be given too"),
        ((None, None, 0), "--process_id: --coordinator and --num_processes must be given too"),
        (("here", 2, 0), "--coordinator: 'here' is not HOST:PORT with a port from 1 to 65535"),
        ((":1234", 2, 0), "--coordinator: ':1234' is not HOST:PORT with a port from 1 to 65535"),
        (("here:0", 2, 0), "--coordinator: 'here:0' is not HOST:PORT with a port from 1 to 65535"),
        (("here:65536", 2, 0), "--coordinator: 'here:65536' is not HOST:PORT with a port from 1 to 65535"),
        (("http://here:80", 2, 0), "--coordinator: 'http://here:80' is not HOST:PORT with a port from 1 to 65535"),
        (("here:1", 0, 0), "--num_processes: 0 is not allowed; it must be at least 1"),
        (("here:1", 2, 2), "--process_id: 2 is not allowed; it must be from 0 to 1"),
        (("here:1", 2, -1), "--process_id: -1 is not allowed; it must be from 0 to 1"),
    ],
)
def test_wrong_values_are_refused(values, message):
    with pytest.raises(InputError) as error:
        hosts.check_hosts(*values)
    assert str(error.value) == message


def test_a_port_that_is_taken_is_named():
    with links.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(HostError, match=f"process 0 cannot listen on port {port}: Address already in use"):
            links.listen("localhost", port)


def test_a_stranger_that_hangs_up_is_no_process_0():
    with links.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        threading.Thread(target=lambda: listener.accept()[0].close()).start()
        with pytest.raises(HostError, match=f"process 0 at localhost:{port} has stopped or is not one of purejaxrl"):
            links.join_process_0("localhost", port, 1, 2, 5.0)


def test_right_values_are_accepted():
    hosts.check_hosts(None, None, None)
    hosts.check_hosts("auto", None, None)
    hosts.check_hosts("[::1]:1234", 2, 1)
    assert links.split_address("[::1]:1234") == ("::1", 1234)


def test_a_process_by_itself_needs_nobody(monkeypatch):
    for name in ("KUBERNETES_SERVICE_HOST", "SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri"):
        monkeypatch.delenv(name, raising=False)
    for alone in (hosts.start(), hosts.start("localhost:1", 1, 0)):
        alone.publish(b"one")
        alone.check()
        assert (alone.index, alone.count, alone.statuses()) == (0, 1, [b"one"])
        alone.finish()


def test_slurm_is_detected(monkeypatch):
    slurm = {"JOB_ID": "4097", "STEP_NODELIST": "node[003,007-9]", "NTASKS": "4", "PROCID": "2", "LOCALID": "0"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert hosts.detect_cluster(1) == ("node003:61441", 4, 2)


def test_a_cluster_is_joined_only_where_that_is_asked_for(monkeypatch):
    """An interactive job has SLURM's variables, and no other processes."""
    for name, value in {"JOB_ID": "4097", "NTASKS": "4", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(hosts, "detect_cluster", lambda seconds: pytest.fail("looked for a cluster"))
    assert hosts.start().count == 1
    asked = []
    monkeypatch.setattr(hosts, "detect_cluster", lambda seconds: asked.append(seconds) or ("here:1", 1, 0))
    assert hosts.start("auto").count == 1
    assert asked == [hosts.JOIN_SECONDS]
    monkeypatch.setattr(hosts, "detect_cluster", lambda seconds: None)
    with pytest.raises(HostError, match="--coordinator: auto finds no cluster here; give HOST:PORT, --num_processes"):
        hosts.start("auto")


def test_a_pod_that_belongs_to_no_group_trains_by_itself(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert hosts.detect_cluster(1) is None


def test_an_indexed_job_without_its_package_is_an_error(monkeypatch):
    for name, value in (("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("JOB_COMPLETION_INDEX", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(hosts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HostError, match="needs the package kubernetes"):
        hosts.detect_cluster(1)


def test_a_cluster_that_does_not_say_enough_is_an_error(monkeypatch):
    def broken(*_):
        raise ValueError("no nodes\nin sight")

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(hosts.ClusterEnv, "auto_detect_unset_distributed_params", broken)
    with pytest.raises(HostError, match=r"which processes there are \(no nodes.*\); give --coordinator"):
        hosts.detect_cluster(1)
