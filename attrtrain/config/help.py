"""`attrtrain train --help`, drawn from the schema: its names, types, ranges, defaults and the docstrings under its
fields.

Parsing is jsonargparse's; importing it and letting it find the same docstrings takes a second, which a question about a
flag need not.
"""

import argparse
import ast
import dataclasses
import inspect
from typing import Any, Literal, get_args, get_origin, get_type_hints

from attrtrain.config.schema import TrainConfig

CONFIG_HELP = "A YAML file laid over the preset that is named first, or over resnet50. A file that is named first itself is laid over the defaults below."
_PRINT_CONFIG_HELP = (
    "Print what would be used, as YAML, and exit. FLAGS, joined by commas: skip_default, skip_unset."  # jsonargparse's
)
_SECTION_HELP = "A YAML file that holds this section alone."


def config_help(prog: str, usage: str, description: str) -> str:
    """The help text: every knob with its explanation, type, range and default, section by section.

    Args:
        prog: how the program is called.
        usage: with %(prog)s in it.
        description: what the program does.
    """
    parser = argparse.ArgumentParser(prog=prog, usage=usage, description=_plain(description), add_help=False)
    options = parser.add_argument_group("options")
    options.add_argument("-h", "--help", action="store_true", help="Show this and exit.")
    options.add_argument("--config", metavar="FILE", help=CONFIG_HELP)
    options.add_argument("--print_config", nargs="?", metavar="=FLAGS", help=_PRINT_CONFIG_HELP)
    for section, kind in get_type_hints(TrainConfig).items():
        group = parser.add_argument_group(_plain(inspect.getdoc(kind) or section).rstrip("."))
        group.add_argument(f"--{section}", metavar="FILE", help=_SECTION_HELP)
        explanations, types = field_docstrings(kind), get_type_hints(kind)
        for knob in dataclasses.fields(kind):
            text = _plain(f"{explanations[knob.name]} ({_facts(knob, types[knob.name])})")
            flags = [f"--{section}.{knob.name}"]
            if get_origin(types[knob.name]) is list:
                flags.append(f"--{section}.{knob.name}+")  # adds to what a file names
            group.add_argument(*flags, metavar=_metavar(types[knob.name]), help=text)
    return parser.format_help()


def field_docstrings(kind: type[Any]) -> dict[str, str]:
    """The docstring under each field of a class, by name, on one line; "" where there is none."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for place, statement in enumerate(body.body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            following = body.body[place + 1] if place + 1 < len(body.body) else None
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            text = following.value.value if is_text else ""  # type: ignore[union-attr]  # is_text says so
            found[statement.target.id] = inspect.cleandoc(str(text))
    return found


def _facts(knob: "dataclasses.Field[Any]", kind: Any) -> str:
    """Such as `type: int, at least 1, default: 10`."""
    default = knob.default_factory() if knob.default_factory is not dataclasses.MISSING else knob.default
    bounds = [f"{rule} {bound:g}" for rule, bound in knob.metadata.get("bounds", {}).items()]
    shown = (
        str(default).lower()
        if isinstance(default, bool)
        else {"": "empty", "None": "null"}.get(str(default), str(default))
    )
    return ", ".join([f"type: {_type_name(kind)}", *bounds, f"default: {shown}"])


def _type_name(kind: Any) -> str:
    if _choices(kind):
        return "str"
    return kind.__name__ if get_origin(kind) is None else str(kind)


def _metavar(kind: Any) -> str:
    if choices := _choices(kind):
        return f"{{{','.join(map(str, choices))}}}"
    if get_origin(kind) is list:
        return "ITEM ..."
    return {str: "TEXT", int: "N", float: "X", float | None: "X", bool: "{true,false}"}.get(
        kind, _type_name(kind).upper()
    )


def _choices(kind: Any) -> tuple[Any, ...]:
    """What a Literal, or a union of several, lets one choose from; nothing for other types."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    parts = [_choices(part) for part in get_args(kind)]
    return tuple(choice for part in parts for choice in part) if parts and all(parts) else ()


def _plain(text: str) -> str:
    """For argparse, to which % means something."""
    return text.replace("%", "%%")
