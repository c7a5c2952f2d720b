"""Where a network's weights come from. Nothing is left at random in silence: what does not fit is reported or
refused.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from attrtrain.config.schema import TIMM
from attrtrain.downloads import head_of, left_instead
from attrtrain.errors import WeightsError
from attrtrain.models.network import AttributeModel
from attrtrain.wording import first_line


def load_backbone_weights(model: AttributeModel, backbone: str, source: str) -> str:
    """Fills a model's backbone; its head stays as it is.

    Args:
        source: "imagenet", "none", or the path of a .safetensors or .pth file with torchvision's or timm's names, or
            attrtrain's.

    Returns:
        One line that says what was loaded and what of the file was not used.

    Raises:
        WeightsError: no network and no cached download, an unreadable file, or one that lacks part of the backbone.
    """
    if source == "none":
        return "weights: none, the backbone starts at random"
    if backbone.startswith(TIMM):
        return _load_timm(model.backbone, backbone.removeprefix(TIMM), source)
    match source:
        case "imagenet":
            tensors, origin = _download(backbone), "torchvision's ImageNet weights"
        case path:
            tensors, origin = read_tensors(Path(path)), path
    tensors, dropped = _backbone_part(tensors)
    expected = model.backbone.state_dict()
    missing = sorted(name for name in expected if name not in tensors and not name.endswith("num_batches_tracked"))
    differing = sorted(name for name in expected if name in tensors and tensors[name].shape != expected[name].shape)
    if tensors and expected.keys().isdisjoint(tensors):  # of another network, or of this one with a prefix to its names
        raise WeightsError(
            f"model.weights: {origin} has names of its own, such as {min(tensors)}; rename them as torchvision does, such as {min(expected)}"
        )
    if missing or differing:
        what = (
            f"lacks {len(missing)} of {len(expected)} tensors (first: {missing[0]})"
            if missing
            else f"has other shapes (first: {differing[0]})"
        )
        raise WeightsError(f"model.weights: {origin} {what}, so it is no {backbone}; give weights of that backbone")
    unused = sorted(set(tensors) - set(expected))
    tensors, capped = _in_single_precision({name: tensors[name] for name in expected if name in tensors}, origin)
    model.backbone.load_state_dict(tensors, strict=False)
    told = [f"weights: {len(expected) - len(missing)} tensors of {backbone} from {origin}"]
    if dropped:
        told.append(f"its classifier ({', '.join(dropped)}) left out")
    if unused:
        told.append(f"{len(unused)} unknown tensors not used (first: {unused[0]})")
    return "; ".join([*told, *capped])


def _load_timm(network: nn.Module, name: str, source: str) -> str:
    from attrtrain.models import timm_backbone

    told = []
    if source == "imagenet":
        tensors, origin = None, "timm's pretrained weights"
    else:
        tensors, origin = read_tensors(Path(source)), source
        # Attrtrain's names; timm has layers of its own that begin with "head.".
        if any(key.startswith("backbone.") for key in tensors):
            dropped = sorted(key for key in tensors if not key.startswith("backbone."))
        else:
            classifiers = tuple(f"{layer}." for layer in timm_backbone.classifier_of(network))
            dropped = sorted(key for key in tensors if key.startswith(classifiers))
        if dropped:
            told.append(f"its classifier ({', '.join(dropped)}) left out")
        tensors, capped = _in_single_precision(
            {key.removeprefix("backbone."): value for key, value in tensors.items() if key not in dropped}, origin
        )
        told += capped
    missing, unexpected = timm_backbone.load_pretrained(network, name, tensors)
    missing = sorted(key for key in missing if not key.endswith("num_batches_tracked"))
    expected = len(network.state_dict())
    if missing:
        raise WeightsError(
            f"model.weights: {origin} lacks {len(missing)} of {expected} tensors (first: {missing[0]}), so it is no timm:{name}; give weights of that model"
        )
    if unexpected:
        told.append(f"{len(unexpected)} unknown tensors not used (first: {min(unexpected)})")
    return "; ".join([f"weights: {expected} tensors of timm:{name} from {origin}", *told])


def _in_single_precision(tensors: dict[str, Tensor], origin: str) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors as float32, and what there is to say of them.

    A variance beyond 65,504 is infinite in a file of half precision. Batch normalisation would make that channel a
    constant for ever, since a running mean of infinity stays infinite, and a moving average of weights no number at
    all. The largest half stands in for it: a few steps of training, or the next digits of a channel that is divided by
    256 anyway, are all that it is off by.

    Raises:
        WeightsError: another value is no finite number.
    """
    single, told = {}, []
    for name, tensor in tensors.items():
        single[name] = tensor.float() if tensor.is_floating_point() else tensor
        if not tensor.is_floating_point() or tensor.isfinite().all():
            continue
        too_large = tensor == torch.inf
        if (
            tensor.dtype != torch.float16
            or not name.endswith("running_var")
            or not (too_large | tensor.isfinite()).all()
        ):
            raise WeightsError(
                f"model.weights: {origin}: {name} holds values that are no finite numbers; the file is damaged"
            )
        largest = torch.finfo(torch.float16).max
        single[name] = torch.where(too_large, largest, single[name])
        told.append(f"{int(too_large.sum())} of {name} beyond half precision, taken for {largest:,.0f}")
    return single, told


def savable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as safetensors takes it: on the CPU, contiguous, and each tensor in memory of its own, also where a
    network has one layer in several places, as CoaT of timm's does.
    """
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if place in taken else plain
        taken.add(place)
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a state dict from .safetensors, or from a .pth / .pt that holds tensors only. A `state_dict`,
    `model_state_dict` (the name in PyTorch's tutorials) or `model` entry is unwrapped, and what
    DistributedDataParallel (`module.`) or Lightning (`model.`) put in front of names is cut off.

    Raises:
        WeightsError: missing, unreadable, or holding anything but tensors.
    """
    if path.is_dir():
        raise WeightsError(f"{path}: is a folder; give a weights file, such as the weights.safetensors of a bundle")
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except pickle.UnpicklingError:  # torch's own words advise to run whatever the file holds
        raise WeightsError(
            f"{path}: {left_instead(head_of(path)) or 'holds other things than tensors, or is no PyTorch file at all'}"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  damaged files make torch raise nearly anything
        told = left_instead(head_of(path)) or f"not a readable weights file of tensors only ({first_line(error)})"
        raise WeightsError(f"{path}: {told}") from None
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        entries = f", but {', '.join(map(str, list(content)[:4]))}" if isinstance(content, dict) and content else ""
        raise WeightsError(f"{path}: holds no state dict of tensors{entries}; save the model's state_dict() alone")
    return {name.removeprefix("module.").removeprefix("model."): tensor for name, tensor in content.items()}


def _backbone_part(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """A state dict without its classifier, attrtrain's prefix cut off, and the names that were the classifier."""
    dropped = sorted(name for name in tensors if name.startswith(("fc.", "head.", "backbone.fc.")))
    return {name.removeprefix("backbone."): tensor for name, tensor in tensors.items() if name not in dropped}, dropped


def _download(backbone: str) -> dict[str, Tensor]:
    weights = torchvision.models.get_model_weights(backbone)["DEFAULT"]
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"model.weights: ImageNet weights cannot be downloaded here ({reason}); copy {weights.url.rsplit('/', 1)[-1]} from another machine and give "
            "--model.weights PATH, or train from random ones with --model.weights none"
        ) from None
