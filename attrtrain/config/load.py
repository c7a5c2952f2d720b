"""Preset or YAML file + flags → TrainConfig, with one clear line for anything that does not fit."""

import dataclasses
import json
import math
import re
from argparse import ArgumentError
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args, get_origin, get_type_hints

from attrtrain.config.help import CONFIG_HELP, config_help
from attrtrain.config.schema import LEAST_PX, MOST_PX, RESNETS, TIMM, TrainConfig
from attrtrain.errors import ConfigError
from attrtrain.files import legible
from attrtrain.wording import one_line

if TYPE_CHECKING:  # imported where they are used: `--help` needs neither this nor yaml
    from jsonargparse import ArgumentParser

DEFAULT_PRESET = "resnet50"
_SECTIONS: dict[str, type[Any]] = get_type_hints(TrainConfig)
_CALLED_ELSEWHERE = {
    "learning_rate": "lr",
    "batch_size": "global_batch",
    "num_epochs": "epochs",
    "num_workers": "workers",
    "output_dir": "dir",
}
YAML_ERRORS = (ValueError, LookupError, RecursionError)
"""What PyYAML raises, besides its own YAMLError, for a text that is no UTF-8, a date that no calendar has, or lists in
lists without end.
"""
_LIST_FLAGS = {
    f"--{section}.{name}{plus}"
    for section, kind in _SECTIONS.items()
    for name, hint in get_type_hints(kind).items()
    if get_origin(hint) is list
    for plus in ("", "+")
}

USAGE = """%(prog)s [PRESET or FILE.yaml] [--section.key value ...]

  accelerate launch -m attrtrain.train resnet50 --data.shards shards/coco --run.dir runs/coco
  accelerate launch -m attrtrain.train my.yaml --train.epochs 30 --optim.lr 1e-4"""


def load_config(argv: list[str], prog: str = "python -m attrtrain.train") -> TrainConfig:
    """Builds the configuration: the defaults of the schema, overridden by a preset or YAML file, overridden by flags.

    `--help` and `--print_config` print and exit.

    Args:
        argv: an optional preset name or YAML path, then flags. Without the first, the preset `resnet50`.
        prog: how the program is called, for `--help`.

    Raises:
        ConfigError: naming the file or the command line, the key, and what it takes.
    """
    if "-h" in argv or "--help" in argv:
        _print_help(prog)
    parser = _parser(prog)
    source = DEFAULT_PRESET
    if argv and not argv[0].startswith("-"):
        source, argv = argv[0], argv[1:]
    path = _config_file(source)
    alone = _parse(parser, ["--config", str(path)], source)  # so that a fault is put down to the file that has it
    config = _parse(parser, ["--config", str(path), *_join_lists(argv)], "command line")
    if not config.data.shards:
        raise ConfigError("data.shards: names no shard folder; give --data.shards DIR")
    for folder in config.data.shards:
        if (folder in presets() or folder.endswith((".yaml", ".yml"))) and not Path(folder).is_dir():
            raise ConfigError(
                f"data.shards: {folder} is no shard folder; a preset or YAML file comes first, before all flags"
            )
    if fault := _disagreement(config):
        raise ConfigError(f"{source if _disagreement(alone) == fault else 'command line'}: {fault}")
    return config


def _disagreement(config: TrainConfig) -> str:
    """Two settings that do not go together, "" where all do. A file may have some that flags then change."""
    data, train, optim = config.data, config.train, config.optim
    for scale in data.scales:
        if not LEAST_PX <= scale * data.image_px <= MOST_PX:
            return f"data.scales: {scale:g} of data.image_px, {data.image_px}, is not between {LEAST_PX} and {MOST_PX} pixels"
    if optim.warmup_epochs >= train.epochs:
        return f"optim.warmup_epochs: {optim.warmup_epochs:g} must be less than train.epochs, {train.epochs}"
    if data.repeat_below and data.order == "block":
        return "data.repeat_below: objects can be seen more often in global order only; set --data.order global"
    if optim.head_epochs and optim.head_epochs >= train.epochs:
        return f"optim.head_epochs: {optim.head_epochs:g} must be less than train.epochs, {train.epochs}; --model.frozen -1 trains the head alone"
    if train.compile and train.checkpoint_activations:
        return "train.checkpoint_activations: not together with train.compile; leave one of them off"
    return ""


def dump_config(config: TrainConfig) -> str:
    """The configuration as YAML that `load_config` reads back to an equal one."""
    import yaml

    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)


def presets() -> list[str]:
    """Names of the YAML files shipped in attrtrain/presets."""
    return sorted(
        Path(str(entry)).stem for entry in files("attrtrain.presets").iterdir() if entry.name.endswith(".yaml")
    )


def _print_help(prog: str) -> NoReturn:
    print(config_help(prog, USAGE, _description()), end="", flush=True)
    raise SystemExit(0)


def _description() -> str:
    return f"Trains a classifier of visual attributes. Presets: {', '.join(presets())}; {DEFAULT_PRESET} when none is named. Defaults below are those of a YAML file that leaves a setting out; PRESET --print_config shows a preset's."


def _parser(prog: str) -> "ArgumentParser":
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=prog,
        usage=USAGE,
        description=_description(),
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help=CONFIG_HELP)
    for name, kind in _SECTIONS.items():
        parser.add_class_arguments(kind, name)
    return parser


def _config_file(source: str) -> Path:
    preset = Path(str(files("attrtrain.presets") / f"{source}.yaml"))
    if preset.is_file():
        return preset
    path = Path(source)
    if not path.is_file():
        raise ConfigError(f"{source}: neither a preset ({', '.join(presets())}) nor a YAML file that exists")
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        _require_each_key_once(yaml.compose(text), source, set())
    except (OSError, *YAML_ERRORS, yaml.YAMLError) as error:
        raise ConfigError(f"{source}: cannot be read as YAML ({one_line(error)})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: holds no sections such as `train:`")
    for section, settings in content.items():
        if section not in _SECTIONS:
            raise ConfigError(f"{source}: {section}: no such section; there are {', '.join(_SECTIONS)}")
        if not isinstance(settings, dict):
            raise ConfigError(f"{source}: {section}: must hold settings such as `name: value`, not {settings!r}")
    if content.get("train", {}).get("precision") is False:
        raise ConfigError(f'{source}: train.precision: YAML reads a bare no as false; write "no" with quotes')
    return path


def _require_each_key_once(node: Any, source: str, seen: set[int]) -> None:
    """Refuses a key that stands twice in a mapping, of which YAML would keep the last.

    Args:
        node: as `yaml.compose` gives it.
        source: for messages.
        seen: mappings that have been looked at: aliases lead to one again and again, and to those that it lies in.
    """
    import yaml

    if isinstance(node, yaml.MappingNode) and id(node) not in seen:
        seen.add(id(node))
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if (first := lines.setdefault(str(key.value), line)) != line:
                raise ConfigError(
                    f"{source}: {key.value} stands on line {first} and again on line {line}; join the two"
                )
            _require_each_key_once(value, source, seen)


def _join_lists(argv: list[str]) -> list[str]:
    """`--data.shards a b` → `--data.shards=["a", "b"]`, and `--data.shards=a` likewise: the one spelling that
    jsonargparse takes for a list.
    """
    joined: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if equals and flag in _LIST_FLAGS and not value.startswith("["):
            joined.append(f"{flag}={_as_list([value])}")
            continue
        if word not in _LIST_FLAGS:
            joined.append(word)
            continue
        values = []
        while rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        is_list = len(values) == 1 and values[0].startswith("[")
        joined.append(f"{word}={values[0] if is_list else _as_list(values)}")
    return joined


def _as_list(values: list[str]) -> str:
    """A YAML list of texts that says each as it is."""
    return json.dumps(values, ensure_ascii=False)


def _parse(parser: "ArgumentParser", argv: list[str], source: str) -> TrainConfig:
    try:
        sections = parser.instantiate(parser.parse_args(argv))
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        raise ConfigError(f"{source}: {_told(one_line(error))}") from None
    config = TrainConfig(**{name: sections[name] for name in _SECTIONS})
    for section, kind in _SECTIONS.items():
        hints = get_type_hints(kind)
        for knob in dataclasses.fields(kind):
            value = getattr(getattr(config, section), knob.name)
            if value is None and type(None) not in get_args(hints[knob.name]):
                raise ConfigError(
                    f"{source}: {section}.{knob.name}: holds nothing; give a value, or leave the setting out"
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{source}: {section}.{knob.name}: must be a finite number, not {value}")
            for rule, bound in knob.metadata.get("bounds", {}).items():
                if value is None:
                    continue
                if not {"at least": value >= bound, "above": value > bound, "at most": value <= bound}[rule]:
                    raise ConfigError(f"{source}: {section}.{knob.name}: must be {rule} {bound}, not {value}")
    if not config.run.dir.strip():
        raise ConfigError(f"{source}: run.dir: is empty; give --run.dir the folder of the run")
    if (told := legible(config.run.dir)) != config.run.dir:
        raise ConfigError(f"{source}: run.dir: {told} is no UTF-8, and safetensors reads no model from such a folder")
    _check_backbone(config.model.backbone, source)
    return config


def _check_backbone(name: str, source: str) -> None:
    """Whether there is a timm:NAME only timm can tell, which is asked when the network is built."""
    if name in RESNETS or (name.startswith(TIMM) and name != TIMM):
        return
    close = get_close_matches(name, RESNETS, n=1)
    raise ConfigError(
        f"{source}: model.backbone: must be one of {', '.join(RESNETS)}, or {TIMM}NAME, not {name!r}"
        + (f"; did you mean {close[0]}?" if close else "")
    )


def _told(flat: str) -> str:
    """A message of jsonargparse about one key, on one line, as `key: what is wrong`."""
    if unknown := re.match(
        r"(?i:unrecognized arguments): (\S+)|Group '([\w.]+)' does not accept option '([\w.]+)'|Option '([\w.]+)'", flat
    ):
        flag, group, option, lone = unknown.groups()
        key = flag or lone or f"{group}.{option}"
        if flag and not flag.startswith("-"):
            return (
                f"{flag}: is no flag; a preset or YAML file comes first, before all flags, and a value behind its flag"
            )
        return f"{key}: no such setting{_suggestion(key.lstrip('-'))}"
    flat = re.sub(r'Parser key "([\w.]+)": ?', r"\1: ", flat)
    flat = re.sub(r"Expected a typing\.Literal\[(.*?)\]\.", r"must be one of \1.", flat)
    return re.sub(r"Expected a <class '(\w+)'>\.", r"must be of type \1.", flat)


def _suggestion(key: str) -> str:
    """What a setting that is not there may have been meant to be: one of that name, or nearly, in any section, or what
    other trainers call so.
    """
    keys = {
        knob.name: f"{section}.{knob.name}" for section, kind in _SECTIONS.items() for knob in dataclasses.fields(kind)
    }
    name = key.rpartition(".")[2]
    meant = [_CALLED_ELSEWHERE.get(name, name), *get_close_matches(name, keys, n=1, cutoff=0.7)]
    found = next((keys[one] for one in meant if one in keys), None)
    return f"; did you mean {found}?" if found else "; `--help` lists them"
