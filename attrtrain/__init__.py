"""attrtrain: from labelled objects in photographs to a classifier of visual attributes.

`load_model(path)` gives a trained model; everything else is reached through `attrtrain <command>` or its modules.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_model"]

if TYPE_CHECKING:
    from attrtrain.bundle import load_model


def __getattr__(name: str) -> Any:  # torch is imported when a model is asked for, not with the package
    if name == "load_model":
        from attrtrain.bundle import load_model

        return load_model
    raise AttributeError(f"module 'attrtrain' has no attribute '{name}'")
