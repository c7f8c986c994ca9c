"""The image encoder: our own, and any other backbone of Detectron2."""

import pytest
import torch
from detectron2.modeling import build_model

from rec_attend_d2.modeling.fast.image_encoder import ImageEncoder

from .conftest import label_image, rectangle

RESNET_FPN = [
    *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"),
    *("MODEL.BACKBONE.FREEZE_AT", 0),
    *("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.RESNETS.NORM", "BN"),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", 64),
    *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"], "MODEL.FPN.OUT_CHANNELS", 20),
]


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_its_maps_have_a_quarter_and_an_eighth_of_the_size(model, size):
    maps = model.preprocessor(torch.rand(2, 3, *size), []).features
    channels = model.preprocessor.feature_channels
    assert [tuple(level.shape) for level in maps] == [
        (2, channels[0], size[0] // 4, size[1] // 4),
        (2, channels[1], size[0] // 8, size[1] // 8),
    ]


def test_another_backbone_learns_and_finds(cfg):
    cfg.merge_from_list(RESNET_FPN)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    channels = [level.conv.out_channels for level in model.preprocessor.project]
    assert channels == list(model.preprocessor.feature_channels) != [20, 20]
    labels = label_image([rectangle(8, 8, 24, 32), rectangle(40, 60, 12, 12)])
    image = torch.randint(0, 256, (3, *labels.shape), dtype=torch.uint8)
    batch = [{"image": image, "labels": labels, "gt_classes": torch.zeros(2, dtype=torch.int64)}]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = model(batch)
    sum(losses.values()).backward()
    # The coarser maps of the pyramid are not looked at.
    unused = {name.split(".")[-2] for name, p in model.named_parameters() if p.grad is None}
    assert unused == {"fpn_output4", "fpn_output5"}
    optimizer.step()
    model.eval()
    torch.nn.init.constant_(model.segmentation_head.mask.bias, 3.0)
    torch.nn.init.zeros_(model.box_proposer.place.bias)
    model.stop_threshold = 0.0
    found = model([{"image": image[:, :40, :50]}])[0]["instances"]
    assert found.image_size == (40, 50) and len(found) > 0


def test_a_backbone_without_the_maps_is_refused(cfg):
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RESNETS.OUT_FEATURES", ["res4"]])
    with pytest.raises(ValueError, match=r"'build_resnet_backbone' gives maps of strides \['16'\]; .* needs 4 and 8"):
        ImageEncoder(cfg)


def test_an_unknown_backbone_is_named(cfg):
    cfg.MODEL.BACKBONE.NAME = "build_nothing"
    with pytest.raises(ValueError, match="MODEL.BACKBONE.NAME .*build_nothing"):
        build_model(cfg)
