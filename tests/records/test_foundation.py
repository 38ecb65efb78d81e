import numpy as np

from fmseg.records.foundation import read_seen, was_seen, write_seen


def test_images_seen_are_recognised_by_their_hash(tmp_path):
    hashes = [f"{value:016x}" + "0" * 48 for value in (5, 3, 2**64 - 1, 3)]
    # a file that could not be read has no hash
    assert write_seen(tmp_path, [*hashes, ""]) == 3
    seen = read_seen(tmp_path)
    assert seen.dtype == np.uint64
    assert all(was_seen(seen, text) for text in hashes)
    assert not was_seen(seen, f"{4:016x}")


def test_a_checkpoint_made_elsewhere_has_seen_nothing_that_is_known(tmp_path):
    assert len(read_seen(tmp_path)) == 0
    assert not was_seen(read_seen(tmp_path), "f" * 64)
