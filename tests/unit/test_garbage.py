"""The collector rests in a block, and afterwards does what it did before."""

import gc

import pytest

from attrtrain.garbage import no_garbage_collection


@pytest.fixture(autouse=True)
def collector_as_before():
    was_enabled = gc.isenabled()
    yield
    (gc.enable if was_enabled else gc.disable)()


@pytest.mark.parametrize("was_enabled", [True, False])
def test_it_rests_and_is_then_as_it_was(was_enabled):
    (gc.enable if was_enabled else gc.disable)()
    with no_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled() == was_enabled


def test_it_works_again_after_an_error():
    gc.enable()
    with pytest.raises(ImportError), no_garbage_collection():
        raise ImportError
    assert gc.isenabled()
