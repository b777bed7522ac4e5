"""What a table must say about the machine it was measured on."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

from purejaxrl.experiment.plan import versions


def describe() -> dict[str, Any]:
    """Processor, cores, memory, versions and date."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(),
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
    }


def save(file: Path, **results: Any) -> None:
    """Write results as JSON, with the machine that they were measured on."""
    file.write_text(json.dumps({"machine": describe(), **results}, indent=1) + "\n")


def spread(unit: str, rates: list[float]) -> dict[str, float]:
    """Median, named after its unit, and both ends of what was measured."""
    return {unit: statistics.median(rates), "slowest": min(rates), "fastest": max(rates)}
