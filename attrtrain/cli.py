"""`attrtrain <command>`. A command's module is imported only when it is called, so that `--help` answers at once."""

import argparse
import importlib
import io
import sys
from typing import NoReturn

from attrtrain.entry_point import exit_code_of
from attrtrain.process_exit import run_program

# name → (module, what it does). The text stands here so that listing the commands imports none of them.
COMMANDS = {
    "shard": ("attrtrain.shard", "cut labelled objects out of photographs and pack them into shards"),
    "verify": ("attrtrain.verify", "reread every byte of shard folders against their manifests"),
    "audit": ("attrtrain.audit", "tell whether labels are learnable or noise, and what is odd about them"),
    "find": ("attrtrain.find", "find a learning rate and a micro-batch for a configuration"),
    "train": ("attrtrain.train", "train a model (the same as `python -m attrtrain.train`)"),
    "evaluate": ("attrtrain.evaluate", "measure a trained model on shards"),
    "report": ("attrtrain.report_command", "write a run's report anew, or compare two runs"),
    "card": (
        "attrtrain.card",
        "write a model card: what a model does, how good it is beside guessing, and where it fails",
    ),
    "push": (
        "attrtrain.push",
        "write a model with its card as a folder for others, and upload it to the Hugging Face Hub",
    ),
    "score": ("attrtrain.score", "judge anybody's predictions from files of scores and labels"),
    "predict": ("attrtrain.predict", "tell the attributes of objects in a photograph"),
    "export": ("attrtrain.export", "write a model as one file that runs without attrtrain"),
    "serve": (
        "attrtrain.serve",
        "answer over HTTP what a model says of objects in photographs, with a page to try it",
    ),
    "annotate": ("attrtrain.annotate", "tell the attributes of every object of a data set"),
    "features": ("attrtrain.features", "write the features a model sees in every object of a data set"),
    "search": ("attrtrain.search", "find objects by their attributes, or by what they look like"),
}

# Of these a second run takes up what the first had done. By name, for one may be stopped before its module is there.
_GO_ON = ("shard", "train", "annotate", "features")


def program() -> NoReturn:
    """The program `attrtrain`."""
    run_program(main)


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code. A user's mistake becomes one line on stderr."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that lacks a character, or a path that is no text, ends no command.
        sys.stdout.reconfigure(errors="replace")
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] not in COMMANDS:
        return _without_command(argv)
    again = "run the same command again to go on" if argv[0] in _GO_ON else "the same command begins anew"
    return exit_code_of(lambda: _run(argv[0], argv[1:]), again)


def _run(name: str, rest: list[str]) -> int:
    module_name, purpose = COMMANDS[name]
    module = importlib.import_module(module_name)
    if name == "train":  # its flags are the config's, parsed where the config lives
        return int(module.main(rest))
    parser = argparse.ArgumentParser(
        f"attrtrain {name}",
        description=purpose,
        epilog=module.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    arguments, more = parser.parse_known_args(rest)
    if getattr(module, "TAKES_MORE", False):
        arguments.more = more
    elif more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    exit_code = int(module.run(arguments))
    sys.stdout.flush()  # here, where a reader that has gone is caught
    return exit_code


def _without_command(argv: list[str]) -> int:
    from attrtrain import __version__

    parser = argparse.ArgumentParser(
        "attrtrain",
        description="Labelled objects in photographs → a classifier of visual attributes.",
        epilog="commands:\n"
        + "\n".join(f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items())
        + "\n\n`attrtrain COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="attrtrain COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"attrtrain {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    if not argv:
        parser.print_help()
        return 2
    parser.parse_args(argv)
    return 0


if __name__ == "__main__":
    program()
