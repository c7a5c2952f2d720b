"""Backbones of timm by name, and their weights. timm is imported here, in `layers.py` and in `decoder.py` alone, and
only when it is used: importing it takes seconds.
"""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from attrtrain.config.schema import RGB, Interpolation
from attrtrain.errors import ConfigError, WeightsError
from attrtrain.wording import first_line


def build_timm(name: str, image_px: int) -> nn.Module:
    """A timm model with random weights and no classifier, for square images of one size.

    Models whose parameters depend on the size of their input, as those of vision transformers do, are built for
    `image_px`.

    Args:
        name: with or without a tag, such as `convnext_tiny` or `convnext_tiny.in12k_ft_in1k`; the tag chooses
            pretrained weights.

    Raises:
        ConfigError: timm has no such model, or it cannot take that size.
    """
    import timm

    _require(name)
    cfg = timm.models.get_pretrained_cfg(name)
    sizes: list[dict[str, Any]] = [{}]
    if cfg is not None and cfg.fixed_input_size:
        # Where a model can resample its positions, crops may be looked at in other sizes too (`data.scales`, `evaluate
        # --tta-scales`).
        sizes = [{"img_size": image_px, "dynamic_img_size": True}, {"img_size": image_px}]
    for attempt in sizes:
        try:
            network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **attempt)
            break
        except TypeError:  # a model that has no such argument
            if attempt is sizes[-1]:
                raise
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"data.image_px: timm:{name} cannot be built for {image_px} x {image_px} pixels ({first_line(error)}); try a multiple of 32, or the "
                f"size it was made for, {cfg.input_size[-1] if cfg is not None else 224}"
            ) from None
    require_size(network, f"timm:{name}", image_px)
    return network


def require_size(network: nn.Module, name: str, image_px: int) -> None:
    """Refuses a size that a vision transformer's patches do not divide.

    Raises:
        ConfigError: it says which sizes nearby do.
    """
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    side = patch[0] if isinstance(patch, tuple) else patch
    if isinstance(side, int) and image_px % side:
        below = image_px // side * side
        nearby = " or ".join(str(size) for size in (below, below + side) if size >= 32)
        raise ConfigError(
            f"data.image_px: {name} cuts pictures into patches of {side} pixels, which do not divide {image_px}; take {nearby}"
        )


def normalisation(name: str) -> tuple[RGB, RGB]:
    """Mean and standard deviation (3) of RGB in [0, 1] that a timm model's weights were trained with."""
    import timm

    cfg = timm.models.get_pretrained_cfg(name)
    return _three(cfg.mean), _three(cfg.std)


def resizing(name: str) -> tuple[int, Interpolation]:
    """Side, in pixels, of the pictures that a timm model's weights were trained on, and how they were resized to that;
    bilinear where timm says neither of the two.
    """
    import timm

    cfg = timm.models.get_pretrained_cfg(name)
    return int(cfg.input_size[-1]), "bicubic" if cfg.interpolation == "bicubic" else "bilinear"


def _three(values: Sequence[float]) -> RGB:
    red, green, blue = values
    return red, green, blue


def try_out(model: nn.Module, image_px: int, name: str) -> None:
    """Puts one picture through a model, forwards and backwards, before anything is trained. Weights and statistics stay
    as they are.

    Parameters that logits do not depend on, such as a norm behind the pooling that an ml_decoder head does without,
    stop learning here: processes that train together would wait for their gradients.

    Raises:
        ConfigError: the backbone cannot take such a picture, or gives what the head cannot take.
    """
    was_training = model.training
    model.eval()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        logits = model(torch.zeros(1, 3, image_px, image_px))
        gradients = torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"model.backbone: {name} cannot be trained on pictures of {image_px} x {image_px} pixels with this head ({first_line(error)})"
        ) from None
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            parameter.requires_grad_(False)
    model.train(was_training)


def refusal(model: nn.Module, side: int) -> str | None:
    """Puts one picture of `side` x `side` pixels through a model, which some vision transformers take in one size
    alone.

    Returns:
        The first line of what it says against it; None where it takes it.
    """
    was_training = model.training
    model.eval()
    picture = torch.zeros(1, 3, side, side, device=next(model.parameters()).device)
    try:
        with torch.no_grad():  # and no inference mode: what a model may keep of this is trained with later
            model(picture)
    except (AssertionError, RuntimeError, ValueError) as error:
        return first_line(error)
    finally:
        model.train(was_training)
    return None


def load_pretrained(network: nn.Module, name: str, tensors: dict[str, Tensor] | None) -> tuple[list[str], list[str]]:
    """Fills a timm model from its own pretrained weights, which are downloaded, or from a state dict in the names timm
    reads.

    timm translates what its models' authors published, resamples positions for another size of picture, and leaves the
    classifier out.

    Returns:
        Names of tensors that the weights lacked, and of those they had too much.

    Raises:
        WeightsError: there are none, they cannot be downloaded, or have other shapes.
    """
    import timm

    cfg: dict[str, Any] = dict(network.pretrained_cfg)  # type: ignore[arg-type]  # timm's attribute
    if tensors is not None:
        cfg |= {"state_dict": tensors, "custom_load": False, "source": ""}
    elif not (cfg.get("url") or cfg.get("hf_hub_id")):
        tagged = timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True)
        others = f"; with weights there are timm:{', timm:'.join(tagged[:3])}" if tagged else ""
        raise WeightsError(
            f"model.weights: timm has no pretrained weights of {name}; train from random ones with --model.weights none{others}"
        )
    found: list[tuple[list[str], list[str]]] = []
    handle = network.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]  # torch gives it no types
        lambda _, keys: found.append((list(keys.missing_keys), list(keys.unexpected_keys)))
    )
    # Each of timm's modules keeps its translation under this name.
    translate = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    try:
        timm.models.load_pretrained(network, cfg, num_classes=0, filter_fn=translate, strict=False)
    except Exception as error:  # noqa: BLE001  # of the Hub's client, of its transport, of timm: all mean the same
        raise _unloadable(name, cfg, error, is_local=tensors is not None) from None
    finally:
        handle.remove()
    if not found:
        raise WeightsError(
            f"model.weights: timm loads {name} in a way that cannot be checked; give --model.weights PATH"
        )
    missing, unexpected = found[-1]
    return missing, unexpected


def classifier_of(network: nn.Module) -> tuple[str, ...]:
    """Names of the layers that are the classifier in a timm model's state dict."""
    names = network.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr,operator]  # timm's attribute
    return (names,) if isinstance(names, str) else tuple(names)


def _require(name: str) -> None:
    import timm

    if name and ":" not in name and "/" not in name and timm.is_model(name):
        known = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        if "." not in name or name in known:
            return
        raise ConfigError(f"model.backbone: timm:{name} has no such tag; there are {_listed(known) or 'none'}")
    stem = name.partition(".")[0]
    close = get_close_matches(stem, timm.list_models(), n=3)
    raise ConfigError(
        f"model.backbone: timm {timm.__version__} has no model {name!r}"
        + (f"; did you mean {_listed(close)}?" if close else "; `timm.list_models()` names those it has")
    )


def _listed(names: list[str]) -> str:
    return ", ".join(f"timm:{name}" for name in names[:5])


def _unloadable(name: str, cfg: dict[str, Any], error: Exception, is_local: bool) -> WeightsError:
    reason = first_line(error) or type(error).__name__
    if is_local:
        return WeightsError(f"model.weights: they do not fit timm:{name} ({reason}); give weights of that model")
    if repository := cfg.get("hf_hub_id"):
        file = f"{cfg.get('hf_hub_filename') or 'model.safetensors'} of https://huggingface.co/{repository}"
    else:
        file = str(cfg["url"])
    return WeightsError(
        f"model.weights: timm's weights of {name} cannot be downloaded here ({reason}); copy {file} from another machine and give "
        "--model.weights PATH, or train from random ones with --model.weights none"
    )
