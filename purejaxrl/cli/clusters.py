"""`--cluster` of `sweep` and `resume`: the workers of a Dask cluster, on this machine, on others, or on SLURM's.

Dask is imported where it is used, and needs the extra `cluster`.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from purejaxrl.cli.flags import convert_count
from purejaxrl.errors import InputError, log, reason, warn

if TYPE_CHECKING:
    from purejaxrl.experiment.cluster import Workers

FLAGS = (
    ("cluster", "where to train: tcp://HOST:PORT or tls://HOST:PORT of a Dask scheduler, local:N or slurm"),
    ("partition", "with --cluster slurm, the partition of its jobs"),
    ("time", "with --cluster slurm, the time limit of a job, such as 02:00:00"),
    ("gpus_per_worker", "with --cluster slurm, GPUs of a job, each of which has a process of its own (default 0)"),
    ("workers", "with --cluster slurm, the number of jobs (default 1)"),
)
FOR_SLURM = tuple(name for name, _ in FLAGS[1:])
ALLOWED = "tcp://HOST:PORT, tls://HOST:PORT, local:N or slurm"
CONNECT_SECONDS = 10
# Of a worker on CPU, unless Dask's own configuration says otherwise.
WORKER_GIB = 4
# A terminal sends Ctrl-C to all of its processes, and the client is the one that ends the others.
UNINTERRUPTED = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
# Dask looks at what its workers' threads do a hundred times a second, which slows tracing down; its log is for itself.
NO_PROFILE = "export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False"
SETTINGS = {"distributed.worker.profile.enabled": False, "logging": {"distributed": "error", "bokeh": "error"}}


def take_flags(flags: dict[str, Any], time: str = "time") -> dict[str, Any]:
    """Take the flags of a cluster out of those of a command, and check them.

    Args:
        flags: The flags that were given; those of a cluster are removed.
        time: Name of the flag for the time limit of a job.

    Returns:
        The flags of a cluster by name, None where one was not given.

    Raises:
        InputError: If one is not allowed.
    """
    own = {name: flags.pop(time if name == "time" else name, None) for name, _ in FLAGS}
    cluster = own["cluster"]
    for name in FOR_SLURM:
        if own[name] is not None and cluster != "slurm":
            raise InputError(f"--{time if name == 'time' else name}: {own[name]} is for --cluster slurm")
    for name, least in (("gpus_per_worker", 0), ("workers", 1)):
        if own[name] is not None:
            own[name] = convert_count(name, own[name])
            if own[name] < least:
                raise InputError(f"--{name}: {own[name]} is not allowed; it takes a whole number, at least {least}")
    if cluster is None or cluster == "slurm":
        return own
    kind, _, rest = cluster.partition(":")
    is_address = kind in ("tcp", "tls") and rest.startswith("//") and rest.rpartition(":")[2].isdecimal()
    is_local = kind == "local" and rest.isdecimal() and int(rest) > 0
    if not (is_address or is_local):
        raise InputError(f"--cluster: {cluster!r} is not allowed; it takes {ALLOWED}")
    return own


@contextmanager
def executor_of(own: dict[str, Any]) -> Iterator[Workers | None]:
    """Connect to a cluster, or start one that ends with the context.

    Args:
        own: What `take_flags` returned.

    Yields:
        The Executor of its workers, None where no cluster is asked for.

    Raises:
        InputError: If the extra is missing, no scheduler answers, or jobs cannot be submitted.
    """
    if own["cluster"] is None:
        yield None
        return
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise InputError("--cluster: Dask is missing; pip install 'purejaxrl[cluster]'") from None
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(SETTINGS))
        for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        address = own["cluster"]
        if address.startswith("local:"):
            address = stack.enter_context(_local_cluster(int(address.partition(":")[2])))
        elif address == "slurm":
            address = stack.enter_context(_slurm_cluster(own))
        try:
            client = stack.enter_context(Client(address, timeout=CONNECT_SECONDS, set_as_default=False))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"--cluster: no scheduler answers at {own['cluster']} ({reason(error)})") from error
        _describe(client, own["cluster"])
        yield client.get_executor()


@contextmanager
def _local_cluster(workers: int) -> Iterator[Any]:
    """Start worker processes on this machine."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
        preload=[UNINTERRUPTED],
    ) as cluster:
        yield cluster


@contextmanager
def _slurm_cluster(own: dict[str, Any]) -> Iterator[Any]:
    """Submit jobs to SLURM, each a worker with a process for each of its GPUs."""
    import dask

    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise InputError("--cluster: dask-jobqueue is missing; pip install 'purejaxrl[cluster]'") from None
    if shutil.which("sbatch") is None:
        raise InputError("--cluster: slurm needs sbatch, which is not on the PATH of this machine")
    gpus = own["gpus_per_worker"] or 0
    processes = max(gpus, 1)
    configured = partial(dask.config.get, default=None)
    with SLURMCluster(
        queue=own["partition"],
        walltime=own["time"],
        cores=processes,
        processes=processes,
        memory=configured("jobqueue.slurm.memory") or f"{WORKER_GIB * processes} GiB",
        job_extra_directives=[*(configured("jobqueue.slurm.job-extra-directives") or []), *_gres(gpus)],
        job_script_prologue=[*(configured("jobqueue.slurm.job-script-prologue") or []), NO_PROFILE],
    ) as cluster:
        log("job script:\n%s", cluster.job_script())
        cluster.scale(jobs=own["workers"] or 1)
        yield cluster


def _gres(gpus: int) -> list[str]:
    """Return what asks SLURM for GPUs."""
    return [f"--gres=gpu:{gpus}"] if gpus else []


def _describe(client: Any, cluster: str) -> None:
    """Log how many workers there are, and warn of what would be slow."""
    threads = client.nthreads()
    log("cluster: %d workers of %s", len(threads), cluster)
    if not threads and cluster != "slurm":
        warn(f"--cluster: no worker has joined {cluster} yet; the sweep waits for the first", stacklevel=3)
    crowded = sum(number > 1 for number in threads.values())
    if crowded:
        warn(
            f"--cluster: {crowded} of {len(threads)} workers have several threads, which share a device; start them "
            "with --nthreads 1",
            stacklevel=3,
        )
