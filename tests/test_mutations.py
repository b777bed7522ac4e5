"""Faults that are planted on purpose, by tests/mutations.py, can be planted in the code as it is."""

from pathlib import Path

import mutations
import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize("fault", mutations.FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_one_place_and_tests_that_could_see_it(fault):
    text = (mutations.ROOT / "purejaxrl" / fault.file).read_text()
    assert text.count(fault.old) == 1
    assert fault.new != fault.old
    for name in fault.tests.split():
        assert (TESTS / name).exists()
