"""What the model of a config is trained on: windows of which size, and how many objects."""

from detectron2.config import CfgNode


def training_size(cfg: CfgNode) -> tuple[int, int]:
    """(H, W) in pixels of what a model is trained on: INPUT.IMAGE_SIZE, or the windows that RandomCrop cuts out of it.

    Raises:
        ValueError: INPUT.CROP does not fit INPUT.AUGMENTATIONS or INPUT.IMAGE_SIZE.
    """
    node, image_size = cfg.INPUT.CROP, tuple(cfg.INPUT.IMAGE_SIZE)
    if "RandomCrop" not in cfg.INPUT.AUGMENTATIONS:
        if node.ENABLED:
            raise ValueError("INPUT.CROP.ENABLED is True: name 'RandomCrop' in INPUT.AUGMENTATIONS instead.")
        return image_size
    size = tuple(node.SIZE)
    fits = len(size) == 2 and all(
        isinstance(side, int) and 1 <= side <= limit for side, limit in zip(size, image_size, strict=False)
    )
    if node.TYPE != "absolute" or not fits:
        raise ValueError(
            f"INPUT.CROP is {node.TYPE} {list(size)}, but RandomCrop needs TYPE 'absolute' and as SIZE [height, width] "
            f"in pixels, from 1 up to INPUT.IMAGE_SIZE {list(image_size)}."
        )
    return size


def trains_on_all_objects(cfg: CfgNode) -> bool:
    """Whether all objects of an image are targets, rather than its MODEL.REC_ATTEND.TIME_STEPS largest."""
    return cfg.MODEL.META_ARCHITECTURE == "FastRecAttend"
