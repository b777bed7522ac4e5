"""What several processes tell one another of a training: where it stands, and at the end everything they wrote.

Every process trains its share of the runs into a folder of its own; process 0 takes the others' in.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from purejaxrl.errors import HostError
from purejaxrl.ledger import Ledger
from purejaxrl.results.recorder import Records, absorb_tallies, pack_tallies
from purejaxrl.training.hosts import Hosts

MAX_STATUS_BYTES = 2**20
HANDED_OVER = re.compile(r"(episodes|metrics)\.csv|params/(last|best)-\d{1,6}\.safetensors", re.ASCII)


def pack(records: Records) -> bytes:
    """Records of the runs that have begun."""
    begun = np.nonzero(records.has_begun)[0]
    file = io.BytesIO()
    np.savez(file, runs=begun, **{name: values[begun] for name, values in records._asdict().items()})
    return file.getvalue()


def unpack(data: bytes | bytearray, records: Records) -> None:
    """Write packed records of another process into those of all runs."""
    with np.load(io.BytesIO(data), allow_pickle=False) as packed:
        for name, values in records._asdict().items():
            values[packed["runs"]] = packed[name]


def exchange_standing(everyone: Hosts, ledger: Ledger) -> None:
    """Let process 0 know where this process's runs stand, or take in where the others' do. Raises HostError."""
    if everyone.index == 0:
        for status in everyone.statuses()[1:]:
            if status:
                unpack(status, ledger.records)
    elif len(status := pack(ledger.records)) <= MAX_STATUS_BYTES:
        everyone.publish(status)


def hand_over(everyone: Hosts, ledger: Ledger, while_waiting: Callable[[], object] = bool) -> None:
    """Send process 0 what this process has, once it asks: facts, records, files. Raises HostError.

    while_waiting: called twice a second.
    """
    files = sorted(path.relative_to(ledger.folder.path).as_posix() for path in ledger.folder.path.rglob("*.*"))
    files = [name for name in files if name in ("episodes.csv", "metrics.csv") or name.startswith("params/")]
    facts = {
        "failed": ledger.failed,
        "batches": ledger.batches,
        "programs": ledger.programs,
        "devices": ledger.devices,
        "compile_seconds": ledger.compile_seconds,
        "run_seconds": ledger.run_seconds,
        "tallies": pack_tallies(ledger.tallies),
        "files": files,
    }
    everyone.send("facts", json.dumps(facts).encode(), while_waiting=while_waiting)
    everyone.send("records", pack(ledger.records))
    for name in files:
        everyone.send(name, (ledger.folder.path / name).read_bytes())


def take_in(everyone: Hosts, ledger: Ledger, process: int, while_waiting: Callable[[], object] = bool) -> None:
    """Add what another process hands over, once it does, to the ledger and its folder. Raises HostError.

    while_waiting: called twice a second.
    """
    facts: dict[str, Any] = json.loads(everyone.receive(process, "facts", while_waiting))
    everyone.forget_status(process)
    unpack(everyone.receive(process, "records"), ledger.records)
    for name in facts["files"]:
        # A name of the other process's choosing becomes a path here.
        if not (isinstance(name, str) and HANDED_OVER.fullmatch(name)):
            raise HostError(f"process {process} sends a file {name!r}, which is none of a run folder's")
        data = everyone.receive(process, name)
        if name.endswith(".csv"):
            ledger.folder.logs.append_file(name, data)
        else:
            kind, _, number = name.removesuffix(".safetensors").partition("-")
            ledger.folder.write_bytes(f"{kind}-{ledger.batches + int(number)}.safetensors", data)
    ledger.failed += facts["failed"]
    ledger.batches += facts["batches"]
    ledger.devices += facts["devices"]
    ledger.programs = max(ledger.programs, facts["programs"])
    ledger.compile_seconds = max(ledger.compile_seconds, facts["compile_seconds"])
    ledger.run_seconds = max(ledger.run_seconds, facts["run_seconds"])
    absorb_tallies(ledger.tallies, facts["tallies"])
