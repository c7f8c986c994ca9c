"""Stage A: the networks that predict maps, their losses, and their place in the later stages."""

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

from rec_attend_d2.modeling import RecAttendPreprocessor
from rec_attend_d2.modeling.paper.foreground_losses import (
    MapTargets,
    angle_cross_entropy,
    foreground_cross_entropy,
    foreground_iou,
    map_statistics,
)
from rec_attend_d2.modeling.paper.learned_maps import LearnedMaps
from rec_attend_d2.modeling.paper.preprocessor import build_preprocessor

KEY = "MODEL.REC_ATTEND.PREPROCESSOR"
HEIGHT, WIDTH = 32, 64
FCN = {
    "PREPROCESSOR.NAME": "ForegroundFCN",
    "PREPROCESSOR.FOREGROUND_CLASSES": 1,
    "PREPROCESSOR.ANGLE_BINS": 8,
    "PREPROCESSOR.CONV_CHANNELS": [4, 6, 6, 8],
    "PREPROCESSOR.CONV_POOLS": [1, 2, 1, 2],
    "PREPROCESSOR.DECONV_CHANNELS": [8, 6, 4],
    "PREPROCESSOR.DECONV_STRIDES": [2, 1, 2],
    "PREPROCESSOR.DECONV_SKIPS": [-1, 3, -1, 0],
}
BACKBONE = {"PREPROCESSOR.NAME": "BackboneFCN", "PREPROCESSOR.FOREGROUND_CLASSES": 3}


@pytest.fixture
def stage_cfg(tiny_cfg):
    """A function from overrides, by key below MODEL.REC_ATTEND, to a tiny config of stage A."""

    def make(overrides: dict | None = None) -> CfgNode:
        cfg = tiny_cfg({**FCN, **(overrides or {})})
        cfg.INPUT.IMAGE_SIZE = [HEIGHT, WIDTH]
        cfg.MODEL.META_ARCHITECTURE = "RecAttendPreprocessor"
        # For BackboneFCN.
        cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
        cfg.MODEL.RESNETS.DEPTH = 18
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
        cfg.MODEL.RESNETS.NORM = "BN"
        cfg.MODEL.BACKBONE.FREEZE_AT = 0
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.FPN.OUT_CHANNELS = 8
        cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 32
        return cfg

    return make


def build_frozen(cfg: CfgNode) -> LearnedMaps:
    """The preprocessor as stages B and C have it."""
    cfg.MODEL.META_ARCHITECTURE = "RecAttend"
    return build_preprocessor(cfg)


def entries(count: int, classes: int = 1, angle_bins: int = 8) -> list[dict]:
    generator = torch.Generator().manual_seed(3)
    batch = []
    for index in range(count):
        labels = torch.randint(0, max(classes, 2), (HEIGHT, WIDTH), generator=generator)
        foreground = torch.nn.functional.one_hot(labels, max(classes, 2)).permute(2, 0, 1).float()
        bins = torch.randint(0, angle_bins, (HEIGHT, WIDTH), generator=generator)
        entry = {
            "image": torch.randint(0, 255, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator),
            "foreground": foreground if classes > 1 else foreground[1:],
            "foreground_weight": torch.ones(HEIGHT, WIDTH),
            "angle_map": torch.nn.functional.one_hot(bins, angle_bins).permute(2, 0, 1).float() * (labels > 0),
            "file_name": f"image{index}.png",
            "height": 50,
            "width": 70,
        }
        batch.append(entry)
    return batch


# ---------------------------------------------------------------- networks


def test_the_skips_enter_where_the_config_says(stage_cfg):
    fcn = build_preprocessor(stage_cfg())
    seen = []
    for layer in fcn.deconv:
        layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    images = torch.rand(2, 3, HEIGHT, WIDTH)
    features = fcn.eval().conv(images, 0)
    assert fcn.logits(images).shape == (2, 9, HEIGHT, WIDTH)
    assert torch.equal(seen[0], features[3])
    assert seen[1].shape == (2, 8 + 6, HEIGHT // 2, WIDTH // 2) and torch.equal(seen[1][:, 8:], features[2])
    assert seen[2].shape[1] == 6
    assert seen[3].shape[1] == 4 + 3 and torch.equal(seen[3][:, 4:], images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"CONV_POOLS": [1, 2, 2]}, "CONV_CHANNELS and MODEL.REC_ATTEND.PREPROCESSOR.CONV_POOLS need one entry"),
        ({"CONV_POOLS": [5, 1, 1, 1]}, r"CONV_POOLS = \[5, 1, 1, 1\] shrink"),
        ({"DECONV_CHANNELS": [8, 6]}, "DECONV_CHANNELS and .*DECONV_STRIDES need one entry"),
        ({"DECONV_STRIDES": [4, 1, 1]}, "only strides 1 and 2"),
        ({"DECONV_STRIDES": [2, 1, 1]}, r"DECONV_STRIDES = \[2, 1, 1\] does not undo CONV_POOLS"),
        ({"DECONV_SKIPS": [-1, 3]}, "DECONV_SKIPS needs an entry for each of the 4 deconv layers"),
        ({"DECONV_SKIPS": [-1, 1, -1, 0]}, r"DECONV_SKIPS\[1\] is 1, but layer 1 works at 1/2.*features \[2, 3\]"),
        ({"DECONV_SKIPS": [4, -1, -1, 0]}, r"DECONV_SKIPS\[0\] is 4.*1/4.*features \[\]"),
        ({"DECONV_SKIPS": [-1, -1, -1, 9]}, r"DECONV_SKIPS\[3\] is 9.*features \[0, 1\]"),
        ({"ANGLE_BINS": 0, "FOREGROUND_CLASSES": 0}, "FOREGROUND_CLASSES and ANGLE_BINS are both 0"),
    ],
)
def test_layers_that_do_not_fit_are_refused(stage_cfg, change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_preprocessor(stage_cfg({f"PREPROCESSOR.{key}": value for key, value in change.items()}))


@pytest.mark.parametrize("overrides", [{}, BACKBONE], ids=["ForegroundFCN", "BackboneFCN"])
def test_maps_are_probabilities(stage_cfg, overrides: dict):
    preprocessor = build_preprocessor(stage_cfg(overrides)).eval()
    classes = preprocessor.foreground_classes
    maps = preprocessor(torch.rand(2, 3, HEIGHT, WIDTH), [])
    assert maps.foreground.shape == (2, classes, HEIGHT, WIDTH) and maps.angle.shape == (2, 8, HEIGHT, WIDTH)
    assert maps.foreground.min() > 0 and maps.foreground.max() < 1
    torch.testing.assert_close(maps.angle.sum(1), torch.ones(2, HEIGHT, WIDTH))
    if classes > 1:
        torch.testing.assert_close(maps.foreground.sum(1), torch.ones(2, HEIGHT, WIDTH))


def test_maps_that_are_not_asked_for_are_none(stage_cfg):
    images = torch.rand(1, 3, HEIGHT, WIDTH)
    assert build_preprocessor(stage_cfg({"PREPROCESSOR.ANGLE_BINS": 0}))(images, []).angle is None
    assert build_preprocessor(stage_cfg({"PREPROCESSOR.FOREGROUND_CLASSES": 0}))(images, []).foreground is None


@pytest.mark.parametrize("overrides", [{}, BACKBONE], ids=["ForegroundFCN", "BackboneFCN"])
def test_a_frozen_preprocessor_neither_learns_nor_changes(stage_cfg, overrides: dict):
    frozen = build_frozen(stage_cfg(overrides))
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    maps = frozen.train()(torch.rand(2, 3, HEIGHT, WIDTH), [])
    assert not maps.foreground.requires_grad and not any(p.requires_grad for p in frozen.parameters())
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    learning = build_preprocessor(stage_cfg(overrides)).train()
    assert learning(torch.rand(2, 3, HEIGHT, WIDTH), []).foreground.requires_grad
    assert any(not torch.equal(value, before[name]) for name, value in learning.state_dict().items())


def test_a_backbone_needs_images_of_a_size_it_can_halve(stage_cfg):
    cfg = stage_cfg(BACKBONE)
    cfg.INPUT.IMAGE_SIZE = [40, 64]
    with pytest.raises(ValueError, match=r"INPUT.IMAGE_SIZE is \[40, 64\].*multiples of 32"):
        build_preprocessor(cfg)


# ---------------------------------------------------------------- losses


def random_case(classes: int) -> tuple[Tensor, Tensor, MapTargets]:
    generator = torch.Generator().manual_seed(classes)
    foreground = torch.rand(2, classes, 4, 5, generator=generator)
    angle = torch.softmax(torch.randn(2, 8, 4, 5, generator=generator), 1)
    batch = entries(2, classes)
    truth = torch.stack([entry["foreground"][:, :4, :5] for entry in batch])
    angles = torch.stack([entry["angle_map"][:, :4, :5] for entry in batch])
    weight = torch.rand(2, 4, 5, generator=generator)
    weight[0, 0] = 0
    if classes > 1:
        foreground = foreground / foreground.sum(1, keepdim=True)
    return foreground, angle, MapTargets(truth, angles, weight)


@pytest.mark.parametrize("classes", [1, 3])
def test_losses_pixel_by_pixel(classes: int):
    foreground, angle, targets = random_case(classes)
    entropy, both, either, angles = [], 0.0, 0.0, []
    for b in range(2):
        for y in range(4):
            for x in range(5):
                p, q = foreground[b, :, y, x].numpy(), targets.foreground[b, :, y, x].numpy()
                w = targets.weight[b, y, x].item()
                value = -(q * np.log(p + 1e-5)).sum()
                if classes == 1:
                    value -= ((1 - q) * np.log(1 - p + 1e-5)).sum()
                entropy.append(w * value)
                for c in range(0 if classes == 1 else 1, classes):
                    both += w * p[c] * q[c]
                    either += w * (p[c] + q[c] - p[c] * q[c]) + 1e-5
                is_object = q[0] == 1 if classes == 1 else q[0] == 0
                if is_object:
                    known = targets.angle[b, :, y, x].argmax().item()
                    angles.append(-np.log(angle[b, known, y, x].item() + 1e-5))
    assert foreground_cross_entropy(foreground, targets).item() == pytest.approx(np.mean(entropy), rel=1e-5)
    assert foreground_iou(foreground, targets).item() == pytest.approx(-both / either, rel=1e-5)
    assert angle_cross_entropy(angle, targets).item() == pytest.approx(np.mean(angles), rel=1e-5)


def test_objects_without_angles_have_no_angle_loss():
    _, angle, targets = random_case(1)
    expected = angle_cross_entropy(angle[1:], MapTargets(targets.foreground[1:], targets.angle[1:], targets.weight[1:]))
    targets.angle[0] = 0
    torch.testing.assert_close(angle_cross_entropy(angle, targets), expected)
    targets.angle[:] = 0
    assert angle_cross_entropy(angle, targets).item() == 0


def test_right_maps_have_the_best_statistics():
    _, _, targets = random_case(3)
    targets.weight[:] = 1
    best = map_statistics(targets.foreground, targets.angle, targets)
    assert best["iou_hard"].item() == pytest.approx(1, abs=1e-4) and best["angle_accuracy"].item() == 1
    assert "angle_accuracy" not in map_statistics(targets.foreground, None, targets)
    worst = map_statistics(targets.foreground.roll(1, dims=1), targets.angle.roll(1, dims=1), targets)
    assert worst["iou_hard"].item() == 0 and worst["angle_accuracy"].item() == 0


# ---------------------------------------------------------------- the meta-architecture


@pytest.mark.parametrize(
    ("overrides", "classes"), [({}, 1), ({"LOSS.FOREGROUND": "iou"}, 1), (BACKBONE, 3)], ids=["bce", "iou", "backbone"]
)
def test_it_learns_the_maps_of_a_batch(stage_cfg, overrides: dict, classes: int):
    model = build_model(stage_cfg(overrides)).train()
    assert isinstance(model, RecAttendPreprocessor)
    batch = entries(2, classes)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    history = []
    for _ in range(12):
        losses = model(batch)
        assert set(losses) == {"loss_foreground", "loss_angle", "loss_weight_decay"}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append(sum(losses.values()).item())
    assert history[-1] < history[0]


def test_results_have_the_size_of_the_file(stage_cfg):
    model = build_model(stage_cfg()).eval()
    batch = [{key: entry[key] for key in ("image", "height", "width")} for entry in entries(2)]
    with torch.no_grad():
        first, _ = model(batch)
    assert first["sem_seg"].shape == (1, 50, 70) and first["angle_map"].shape == (8, 50, 70)


def test_an_entry_without_its_maps_is_named(stage_cfg):
    batch = entries(2)
    del batch[1]["angle_map"]
    with pytest.raises(ValueError, match="image1.png has no 'angle_map'"):
        build_model(stage_cfg()).train()(batch)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"PREPROCESSOR.NAME": "GivenMaps"}, "'GivenMaps' has no foreground map that stage A"),
        ({"PREPROCESSOR.FOREGROUND_CLASSES": 0}, "has no foreground map that stage A could train"),
        ({"LOSS.FOREGROUND": "dice"}, "LOSS.FOREGROUND is 'dice', which is not known"),
    ],
)
def test_what_cannot_be_trained_is_refused(stage_cfg, overrides: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_model(stage_cfg(overrides))


def test_the_full_model_takes_its_weights_and_maps_and_changes_them_no_more(stage_cfg, run_steps):
    stage_a = build_model(stage_cfg())
    names = ["image", "memory", "angle", "foreground"]
    cfg = stage_cfg({"BOX_PROPOSER.INPUTS": names, "SEGMENTATION_HEAD.INPUTS": names})
    cfg.MODEL.META_ARCHITECTURE = "RecAttend"
    model = build_model(cfg)
    loaded = model.load_state_dict(stage_a.state_dict(), strict=False)
    assert not loaded.unexpected_keys and not any(key.startswith("preprocessor") for key in loaded.missing_keys)
    run_steps(model, entries(1)).masks.sum().backward()
    assert all(parameter.grad is None for parameter in model.preprocessor.parameters())
