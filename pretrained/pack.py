"""Pack trained models, for maintainers: python -m pretrained.pack runs/vae runs/flow runs/gan/cifar10-*-31415

Each argument is the folder of a run. A finished one becomes a file of float16 weights and a row of ``index.json``, from
which ``README.md`` and the picture are made; a model of the same name is replaced. A VAE is named after its folder.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

import data
import gan
import train
import vae
from data.densities import TARGETS
from lab import checkpoint, figures
from lab.files import atomic_write, read_json, write_json
from lab.options import determining
from pretrained import CLASSES, HERE, index, names, pictures, read
from pretrained.check import STATISTICS, measure
from question1.autoencoder import VAE, evaluate_elbo
from question2 import score
from question2.configurations import CONFIGURATIONS
from question2.images import load_generator
from question3.scores import score_from_density, score_from_samples
from question3.stacked_flows import unstack

Row = dict[str, Any]
README = """# Trained models

`python -m pretrained` draws from all of them. In Python:

```python
import torch
import pretrained

print(pretrained.names())
images = torch.sigmoid(pretrained.load("vae").decode(torch.randn(64, 100)))  # 28×28 pixel probabilities
```

`load` returns the module in evaluation mode. The files hold float16 weights; the scores were computed with them. To use
a model in a program elsewhere, start it with `PYTHONPATH=FOLDER python program.py`, where FOLDER is this project's.
ELBO, log p(x), NLL and KL are in nats. FID-C, IS-C and KID-C use the features of the project's own classifier.

| name | what | scores | kB | trained by | SHA-256 of the file |
|---|---|---|---|---|---|
{}

![one panel for each model](pretrained.jpg)

This page, `index.json` and the picture are written by `python -m pretrained.pack RUN ...`.
"""


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
    module.load_state_dict((checkpoint.load(folder / "checkpoint.pt") or {})["vae"])
    what = f"VAE of binarised MNIST, {config['epochs']} epochs"
    row = {"name": folder.name.replace("_", "-"), "kind": "vae", "what": what}
    valid = data.load(config["dataset"], config["data"])[1].valid
    scores = {"validation ELBO": evaluate_elbo(store(row, module, **sizes), valid).mean().item()}
    scores |= {f"test log p(x), K = {k}": value["mean"] for k, value in result["test_log_px"].items()}
    yield {**row, "scores": scores, "command": command("python vae.py", vae.Hyperparameters(), config)}


def pack_flows(folder: Path, config: Row, result: Row) -> Iterator[Row]:
    """Store the flows of a run, each scored again."""
    again = command("python train.py", train.Hyperparameters(), config)
    for record in result["runs"]:
        source, target, k = record["source"], record["data"], record["num_layers"]
        state = checkpoint.load(folder / record["folder"] / "checkpoint.pt") or {}
        place = [each for each in result["runs"] if each["folder"] == record["folder"]].index(record)
        way = f"from {target} to noise" if source == "samples" else f"from noise to {target}"
        row = {"name": f"{target}-from-{source}", "kind": "flow", "what": f"planar flow, {k} layers, {way}"}
        flow = store(row, unstack(tuple(state["parameters"]))[place], dim=2, num_layers=k)
        if source == "samples":
            found = score_from_samples(flow, TARGETS[target])
            scores = {"NLL": found["nll"]["mean"], "NLL above the entropy": found["gap"]}
        else:
            scores = {"KL(q‖p)": score_from_density(flow, TARGETS[target])["kl"]["mean"]}
        yield {**row, "source": source, "target": target, "scores": scores, "command": again}


def pack_generator(folder: Path, config: Row, result: Row) -> Iterator[Row]:
    """Store the averaged generator of an image run, whose scores are those of float16 weights already."""
    if not STATISTICS.exists():
        real = score.batches(data.cifar10(config["data_path"]).train)
        gan.make_eval_step(STATISTICS, real, config["generator_dimz"], network=score.own_classifier().module)
    name, final = config["config"], result["final"]
    play = [config["loss_type"]]
    play += [f"{config['critic_reg_type']} {config['critic_reg_cf']:g}"] if config["critic_reg_type"] else []
    play += ["spectral normalisation"] if config["critic_use_sn"] else []
    size = f"width {config['generator_dimh']}, {config['max_iters']:,} updates"
    row = {"name": name, "kind": "generator", "what": f"averaged generator of CIFAR-10, {', '.join(play)}, {size}"}
    generator = load_generator(folder / "generator.pt")
    store(row, generator, dimz=generator.dimz, dimh=config["generator_dimh"])
    scores = {key: final[key] for key in ("FID-C", "IS-C", "KID-C")}
    again = command(f"python run_exp.py --config {name}", CONFIGURATIONS[name], config)
    yield {**row, "scores": scores, "command": again}


def finish(row: Row) -> Row:
    """A row with what is known of the file itself."""
    path = HERE / f"{row['name']}.pt"
    content = path.read_bytes()
    known = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {**row, **known, "check": measure(read(path, row["kind"]), row)}


def as_line(row: Row) -> str:
    """A row of the index as a row of the README's table."""
    scores = ", ".join(f"{name} {value:.4g}" for name, value in row["scores"].items())
    cells = [f"`{row['name']}`", row["what"], scores, f"{row['bytes'] / 1000:.0f}", f"`{row['command']}`"]
    return f"| {' | '.join([*cells, row['sha256']])} |"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    rows = index() if (HERE / "index.json").exists() else {}
    for folder in map(Path, sys.argv[1:] if argv is None else argv):
        config, result = read_json(folder / "config.json"), read_json(folder / "result.json")
        if config is None or result is None:
            print(f"{folder} has not finished: left out")
            continue
        pack = pack_generator if "config" in config else pack_vae if "posterior" in config else pack_flows
        for row in pack(folder, config, result):
            rows[row["name"]] = finish(row)
            print(row["name"], row["scores"])
    ordered = sorted(rows.values(), key=lambda row: (list(CLASSES).index(row["kind"]), row["name"]))
    write_json(HERE / "index.json", ordered)
    with atomic_write(HERE / "README.md") as temporary:
        temporary.write_text(README.format("\n".join(map(as_line, ordered))), encoding="utf-8")
    figures.save(pictures.sheet(names()), HERE / "pretrained.jpg")


if __name__ == "__main__":
    main()
