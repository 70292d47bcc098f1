"""Pack trained models, for maintainers: python -m pretrained.pack runs/vae runs/flow runs/gan/cifar10-*-31415

Each argument is the folder of a finished run. It becomes files of float16 weights, rows of ``index.json`` and of the
table in ``README.md``, and panels of the picture, in place of a model of the same name. A VAE has its folder's name.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import data
import gan
import train
import vae
from data.densities import TARGETS
from lab import checkpoint, figures
from lab.files import read_json, write_json
from lab.options import determining
from pretrained import CLASSES, HERE, index, names, pictures, read
from question1.autoencoder import VAE, evaluate_elbo
from question2 import score
from question2.configurations import CONFIGURATIONS
from question2.images import load_generator
from question3.scores import log_density, score_from_density, score_from_samples
from question3.stacked_flows import unstack

Row = dict[str, Any]
STATISTICS = HERE / "cifar10_statistics.pt"  # the classifier's features of the 50,000 training images: sums, no image


def command(start: str, defaults: Any, config: Row) -> str:
    """The command that trains a model again: what its run's configuration changes of the defaults."""
    plain = json.loads(json.dumps(determining(defaults)))  # config.json has lists in the place of tuples
    changed = {name: config[name] for name, value in plain.items() if config[name] != value}
    texts = (" ".join(map(str, value)) if isinstance(value, list) else str(value) for value in changed.values())
    return " ".join([start, *(f"--{name} {text}" for name, text in zip(changed, texts, strict=True))])


def store(row: Row, module: nn.Module, **sizes: Any) -> Any:
    """Save a model with float16 weights, and return the model that the file holds."""
    path = HERE / f"{row['name']}.pt"
    checkpoint.save(path, {**sizes, "network": checkpoint.as_float16(module)})
    return read(path, row["kind"])


def pack_vae(folder: Path, config: Row, result: Row) -> Iterator[Row]:
    """Store a VAE. Its validation ELBO is computed again, log p(x) is the run's."""
    sizes = {key: config[key] for key in ("latent_size", "num_layers", "flow_scale")}
    module = VAE(**sizes)
    module.load_state_dict(checkpoint.load(folder / "checkpoint.pt")["vae"])
    what = f"VAE of binarised MNIST, {config['epochs']} epochs"
    row = {"name": folder.name.replace("_", "-"), "kind": "vae", "what": what}
    valid = data.load(config["dataset"], config["data"])[1].valid
    scores = {"validation ELBO": evaluate_elbo(store(row, module, **sizes), valid).mean().item()}
    scores |= {f"test log p(x), K = {k}": value["mean"] for k, value in result["test_log_px"].items()}
    yield {**row, "scores": scores, "command": command("python vae.py", vae.Hyperparameters(), config)}


def pack_flows(folder: Path, config: Row, result: Row) -> Iterator[Row]:
    """Store the flows of a run, each scored again."""
    for record in result["runs"]:
        source, target, k = record["source"], record["data"], record["num_layers"]
        state = checkpoint.load(folder / record["folder"] / "checkpoint.pt")
        place = [each for each in result["runs"] if each["folder"] == record["folder"]].index(record)
        way = f"from {target} to noise" if source == "samples" else f"from noise to {target}"
        row = {"name": f"{target}-from-{source}", "kind": "flow", "what": f"planar flow, {k} layers, {way}"}
        flow = store(row, unstack(tuple(state["parameters"]))[place], dim=2, num_layers=k)
        if source == "samples":
            found = score_from_samples(flow, TARGETS[target])
            scores = {"NLL": found["nll"]["mean"], "NLL above the entropy": found["gap"]}
        else:
            scores = {"KL(q‖p)": score_from_density(flow, TARGETS[target])["kl"]["mean"]}
        again = command("python train.py", train.Hyperparameters(), config)
        yield {**row, "source": source, "target": target, "scores": scores, "command": again}


def pack_generator(folder: Path, config: Row, result: Row) -> Iterator[Row]:
    """Store the averaged generator of an image run, whose scores are those of float16 weights already."""
    name, penalty = config["config"], config["critic_reg_type"]
    critic = f", {penalty} {config['critic_reg_cf']:g}" if penalty else ""
    critic += ", spectral normalisation" if config["critic_use_sn"] else ""
    size = f"width {config['generator_dimh']}, {config['max_iters']:,} updates"
    what = f"averaged generator of CIFAR-10, {config['loss_type']}{critic}, {size}"
    row = {"name": name, "kind": "generator", "what": what}
    store(row, load_generator(folder / "generator.pt"), dimz=config["generator_dimz"], dimh=config["generator_dimh"])
    scores = {key: result["final"][key] for key in ("FID-C", "IS-C", "KID-C")}
    again = command(f"python run_exp.py --config {name}", CONFIGURATIONS[name], config)
    yield {**row, "scores": scores, "command": again}


@torch.no_grad()
def measure(model: Any, row: Row) -> float:
    """A number by which tests tell trained weights from damaged ones, in a second and without a data set; no score.

    Of a VAE the ELBO of the stand-in's validation images, of a flow the negative log-likelihood of 1,000 points of its
    target, both in nats; of a generator FID-C with 500 images.
    """
    if row["kind"] == "vae":
        return evaluate_elbo(model, data.digits().valid).mean().item()
    if row["kind"] == "flow":
        points = torch.from_numpy(TARGETS[row["target"]].draw(count=1000))
        return -log_density(model, row["source"], points).mean().item()
    real = () if STATISTICS.exists() else score.batches(data.cifar10(data.default_root()).train)
    evaluate = gan.make_eval_step(STATISTICS, real, model.dimz, network=score.own_classifier().module)
    batch = torch.zeros(500, 3, 32, 32)  # stands for real images, which only the critic would see
    # By its call: a module's batch-norm statistics would be recomputed.
    return evaluate([batch], lambda x: x.new_zeros(len(x)), model.__call__)[1]["FID"]


def as_line(row: Row) -> str:
    """A row of the index as a row of the README's table."""
    scores = ", ".join(f"{name} {value:.4g}" for name, value in row["scores"].items())
    cells = [f"`{row['name']}`", row["what"], scores, f"{row['bytes'] / 1000:.0f}", f"`{row['command']}`"]
    return f"| {' | '.join([*cells, row['sha256']])} |\n"


def main() -> None:
    """The command line."""
    rows = index()
    for folder in map(Path, sys.argv[1:]):
        config, result = read_json(folder / "config.json") or {}, read_json(folder / "result.json") or {}
        pack = pack_generator if "config" in config else pack_vae if "posterior" in config else pack_flows
        for row in pack(folder, config, result):
            path = HERE / f"{row['name']}.pt"
            known = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            rows[row["name"]] = {**row, **known, "check": measure(read(path, row["kind"]), row)}
            print(row["name"], row["scores"])
    ordered = sorted(rows.values(), key=lambda row: (list(CLASSES).index(row["kind"]), row["name"]))
    write_json(HERE / "index.json", ordered)
    page, table = HERE / "README.md", "".join(map(as_line, ordered))
    page.write_text(re.sub(r"(\| `.*\n)+", lambda _: table, page.read_text(encoding="utf-8")), encoding="utf-8")
    figures.save(pictures.sheet(names()), HERE / "pretrained.jpg")


if __name__ == "__main__":
    main()
