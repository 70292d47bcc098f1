"""The comparison of the fast and the plain path of training."""

import pytest

from experiments import gan_fast


@pytest.mark.parametrize(("offset", "within"), [(0.5, True), (2.5, False)])
def test_fast_path_is_held_against_the_distances_between_seeds(offset, within):
    def run(start, fid):
        lines = [{"step": step, "metric": start + step} for step in (1, 2, 3)]
        return {"metrics": [*lines, {"step": 3, "FID": fid}], "final": {"FID": fid}}

    found = gan_fast.compare_curves([run(offset, 5.0), run(0, 1.0), run(1, 2.0), run(-1, 3.0)], "FID")
    assert found["fast_from_plain"] == pytest.approx(offset) and found["within_spread"] == within
    assert sorted(found["between_seeds"]["values"]) == pytest.approx([1, 1, 2])
    assert (found["fast_score"], found["plain_scores"]["mean"]) == (5.0, 2.0)
