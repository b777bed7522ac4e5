"""TCP between process 0 and the others: how they find one another, and messages of a kind and some bytes."""

from __future__ import annotations

import socket
import struct
import threading
import time
from queue import SimpleQueue

from purejaxrl.errors import HostError, InputError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
HANDSHAKE_SECONDS = 5.0
PIECE_BYTES = 1 << 20

# Kinds of message.
HELLO, WELCOME, BEAT, WANT, PIECE, STATUS, HERE, FAILURE, STOP = (bytes([code]) for code in range(1, 10))
HEADER = struct.Struct(">cI")
WHO = struct.Struct(">9sII")
MAGIC = b"purejaxrl"


class Link:
    """A connection to another process, and what has come from it and not been used yet."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lock = threading.Lock()
        self.wants: SimpleQueue[bytes | None] = SimpleQueue()
        self.pieces: SimpleQueue[bytes | None] = SimpleQueue()
        self.heres: SimpleQueue[bytes | None] = SimpleQueue()

    def write(self, kind: bytes, payload: bytes | memoryview = b"") -> None:
        """Send one message. Raises OSError."""
        with self.lock:
            self.socket.sendall(HEADER.pack(kind, len(payload)))
            self.socket.sendall(payload)

    def read(self) -> tuple[bytes, bytes]:
        """Wait for one message. Raises OSError, or EOFError where the other end has closed or is no such process."""
        kind, size = HEADER.unpack(self._read_bytes(HEADER.size))
        if size > PIECE_BYTES:
            raise EOFError
        return kind, self._read_bytes(size)

    def _read_bytes(self, count: int) -> bytes:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            got = self.socket.recv_into(view)
            if got == 0:
                raise EOFError
            view = view[got:]
        return bytes(data)


def gather_processes(host: str, port: int, count: int, jax_port: int, timeout: float) -> dict[int, Link]:
    """Links to all other processes, once they have come. Raises HostError if they do not."""
    links: dict[int, Link] = {}
    deadline = time.monotonic() + timeout
    with listen(host, port) as listener:
        while len(links) < count - 1:
            listener.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                link = Link(listener.accept()[0])
            except TimeoutError:
                missing = ", ".join(str(process) for process in range(1, count) if process not in links)
                message = f"only {len(links) + 1} of {count} processes came within {timeout:.0f} s; missing: {missing}"
                for link in links.values():
                    try_to_write(link, FAILURE, message.encode())
                raise HostError(message) from None
            welcome(link, count, links)
    for link in links.values():
        try_to_write(link, WELCOME, jax_port.to_bytes(2))
    return links


def welcome(link: Link, count: int, links: dict[int, Link]) -> None:
    """Add a newcomer's link to the links if it says rightly who it is; otherwise tell it so."""
    link.socket.settimeout(HANDSHAKE_SECONDS)
    try:
        kind, payload = link.read()
        magic, index, told = WHO.unpack(payload)
    except (OSError, EOFError, struct.error):
        return link.socket.close()
    if kind != HELLO or magic != MAGIC:
        return link.socket.close()
    if told != count:
        reason = f"process 0 was started with --num_processes {count}, process {index} with {told}"
    elif index in links or not 0 < index < count:
        reason = f"there is a process {index} already; every process needs its own --process_id"
    else:
        links[index] = link
        return None
    try_to_write(link, FAILURE, reason.encode())
    return link.socket.close()


def try_to_write(link: Link, kind: bytes, payload: bytes) -> None:
    """Send one message to a process that may have gone; if so, reading from it will tell."""
    try:
        link.write(kind, payload)
    except OSError:
        return


def join_process_0(host: str, port: int, index: int, count: int, timeout: float) -> tuple[Link, int]:
    """A link to process 0 and the port of JAX's coordination service. Raises HostError if the two do not meet."""
    link = Link(connect(host, port, timeout))
    try:
        link.write(HELLO, WHO.pack(MAGIC, index, count))
        # Process 0 may have started later, and waits for the others as long.
        link.socket.settimeout(timeout + HANDSHAKE_SECONDS)
        kind, payload = link.read()
    except (OSError, EOFError) as error:
        link.socket.close()
        raise HostError(f"process 0 at {host}:{port} has stopped or is not one of purejaxrl") from error
    if kind == FAILURE:
        link.socket.close()
        raise HostError(payload.decode(errors="replace"))
    return link, int.from_bytes(payload)


def connect(host: str, port: int, timeout: float) -> socket.socket:
    """Connect to process 0, which may start later. Raises HostError if it does not."""
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            return socket.create_connection((host, port), timeout=max(min(left, HANDSHAKE_SECONDS), 0.1))
        except OSError as error:
            if left <= 0:
                raise HostError(
                    f"process 0 did not answer at {host}:{port} within {timeout:.0f} s ({error.strerror or error})"
                ) from error
        time.sleep(0.2)


def listen(host: str, port: int) -> socket.socket:
    """A socket that the other processes can connect to, from this machine alone where the host is the loopback.

    Raises HostError where the port is taken.
    """
    try:
        if host in ("localhost", "127.0.0.1"):
            return socket.create_server(("127.0.0.1", port))
        if host == "::1":
            return socket.create_server((host, port), family=socket.AF_INET6)
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise HostError(f"process 0 cannot listen on port {port}: {error.strerror}") from error


def free_port() -> int:
    """A TCP port that nothing uses now."""
    with socket.create_server(("", 0)) as listener:
        return int(listener.getsockname()[1])


def split_address(coordinator: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [IPv6]:PORT. Raises InputError for anything else."""
    host, _, port = coordinator.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host.replace(":", " ")
    is_port = port.isascii() and port.isdigit() and 1 <= int(port) <= 65535
    if not bare or len(bare.split()) != 1 or not is_port:
        raise InputError(f"--coordinator: {coordinator!r} is not HOST:PORT with a port from 1 to 65535")
    return bare, int(port)
