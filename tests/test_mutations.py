"""Faults that are planted on purpose, by tests/mutations.py, can be planted in the code as it is."""

import mutations
import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fault", mutations.FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_one_place_and_tests_that_could_see_it(fault):
    text = (mutations.ROOT / "purejaxrl" / fault.file).read_text()
    assert text.count(fault.old) == 1
    assert fault.new != fault.old
    assert len(mutations.files_of(fault.tests)) == len(fault.tests.split())
