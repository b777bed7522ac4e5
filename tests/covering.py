"""Branch coverage of the package, by slipcover, which costs a suite that traces and compiles next to nothing.

With PUREJAXRL_COVERAGE=FOLDER every process of the suite leaves a file there; `python tests/covering.py FOLDER PERCENT`
adds them up, prints what was not reached, and fails where less than so many percent of lines and branches were.
"""

import ast
import json
import sys
from pathlib import Path

import slipcover
from jaxtyping._import_hook import JaxtypingTransformer, Typechecker

PACKAGE = str(Path(__file__).parent.parent / "purejaxrl")


def begin(checker):
    """Cover modules that are imported from now on. checker: the type checker that jaxtyping's hook puts in, if any."""
    covered = slipcover.Slipcover(branch=True, source=[PACKAGE])
    slipcover.ImportManager(covered, slipcover.FileMatcher(sources=[PACKAGE])).__enter__()
    if checker is not None:
        check_too(checker)
    return covered


def check_too(checker):
    """Let slipcover, which compiles modules by itself, put in what jaxtyping's hook would have."""
    instrument = slipcover.branch.preinstrument

    def instrument_and_check(tree):
        return ast.fix_missing_locations(JaxtypingTransformer(typechecker=Typechecker(checker)).visit(instrument(tree)))

    slipcover.branch.preinstrument = instrument_and_check


def main(folder, percent):
    """Print the sum of all processes; 1 where it is less than it should be."""
    first, *others = (json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json")))
    for other in others:
        slipcover.merge_coverage(first, other)
    slipcover.print_coverage(first, skip_covered=True)
    total = first["summary"]
    branches = total["covered_branches"] / (total["covered_branches"] + total["missing_branches"])
    print(f"covered: {total['percent_covered']:.1f}% of lines and branches, {branches:.1%} of branches")
    return int(min(total["percent_covered"], 100 * branches) < float(percent))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
