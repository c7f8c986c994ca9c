"""Every configuration key this project adds to Detectron2's, with its default, unit and paper symbol.

:func:`load_config` makes a config of a file. Whoever has a config of their own from ``detectron2.config.get_cfg()``
calls :func:`add_rec_attend_config` on it before merging a file.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg

# What the fast model reads below MODEL.REC_ATTEND, besides FAST; the others are the paper's alone.
KEYS_OF_FAST_MODEL = frozenset(
    {
        *("PREPROCESSOR.NAME", "BOX_PROPOSER.NAME", "SEGMENTATION_HEAD.NAME", "STOP_SCORER.NAME", "NUM_CLASSES"),
        "CLASS_NAMES",
        *("TRAINING.RECOMPUTE", "TEST.AUTOCAST", "TEST.SCORE_THRESHOLD"),
    }
)

# Settings that say where a training ran, not what it was.
PLACE_KEYS = frozenset({"OUTPUT_DIR", "MODEL.DEVICE"})
# What Detectron2 raises about a file or an option that it cannot use.
_INVALID = (yaml.YAMLError, AssertionError, AttributeError, KeyError, OSError, TypeError, ValueError)


def load_config(config_file: str | os.PathLike, options: list) -> CN:
    """Config of a file and of ``KEY VALUE`` pairs; on a machine without CUDA the device becomes the CPU.

    Args:
        config_file: YAML; "" = none.
        options: keys and values in turn, which come last.

    Raises:
        FileNotFoundError: there is no such config file.
        ValueError: the file is no config, or a key does not exist, or its value has a wrong type.
    """
    cfg = get_cfg()
    add_rec_attend_config(cfg)
    if config_file:
        _merge_file(cfg, os.fspath(config_file))
    try:
        cfg.merge_from_list(_with_floats(cfg, options))
    except _INVALID as error:
        raise ValueError(f"The options {' '.join(map(str, options))} are not valid: {_reason(error)}") from error
    use_available_device(cfg)
    return cfg


def _with_floats(cfg: CN, options: list) -> list:
    """Keys and values in turn, in which whole numbers for keys of floating point numbers are such."""
    flat = _flat(cfg)
    values = list(options)
    for index in range(1, len(values), 2):
        if isinstance(flat.get(str(values[index - 1])), float) and re.fullmatch(r"[+-]?\d+", str(values[index])):
            values[index] = float(values[index])
    return values


def _merge_file(cfg: CN, path: str) -> None:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"The config file '{path}' does not exist.")
    try:
        # Detectron2's default runs code that a YAML file names.
        cfg.merge_from_file(path, allow_unsafe=False)
    except yaml.constructor.ConstructorError as error:
        raise ValueError(
            f"The config file '{path}' asks for a Python object, which could run any code, and is not loaded: {error}. "
            "Write plain numbers, texts and lists."
        ) from error
    except _INVALID as error:
        raise ValueError(f"The config file '{path}' (or its _BASE_) is not valid: {_reason(error)}") from error


def _reason(error: Exception) -> object:
    return error.args[0] if isinstance(error, KeyError) else error  # which would show as a quoted text


def use_available_device(cfg: CN) -> None:
    """Set MODEL.DEVICE to the CPU, in place, where it is CUDA on a machine that has none."""
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"


def different_settings(cfg: CN, config_file: Path) -> list[str]:
    """Keys in which ``cfg`` differs from the config.yaml that a training wrote, see :func:`changed_settings`."""
    return sorted(changed_settings(cfg, config_file.read_text(encoding="utf-8")))


def changed_settings(cfg: CN, text: str) -> dict[str, tuple[Any, Any]]:
    """Old and new value of the keys in which ``cfg`` differs from a config's YAML, except for :data:`PLACE_KEYS`.

    A key that the text does not have yet counts as its default; an object size that is to be measured as the measured.
    """
    old = _flat(yaml.safe_load(load_config("", []).dump())) | _flat(yaml.safe_load(text))
    new = _flat(yaml.safe_load(cfg.dump()))
    ignored = PLACE_KEYS if new["INPUT.OBJECT_SIZE"] else PLACE_KEYS | {"INPUT.OBJECT_SIZE"}
    keys = sorted((old.keys() | new.keys()) - ignored)
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def input_words(cfg: Mapping) -> str:
    """How large images are in the network of a config, in words."""
    size = cfg["INPUT"].get("OBJECT_SIZE")  # None of one that was trained before sizes followed from objects
    if size is None or cfg["MODEL"]["META_ARCHITECTURE"] != "FastRecAttend":
        return "{} x {}".format(*cfg["INPUT"]["IMAGE_SIZE"])
    pixels = f"objects of {cfg['INPUT']['OBJECT_PIXELS']:g} pixels"
    return f"{pixels} ({size:g} in the file)" if size else pixels


def number_of_classes(cfg: CN) -> int:
    """How many classes of objects a model of this project tells apart; 1 where all are of one kind."""
    node = cfg.MODEL.REC_ATTEND
    return max(1, node.NUM_CLASSES, node.PREPROCESSOR.FOREGROUND_CLASSES - 1)


def _set_here(cfg: CN) -> list[str]:
    """Keys below MODEL.REC_ATTEND that are not at their default."""
    default = _flat(load_config("", []).MODEL.REC_ATTEND)
    return sorted(key for key, value in _flat(cfg.MODEL.REC_ATTEND).items() if value != default.get(key, value))


def check_keys_of_fast_model(cfg: CN) -> None:
    """Raise a ValueError where a key below MODEL.REC_ATTEND is set that the fast model does not read."""
    ignored = [key for key in _set_here(cfg) if key not in KEYS_OF_FAST_MODEL and not key.startswith("FAST.")]
    if ignored:
        raise ValueError(
            f"MODEL.REC_ATTEND.{', '.join(ignored)}: the fast model (FastRecAttend) has no such setting, only the "
            "paper's has. Take it out."
        )


def check_keys_of_paper_model(cfg: CN) -> None:
    """Raise a ValueError where a key below MODEL.REC_ATTEND is set that only the fast model reads."""
    ignored = [key for key in _set_here(cfg) if key == "NUM_CLASSES" or key.startswith("FAST.")]
    if ignored:
        raise ValueError(
            f"MODEL.REC_ATTEND.{', '.join(ignored)}: only the fast model (MODEL.META_ARCHITECTURE 'FastRecAttend') has "
            "such a setting. Take it out."
        )


def _flat(node: Mapping, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def add_rec_attend_config(cfg: CN) -> None:
    """Add the keys of this project to ``cfg``, in place. Defaults are the paper's CVPPP recipe."""
    _add_data_config(cfg)
    _add_solver_config(cfg)
    _add_evaluation_config(cfg)
    cfg.MODEL.REC_ATTEND = CN()
    _add_unroll_config(cfg.MODEL.REC_ATTEND)
    _add_preprocessor_config(cfg.MODEL.REC_ATTEND)
    _add_parts_config(cfg.MODEL.REC_ATTEND)
    _add_training_config(cfg.MODEL.REC_ATTEND)
    _add_fast_config(cfg.MODEL.REC_ATTEND)
    _add_loss_config(cfg.MODEL.REC_ATTEND)
    _add_scheduled_sampling_config(cfg.MODEL.REC_ATTEND)
    _add_test_config(cfg.MODEL.REC_ATTEND)


def _add_data_config(cfg: CN) -> None:
    # Size (height, width) in pixels every image is resized to before it enters the paper's networks.
    cfg.INPUT.IMAGE_SIZE = [224, 224]
    # Typical width of an object in pixels of the file, the square root of the median area; 0 = measured on
    # DATASETS.TRAIN, and saved with config and weights. At prediction it may be another: that of the pictures at hand.
    cfg.INPUT.OBJECT_SIZE = 0.0
    # The fast model sees images scaled so that a typical object is so many network pixels wide. 12 suffice to count;
    # more give finer outlines, for a time that grows with the square.
    cfg.INPUT.OBJECT_PIXELS = 12.0
    # Side in network pixels of the windows of images that the fast model is trained on, a multiple of 32.
    cfg.INPUT.WINDOW_SIZE = 256
    # Training augmentations, applied in this order; names of data/augmentation.py's AUGMENTATIONS.
    cfg.INPUT.AUGMENTATIONS = ["RandomHorizontalFlip", "RandomVerticalFlip", "RandomTranspose", "RandomShift"]
    # Largest shift of RandomShift per axis, in pixels of the network input.
    cfg.INPUT.MAX_SHIFT = 16
    # For small data sets RandomWarp and RandomIntensity can be added to INPUT.AUGMENTATIONS. They work at network size.
    # EmptyPictures are for fluorescence: some windows are of drawn pictures that show nothing but noise.
    cfg.INPUT.WARP = CN()
    # RandomWarp's largest rotation about the centre in degrees, either way (0 to 180).
    cfg.INPUT.WARP.ROTATION = 45.0
    # Low and high percentile of an image's grey values that are stretched to 0 and 255; empty = image as it is.
    cfg.INPUT.CONTRAST_PERCENTILES = []
    # A user's own data sets in COCO format: a list of [name, annotation json, image folder], or with a fourth part, the
    # names of categories separated by commas, to which the data set is restricted. DATASETS.TRAIN and DATASETS.TEST
    # can then use the names; the error about a name that is not registered says so.
    cfg.DATASETS.COCO_FILES = []


def _add_solver_config(cfg: CN) -> None:
    # Optimizer: "Adam", "AdamW" or "SGD". Of Detectron2's keys they read BASE_LR,
    # WEIGHT_DECAY, WEIGHT_DECAY_NORM (norm layers), WEIGHT_DECAY_BIAS (biases; None = 0), BIAS_LR_FACTOR and
    # CLIP_GRADIENTS, whose CLIP_TYPE is "value", "norm" (of each tensor) or "full_model"
    # (norm over all parameters).
    cfg.SOLVER.OPTIMIZER = "Adam"
    # Factor of the learning rate of the preprocessor's backbone, which is the fast model's image encoder. Below 1 it
    # keeps more of weights that it starts from.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0
    # Decay, in [0, 1), of the exponential moving average of the weights, which is what is evaluated and what loading a
    # checkpoint for anything but --resume takes; after n updates it is min(EMA_DECAY, (1 + n) / (10 + n)). 0 = none.
    cfg.SOLVER.EMA_DECAY = 0.0
    # Batches of SOLVER.IMS_PER_BATCH images per optimizer step; gradients are those of the mean of their losses. An
    # iteration is an optimizer step everywhere (schedules, periods, MAX_ITER). For memory that holds only a part of the
    # batch; batch norm sees that part.
    cfg.SOLVER.ACCUMULATE = 1
    # Training ends after so many evaluations (TEST.EVAL_PERIOD) in which TEST.BEST_METRIC was never above its highest
    # value; 0 = it runs to MAX_ITER.
    cfg.SOLVER.EARLY_STOPPING = 0
    # Iterations between two steps of the staircase decay; each multiplies the learning rate by SOLVER.GAMMA.
    # Read by SOLVER.LR_SCHEDULER_NAME "StaircaseExponentialLR".
    cfg.SOLVER.DECAY_PERIOD = 5000


def _add_evaluation_config(cfg: CN) -> None:
    # Result, as "<evaluator>/<metric>" (for several test sets "<data set>/<evaluator>/<metric>"), whose highest value
    # decides which checkpoint is kept as model_best.pth; empty = none is kept.
    cfg.TEST.BEST_METRIC = "counting/SBD"
    # Images of the first data set of DATASETS.TEST whose loss is logged with every evaluation, as val_loss and its
    # parts as val_loss_mask etc., to compare with training's; 0 = none. It is computed as in training, without
    # augmentation and weight decay, of the weights that are evaluated, with scheduled sampling at its end and memories
    # drawn with one fixed seed.
    cfg.TEST.LOSS_IMAGES = 32


def _add_unroll_config(node: CN) -> None:
    # T: the largest number of objects that the paper's model looks for in one image.
    node.TIME_STEPS = 21
    # Batch norm statistics and affine parameters of the paper's model: "per_step" (own ones for each time step, as the
    # original), "shared" (one set for all time steps) or "none".
    node.NORM = "per_step"
    # Classes that the fast model tells apart; 0 = one kind of objects. The paper's model takes classes from the
    # semantic maps of a preprocessor (FOREGROUND_CLASSES > 1).
    node.NUM_CLASSES = 0
    # Names of class 0, 1, ... of the fast model, for tables and files; empty = those of the data sets.
    node.CLASS_NAMES = []
    # Initial weights of conv and linear layers: "kaiming", or "truncated_normal" (std 0.01, as the original code).
    node.INIT = "kaiming"


def _add_preprocessor_config(node: CN) -> None:
    node.PREPROCESSOR = CN()
    # A part of PREPROCESSOR_REGISTRY: "NoPreprocessor", "GivenMaps" (true maps, made of the annotations),
    # "ForegroundFCN" (the paper's network), "BackboneFCN" (MODEL.BACKBONE and MODEL.SEM_SEG_HEAD) or "ImageEncoder"
    # (the fast model's). Those that predict maps learn in stage A and are frozen in stages B and C.
    node.PREPROCESSOR.NAME = "NoPreprocessor"
    # Channels of the angle map d (8 in the paper); 0 = none.
    node.PREPROCESSOR.ANGLE_BINS = 0
    # Channels of the foreground map f: 1 = foreground, K > 1 = semantic classes with class 0 the background; 0 = none.
    node.PREPROCESSOR.FOREGROUND_CLASSES = 0
    # Output channels and max-pool size of each 3x3 conv layer of ForegroundFCN.
    node.PREPROCESSOR.CONV_CHANNELS = []
    node.PREPROCESSOR.CONV_POOLS = []
    # Output channels and strides of its transposed conv layers, without the last one, which makes the maps.
    node.PREPROCESSOR.DECONV_CHANNELS = []
    node.PREPROCESSOR.DECONV_STRIDES = []
    # What each transposed conv layer, the last included, sees besides the one before: -1 = nothing, 0 = the image, i =
    # the output of the i-th conv layer.
    node.PREPROCESSOR.DECONV_SKIPS = []


def _add_parts_config(node: CN) -> None:
    # A pixel once claimed cannot be claimed again: masks are multiplied by 1 - memory.
    node.NO_OVERWRITE = False

    node.BOX_PROPOSER = CN()
    # A part of BOX_PROPOSER_REGISTRY: "GlimpseLSTMBoxProposer" (the paper) or "PlaceProposer" (the fast model's).
    node.BOX_PROPOSER.NAME = "GlimpseLSTMBoxProposer"
    # What the control CNN sees, of "image", "memory", "angle", "foreground"; concatenated in that order.
    node.BOX_PROPOSER.INPUTS = ["image", "memory"]
    # Output channels and max-pool size of each 3x3 layer of the control CNN.
    node.BOX_PROPOSER.CONV_CHANNELS = [8, 8, 16, 16, 32, 32, 64, 64]
    node.BOX_PROPOSER.CONV_POOLS = [1, 2, 1, 2, 1, 2, 2, 2]
    # Size of the LSTM state, and of the hidden layers of the glimpse MLP.
    node.BOX_PROPOSER.HIDDEN_DIM = 256
    # K: inner iterations (glimpses) per time step.
    node.BOX_PROPOSER.GLIMPSES = 5
    # Linear layers of the MLP from LSTM output to the next glimpse map.
    node.BOX_PROPOSER.GLIMPSE_MLP_LAYERS = 2
    # Hidden layer sizes of the MLP from LSTM output to the box; empty = a single linear layer.
    node.BOX_PROPOSER.BOX_MLP_DIMS = []
    # tanh on the centre and -softplus on the log size, so that a box never leaves or exceeds the image.
    node.BOX_PROPOSER.SQUASH = False
    # Relative box size (fraction of the image's side) that a freshly initialised proposer starts from.
    node.BOX_PROPOSER.INITIAL_SIZE = 1.0

    node.ATTENTION = CN()
    # Patch size F_h, F_w in pixels.
    node.ATTENTION.PATCH_SIZE = [48, 48]
    # Log variance of the Gaussian filters: "from_size" (log size - log F), "learned" (an output of the box proposer)
    # or "unit" (0).
    node.ATTENTION.FILTER_VARIANCE = "from_size"
    # Learn the log gains of extracting and pasting instead of fixing them at 0 and 2.
    node.ATTENTION.LEARN_GAINS = False

    node.SEGMENTATION_HEAD = CN()
    # A part of SEGMENTATION_HEAD_REGISTRY: "PatchConvDeconvHead" (the paper) or "ResidualPatchHead" (the fast model's).
    node.SEGMENTATION_HEAD.NAME = "PatchConvDeconvHead"
    # What the patch is cut from; as BOX_PROPOSER.INPUTS.
    node.SEGMENTATION_HEAD.INPUTS = ["image", "memory"]
    # Output channels and max-pool sizes of the 3x3 conv layers.
    node.SEGMENTATION_HEAD.CONV_CHANNELS = [8, 8, 16, 16, 32, 32]
    node.SEGMENTATION_HEAD.CONV_POOLS = [1, 2, 1, 2, 1, 2]
    # Output channels of the transposed conv layers, one more than conv layers, whose pools they undo; the last has one.
    node.SEGMENTATION_HEAD.DECONV_CHANNELS = [32, 32, 16, 16, 8, 8, 1]

    node.STOP_SCORER = CN()
    # A part of STOP_SCORER_REGISTRY: "LinearStopScorer" (the paper) or "PooledStopScorer" (the fast model's).
    node.STOP_SCORER.NAME = "LinearStopScorer"


def _add_training_config(node: CN) -> None:
    node.TRAINING = CN()
    # Keep no activations of a step's control CNN (of the fast model: of all its networks) until the backward pass. It
    # computes them again: half of the memory for a sixth more time.
    node.TRAINING.RECOMPUTE = False


def _add_fast_config(node: CN) -> None:
    # What only the fast model has (META_ARCHITECTURE "FastRecAttend").
    node.FAST = CN()
    # Factor of all numbers of channels. 1.5 takes about twice the time and outlines a little better, if there is time
    # to train it for an hour.
    node.FAST.WIDTH = 1.0
    # Objects per image that a glance may claim: 0 = all that stand apart, 1 = one by one, as in the paper.
    node.FAST.OBJECTS_PER_GLANCE = 0


def _add_loss_config(node: CN) -> None:
    node.LOSS = CN()
    # Matching of steps and objects: "best" (of the largest total overlap) or "in_order" (step t is the t-th largest).
    node.LOSS.MATCHER = "best"
    # Loss of the masks: "iou", "bce" or "weighted_coverage".
    node.LOSS.MASK = "iou"
    # Loss of the boxes: "iou", "bce", "weighted_coverage", "mse" or "huber".
    node.LOSS.BOX = "iou"
    # Overlap of predicted and true box, for their loss, their matching and the choice of truth: "maps" (soft IoU of box
    # maps) or "corners".
    node.LOSS.BOX_OVERLAP = "maps"
    # Stage A's loss of the foreground: "bce" (cross entropy) or "iou" (soft IoU of the batch).
    node.LOSS.FOREGROUND = "bce"
    # Weight of the score's loss in the total; those of the masks and boxes have the weight 1.
    node.LOSS.SCORE_WEIGHT = 1.0
    # Factor of 0.5 * sum(w^2) over conv, linear and LSTM matrices of the paper's models. It is a term of the loss,
    # because the original clips its gradient together with the others; SOLVER.WEIGHT_DECAY (the optimizer's own)
    # is 0 in the paper's recipes; the fast recipe has that of AdamW instead.
    node.LOSS.WEIGHT_DECAY = 5e-5
    # Each side of a true box moves out by max(ratio * size, pixels).
    node.LOSS.BOX_PADDING_RATIO = 0.2
    node.LOSS.BOX_PADDING_PIXELS = 20.0


def _add_scheduled_sampling_config(node: CN) -> None:
    node.SCHEDULED_SAMPLING = CN()
    # Feed the truth instead of the prediction with p_t = min(1, 0.5^(max(0, n - offset) / decay) * f(t)).
    node.SCHEDULED_SAMPLING.ENABLED = True
    node.SCHEDULED_SAMPLING.DECAY_STEPS = 700
    # Iterations n before the probability starts to fall, for the box and for the mask written to memory.
    node.SCHEDULED_SAMPLING.BOX_OFFSET = -50000
    node.SCHEDULED_SAMPLING.MASK_OFFSET = 3000
    # f(t) = 1 + log(1 + 3 t) if true, so that later steps keep the truth longer; else 1.
    node.SCHEDULED_SAMPLING.SCALE_WITH_STEP = True
    # Which truth a step gets: "unclaimed" (best box overlap among the instances no earlier
    # step has taken, as the paper writes) or "any" (taken ones too, ties shared, as the original code does).
    node.SCHEDULED_SAMPLING.TRUTH_CHOICE = "unclaimed"
    # Uniform noise on the truth: centre +- fraction of size, padding ratio +-, and memory values times 1 - U(0, x).
    node.SCHEDULED_SAMPLING.CENTER_NOISE = 0.05
    node.SCHEDULED_SAMPLING.PADDING_NOISE = 0.1
    node.SCHEDULED_SAMPLING.MASK_NOISE = 0.3


def _add_test_config(node: CN) -> None:
    node.TEST = CN()
    # Stop at the first score below SCORE_THRESHOLD (the paper); false runs all T steps (the original code).
    node.TEST.STOP_EARLY = True
    # Networks run in this precision at inference, as torch.autocast chooses: "bfloat16" or "float16" (CUDA); "" =
    # float32. Training has Detectron2's SOLVER.AMP.
    node.TEST.AUTOCAST = ""
    # Steps (of the fast model candidates) with a smaller score are no instances; 0 keeps all.
    node.TEST.SCORE_THRESHOLD = 0.5
    # Of the paper's model: a pixel belongs to an instance where score times soft mask is above this.
    node.TEST.MASK_THRESHOLD = 0.3
    # Side in pixels of the grey dilation of each mask; 0 = none. The recipes use 5 where there is a foreground map.
    node.TEST.DILATION = 0
    # Remove pixels that the foreground map calls background (foreground <= 0.3, or P(background) > 0.7).
    node.TEST.USE_FOREGROUND = False
    # Remove instances of at most this many pixels.
    node.TEST.MIN_AREA = 0
