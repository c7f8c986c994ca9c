"""What a model sees: which mapper makes it, and of which size it is in training."""

from detectron2.config import CfgNode

from .dataset_mapper import RecAttendDatasetMapper
from .window_mapper import WindowMapper

# Windows have multiples of so many pixels, for the coarsest map of the image encoder.
WINDOW_MULTIPLE = 32


def sees_windows(cfg: CfgNode) -> bool:
    """Whether the model of a config is the fast one, which takes pictures of any size and trains on windows."""
    return cfg.MODEL.META_ARCHITECTURE == "FastRecAttend"


def training_size(cfg: CfgNode) -> tuple[int, int]:
    """(H, W) in pixels of what a model is trained on.

    Raises:
        ValueError: INPUT.WINDOW_SIZE is no multiple of 32.
    """
    if not sees_windows(cfg):
        height, width = cfg.INPUT.IMAGE_SIZE
        return height, width
    side = cfg.INPUT.WINDOW_SIZE
    if side < WINDOW_MULTIPLE or side % WINDOW_MULTIPLE:
        raise ValueError(f"INPUT.WINDOW_SIZE is {side}; give a multiple of {WINDOW_MULTIPLE} pixels.")
    return side, side


def build_mapper(cfg: CfgNode, is_train: bool = True, augment: bool = True) -> RecAttendDatasetMapper | WindowMapper:
    """What makes a model's input of dataset dicts.

    Args:
        cfg: the config.
        is_train: with what is to be learned; else only what the model needs to predict.
        augment: in training, with INPUT.AUGMENTATIONS.
    """
    if sees_windows(cfg):
        training_size(cfg)
        return WindowMapper(cfg, is_train=is_train, augment=augment)
    if is_train and not augment:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.INPUT.AUGMENTATIONS = []
    return RecAttendDatasetMapper(cfg, is_train=is_train)
