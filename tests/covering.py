"""Branch coverage of the package, by slipcover, whose probes go once they have been hit.

With PUREJAXRL_COVERAGE=FOLDER every process of the suite leaves a file there, and so do those that tests with the
fixture `covered_processes` start; `python tests/covering.py FOLDER PERCENT` adds them up, prints what was not reached,
and fails where less than so many percent of branches were, or of lines and branches together, as coverage.py counts.
"""

import ast
import atexit
import json
import os
import sys
import threading
from pathlib import Path

import slipcover

TESTS = Path(__file__).parent
PACKAGE = str(TESTS.parent / "purejaxrl")


def begin(checker=None, *, leave_at_exit=False):
    """Cover modules that are imported from now on. checker: the type checker that jaxtyping's hook puts in, if any."""
    covered = slipcover.Slipcover(branch=True, source=[PACKAGE])
    slipcover.ImportManager(covered, slipcover.FileMatcher(sources=[PACKAGE])).__enter__()
    if checker is not None:
        check_too(checker)
    start = threading.Thread.start
    # Syntax trees, which slipcover makes of what is imported, must not be made by two threads at once (Python 3.11).
    threading.Thread.start = lambda self: self.run() if self.name == "purejaxrl-importer" else start(self)
    if leave_at_exit:
        atexit.register(leave, covered)
    return covered


def check_too(checker):
    """Let slipcover, which compiles modules by itself, put in what jaxtyping's hook would have."""
    from jaxtyping._import_hook import JaxtypingTransformer, Typechecker

    instrument = slipcover.branch.preinstrument

    def instrument_and_check(tree):
        return ast.fix_missing_locations(JaxtypingTransformer(typechecker=Typechecker(checker)).visit(instrument(tree)))

    slipcover.branch.preinstrument = instrument_and_check


def leave(covered):
    """Write what this process has covered."""
    file = Path(os.environ["PUREJAXRL_COVERAGE"], f"{os.getpid()}.json")
    file.write_text(json.dumps(covered.get_coverage()))


def main(folder, percent):
    """Print the sum of all processes; 1 where it is less than it should be."""
    first, *others = (json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json")))
    for other in others:
        slipcover.merge_coverage(first, other)
    slipcover.print_coverage(first, skip_covered=True)
    total = first["summary"]
    branches = 100 * total["covered_branches"] / (total["covered_branches"] + total["missing_branches"])
    print(f"covered: {total['percent_covered']:.1f}% of lines and branches, {branches:.1f}% of branches alone")
    return int(min(total["percent_covered"], branches) < float(percent))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
