"""The command `cache`."""

from __future__ import annotations

import json

from purejaxrl.errors import InputError

HELP = """usage: purejaxrl cache [--clear] [--json]

Show the cache of compiled programs: where it is, how many files and bytes it holds, and how many bytes it may hold.

  --clear  remove what it holds; the next training of every setting compiles anew
  --json   print it as JSON
"""


def _cache(words: list[str]) -> int:
    """Run `purejaxrl cache`."""
    for word in words:
        if word not in ("--help", "-h", "--json", "--clear"):
            raise InputError(f"cache: unexpected {word!r}; it takes --clear and --json")
    if {"--help", "-h"} & set(words):
        print(HELP, end="")
        return 0
    from purejaxrl.storage import cache

    folder = cache.program_folder()
    if folder is None or not cache.is_usable(folder):
        raise InputError(f"cache: nothing is kept; {cache.why_unused(folder)}")
    if "--clear" in words:
        cache.remove_oldest(folder, 0)
    found, limit = cache.entries(folder), cache.MAX_BYTES
    size = sum(entry.bytes for entry in found)
    if "--json" in words:
        print(json.dumps({"folder": str(folder), "files": len(found), "bytes": size, "limit": limit}, indent=2))
    else:
        print(f"{folder}: {len(found)} files, {size / 2**20:.1f} MiB of at most {limit / 2**20:.0f} MiB")
    return 0


COMMANDS = {"cache": _cache}
