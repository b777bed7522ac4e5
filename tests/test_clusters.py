"""Sweeps by the workers of an Executor: files as one machine writes them, and nothing lost when something dies."""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from probes import Counter

import purejaxrl
from purejaxrl.cli import clusters, main
from purejaxrl.errors import ClusterError, DivergedError, InputError
from purejaxrl.experiment import cluster, shards
from purejaxrl.experiment import run as run_module
from purejaxrl.experiment.plan import plan_sweep
from purejaxrl.storage.run_folder import find_shards
from purejaxrl.training import devices
from purejaxrl.training.devices import local_devices

SWEEP = {"epochs": 2, "steps_per_epoch": 40, "actors": 4, "hidden_sizes": (8,), "pi_lr": [1e-3, 3e-3], "seeds": 9}
SMALL = "sweep vpg --epochs 2 --steps_per_epoch 40 --actors 4 --hidden_sizes 8 --pi_lr 1e-3,3e-3 --seeds 9"
# Longer, so that there is time to kill something.
LARGE = "sweep vpg --epochs 100 --steps_per_epoch 400 --actors 4 --hidden_sizes 8 --pi_lr 1e-3,3e-3 --seeds 36"
WORDS, LONG = SMALL.split(), LARGE.split()
BIN = Path(sys.executable).parent
# They say when something was done, and by whom.
TIMED = ("summary.json", "checkpoints")


def files(path):
    found = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    return {name: content for name, content in found.items() if not name.startswith(TIMED)}


def summary(path):
    content = json.loads((path / "summary.json").read_text())
    return {name: value for name, value in content.items() if "seconds" not in name and "second" not in name}


def assert_same_run(one, other):
    mine, others = files(one), files(other)
    assert mine.keys() == others.keys()
    assert [name for name in mine if mine[name] != others[name]] == []
    assert summary(one) == summary(other)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The sweep in this process."""
    path = tmp_path_factory.mktemp("alone") / "run"
    purejaxrl.sweep("vpg", out=path, **SWEEP)
    return path


@pytest.fixture(scope="module")
def long_alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "run"
    assert run_cli(*LONG, "--out", path).returncode == 0
    return path


class Faulty(ThreadPoolExecutor):
    """Raises for shards with some runs, as often as it is told; it also counts what it is given."""

    def __init__(self, times=None):
        super().__init__(1)
        self.times, self.tasks = dict(times or {}), []

    def submit(self, function, shard, *arguments, **options):
        self.tasks.append(shard)
        for run in shard["runs"].tolist():
            if self.times.get(run, 0):
                self.times[run] -= 1
                return super().submit(fail, run)
        return super().submit(function, shard, *arguments, **options)


def fail(run):
    raise RuntimeError(f"no luck with run {run}")


def test_workers_write_the_files_of_one_machine(alone, tmp_path):
    """And a shard that fails is trained again."""
    executor = Faulty({0: 2, 17: 1})
    result = purejaxrl.sweep("vpg", out=tmp_path / "run", executor=executor, **SWEEP)
    assert_same_run(alone, tmp_path / "run")
    assert result.summary_json["runs_ok"] == 18
    assert result.state is None
    # Nothing waits any more, and no run was asked for without need.
    assert not (tmp_path / "run" / "shards").exists()
    runs = np.concatenate([task["runs"] for task in executor.tasks])
    assert set(runs.tolist()) == set(range(18))
    assert len(executor.tasks) == 3 + 3


def test_a_shard_that_fails_three_times_names_its_runs_and_is_trained_when_resumed(alone, tmp_path):
    with pytest.warns(UserWarning, match=r"^runs 0, 1, .* failed 3 times and are left out: RuntimeError: no luck"):
        result = purejaxrl.sweep("vpg", out=tmp_path / "run", executor=Faulty({0: 3}), **SWEEP)
    lost = 18 - result.summary_json["runs_ok"]
    assert 0 < lost < 10
    assert result.summary_json["failed_runs"] == []
    assert sorted(set(result.frame()["run"])) == [*range(lost, 18)]
    executor = Faulty()
    purejaxrl.resume(tmp_path / "run", executor=executor)
    assert np.concatenate([task["runs"] for task in executor.tasks]).tolist() == [*range(lost)]
    assert_same_run(alone, tmp_path / "run")


def test_where_nothing_can_be_trained_it_says_so(tmp_path):
    with (
        pytest.warns(UserWarning, match="failed 3 times"),
        pytest.raises(ClusterError, match="no run could be trained"),
    ):
        purejaxrl.sweep("vpg", out=tmp_path / "run", executor=Faulty(dict.fromkeys(range(18), 3)), **SWEEP)


class Breaking(Faulty):
    """Stops working after some shards."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def submit(self, *arguments, **options):
        if len(self.tasks) >= self.after:
            self.shutdown()
        return super().submit(*arguments, **options)


@pytest.mark.parametrize("where", ["here", "there"])
def test_what_came_in_before_the_workers_were_gone_is_used(alone, tmp_path, where, monkeypatch):
    monkeypatch.setattr(cluster, "PARTS", 1)
    with pytest.raises(ClusterError, match=r"cluster: it takes no more work \(RuntimeError"):
        purejaxrl.sweep("vpg", out=tmp_path / "run", executor=Breaking(1), **SWEEP)
    waiting = find_shards(tmp_path / "run")
    assert waiting
    # A file that was cut off counts as none.
    damaged = tmp_path / "run" / "shards" / f"{waiting[0]}.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    executor = Faulty()
    purejaxrl.resume(tmp_path / "run", executor=executor if where == "there" else None)
    assert_same_run(alone, tmp_path / "run")
    if where == "there":
        kept = sum(len(read_shard_runs(name)) for name in waiting[1:])
        assert sum(len(task["runs"]) for task in executor.tasks) == 18 - kept


class Lost:
    """Every task that it is given ends with an error of its own."""

    def __init__(self, error):
        self.error = error

    def submit(self, *arguments):
        future = Future()
        future.set_exception(self.error)
        return future


@pytest.mark.parametrize(
    ("error", "said"),
    [(CancelledError(), "the work was cancelled"), (BrokenProcessPool("all dead"), "BrokenProcessPool: all dead")],
)
def test_workers_that_give_work_up_are_a_clear_error(tmp_path, error, said):
    with pytest.raises(ClusterError, match=rf"its workers or its scheduler are gone \({said}\); what came in is kept"):
        purejaxrl.sweep("vpg", out=tmp_path / "run", executor=Lost(error), **SWEEP)


class Job:
    """A future like submitit's, which calls nobody back."""

    def __init__(self, future):
        self.result, self.done, self.cancel = future.result, future.done, future.cancel


class Jobs(Faulty):
    def submit(self, *arguments, **options):
        return Job(super().submit(*arguments, **options))


def test_jobs_that_call_nobody_back_are_asked(alone, tmp_path, monkeypatch):
    """By a worker that keeps one program at a time."""
    monkeypatch.setattr(shards, "MAX_PREPARED", 1)
    purejaxrl.sweep("vpg", out=tmp_path / "run", executor=Jobs(), **SWEEP)
    assert_same_run(alone, tmp_path / "run")


def test_workers_train_no_more_side_by_side_than_fit_in_their_memory(tmp_path):
    """Two of ten replays fit, so a worker cuts its shard as one machine cuts its batches."""
    sweep = {
        "observation_type": "default", "batch_size": 8, "hidden_sizes": (8,), "env_steps": 200, "memory_size": 100_000,
        "lr": [1e-3, 1e-4], "seeds": 5, "max_memory": 2.5 * 100_000 * 12 * 4 / 2**30,
    }  # fmt: skip
    purejaxrl.sweep("dqn", out=tmp_path / "alone", **sweep)
    executor = Faulty()
    result = purejaxrl.sweep("dqn", out=tmp_path / "run", executor=executor, **sweep)
    assert result.summary_json["batches"] == 5
    assert [len(task["runs"]) for task in executor.tasks] == [2] * 5
    assert_same_run(tmp_path / "alone", tmp_path / "run")


def test_an_accelerator_trains_many_runs_side_by_side():
    """All of a sweep that fits, on one device, whatever devices the client has."""
    plan = plan_sweep("vpg", **SWEEP)
    plan = plan._replace(options=dataclasses.replace(plan.options, device="cuda"))
    (work,) = cluster.plan_work(plan, local_devices("cpu"))
    assert (work.width, work.description["width"], work.description["devices"]) == (18, 18, 1)


class Workers:
    """A client of a cluster with some numbers of threads per worker."""

    def __init__(self, *threads):
        self.threads = dict(enumerate(threads))

    def nthreads(self):
        return self.threads


def test_a_cluster_without_workers_or_with_crowded_ones_is_warned_of():
    with pytest.warns(UserWarning, match="no worker has joined tcp://host:1 yet"):
        clusters._describe(Workers(), "tcp://host:1")
    with pytest.warns(UserWarning, match="1 of 3 workers have several threads"):
        clusters._describe(Workers(1, 4, 1), "tcp://host:1")


@pytest.mark.parametrize(("module", "words"), [("distributed", "local:1"), ("dask_jobqueue", "slurm")])
def test_a_missing_extra_is_named(module, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    assert main([*WORDS, "--cluster", words, "--out", str(tmp_path / "run")]) == 2
    assert "is missing; pip install 'purejaxrl[cluster]'" in capsys.readouterr().err


def read_shard_runs(name):
    _, first, stop = map(int, name.split("-"))
    return range(first, stop)


def test_a_worker_with_other_versions_is_refused(tmp_path, monkeypatch):
    ours = shards.versions()
    monkeypatch.setattr(shards, "versions", lambda: {**ours, "jax": "0.0.1"})
    task = {"versions": ours, "config": "{}"}
    with pytest.raises(InputError, match=rf"the worker on .*, process \d+ has jax 0.0.1, and {ours['jax']} is needed"):
        shards.train_shard(task, {})


def test_the_traceback_of_a_worker_travels_as_text():
    with pytest.raises(shards.ShardError) as caught:
        shards.train_shard({"versions": shards.versions(), "config": "not JSON"}, {})
    assert caught.value.args[0].startswith("JSONDecodeError: ")
    assert str(os.getpid()) in caught.value.args[0]
    assert "in train_shard" in caught.value.traceback


@pytest.mark.parametrize("debug", [False, True])
def test_a_warning_shows_the_traceback_of_a_worker_if_asked(debug):
    plan = plan_sweep("vpg", debug=debug, **SWEEP)
    (work,) = cluster.plan_work(plan, local_devices("cpu"))
    error = shards.ShardError("ValueError: wrong (on host, process 7)", "Traceback ... in update")
    with pytest.warns(UserWarning, match="runs 4, 5 failed 3 times and are left out: ValueError: wrong") as caught:
        cluster._warn_of_failure(plan, cluster._Piece(work, shards.Shard(0, 4, 6)), error)
    assert ("in update" in str(caught[0].message)) == debug


class Sick(Counter):
    """Its rewards are NaN."""

    def transition(self, key, state, action):
        return jnp.nan, state.time >= 4, state.observation + 1


def test_a_diverged_run_stops_the_sweep_if_asked(tmp_path):
    options = {"epochs": 2, "steps_per_epoch": 40, "actors": 4, "seeds": 3, "pi_lr": [1e-3, 1e-4]}
    with pytest.raises(DivergedError, match="fail_on_nan"):
        purejaxrl.sweep("vpg", env=Sick(), out=tmp_path / "run", fail_on_nan=True, executor=Faulty(), **options)
    with pytest.raises(DivergedError, match="fail_on_nan"):
        purejaxrl.resume(tmp_path / "run", env=Sick(), executor=Faulty())
    result = purejaxrl.resume(tmp_path / "run", env=Sick(), executor=Faulty(), fail_on_nan=False)
    assert result.summary_json["failed_runs"] == [*range(6)]


def test_runs_that_are_under_way_on_one_machine_end_there(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module.StopSignals, "is_stopping", lambda self: True)
    purejaxrl.sweep("vpg", out=tmp_path / "run", **SWEEP)
    monkeypatch.undo()
    with pytest.raises(InputError, match="18 runs under way on one machine"):
        purejaxrl.resume(tmp_path / "run", executor=Faulty())


def test_what_is_no_executor_is_refused(tmp_path, untyped):
    with pytest.raises(InputError, match=r"^executor: 3 is not allowed; it takes a concurrent.futures.Executor"):
        purejaxrl.sweep("vpg", out=tmp_path / "run", executor=3, **SWEEP)
    assert not (tmp_path / "run").exists()


# Dask leaves a socket open where nobody answers.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--cluster localhost:8786", "--cluster: 'localhost:8786' is not allowed; it takes tcp://HOST:PORT"),
        ("--cluster local:0", "--cluster: 'local:0' is not allowed"),
        ("--cluster tcp://host", "--cluster: 'tcp://host' is not allowed"),
        ("--partition gpu", "--partition: gpu is for --cluster slurm"),
        ("--cluster local:2 --workers 3", "--workers: 3 is for --cluster slurm"),
        ("--cluster slurm --workers 0", "--workers: 0 is not allowed; it takes a whole number, at least 1"),
        ("--cluster slurm --gpus_per_worker one", "--gpus_per_worker: 'one' is not allowed"),
        ("--cluster slurm", "--cluster: slurm needs sbatch, which is not on the PATH"),
        ("--cluster tcp://127.0.0.1:9", "--cluster: no scheduler answers at tcp://127.0.0.1:9"),
    ],
)
def test_flags_of_a_cluster(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("purejaxrl.cli.clusters.CONNECT_SECONDS", 0.5)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([*WORDS, *words.split(), "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith(f"purejaxrl: {said}")
    assert not (tmp_path / "run").exists()


# SLURM's commands, as far as they are used: a job is a process of this machine.
SBATCH = """#!/bin/sh
cp "$1" job.sh
nohup setsid sh job.sh >/dev/null 2>&1 &
echo $! >job.pid
echo "Submitted batch job 7"
"""
SCANCEL = """#!/bin/sh
kill -- -$(cat job.pid)
"""


@pytest.mark.slow
def test_slurm_gets_a_job_for_each_worker_with_a_process_for_each_gpu(alone, tmp_path):
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    words = "--cluster slurm --partition gpu --time 02:00:00 --gpus_per_worker 2 --workers 1"
    variables = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = run_cli(*WORDS, *words.split(), "--out", tmp_path / "run", env=variables, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_run(alone, tmp_path / "run")
    script = (tmp_path / "job.sh").read_text()
    for line in ("#SBATCH -p gpu", "#SBATCH -t 02:00:00", "#SBATCH --gres=gpu:2", "#SBATCH --cpus-per-task=2"):
        assert line in script.splitlines()
    assert "--nthreads 1 " in script
    assert "--nworkers 2 " in script


@pytest.mark.parametrize(
    ("rest", "seconds", "width", "runs"),
    [
        (64_000, 1.0, 4, 60),  # a minute
        (6400, 0.1, 4, 100),  # a sixty-fourth of what is left
        (64, 0.1, 4, 20),  # not under two seconds
        (64, 100.0, 4, 4),  # nor under what is trained side by side
        (64, 0.0, 4, 2_000_000),
    ],
)
def test_shards_take_a_minute_and_less_towards_the_end(rest, seconds, width, runs):
    assert cluster.shard_runs(rest, seconds, width) == runs


def test_each_process_takes_a_gpu_of_its_own(monkeypatch, tmp_path):
    """Until there are none left; then they see all."""
    monkeypatch.setattr(devices.xla_bridge, "_backends", {})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen = []
    for _ in range(3):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
        devices.claim_gpu()
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert seen == ["3", "5", "3, 5"]


def run_cli(*words, **options):
    words = [str(BIN / "purejaxrl"), *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, timeout=600, **options)


@pytest.fixture
def dask(tmp_path):
    """Starts a scheduler and workers on loopback, as processes of their own, and ends them."""
    started = []

    def start(*words, **variables):
        process = subprocess.Popen(
            [str(BIN / "dask"), *words],
            env={**os.environ, **variables},
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start_scheduler(dask, tmp_path):
    file = tmp_path / "scheduler.json"
    process = dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    while not file.exists():
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(0.1)
    return process, json.loads(file.read_text())["address"]


def start_worker(dask, address, **variables):
    return dask("worker", address, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", **variables)


def worker_pids(nanny):
    """The processes that train, which a nanny starts again when they die."""
    children = psutil.Process(nanny.pid).children(recursive=True)
    return [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]


def begin(*words):
    """Start a sweep that is interfered with."""
    return subprocess.Popen(
        [str(BIN / "purejaxrl"), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(is_so):
    deadline = time.monotonic() + 100
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_shards(path, count=1):
    wait_until(lambda: len(find_shards(path)) >= count)


def test_dask_trains_and_a_killed_worker_is_made_up_for(alone, dask, tmp_path):
    """It is killed while it compiles or trains the first shard."""
    _, address = start_scheduler(dask, tmp_path)
    nanny = start_worker(dask, address)
    sweep = begin(*WORDS, "--out", tmp_path / "run", "--cluster", address)
    wait_until(lambda: (tmp_path / "run" / "checkpoints" / "000001").exists() and worker_pids(nanny))
    (pid,) = worker_pids(nanny)
    os.kill(pid, signal.SIGKILL)
    out, err = sweep.communicate(timeout=100)
    assert sweep.returncode == 0, err
    assert "18 of 18 runs ok" in out
    assert_same_run(alone, tmp_path / "run")
    assert worker_pids(nanny) != [pid]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_writes_the_same(long_alone, tmp_path, workers):
    done = run_cli(*LONG, "--out", tmp_path / "run", "--cluster", f"local:{workers}")
    assert done.returncode == 0, done.stderr
    assert_same_run(long_alone, tmp_path / "run")


@pytest.mark.slow
def test_twenty_killed_workers(dask, tmp_path):
    _, address = start_scheduler(dask, tmp_path)
    nannies = [start_worker(dask, address) for _ in range(2)]
    sweep = begin(*LONG, "--epochs", "1500", "--seeds", "144", "--out", tmp_path / "run", "--cluster", address)
    wait_for_shards(tmp_path / "run")
    killed, draw = 0, random.Random(0)
    while killed < 20 and sweep.poll() is None:
        time.sleep(draw.uniform(0.5, 4))
        for pid in worker_pids(draw.choice(nannies)):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    out, err = sweep.communicate(timeout=500)
    assert sweep.returncode == 0, err
    assert killed == 20
    assert "288 of 288 runs ok" in out
    expected = run_cli(*LONG, "--epochs", "1500", "--seeds", "144", "--out", tmp_path / "alone")
    assert expected.returncode == 0
    assert_same_run(tmp_path / "alone", tmp_path / "run")


@pytest.mark.slow
def test_a_killed_scheduler_is_a_clear_error_and_resume_completes(long_alone, dask, tmp_path):
    scheduler, address = start_scheduler(dask, tmp_path)
    start_worker(dask, address)
    sweep = begin(*LONG, "--out", tmp_path / "run", "--cluster", address)
    wait_for_shards(tmp_path / "run", 2)
    scheduler.kill()
    _, err = sweep.communicate(timeout=200)
    assert sweep.returncode == 1
    assert err.splitlines()[-1].startswith("purejaxrl: --cluster: its workers or its scheduler are gone")
    assert "Traceback" not in err
    done = run_cli("resume", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert_same_run(long_alone, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["here", "there"])
def test_a_killed_client_is_resumed(long_alone, dask, tmp_path, where):
    _, address = start_scheduler(dask, tmp_path)
    start_worker(dask, address)
    sweep = begin(*LONG, "--out", tmp_path / "run", "--cluster", address)
    wait_for_shards(tmp_path / "run", 2)
    sweep.kill()
    sweep.communicate()
    done = run_cli("resume", tmp_path / "run", *(["--cluster", address] if where == "there" else []))
    assert done.returncode == 0, done.stderr
    assert_same_run(long_alone, tmp_path / "run")


@pytest.mark.slow
def test_ctrl_c_keeps_what_came_in(long_alone, tmp_path):
    """As a terminal sends it: to the client and to the workers that it has started."""
    words = [str(BIN / "purejaxrl"), *LONG, "--out", str(tmp_path / "run"), "--cluster", "local:2"]
    sweep = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for_shards(tmp_path / "run", 2)
    os.killpg(sweep.pid, signal.SIGINT)
    out, err = sweep.communicate(timeout=100)
    assert sweep.returncode == 130, err
    assert "Traceback" not in err
    assert "purejaxrl resume" in out
    content = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert content["stopped_by"] == "SIGINT"
    assert 0 < content["runs_begun"] < 72
    rows = purejaxrl.load(tmp_path / "run").frame()
    assert len(set(rows["run"])) == content["runs_begun"]
    done = run_cli("resume", tmp_path / "run", "--cluster", "local:2")
    assert done.returncode == 0, done.stderr
    assert_same_run(long_alone, tmp_path / "run")


# A worker's site-packages may hold another version; its own word for it is what counts.
OTHER_VERSION = """
import importlib.metadata
version = importlib.metadata.version
importlib.metadata.version = lambda name: "0.0.1" if name == "jax" else version(name)
"""


@pytest.mark.slow
def test_a_process_with_another_version_of_jax_is_refused_in_one_line(dask, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(OTHER_VERSION)
    _, address = start_scheduler(dask, tmp_path)
    start_worker(dask, address, PYTHONPATH=str(tmp_path))
    done = run_cli(*WORDS, "--out", tmp_path / "run", "--cluster", address)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("purejaxrl: --cluster")]
    assert "has jax 0.0.1, and" in line
    assert "Traceback" not in done.stderr


RAISING = """
import os
import flax.linen as nn
import jax
import purejaxrl
from distributed import Client
from purejaxrl.agents import vpg

def refuse():
    if "REFUSE" in os.environ:
        raise ArithmeticError("not today")

def update(*arguments):
    jax.debug.callback(refuse)
    return vpg.update(*arguments)

class Sine(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jax.numpy.sin(nn.Dense(8)(x))

if __name__ == "__main__":
    client = Client(%r, set_as_default=False)
    purejaxrl.sweep(
        vpg.agent._replace(name="mine", update=update), epochs=2, steps_per_epoch=40, actors=4, network=Sine(),
        pi_lr=[1e-3, 3e-3], seeds=2, out="run", executor=client.get_executor(), overwrite=True,
        debug="DEBUG" in os.environ,
    )
"""


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{}, {"REFUSE": "1"}, {"REFUSE": "1", "DEBUG": "1"}])
def test_a_script_of_its_own_agent_and_network_and_a_task_that_raises(dask, tmp_path, variables):
    """They travel as Dask serializes them, and with `debug` the worker's traceback comes back."""
    _, address = start_scheduler(dask, tmp_path)
    start_worker(dask, address, **variables)
    (tmp_path / "mine.py").write_text(RAISING % address)
    words = [sys.executable, str(tmp_path / "mine.py")]
    environment = os.environ | variables
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == (1 if variables else 0), done.stderr
    if variables:
        assert "runs 0, 1, 2, 3 failed 3 times and are left out: " in done.stderr
        assert "not today" in done.stderr
        assert ("experiment/shards.py" in done.stderr) == ("DEBUG" in variables)
        assert "ClusterError: cluster: no run could be trained" in done.stderr


@pytest.mark.slow
def test_processes_of_the_standard_library(alone, tmp_path):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        purejaxrl.sweep("vpg", out=tmp_path / "run", executor=executor, **SWEEP)
    assert_same_run(alone, tmp_path / "run")


@pytest.mark.slow
def test_submitit(alone, tmp_path):
    import submitit

    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="local")
    executor.update_parameters(timeout_min=5)
    purejaxrl.sweep("vpg", out=tmp_path / "run", executor=executor, **SWEEP)
    assert_same_run(alone, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (
            "dqn",
            {"preset": "tuned", "observation_type": "default", "env_steps": 3000, "lr": [1e-3, 2e-3], "seeds": 5,
             "eval_every": 1000, "eval_episodes": 3},
        ),
        ("dqn", {"episodes": 12, "batch_size": 16, "memory_size": 200, "lr": [1e-3, 2e-3], "seeds": 3}),
        ("a3c", {"preset": "tuned", "env": "CartPole-v1", "lr": [1e-3, 2e-3], "seeds": 7, "stop_when_solved": True}),
        ("vpg", SWEEP | {"hidden_sizes": [(8,), (6, 6)]}),
        ("a3c", {"preset": "tuned", "env": "Pendulum-v1", "env_steps": 20_000, "lr": [1e-3, 2e-3], "seeds": 3}),
    ],
)  # fmt: skip
def test_every_algorithm_is_bitwise_the_same(algorithm, options, tmp_path):
    purejaxrl.sweep(algorithm, out=tmp_path / "alone", **options)
    purejaxrl.sweep(algorithm, out=tmp_path / "run", executor=Faulty(), **options)
    assert_same_run(tmp_path / "alone", tmp_path / "run")
