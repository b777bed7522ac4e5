"""What `pip install purejaxrl` alone brings is all that is imported."""

import importlib.metadata
import json
import re
import subprocess
import sys

from packaging.requirements import Requirement

# A training, its files and figures, and whatever an environment of gymnax imports.
CODE = """
import json, sys
import purejaxrl.cli, purejaxrl
out = sys.argv[1]
purejaxrl.make("FourRooms-misc")
result = purejaxrl.train("vpg", epochs=1, steps_per_epoch=20, hidden_sizes=(4,), out=out)
result.video(out + "/video.gif"), result.summary(), result.evaluate(episodes=1)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""

# What others take where it happens to be there, and do without.
OPTIONAL = {"charset-normalizer", "setuptools"}


def brought_with(name):
    """The distributions that pip installs with one, by its requirements and theirs, extras left out."""
    found, asked = set(), [Requirement(name)]
    while asked:
        requirement = asked.pop()
        key = (normal(requirement.name), *sorted(requirement.extras))
        if key in found:
            continue
        found.add(key)
        for line in importlib.metadata.requires(requirement.name) or []:
            needed = Requirement(line)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                asked.append(needed)
    return {name for name, *_ in found}


def normal(name):
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_nothing_is_imported_that_an_installation_lacks(tmp_path):
    words = [sys.executable, "-c", CODE, str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    distributions = importlib.metadata.packages_distributions()
    imported = {
        normal(distributions[module][0])
        for module in json.loads(done.stdout.splitlines()[-1])
        if module in distributions
    }
    assert {"jax", "gymnax", "six"} <= imported
    assert imported - OPTIONAL <= brought_with("purejaxrl")
