"""Draw from every trained model that ships: python -m pretrained"""

from collections.abc import Sequence
from dataclasses import dataclass

from lab import figures, interruption
from lab.options import check, option, parse
from pretrained import index, names, pictures


@dataclass
class Options:
    """What to draw."""

    seed: int = option(0, at_least=0)  # of the noise
    out: str = "pretrained.png"  # the picture; its ending is its format

    def __post_init__(self) -> None:
        check(self)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    about = "Draw 64 images from each trained model that ships, and each flow's density."
    options = parse(Options, about, argv, program="python -m pretrained")
    with interruption.one_line_errors():
        figures.save(pictures.sheet(names(), options.seed, progress=True), options.out)
        for name, row in index().items():
            print(f"{name:18} {row['what']}")
        print(f"written: {options.out}")


if __name__ == "__main__":
    main()
