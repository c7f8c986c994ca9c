"""Options of the original code -> config."""

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode, get_cfg

from ..config import add_rec_attend_config
from ..modeling.paper.foreground_fcn import NO_SKIP
from ..modeling.paper.segmentation_head import deconv_strides

# Stage C pads true boxes by option "padding" plus this many pixels; stage B by a constant.
STAGE_C_EXTRA_PADDING = 4
STAGE_B_PADDING = 10
# Noise on the true masks in stage B's memory, a constant of the original.
STAGE_B_MASK_NOISE = 0.3

_MASK_LOSSES = {"iou": "iou", "bce": "bce", "wt_cov": "weighted_coverage"}
_BOX_LOSSES = {**_MASK_LOSSES, "mse": "mse", "huber": "huber"}

# Options whose other values this project has no counterpart for, with the value it computes.
_ONLY_VALUES = {
    "stop_canvas_grad": True,
    "add_skip_conn": True,
    "mlp_dropout": None,
    "knob_base": 1.0,
    "knob_decay": 0.5,
}

_FILTER_SIZES = (
    "ctrl_cnn_filter_size",
    "attn_cnn_filter_size",
    "attn_dcnn_filter_size",
    "cnn_filter_size",
    "dcnn_filter_size",
)


def _only_threes(options: Mapping[str, Any]) -> None:
    for name in _FILTER_SIZES:
        if any(size != 3 for size in options.get(name, ())):
            raise ValueError(f"Option '{name}' is {options[name]}; only 3x3 filters can be converted.")


def _check(options: Mapping[str, Any]) -> None:
    for name, value in _ONLY_VALUES.items():
        if name in options and options[name] != value:
            raise ValueError(f"Option '{name}' is {options[name]!r}; only {value!r} can be converted.")
    _only_threes(options)
    if "attn_dcnn_pool" in options:
        strides, expected = options["attn_dcnn_pool"], deconv_strides(_get(options, "attn_cnn_pool"))
        if list(strides) != expected:
            raise ValueError(f"Option 'attn_dcnn_pool' is {strides}; the skips fit with {expected}.")


def _get(options: Mapping[str, Any], name: str) -> Any:
    if name not in options:
        raise ValueError(f"The options lack '{name}'. Give the options file that the weights were trained with.")
    return options[name]


def _inputs(options: Mapping[str, Any], net: str) -> list[str]:
    names = {"inp": "image", "canvas": "memory", "d_out": "angle", "y_out": "foreground"}
    return [ours for theirs, ours in names.items() if options.get(f"{net}_add_{theirs}", theirs in ("inp", "canvas"))]


def _set_detectron2_keys(cfg: CfgNode, options: Mapping[str, Any]) -> None:
    cfg.INPUT.FORMAT = "BGR"
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.INPUT.IMAGE_SIZE = [_get(options, "inp_height"), _get(options, "inp_width")]
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    cfg.MODEL.PIXEL_MEAN = [0.0, 0.0, 0.0]
    cfg.MODEL.PIXEL_STD = [255.0, 255.0, 255.0]
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    cfg.SOLVER.WARMUP_ITERS = 0
    cfg.SOLVER.LR_SCHEDULER_NAME = "StaircaseExponentialLR"
    cfg.SOLVER.BASE_LR = float(options.get("base_learn_rate", 1e-3))
    cfg.SOLVER.GAMMA = float(options.get("learn_rate_decay", 0.96))
    cfg.SOLVER.DECAY_PERIOD = int(options.get("steps_per_learn_rate_decay", 5000))
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "value"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = float(options.get("clip_gradient", 1.0))


def _set_proposer(node: CfgNode, options: Mapping[str, Any]) -> None:
    node.INPUTS = _inputs(options, "ctrl")
    node.CONV_CHANNELS = list(_get(options, "ctrl_cnn_depth"))
    node.CONV_POOLS = list(_get(options, "ctrl_cnn_pool"))
    node.HIDDEN_DIM = _get(options, "ctrl_rnn_hid_dim")
    node.GLIMPSES = _get(options, "num_ctrl_rnn_iter")
    node.GLIMPSE_MLP_LAYERS = _get(options, "num_glimpse_mlp_layers")
    node.BOX_MLP_DIMS = [_get(options, "ctrl_mlp_dim")] * (_get(options, "num_ctrl_mlp_layers") - 1)
    node.SQUASH = bool(options.get("squash_ctrl_params", False))


def _set_attention(node: CfgNode, options: Mapping[str, Any]) -> None:
    node.PATCH_SIZE = [_get(options, "filter_height"), _get(options, "filter_width")]
    if options.get("fixed_var", False):
        node.FILTER_VARIANCE = "unit"
    else:
        node.FILTER_VARIANCE = "learned" if options.get("dynamic_var", False) else "from_size"
    node.LEARN_GAINS = not options.get("fixed_gamma", True)


def _set_losses(node: CfgNode, options: Mapping[str, Any], full: bool) -> None:
    node.MATCHER = "in_order" if options.get("fixed_order", False) else "best"
    node.MASK = _MASK_LOSSES[options.get("segm_loss_fn", "iou")]
    node.BOX = _BOX_LOSSES[options.get("box_loss_fn", "iou")]
    # The original's stage C uses the corners only where it samples; else it falls back to the box maps.
    corners = options.get("use_iou_box", False) and (not full or options.get("use_knob", False))
    node.BOX_OVERLAP = "corners" if corners else "maps"
    node.SCORE_WEIGHT = float(options.get("loss_mix_ratio", 1.0))
    node.WEIGHT_DECAY = float(options.get("weight_decay", 5e-5))
    node.BOX_PADDING_RATIO = float(options.get("attn_box_padding_ratio", 0.2))
    node.BOX_PADDING_PIXELS = float(_get(options, "padding") + STAGE_C_EXTRA_PADDING if full else STAGE_B_PADDING)


def _set_scheduled_sampling(node: CfgNode, options: Mapping[str, Any], full: bool) -> None:
    node.ENABLED = bool(options.get("use_knob", False))
    node.DECAY_STEPS = options.get("steps_per_knob_decay", node.DECAY_STEPS)
    node.BOX_OFFSET = options.get("knob_box_offset", node.BOX_OFFSET)
    node.MASK_OFFSET = options.get("knob_segm_offset", node.MASK_OFFSET)
    node.SCALE_WITH_STEP = bool(options.get("knob_use_timescale", True))
    node.TRUTH_CHOICE = "any"
    node.CENTER_NOISE = float(options.get("gt_box_ctr_noise", node.CENTER_NOISE))
    node.PADDING_NOISE = float(options.get("gt_box_pad_noise", node.PADDING_NOISE))
    node.MASK_NOISE = float(options.get("gt_segm_noise", node.MASK_NOISE)) if full else STAGE_B_MASK_NOISE


def _deconv_skips(options: Mapping[str, Any]) -> list[int]:
    """For every deconv layer the feature it sees: -1 none, 0 the image, i the output of the i-th conv layer.

    The original marks features (deepest last) and layers (the first has no mark); each marked layer takes the deepest
    marked feature that is left.
    """
    name = "cnn_skip_mask" if "cnn_skip_mask" in options else "cnn_skip"
    features = [i for i, marked in enumerate(_get(options, name)[: len(options["cnn_depth"])]) if marked]
    layers = options.get("dcnn_skip_mask", list(reversed(options[name])))[: len(_get(options, "dcnn_depth")) - 1]
    if sum(map(bool, layers)) > len(features):
        raise ValueError(f"Option 'dcnn_skip_mask' is {layers}, which asks for more than the {len(features)} features.")
    return [NO_SKIP, *(features.pop() if marked else NO_SKIP for marked in layers)]


def _set_stage_a(cfg: CfgNode, options: Mapping[str, Any]) -> None:
    cfg.MODEL.META_ARCHITECTURE = "RecAttendPreprocessor"
    node = cfg.MODEL.REC_ATTEND.PREPROCESSOR
    node.NAME = "ForegroundFCN"
    node.ANGLE_BINS = options.get("num_orientation_classes", 8) if options.get("add_orientation", False) else 0
    node.FOREGROUND_CLASSES = options.get("num_semantic_classes", 1)
    node.CONV_CHANNELS = list(_get(options, "cnn_depth"))
    node.CONV_POOLS = list(_get(options, "cnn_pool"))
    node.DECONV_CHANNELS = list(_get(options, "dcnn_depth"))[:-1]
    node.DECONV_STRIDES = list(_get(options, "dcnn_pool"))[:-1]
    node.DECONV_SKIPS = _deconv_skips(options)
    cfg.MODEL.REC_ATTEND.LOSS.FOREGROUND = options.get("segm_loss_fn", "iou")
    cfg.MODEL.REC_ATTEND.LOSS.WEIGHT_DECAY = float(options.get("weight_decay", 5e-5))
    # Stage A clips nothing.
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    cfg.SOLVER.OPTIMIZER = {"adam": "Adam", "momentum": "SGD"}[options.get("optimizer", "adam")]
    cfg.SOLVER.MOMENTUM = 0.9


def _set_recurrent(cfg: CfgNode, options: Mapping[str, Any], full: bool) -> None:
    cfg.MODEL.META_ARCHITECTURE = "RecAttend" if full else "RecAttendBoxProposer"
    node = cfg.MODEL.REC_ATTEND
    node.TIME_STEPS = _get(options, "timespan")
    angle, foreground = options.get("add_d_out", False), options.get("add_y_out", False)
    node.PREPROCESSOR.NAME = "GivenMaps" if angle or foreground else "NoPreprocessor"
    node.PREPROCESSOR.ANGLE_BINS = 8 if angle else 0
    node.PREPROCESSOR.FOREGROUND_CLASSES = options.get("num_semantic_classes", 1) if foreground else 0
    node.NO_OVERWRITE = bool(options.get("disable_overwrite", False))
    _set_proposer(node.BOX_PROPOSER, options)
    _set_attention(node.ATTENTION, options)
    node.SEGMENTATION_HEAD.INPUTS = _inputs(options, "attn")
    node.SEGMENTATION_HEAD.CONV_CHANNELS = list(_get(options, "attn_cnn_depth"))
    node.SEGMENTATION_HEAD.CONV_POOLS = list(_get(options, "attn_cnn_pool"))
    node.SEGMENTATION_HEAD.DECONV_CHANNELS = list(_get(options, "attn_dcnn_depth"))
    _set_losses(node.LOSS, options, full)
    _set_scheduled_sampling(node.SCHEDULED_SAMPLING, options, full)
    node.TEST.STOP_EARLY = False


def config_from_original_options(options: Mapping[str, Any], stage: str) -> CfgNode:
    """Config of the model that the original code builds from these options.

    Args:
        options: the original's options by name, as in its ``model_opt.yaml``.
        stage: "A", "B" or "C".

    Raises:
        ValueError: a missing option, or a value that has no counterpart here.
    """
    _check(options)
    cfg = get_cfg()
    add_rec_attend_config(cfg)
    _set_detectron2_keys(cfg, options)
    cfg.MODEL.REC_ATTEND.NORM = "per_step" if options.get("use_bn", True) else "none"
    cfg.MODEL.REC_ATTEND.INIT = "truncated_normal"
    if stage == "A":
        _set_stage_a(cfg, options)
    else:
        _set_recurrent(cfg, options, full=stage == "C")
    return cfg
