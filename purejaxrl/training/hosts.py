"""Several processes, usually one per host, that train the runs of one command together.

JAX's multi-controller runtime gives every process its index and its local devices. Runs are independent, so devices of
different processes never talk to each other; what the processes tell each other goes over TCP between process 0 and
each of the others. JAX's coordination service could carry it too, but it aborts every process with a stack trace as
soon as one of them dies, and cannot be told otherwise, so it is left again once all have started.

Whoever reaches the coordinator's port can take part, as with JAX itself: that port belongs in a private network.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import NoReturn

import jax
from jax._src.clusters import ClusterEnv

from purejaxrl.errors import HostError, InputError
from purejaxrl.training.devices import first_line
from purejaxrl.training.links import (
    BEAT,
    FAILURE,
    HERE,
    LOOPBACK,
    PIECE,
    PIECE_BYTES,
    STATUS,
    STOP,
    WANT,
    Link,
    free_port,
    gather_processes,
    join_process_0,
    split_address,
)

# The coordinator of whoever leaves it to the cluster's scheduler to say which processes there are.
AUTO = "auto"
JOIN_SECONDS = 60.0
SILENCE_SECONDS = 30.0
# A process says several times within the allowed silence that it is there.
BEATS = 6
WAITING_SECONDS = 0.5


def check_hosts(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Raises InputError unless the three values belong together and are possible, or all are missing, or it is AUTO."""
    flags = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [flag for flag, value in flags.items() if value is None]
    if len(missing) == len(flags) or (coordinator == AUTO and len(missing) == 2):
        return
    if coordinator is None or num_processes is None or process_id is None:
        given = next(flag for flag, value in flags.items() if value is not None)
        raise InputError(f"{given}: {' and '.join(missing)} must be given too")
    for flag, value in flags.items():
        kind = str if flag == "--coordinator" else int
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(
                f"{flag}: {value!r} is not allowed; it takes a {'text' if kind is str else 'whole number'}"
            )
    split_address(coordinator)
    if num_processes < 1:
        raise InputError(f"--num_processes: {num_processes} is not allowed; it must be at least 1")
    if not 0 <= process_id < num_processes:
        raise InputError(f"--process_id: {process_id} is not allowed; it must be from 0 to {num_processes - 1}")


def detect_cluster(seconds: float) -> tuple[str, int, int] | None:
    """Process 0's HOST:PORT, the number of processes and this one's index, where SLURM, Open MPI, a TPU pod or an
    indexed Kubernetes job says them. Raises HostError where that fails.
    """
    is_indexed_job = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= set(os.environ)
    if is_indexed_job and importlib.util.find_spec("kubernetes") is None:
        raise HostError(
            "this is a pod of an indexed Kubernetes job, and JAX needs the package kubernetes to find the others; "
            "install it, or give --coordinator, --num_processes and --process_id"
        )
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # In any pod JAX would recommend the kubernetes package.
            found = ClusterEnv.auto_detect_unset_distributed_params(address, None, None, [], None, int(seconds))
    except Exception as error:
        if "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_COMPLETION_INDEX" not in os.environ:
            return None
        raise HostError(
            f"this cluster does not say which processes there are ({first_line(error)}); "
            "give --coordinator, --num_processes and --process_id"
        ) from error
    coordinator, count, index, _ = found
    return None if coordinator is None or count is None or index is None else (coordinator, count, index)


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    join_timeout: float = JOIN_SECONDS,
    silence_timeout: float = SILENCE_SECONDS,
) -> Hosts:
    """Join the other processes, as told or (AUTO) as the cluster's scheduler says; start JAX on the local devices.

    Must come after JAX's configuration (`jax_platforms`, `jax_num_cpu_devices`) and before its first use; a process by
    itself leaves JAX alone. join_timeout: seconds to wait for the others; silence_timeout: after so many seconds
    without a sign of life a process counts as lost. Raises InputError for wrong values, HostError where the processes
    do not come together.
    """
    check_hosts(coordinator, num_processes, process_id)
    if coordinator == AUTO:
        found = detect_cluster(join_timeout)
        if found is None:
            raise HostError(
                "--coordinator: auto finds no cluster here; give HOST:PORT, --num_processes and --process_id"
            )
        coordinator, num_processes, process_id = found
    if coordinator is None or num_processes is None or process_id is None or num_processes == 1:
        return alone()
    host, port = split_address(coordinator)
    if process_id == 0:
        jax_port = free_port()
        links = gather_processes(host, port, num_processes, jax_port, join_timeout)
    else:
        link, jax_port = join_process_0(host, port, process_id, num_processes, join_timeout)
        links = {0: link}
    hosts = Hosts(process_id, num_processes, links, silence_timeout)
    start_jax(hosts, coordinator.rpartition(":")[0], jax_port, join_timeout)
    return hosts


def start_jax(hosts: Hosts, host: str, port: int, timeout: float) -> None:
    """Let JAX of all processes learn of each other's devices. Raises HostError where JAX had started before.

    Any later failure ends the process here, in whichever thread: others may sit in C++ for minutes, and JAX aborts a
    process that lingers.
    """
    hosts.ends_at_failure = True
    try:
        # It would take over SIGTERM.
        jax.config.update("jax_enable_preemption_service", False)
        # Gloo, the default, needs the coordination service even for devices of one process.
        jax.config.update("jax_cpu_collectives_implementation", None)
        jax.distributed.initialize(
            f"{host}:{port}",
            hosts.count,
            hosts.index,
            initialization_timeout=max(int(timeout), 1),
            coordinator_bind_address=f"{host if host in LOOPBACK else '[::]'}:{port}",
        )
        jax.local_devices()
        hosts.meet()
        jax.distributed.shutdown()
    except Exception as error:
        with hosts.lock:
            message = hosts.failure or f"JAX could not start: {first_line(error)}"
            hosts.fail(message)
            if jax.distributed.is_initialized():
                hosts.end(message)
        raise HostError(message) from error
    with hosts.lock:
        hosts.ends_at_failure = False


class Hosts:
    """The place of a process among those that train together, and its connections; one process alone has none.

    Process 0 is linked to every other process, each of the others to process 0 alone. One thread per link reads, so
    that a lost process is noticed whatever the main thread does; the main thread learns of it from any method here.
    """

    def __init__(self, index: int, count: int, links: dict[int, Link], silence_timeout: float) -> None:
        self.index = index
        self.count = count
        self.links = links
        self.silence_timeout = silence_timeout
        self.ends_at_failure = False
        self.asked_to_stop: int | None = None
        self.failure: str | None = None
        # Held by whoever ends the process, so that only one thread does.
        self.lock = threading.RLock()
        self.is_over = threading.Event()
        self.has_failed = threading.Event()
        self.latest = [b""] * count
        for process, link in links.items():
            link.socket.settimeout(silence_timeout)
            threading.Thread(target=self._read, args=(process, link), daemon=True).start()
        if index:
            threading.Thread(target=self._beat, daemon=True).start()

    def send(
        self, name: str, data: bytes | bytearray | memoryview, to: int = 0, while_waiting: Callable[[], object] = bool
    ) -> None:
        """Hand over data of any size once the other process receives that name. Raises HostError if that fails.

        while_waiting: called twice a second until it does.
        """
        link = self.links[to]
        self._wait(link.wants, while_waiting)
        asked = self._next(link.wants)
        if asked != name.encode():
            raise HostError(f"process {to} wants {asked.decode()!r}, but process {self.index} sends {name!r}")
        view = memoryview(data).cast("B")
        self._write(to, PIECE, len(view).to_bytes(8))
        for start_byte in range(0, len(view), PIECE_BYTES):
            self._write(to, PIECE, view[start_byte : start_byte + PIECE_BYTES])

    def receive(self, process: int, name: str, while_waiting: Callable[[], object] = bool) -> bytearray:
        """What the process sends under that name, once it does. Raises HostError if it cannot any more.

        while_waiting: called twice a second until it does.
        """
        link = self.links[process]
        self._write(process, WANT, name.encode())
        self._wait(link.pieces, while_waiting)
        data = bytearray(int.from_bytes(self._next(link.pieces)))
        filled = 0
        while filled < len(data):
            piece = self._next(link.pieces)
            data[filled : filled + len(piece)] = piece
            filled += len(piece)
        return data

    def publish(self, status: bytes) -> None:
        """Let process 0 see this process's newest status, of at most a mebibyte. Raises HostError as `check` does."""
        self.latest[self.index] = status
        if self.index:
            self._write(0, STATUS, status)

    def forget_status(self, process: int) -> None:
        """Let a process's status, which is no longer the newest that is known of it, be empty."""
        self.latest[process] = b""

    def statuses(self) -> list[bytes]:
        """In process 0 the newest status of each process, empty where there is none yet."""
        return list(self.latest)

    def ask_to_stop(self, signal: int) -> None:
        """Let all processes know of a signal that this one has received. Raises HostError as `check` does."""
        if self.asked_to_stop is None:
            self.asked_to_stop = signal
            for process in self.links:
                self._write(process, STOP, bytes([signal]))

    def check(self) -> None:
        """Raises HostError if another process has failed or is lost; costs nothing."""
        if self.failure is not None:
            raise HostError(self.failure)

    @contextmanager
    def telling_of_errors(self) -> Iterator[None]:
        """Whatever is raised inside is told to the others, see `fail`."""
        try:
            yield
        except BaseException as error:
            self.fail(" ".join(str(error).split()) or type(error).__name__)
            raise

    def fail(self, message: str) -> None:
        """Tell the others of this process's own error, which they raise as HostError; it takes no part any more."""
        self.is_over.set()
        self._spread(f"process {self.index} of {self.count} failed: {message}")

    def finish(self) -> None:
        """Wait until all processes have come here, then part. Raises HostError if one is lost."""
        self.meet(is_last=True)
        for link in self.links.values():
            link.socket.close()

    def meet(self, is_last: bool = False) -> None:
        """Wait until all processes have come here. Raises HostError if one is lost."""
        if self.index:
            self._write(0, HERE)
        for link in self.links.values():
            self._next(link.heres)
        if is_last:
            self.is_over.set()
        if self.index == 0:
            for process in self.links:
                self._write(process, HERE)

    def end(self, message: str) -> NoReturn:
        """End the process at once, from any thread."""
        # Where nobody can be told, the process ends all the same.
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"purejaxrl: {message}\n")
            sys.stderr.flush()
        if self.index == 0:
            # JAX aborts the others when its service goes; they first read why.
            time.sleep(0.5)
        os._exit(HostError.exit_code)

    def _wait(self, queue: SimpleQueue[bytes | None], while_waiting: Callable[[], object]) -> None:
        called = time.monotonic()
        while queue.empty():
            time.sleep(0.02)
            if time.monotonic() > called + WAITING_SECONDS:
                called = time.monotonic()
                while_waiting()

    def _next(self, queue: SimpleQueue[bytes | None]) -> bytes:
        item = queue.get()
        while item is None:
            queue.put(None)
            self.check()
        return item

    def _write(self, process: int, kind: bytes, payload: bytes | memoryview = b"") -> None:
        self.check()
        try:
            self.links[process].write(kind, payload)
        except OSError:
            # The process may have said why it leaves; that is still being read.
            if not self.has_failed.wait(1.0):
                self._lose(f"process {process} of {self.count} has stopped")
            self.check()

    def _read(self, process: int, link: Link) -> None:
        queues = {WANT: link.wants, PIECE: link.pieces, HERE: link.heres}
        try:
            while True:
                kind, payload = link.read()
                if kind in queues:
                    queues[kind].put(payload)
                elif kind == STATUS:
                    self.latest[process] = payload
                elif kind == STOP:
                    # Process 0 passes it on to all.
                    self.ask_to_stop(payload[0])
                elif kind == FAILURE:
                    return self._lose(payload.decode(errors="replace"))
                elif self.index == 0:
                    link.write(BEAT)
        except TimeoutError:
            self._lose(f"process {process} of {self.count} has not responded for {self.silence_timeout:.0f} s")
        except HostError:
            return None
        except (OSError, EOFError):
            self._lose(f"process {process} of {self.count} has stopped; its own output may say why")

    def _beat(self) -> None:
        while not self.is_over.wait(self.silence_timeout / BEATS):
            try:
                self.links[0].write(BEAT)
            except OSError:
                return

    def _lose(self, message: str) -> None:
        with self.lock:
            if self.is_over.is_set() or self.failure is not None:
                return
            self.failure = message
            if self.index == 0:
                self._spread(message)
            if self.ends_at_failure:
                self.end(message)
        self.has_failed.set()
        for link in self.links.values():
            for queue in (link.wants, link.pieces, link.heres):
                queue.put(None)

    def _spread(self, message: str) -> None:
        for link in self.links.values():
            try:
                link.write(FAILURE, message.encode()[:PIECE_BYTES])
            except OSError:
                continue


def alone() -> Hosts:
    """The one process of a training that has no others."""
    return Hosts(0, 1, {}, SILENCE_SECONDS)
