"""Classes scored by the steps themselves: losses, training in every mode, results."""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances

from rec_attend_d2.data import ImageState
from rec_attend_d2.modeling.class_scorer import ClassScorer, build_class_scorer
from rec_attend_d2.modeling.losses import class_loss
from rec_attend_d2.modeling.postprocessing import build_postprocessor

HEIGHT, WIDTH = 32, 64
SINGLE_STEPS = ["ParallelTeacherForcing", "StatePool", "SequentialSteps"]


def batch_of(classes: list[list[int]]) -> list[dict]:
    """Images with up to three rectangles; class 0 is dark, class 1 bright, class 2 red."""
    colors = torch.tensor([[60, 60, 60], [250, 250, 250], [0, 0, 250]], dtype=torch.uint8)
    batch = []
    for index, labels in enumerate(classes):
        masks = torch.zeros(len(labels), HEIGHT, WIDTH, dtype=torch.bool)
        image = torch.full((3, HEIGHT, WIDTH), 120, dtype=torch.uint8)
        for n, label in enumerate(labels):
            masks[n, 4:24, 2 + 20 * n : 18 + 20 * n] = True
            image[:, masks[n]] = colors[label][:, None]
        instances = Instances((HEIGHT, WIDTH), gt_masks=BitMasks(masks), gt_classes=torch.tensor(labels))
        batch.append({"image": image, "instances": instances, "state": ImageState(), "file_name": f"image{index}.png"})
    return batch


def test_class_loss_is_the_cross_entropy():
    probabilities = torch.softmax(torch.randn(4, 5, 3), -1)
    classes = torch.randint(0, 3, (4, 5))
    loss = class_loss(probabilities, classes).numpy()
    for i in range(4):
        for j in range(5):
            assert loss[i, j] == pytest.approx(-np.log(probabilities[i, j, classes[i, j]].item() + 1e-5), rel=1e-5)


def test_probabilities_of_every_class():
    scorer = ClassScorer(classes=4, feature_channels=6)
    probabilities = scorer(torch.rand(5, 6, 3, 4))
    assert probabilities.shape == (5, 4)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5))


@pytest.mark.parametrize("mode", SINGLE_STEPS)
def test_single_steps_judge_the_class_of_the_objects_they_cut_out(fast_cfg, mode: str):
    settings = {"NUM_CLASSES": 3, "TRAINING.MODE": mode, "NORM": "group", "LOSS.CLASS_WEIGHT": 2.0}
    model = build_model(fast_cfg({**settings, "TRAINING.DRAWN_MEMORY.EMPTY_SHARE": 1.0}))
    bias = torch.tensor([0.3, -0.5, 0.9])
    with torch.no_grad():
        torch.nn.init.zeros_(model.class_scorer.mlp[2].weight)
        model.class_scorer.mlp[2].bias.copy_(bias)
        if mode == "SequentialSteps":  # which judges proposed boxes only
            model.box_proposer.box.weight.zero_()
            model.box_proposer.box.bias.copy_(torch.tensor([0.0, 0.0, 0.3, -0.3]))
    expected = -2 * torch.log(torch.softmax(bias, 0) + 1e-5)
    for label in range(3):
        losses = model(batch_of([[label] * 3, [label] * 2]))
        assert losses["loss_class"].item() == pytest.approx(expected[label].item(), rel=1e-5)
    mixed = model(batch_of([[0, 1, 2], [2, 1, 0]]))["loss_class"]
    assert expected.min() < mixed < expected.max()
    mixed.backward()
    assert model.class_scorer.mlp[2].bias.grad.abs().max() > 0
    assert model.box_proposer.box.weight.grad is None or (model.box_proposer.box.weight.grad == 0).all()


def test_whole_sequences_judge_the_class_of_matched_steps(tiny_cfg):
    cfg = tiny_cfg({"NUM_CLASSES": 3, "LOSS.CLASS_WEIGHT": 2.0})
    model = build_model(cfg).train()
    height, width = cfg.INPUT.IMAGE_SIZE
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, 2:20, 3:20], masks[1, 5:12, 25:40] = True, True
    instances = Instances((height, width), gt_masks=BitMasks(masks), gt_classes=torch.tensor([2, 1]))
    entry = {"image": torch.randint(0, 255, (3, height, width), dtype=torch.uint8), "instances": instances}
    images, targets = model.preprocess_image([entry]), model.extract_targets([entry])
    sequence = model.unroll(images, None, targets)
    output = model.compute_losses(sequence, targets)
    assert sequence.class_probabilities.shape == (1, model.time_steps, 3)
    expected = [
        -np.log(sequence.class_probabilities[0, t, int(targets.classes[0, n])].item() + 1e-5)
        for t, n in output.mask.match[0].nonzero().tolist()
    ]
    assert len(expected) == 2
    assert output.losses["loss_class"].item() == pytest.approx(2.0 * np.mean(expected), rel=1e-5)


def test_results_have_the_classes_of_the_steps_that_are_left(fast_cfg):
    postprocessor = build_postprocessor(fast_cfg({"TEST.SCORE_THRESHOLD": 0.5, "TEST.MIN_AREA": 3}))
    masks = torch.zeros(4, HEIGHT, WIDTH)
    masks[0, :10, :10], masks[1, 20:30, :10], masks[2, 0, 63], masks[3, :10, 30:40] = 1, 1, 1, 1
    probabilities = torch.eye(4)[torch.tensor([2, 0, 1, 3])]
    # The second has a low score, the third is too small.
    result = postprocessor(masks, torch.tensor([0.9, 0.1, 0.9, 0.8]), None, (HEIGHT, WIDTH), probabilities)
    assert result.pred_classes.tolist() == [2, 3]


def test_a_model_with_classes_predicts_them(fast_cfg):
    cfg = fast_cfg({"NUM_CLASSES": 3, "TEST.SCORE_THRESHOLD": 0.0, "TEST.MASK_THRESHOLD": 0.01, "TEST.MIN_AREA": 0})
    model = build_model(cfg).eval()
    with torch.no_grad():
        torch.nn.init.zeros_(model.class_scorer.mlp[2].weight)
        model.class_scorer.mlp[2].bias.copy_(torch.tensor([0.0, 5.0, 0.0]))
        (result,) = model(batch_of([[0, 1]]))
    assert len(result["instances"]) > 0 and (result["instances"].pred_classes == 1).all()


def test_without_classes_there_is_no_scorer(fast_cfg):
    assert build_class_scorer(fast_cfg(), (4, 3, 3)) is None
    model = build_model(fast_cfg({"NORM": "group"}))
    assert "loss_class" not in model(batch_of([[0, 1]]))


def test_an_unknown_class_is_refused(fast_cfg):
    model = build_model(fast_cfg({"NUM_CLASSES": 2}))
    with pytest.raises(ValueError, match="image1.png has an object of class 2 .*NUM_CLASSES is 2"):
        model(batch_of([[0, 1], [2]]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"NUM_CLASSES": 1}, "NUM_CLASSES is 1. Give 0"),
        ({"NUM_CLASSES": -3}, "NUM_CLASSES is -3. Give 0"),
        ({"NUM_CLASSES": 3, "PREPROCESSOR.FOREGROUND_CLASSES": 4}, "both give instances their class"),
    ],
)
def test_settings_that_make_no_sense(fast_cfg, overrides: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_class_scorer(fast_cfg(overrides), (4, 3, 3))
