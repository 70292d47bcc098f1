"""What the study says of its runs, against direct computations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from experiments import gan as study
from experiments import gan_samples
from question2 import classifier, runs, score
from question2.configurations import Management


def random_network() -> score.Network:
    torch.manual_seed(3)
    return score.Network(classifier.Classifier(width=2).eval(), "random", "-C")


def random_images(count: int, seed: int) -> torch.Tensor:
    return torch.randint(256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_rank_correlation_is_of_the_metric_since_the_evaluation_before():
    values = [0, 18, 1, 1, 3, 1, 3, 3, 2, 6, 10, 0, 7, 7, 7, 7]  # means of 9, 1, 2, 3, 4, 5 and 7 at the evaluations
    metrics = [{"step": step, "metric": value} for step, value in zip(range(5, 85, 5), values, strict=True)]
    of_both = {"IS": 1.0, "IS_trained": 1.0, "cp": 1.0, "cq": -1.0, "samples": 9}
    # The averaged generator's distance rises: it must not be mixed with the metric, which is the trained one's.
    distances = ((10, 9.0), (20, 0.5), (30, 5.0), (40, 4.0), (50, 3.0), (60, 2.0), (70, 1.0), (80, 0.2))
    scores = [{"step": s, "FID": float(s), "FID_trained": f, **of_both} for s, f in distances]
    # 0.1 s an update, but for one time when the run had to wait.
    seconds = [m["step"] / 10 + (60 if m["step"] >= 20 else 0) for m in metrics]
    result = {"metrics": [m | {"seconds": s} for m, s in zip(metrics, seconds, strict=True)] + scores, "final": {}}
    row = study.summarise_run(result, ("IS", "FID"))
    assert [step for step, *_ in row["curve"]] == [10, 20, 30, 40, 50, 60, 70]
    assert row["rank_correlation"] == pytest.approx(spearmanr([9, 1, 2, 3, 4, 5, 7], [9, 0.5, 5, 4, 3, 2, 1])[0])
    # The evaluation at a quarter of the updates, 20, looks back on that quarter; those after it do not.
    assert row["rank_correlation_later"] == pytest.approx(-1)
    assert row["milliseconds"] == pytest.approx(100)


@torch.no_grad()
def test_nearest_images_are_those_of_the_whole_matrix_of_distances():
    network, queries, train = random_network(), random_images(7, 1), random_images(1203, 2)  # more than two batches
    distance, index = gan_samples.nearest(network, queries, train, neighbours=4)
    features = [network.module(images)[0].double() for images in (queries, train)]
    expected = (features[0][:, None] - features[1]).norm(dim=-1).sort(dim=1)
    torch.testing.assert_close(distance.double(), expected.values[:, :4], rtol=1e-3, atol=1e-4)
    assert torch.equal(index, expected.indices[:, :4])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_data_copying_counts_pairs(generated, held_out):
    found = gan_samples.data_copying(torch.tensor(generated), torch.tensor(held_out))
    pairs = [1.0 if a < b else 0.5 if a == b else 0.0 for a in generated for b in held_out]
    assert found["probability_nearer"] == pytest.approx(sum(pairs) / len(pairs))


@torch.no_grad()
def test_a_generator_that_copies_is_found_out_and_fresh_images_are_not():
    network, train = random_network(), random_images(600, 1)
    held_out, copies, fresh = random_images(200, 2), train[100:200], random_images(200, 3)
    real, copied, new = (
        gan_samples.nearest(network, images, train, 1)[0][:, 0] for images in (held_out, copies, fresh)
    )
    assert gan_samples.data_copying(copied, real)["probability_nearer"] > 0.99
    assert gan_samples.data_copying(copied, real)["p_value"] < 1e-9
    assert abs(gan_samples.data_copying(new, real)["probability_nearer"] - 0.5) < 0.15


def test_anchors_are_in_their_order(tmp_path):
    """Nought for the images of the reference, more for others, far more for noise."""
    real = random_images(300, 1) // 8 + 100
    images = runs.Images("none", real, random_images(100, 2) // 8 + 100, random_network(), Management())
    step = score.make_evaluation(random_network(), real, 4, tmp_path)
    held_out, trained_on, noise = (row["FID"] for row in gan_samples.anchors(images, step, count=300))
    assert trained_on == pytest.approx(0, abs=1e-3) and trained_on < held_out < noise
