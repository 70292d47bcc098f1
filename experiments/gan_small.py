"""Question 2.7 in a minute: the step with R1 on a stand-in, with networks so narrow that a CPU shows digits."""

from typing import Any

from experiments.gan import SEEDS, frame, suffix_of
from experiments.gan_figures import draw_curves
from experiments.gan_summary import configurations
from experiments.options import Options
from lab.figures import captioned
from question2 import image_plots, images
from question2.configurations import Management, plan

MINUTES = {"quick": 1.2, "assignment": 1.5, "full": 1.5}
# Large steps and an average of short memory, so that minutes suffice.
SMALL: dict[str, Any] = {
    "generator_dimh": 8,
    "critic_dimh": 8,
    "generator_dimz": 16,
    "batch_size": 16,
    "generator_lr": 2e-3,
    "critic_lr": 4e-3,
    "generator_alpha_ema": 0.99,
    "max_iters": 800,
}
MANAGED: dict[str, Any] = {
    "dataset": "digits",
    "scores": "classifier",
    "log_every": 10,
    "eval_every": 100,
    "eval_samples": 500,
    "final_samples": 1000,
}


def run(options: Options) -> dict[str, Any]:
    """Both losses with R1, or go on with them, and draw what came of it."""
    management = Management(exp_path=str(options.folder / "gan_small"), device=options.device, **MANAGED)
    runs, data, results = images.run_all(plan("cifar10-*-3", options.seeds(SEEDS[:1]), management, **SMALL))
    suffix = suffix_of(data)
    rows = configurations(runs, results, suffix)
    for one, row in zip(runs, rows, strict=True):
        row["name"] = one.name.removeprefix("cifar10-")
        caption = f"{row['name']} on the digits: the metric and the distance FID{suffix} over training."
        path = captioned(options.figures / f"gan_small_curve_{one.hp.loss_type}.svg", caption)
        draw_curves(path, [{**row, "name": f"{one.hp.loss_type} with R1, digits"}], f"FID{suffix}")
        caption = f"{row['name']} on the digits: images of the same noise over training, one row for each update."
        path = captioned(options.figures / f"gan_small_sheet_{one.hp.loss_type}.png", caption)
        image_plots.save_sheet(path, one.folder)
    return {**frame(runs, data, "small"), "configurations": rows}
