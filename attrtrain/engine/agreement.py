"""Whether all processes mean the same run: each reads a command line, YAML files and shards of its own, which on
several machines need not be alike. Nothing else would notice: each would go on with its part of another order, or wait
for others at another step.
"""

import json
from dataclasses import asdict

from attrtrain.config.changes import changes, is_of_all
from attrtrain.config.schema import TrainConfig
from attrtrain.data.reader import ShardSet
from attrtrain.errors import ConfigError, ShardError
from attrtrain.runtime import Runtime


def require_same_settings(runtime: Runtime, config: TrainConfig) -> None:
    """Refuses settings that are not the main process's. Collective.

    Raises:
        ConfigError: on every process; those whose settings differ name them.
    """
    (told,) = runtime.from_main(json.dumps(asdict(config)))
    differing = [
        f"{'.'.join(key)}: {own} here, {main} there"
        for key, (main, own) in changes(json.loads(told), config).items()
        if is_of_all(key)
    ]
    if runtime.any_rank(bool(differing))[0]:
        raise ConfigError(
            f"settings are not those of the main process for all others ({'; '.join(differing) or 'their logs name them'}); start each with the same command and files"
        )


def require_same_shards(runtime: Runtime, shards: ShardSet) -> None:
    """Refuses shards that are not the main process's, wherever they lie. Collective.

    Raises:
        ShardError: on every process; those whose shards differ name them.
    """
    (told,) = runtime.from_main(shards.fingerprint)
    differs = told != shards.fingerprint
    if runtime.any_rank(differs)[0]:
        places = ", ".join(map(str, shards.folders))
        raise ShardError(
            f"{places}: {'here they are other' if differs else 'for another process they are other'} shards than for the main process; "
            "copy the same ones to each machine, or give a folder that all of them see"
        )
