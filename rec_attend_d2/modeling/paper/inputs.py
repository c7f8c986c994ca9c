"""What the two networks see: image, memory, angle and foreground maps (paper, section 3.1)."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from torch import Tensor

from ..steps import StepInputs

# Order of their channels.
INPUT_ORDER = ("image", "memory", "angle", "foreground")


def input_maps(inputs: StepInputs, names: Sequence[str]) -> list[Tensor]:
    """The maps [B, C_i, H, W] that a network sees, in INPUT_ORDER.

    Args:
        inputs: of the step.
        names: which maps the network sees.

    Raises:
        ValueError: a map that is asked for was not given.
    """
    maps = {
        "image": inputs.image,
        "memory": inputs.memory[:, None],
        "angle": inputs.extra.angle,
        "foreground": inputs.extra.foreground,
    }
    selected = []
    for name in INPUT_ORDER:
        if name in names:
            given = maps[name]
            if given is None:
                raise ValueError(f"The network's INPUTS name '{name}', but the batch holds no such map.")
            selected.append(given)
    return selected


def input_channels(cfg: CfgNode, names: Sequence[str], key: str) -> int:
    """Number of channels of a network's input.

    Args:
        cfg: the config.
        names: which maps the network sees.
        key: configuration key that holds ``names``, for the error.

    Raises:
        ValueError: no name, an unknown one, or a map that the preprocessor does not make.
    """
    if not names:
        raise ValueError(f"{key} is empty, so the network sees nothing. Choose from: {', '.join(INPUT_ORDER)}.")
    preprocessor = cfg.MODEL.REC_ATTEND.PREPROCESSOR
    channels = {
        "image": len(cfg.MODEL.PIXEL_MEAN),
        "memory": 1,
        "angle": preprocessor.ANGLE_BINS,
        "foreground": preprocessor.FOREGROUND_CLASSES,
    }
    for name in names:
        if name not in channels:
            raise ValueError(f"{key} names '{name}'. Choose from: {', '.join(INPUT_ORDER)}.")
        if channels[name] == 0:
            raise ValueError(
                f"{key} names '{name}', but MODEL.REC_ATTEND.PREPROCESSOR makes no such map. Set its NAME and "
                f"ANGLE_BINS or FOREGROUND_CLASSES, or take '{name}' out of {key}."
            )
    return sum(channels[name] for name in set(names))


def check_conv_layers(node: CfgNode, key: str) -> None:
    """Raise a ValueError unless CONV_CHANNELS and CONV_POOLS of ``node``, the config node ``key``, fit each other."""
    if len(node.CONV_CHANNELS) != len(node.CONV_POOLS) or len(node.CONV_POOLS) == 0:
        raise ValueError(
            f"{key}.CONV_CHANNELS and {key}.CONV_POOLS need one entry per layer each: got "
            f"{list(node.CONV_CHANNELS)} and {list(node.CONV_POOLS)}."
        )


def feature_size(image_size: Sequence[int], pools: Sequence[int], key: str, size_key: str) -> tuple[int, int]:
    """Size of the deepest map of a conv stack.

    Args:
        image_size: (height, width) of the stack's input in pixels.
        pools: max-pool sizes.
        key: configuration key that holds ``pools``, for the error.
        size_key: configuration key that holds ``image_size``.

    Raises:
        ValueError: a pool does not divide the map it is applied to.
    """
    height, width = image_size
    factor = 1
    for pool in pools:
        factor *= pool
    if height % factor or width % factor:
        raise ValueError(
            f"The pools of {key} = {list(pools)} shrink the input {factor} times, which does not divide "
            f"{size_key} = {list(image_size)}. Make both sides multiples of {factor} or change the pools."
        )
    return height // factor, width // factor
