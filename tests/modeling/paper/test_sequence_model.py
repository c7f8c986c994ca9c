"""What stage B and the full model share: preparing a batch, refusing a wrong one, statistics and weight decay."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage

from rec_attend_d2.modeling.paper.sequence_model import SequenceModel

GIVEN_MAPS = {
    "PREPROCESSOR.NAME": "GivenMaps",
    "PREPROCESSOR.ANGLE_BINS": 8,
    "PREPROCESSOR.FOREGROUND_CLASSES": 1,
    "BOX_PROPOSER.INPUTS": ["image", "memory", "angle", "foreground"],
}
STATISTICS = {
    "RecAttend": {"train/iou_hard", "train/dice", "train/dic", "train/count_acc", "train/box_iou"},
    "RecAttendBoxProposer": {"train/dic", "train/count_acc", "train/box_iou"},
}


@pytest.fixture(params=["RecAttend", "RecAttendBoxProposer"])
def architecture(request: pytest.FixtureRequest) -> str:
    """Each meta-architecture."""
    return request.param


@pytest.fixture
def make_cfg(tiny_cfg, architecture: str) -> Callable[..., CfgNode]:
    """A function from config overrides to a config of the meta-architecture."""

    def make(overrides: dict | None = None) -> CfgNode:
        cfg = tiny_cfg(overrides)
        cfg.MODEL.META_ARCHITECTURE = architecture
        return cfg

    return make


@pytest.fixture
def make_model(make_cfg) -> Callable[..., SequenceModel]:
    """A function from config overrides to a model."""

    def make(overrides: dict | None = None) -> SequenceModel:
        return build_model(make_cfg(overrides))

    return make


def test_weight_decay_is_its_own_term(make_model, make_batch, architecture: str):
    model = make_model({"LOSS.WEIGHT_DECAY": 0.5})
    weights = {name: w for name, w in model.named_parameters() if name.endswith("weight") and ".norm." not in name}
    box_proposer = 4 + 1 + 2 + 1  # control CNN, LSTM, glimpse MLP, box
    assert len(weights) == box_proposer + (1 if architecture == "RecAttendBoxProposer" else 3 + 4 + 1)
    expected = 0.25 * sum((weight.detach() ** 2).sum().item() for weight in weights.values())
    assert model(make_batch([1]))["loss_weight_decay"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("iteration", "logged"), [(0, True), (20, True), (7, False)])
def test_statistics_go_into_the_event_storage(make_model, make_batch, architecture: str, iteration: int, logged: bool):
    model = make_model()
    with EventStorage(iteration) as storage:
        losses = model(make_batch([2, 1]))
        names = {name for name in storage.latest() if name.startswith("train/")}
    assert all(name.startswith("loss_") for name in losses)
    assert (STATISTICS[architecture] <= names) == logged
    assert bool(names) == logged


def test_images_are_divided_by_std_after_the_mean(make_cfg, make_batch):
    cfg = make_cfg()
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [10.0, 20.0, 30.0], [1.0, 2.0, 5.0]
    batch = make_batch([1, 0])
    images = build_model(cfg).preprocess_image(batch)
    for channel, (mean, std) in enumerate(((10, 1), (20, 2), (30, 5))):
        expected = (batch[1]["image"][channel].double().numpy() - mean) / std
        np.testing.assert_allclose(images[1, channel].numpy(), expected, rtol=1e-6)


def test_without_an_original_size_instances_have_the_network_size(make_model, make_batch):
    with torch.no_grad():
        (output,) = make_model().eval()([{"image": make_batch([1])[0]["image"]}])
    assert output["instances"].image_size == (32, 48)


@pytest.mark.parametrize("size", [(32, 40), (48, 32), (16, 24)])
@pytest.mark.parametrize("training", [True, False])
def test_an_image_of_another_size_is_refused(make_model, make_batch, size: tuple[int, int], training: bool):
    batch = make_batch([1, 1])
    batch[1]["image"] = torch.zeros(3, *size, dtype=torch.uint8)
    message = rf"image1.png has size \({size[0]}, {size[1]}\).*INPUT.IMAGE_SIZE is \(32, 48\)"
    with pytest.raises(ValueError, match=message):
        make_model().train(training)(batch)


def test_training_without_instances_is_refused(make_model, make_batch):
    batch = make_batch([1, 1])
    del batch[1]["instances"]
    with pytest.raises(ValueError, match="image1.png has no 'instances'"):
        make_model()(batch)


@pytest.mark.parametrize("which", [[1], [0, 1]], ids=["one image", "all images"])
def test_instances_of_another_size_than_their_image_are_refused(make_model, make_batch, which: list[int]):
    batch = make_batch([1, 1])
    for index in which:
        instances = Instances((64, 96))
        instances.gt_masks = BitMasks(torch.ones(1, 64, 96, dtype=torch.bool))
        batch[index]["instances"] = instances
    with pytest.raises(ValueError, match=r"64.*96.*INPUT\.IMAGE_SIZE"):
        make_model()(batch)


@pytest.mark.parametrize("key", ["angle_map", "foreground"])
@pytest.mark.parametrize("training", [True, False])
def test_a_missing_map_is_refused(make_model, make_batch, key: str, training: bool):
    batch = make_batch([1, 1], angle_bins=8, foreground_classes=1)
    del batch[0][key]
    with pytest.raises(ValueError, match=f"image0.png has '{key}'"):
        make_model(GIVEN_MAPS).train(training)(batch)


@pytest.mark.parametrize("key", ["TIME_STEPS", "BOX_PROPOSER.GLIMPSES", "SCHEDULED_SAMPLING.DECAY_STEPS"])
def test_settings_without_a_single_step_are_refused(make_model, key: str):
    with pytest.raises(ValueError, match=f"MODEL.REC_ATTEND.{key} is 0"):
        make_model({key: 0})
