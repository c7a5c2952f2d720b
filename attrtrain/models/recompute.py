"""Activation checkpointing (Chen et al., "Training deep nets with sublinear memory cost", 2016): computed again in the
backward pass instead of kept.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attrtrain.errors import ConfigError
from attrtrain.models.network import AttributeModel


def checkpoint_activations(model: AttributeModel) -> None:
    """Has a backbone's stages or blocks keep only what goes into them. Losses, gradients and batch statistics stay what
    they are without.

    Raises:
        ConfigError: the backbone is one of the few of timm's that cannot.
    """
    try:
        model.backbone.set_grad_checkpointing(True)  # type: ignore[operator]  # a method of both kinds
    except (AssertionError, AttributeError):
        raise ConfigError(
            f"train.checkpoint_activations: {type(model.backbone).__name__} cannot; leave it off, or lower train.micro_batch"
        ) from None
    _Statistics(model)


_TRACKED = ("running_mean", "running_var", "num_batches_tracked")


class _Statistics:
    """Keeps batch statistics from taking in a batch twice: what runs outside the model's own forward pass is that pass
    once more.
    """

    def __init__(self, model: AttributeModel) -> None:
        self._is_forward = False
        self._held: dict[nn.Module, dict[str, Tensor]] = {}
        model.register_forward_pre_hook(self._begin)
        model.register_forward_hook(self._end, always_call=True)
        for part in model.backbone.modules():
            if isinstance(part, _BatchNorm) and part.track_running_stats:
                part.register_forward_pre_hook(self._hold)
                # Computing again stops, by an exception, once all that is needed is there.
                part.register_forward_hook(self._release, always_call=True)

    def _begin(self, *_: Any) -> None:
        self._is_forward = True

    def _end(self, *_: Any) -> None:
        self._is_forward = False

    def _hold(self, norm: _BatchNorm, *_: Any) -> None:
        if norm.training and not self._is_forward:
            self._held[norm] = {name: buffer for name, buffer in norm.named_buffers() if name in _TRACKED}
            for name, buffer in self._held[norm].items():
                setattr(norm, name, buffer.clone())  # what takes the batch in instead

    def _release(self, norm: _BatchNorm, *_: Any) -> None:
        for name, buffer in self._held.pop(norm, {}).items():
            setattr(norm, name, buffer)
