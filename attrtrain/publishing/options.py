"""What `attrtrain card` and `attrtrain push` take alike: what no file of a run says of a model."""

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CardOptions:
    """What a model card says besides what files say.

    Attributes:
        license: the Hub's identifier of the model's license, such as apache-2.0; None is told as not stated.
        datasets: identifiers of data sets on the Hub that the model was trained on.
        evaluation: folder with the metrics.json to tell of; None for the run's own.
    """

    license: str | None = None
    datasets: tuple[str, ...] = ()
    evaluation: Path | None = None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "CardOptions":
        """The options of a command line that `add_arguments` declared."""
        return cls(arguments.license, tuple(arguments.datasets), arguments.evaluation)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the run and the options."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory, or a bundle")
    parser.add_argument("--license", metavar="ID", help="the model's license, such as apache-2.0 (default: not stated)")
    parser.add_argument(
        "--datasets", nargs="+", default=[], metavar="ID", help="data sets of the Hub that it was trained on"
    )
    parser.add_argument(
        "--evaluation",
        type=Path,
        metavar="DIR",
        help="what `attrtrain evaluate --out DIR` wrote, to tell of instead of the run's own evaluation",
    )
