"""What the study says of its runs, against direct computations."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr, t

from experiments import gan as study
from experiments import gan_figures, gan_samples, gan_summary
from lab import figures
from question2 import classifier, images, score
from question2.configurations import Management, plan


def random_network() -> score.Network:
    torch.manual_seed(3)
    return score.Network(classifier.Classifier(width=2).eval(), "random", "-C")


def random_images(count: int, seed: int) -> torch.Tensor:
    return torch.randint(256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


SCORED = {"IS": 1.0, "IS_trained": 1.0, "KID": 1.0, "KID_trained": 1.0, "cp": 1.0, "cq": -1.0, "samples": 9}


def lines() -> list[dict]:
    """A run's lines: a metric every five updates of a hundred, scores every ten, the last of other samples."""
    # Means of 9, 1, 2, 3, 4, 5 and 7 at the evaluations before the last.
    values = [0, 18, 1, 1, 3, 1, 3, 3, 2, 6, 10, 0, 7, 7, 7, 7]
    metrics = [{"step": step, "metric": value} for step, value in zip(range(5, 85, 5), values, strict=True)]
    # 0.1 s an update, but for one time when the run had to wait.
    metrics = [line | {"seconds": line["step"] / 10 + (60 if line["step"] >= 20 else 0)} for line in metrics]
    # The averaged generator's distance rises: it must not be mixed with the trained one's.
    distances = ((10, 9.0), (20, 0.5), (30, 5.0), (40, 4.0), (50, 3.0), (60, 2.0), (70, 1.0), (80, 0.2))
    changes = [{"FID": float(s), "FID_trained": f, "IS_trained": -2 * f, "KID_trained": -f} for s, f in distances]
    scores = [{"step": s, **SCORED, **change} for (s, _), change in zip(distances, changes, strict=True)]
    return metrics + scores


def test_rank_correlation_is_of_the_metric_since_the_evaluation_before():
    row = gan_summary.summarise_run({"metrics": lines(), "final": lines()[-1]}, "")
    assert [step for step, *_ in row["curve"]] == [10, 20, 30, 40, 50, 60, 70]
    expected = spearmanr([9, 1, 2, 3, 4, 5, 7], [9, 0.5, 5, 4, 3, 2, 1])[0]
    assert row["rank_correlation"] == pytest.approx(expected)
    found = row["rank_correlations"]
    assert found["FID_trained"] == pytest.approx(expected) and found["KID_trained"] == pytest.approx(-expected)
    assert found["IS_trained"] == pytest.approx(expected)  # a better score is a higher one here
    assert found["FID"] == pytest.approx(spearmanr([9, 1, 2, 3, 4, 5, 7], range(7))[0])
    # The evaluation at a quarter of the updates, 20, looks back on that quarter; those after it do not.
    assert row["rank_correlation_later"] == pytest.approx(-1)
    assert row["milliseconds"] == pytest.approx(100)
    assert row["final_without_average"] == {"IS": -0.4, "FID": 0.2, "KID": -0.2}


def test_the_last_metric_is_the_mean_of_the_last_500_updates():
    metrics = [{"step": step, "metric": step / 100, "seconds": step} for step in range(100, 1100, 100)]
    final = {"step": 1000, "FID": 1.0, "FID_trained": 1.0, **SCORED}
    row = gan_summary.summarise_run({"metrics": [*metrics, final], "final": final}, "")
    assert row["last_metric"] == pytest.approx((6 + 7 + 8 + 9 + 10) / 5)
    assert row["rank_correlation"] is None  # of no evaluation


def test_differences_are_paired_by_seed():
    runs, finals = plan("cifar10-*-3", [1, 2, 3]), {"jsd": [1.0, 5.0, 9.0], "w1": [2.0, 6.5, 10.5]}
    results = {
        run.label: {
            "metrics": lines(),
            "final": {**SCORED, "FID_trained": 1.0, "FID": finals[run.hp.loss_type.lower()][run.hp.seed - 1]},
        }
        for run in runs
    }
    rows = gan_summary.configurations(runs, results, "")
    assert [(row["name"], row["penalty"]) for row in rows] == [("cifar10-jsd-3", "R1"), ("cifar10-w1-3", "R1")]
    assert [run["seed"] for run in rows[0]["runs"]] == [1, 2, 3]
    assert rows[0]["final"]["FID"] == {"mean": 5, "deviation": 4, "values": finals["jsd"]}
    assert rows[1]["rank_correlations"]["FID_trained"]["range"][0] == rows[1]["rank_correlation"]["mean"]
    (pair,) = gan_summary.differences(rows)
    entry = pair["scores"]["FID"]
    assert entry["values"] == [-1.0, -1.5, -1.5]
    half = t.ppf(0.975, 2) * np.std(entry["values"], ddof=1) / 3**0.5
    assert entry["interval"] == pytest.approx([entry["mean"] - half, entry["mean"] + half])
    one = gan_summary.configurations(runs[::3], results, "")
    assert gan_summary.differences(one)[0]["scores"]["FID"]["interval"] is None


def test_widths_are_those_whose_runs_have_finished(tmp_path):
    for folder, width, done in (("gan", 32, True), ("gan_width_16", 16, True), ("gan_width_64", 64, False)):
        place = tmp_path / folder / "cifar10-jsd-3-7"
        config = {"config": "cifar10-jsd-3", "generator_dimh": width, "seed": 7}
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(config))
        if done:
            (place / "result.json").write_text(json.dumps({"metrics": lines(), "final": lines()[-1]}))
    rows = study.widths(tmp_path, "")
    assert [(row["name"], row["width"], row["seed"]) for row in rows] == [("cifar10-jsd-3", w, 7) for w in (16, 32)]
    assert rows[0]["curve"][:2] == [(10, 10.0), (20, 20.0)]
    gan_figures.draw_widths(tmp_path / "widths.svg", rows, "FID")
    assert (tmp_path / "widths.svg").stat().st_size > 1000


@torch.no_grad()
def test_nearest_images_are_those_of_the_whole_matrix_of_distances():
    network, queries, train = random_network(), random_images(7, 1), random_images(1203, 2)  # more than two batches
    distance, index = gan_samples.nearest(network, queries, train, neighbours=4)
    features = [network.module(images)[0].double() for images in (queries, train)]
    expected = (features[0][:, None] - features[1]).norm(dim=-1).sort(dim=1)
    np.testing.assert_allclose(distance, expected.values[:, :4], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(index, expected.indices[:, :4])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_data_copying_counts_pairs(generated, held_out):
    pairs = [1.0 if a < b else 0.5 if a == b else 0.0 for a in generated for b in held_out]
    found = gan_samples.data_copying(np.array(generated), np.array(held_out))
    assert found == pytest.approx(sum(pairs) / len(pairs))


def test_damage_grows_with_its_strength():
    test = random_images(60, 2)
    shown = images.Images("none", random_images(100, 1), test, random_network(), Management())
    kinds = gan_samples.damaged(shown, torch.arange(60) % 10, count=50)
    errors = [(batch.float() - kinds["noise"][0.0]).abs().mean() for batch in kinds["noise"].values()]
    assert errors == sorted(errors) and errors[0] == 0 and torch.equal(kinds["blur"][0.0], kinds["noise"][0.0])
    rows = {test[i].numpy().tobytes(): i % 10 for i in range(60)}
    assert {rows[image.numpy().tobytes()] for image in kinds["missing classes"][8]} == {8, 9}
    assert [len({i.numpy().tobytes() for i in batch}) for batch in kinds["memorised subset"].values()] == [50, 10, 2, 2]


def test_anchors_are_in_their_order(tmp_path):
    """Zero for the images of the reference, more for others, far more for noise."""
    real = random_images(300, 1) // 8 + 100
    shown = images.Images("none", real, random_images(100, 2) // 8 + 100, random_network(), Management())
    step = score.make_evaluation(random_network(), real, 4, tmp_path)
    held_out, trained_on, noise = (row["FID"] for row in gan_samples.anchors(shown, step, count=300))
    assert trained_on == pytest.approx(0, abs=1e-3) and trained_on < held_out < noise


def test_runs_of_a_loss_share_both_axes(tmp_path, monkeypatch):
    """The metric's axis is that of all runs of a loss, the distance's that of all runs."""
    shown = []
    monkeypatch.setattr(figures, "save", lambda drawing, path: shown.append(drawing))
    run = {"curve": [[1, 9.0, 1.0], [2, 4.0, 1.0]], "trained_curve": [[1, 8.0, 1.0], [2, 5.0, 1.0]]}
    rows = [
        {"name": f"{loss}-{i}", "loss": loss, "runs": [{**run, "metric": [[1, 0.5 / i], [2, 0.1 * i]]}]}
        for loss in ("W1", "JSD")
        for i in (1, 2)
    ]
    gan_figures.draw_curves(tmp_path / "curves.svg", rows, "FID")
    panels, right = shown[0].axes[:5], shown[0].axes[6:]
    assert [axes.get_title() for axes in panels] == ["JSD-1", "JSD-2", "W1-1", "W1-2", "all averages"]
    assert panels[0].get_ylim() == panels[1].get_ylim() and panels[2].get_ylim() == panels[3].get_ylim()
    assert len({axes.get_ylim() for axes in (*right, panels[4])}) == 1
