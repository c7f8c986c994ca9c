"""Pictures of training data: what stands where, and that they show what the mapper gives."""

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.config import CfgNode, get_cfg

from rec_attend_d2 import add_rec_attend_config
from rec_attend_d2.data import RecAttendDatasetMapper, build_mapper
from rec_attend_d2.visualization import TrainingDataDrawer
from rec_attend_d2.visualization.canvas import GAP, striped, write_at
from rec_attend_d2.visualization.colors import BACKGROUND, IGNORED
from rec_attend_d2.visualization.training_data import draw_numbered, inner_point

HEIGHT, WIDTH, FACTOR, HEADER = 32, 48, 15, 44
CELL = HEIGHT * FACTOR, WIDTH * FACTOR


def rectangle(top: int, left: int, height: int, width: int) -> dict:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[top : top + height, left : left + width] = 1
    rle = mask_util.encode(mask)
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


@pytest.fixture
def cfg() -> CfgNode:
    """Shifts of up to 3 pixels; room for two objects."""
    config = get_cfg()
    add_rec_attend_config(config)
    config.INPUT.IMAGE_SIZE = [HEIGHT, WIDTH]
    config.INPUT.AUGMENTATIONS = ["RandomShift"]
    config.INPUT.MAX_SHIFT = 3
    config.MODEL.REC_ATTEND.TIME_STEPS = 2
    return config


@pytest.fixture
def record(tmp_path) -> dict:
    """A black image of three objects, of which the last is the largest, and a crowd; its right edge is unknown."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    boxes = [(4, 4, 6, 6), (20, 5, 2, 2), (12, 12, 9, 12)]
    objects = [{"category_id": 0, "iscrowd": 0, "segmentation": rectangle(*box)} for box in boxes]
    crowd = {"category_id": 0, "iscrowd": 1, "segmentation": rectangle(4, 28, 8, 8)}
    void = rectangle(20, 40, 6, 4)
    return {"file_name": str(tmp_path / "a.png"), "image_id": 0, "annotations": [*objects, crowd], "void": void}


def cells(picture: np.ndarray, column: int) -> list[np.ndarray]:
    """The cells of a column below its header."""
    left = column * (CELL[1] + GAP)
    rows = (picture.shape[0] - HEADER - GAP) // (CELL[0] + GAP)
    tops = [HEADER + GAP + row * (CELL[0] + GAP) for row in range(rows)]
    return [picture[top : top + CELL[0], left : left + CELL[1]] for top in tops]


def shown(cell: np.ndarray) -> np.ndarray:
    """[H, W] bool: pixels of the network's input of which a corner, free of numbers and lines, is not black."""
    return cell[2::FACTOR, 2::FACTOR].any(axis=2)


def test_a_draw_is_a_column_and_its_rows_are_image_and_objects(cfg, record):
    picture = TrainingDataDrawer(cfg).draw(record, [0, 1, 2])
    assert picture.shape == (HEADER + GAP + 2 * (CELL[0] + GAP), 3 * (CELL[1] + GAP), 3)
    assert not cells(picture, 0)[0].any()
    columns = [cells(picture, column)[1] for column in range(3)]
    assert not np.array_equal(columns[0], columns[1])
    np.testing.assert_array_equal(
        TrainingDataDrawer(cfg).draw(record, [1]), picture[:, CELL[1] + GAP :][:, : CELL[1] + GAP]
    )


def test_it_shows_what_training_gets(cfg, record):
    picture = TrainingDataDrawer(cfg).draw({**record, "annotations": record["annotations"][:3]}, [5])
    np.random.seed(5)
    masks = RecAttendDatasetMapper(cfg, is_train=True)(record)["instances"].gt_masks.tensor.numpy()
    assert len(masks) == 2
    drawn = shown(cells(picture, 0)[1])
    # The void is the only other thing.
    drawn[:, 36:] = False
    np.testing.assert_array_equal(drawn, masks.any(axis=0))


def test_crowds_and_void_move_along_and_are_striped(cfg, record):
    def gray(seed: int) -> np.ndarray:
        cell = cells(TrainingDataDrawer(cfg).draw({**record, "annotations": record["annotations"][2:]}, [seed]), 0)[1]
        return (np.abs(cell - 0.65 * np.array(IGNORED)) < 1).all(axis=2)

    def shift(seed: int) -> np.ndarray:
        np.random.seed(seed)
        masks = RecAttendDatasetMapper(cfg, is_train=True)(record)["instances"].gt_masks.tensor.numpy()
        return np.array([side.min() for side in masks[0].nonzero()]) - (12, 12)

    for seed in (0, 1):
        stripes = gray(seed)
        down, right = shift(seed)
        expected = np.zeros((HEIGHT, WIDTH), bool)
        for top, left, height, width in ((4, 28, 8, 8), (20, 40, 6, 4)):
            expected[top + down : top + down + height, left + right : left + right + width] = True
        expected = expected.repeat(FACTOR, axis=0).repeat(FACTOR, axis=1)
        assert not stripes[~expected].any() and 0.4 < stripes[expected].mean() < 0.6


def test_maps_follow_where_the_mapper_makes_them(cfg, record):
    cfg.MODEL.META_ARCHITECTURE = "RecAttendPreprocessor"
    node = cfg.MODEL.REC_ATTEND.PREPROCESSOR
    node.FOREGROUND_CLASSES, node.ANGLE_BINS = 1, 8
    picture = TrainingDataDrawer(cfg).draw(record, [5])
    np.random.seed(5)
    entry = RecAttendDatasetMapper(cfg, is_train=True)(record)
    _, _, foreground, angle = cells(picture, 0)
    drawn = (foreground[2::FACTOR, 2::FACTOR] == 255).all(axis=2)
    np.testing.assert_array_equal(drawn, entry["foreground"][0] > 0)
    np.testing.assert_array_equal(shown(angle), entry["angle_map"].amax(0) > 0)
    node.FOREGROUND_CLASSES = 0
    assert len(cells(TrainingDataDrawer(cfg).draw(record, [5]), 0)) == 3


def test_windows_are_drawn_as_the_fast_model_gets_them(cfg, record):
    cfg.MODEL.META_ARCHITECTURE = "FastRecAttend"
    cfg.INPUT.OBJECT_SIZE, cfg.INPUT.OBJECT_PIXELS, cfg.INPUT.WINDOW_SIZE = 12.0, 12.0, 32
    cfg.INPUT.AUGMENTATIONS = ["RandomHorizontalFlip"]
    drawer = TrainingDataDrawer(cfg)
    for seed in range(3):
        image, objects = (cell[:, : 32 * FACTOR] for cell in cells(drawer.draw(record, [seed]), 0))
        assert image.shape == objects.shape == (32 * FACTOR, 32 * FACTOR, 3) and not image.any()
        np.random.seed(seed)
        labels = build_mapper(cfg)(record)["labels"].numpy()
        gray = (np.abs(objects - 0.65 * np.array(IGNORED)) < 1).all(axis=2)
        stripes = gray.reshape(32, FACTOR, 32, FACTOR).any((1, 3))
        np.testing.assert_array_equal(stripes, labels < 0)
        np.testing.assert_array_equal(shown(objects) & ~stripes, labels > 0)


def test_images_without_objects_are_drawn(cfg, record):
    picture = TrainingDataDrawer(cfg).draw({**record, "annotations": [], "void": rectangle(0, 0, 32, 1)}, [0])
    assert len(cells(picture, 0)) == 2


def test_images_without_annotations_are_an_error(cfg, record):
    with pytest.raises(ValueError, match=r"a\.png has no annotations, so that nothing can be trained"):
        TrainingDataDrawer(cfg).draw({"file_name": record["file_name"]}, [0])


def test_numbers_stand_inside_the_objects():
    mask = np.zeros((60, 80), bool)
    mask[10:12, 10:70] = mask[10:50, 50:70] = True
    y, x = inner_point(mask)
    assert 19 <= y <= 40 and 58 <= x <= 61
    corner = np.zeros((5, 5), bool)
    corner[0, 4] = True
    assert inner_point(corner) == (0, 4)
    picture = draw_numbered(np.zeros((60, 80, 3), np.uint8), mask[None], np.zeros((0, 1, 1), bool))
    white = np.argwhere(picture.min(axis=2) > 150)
    np.testing.assert_allclose(white.mean(axis=0), (y, x), atol=2)


def test_stripes_and_texts_leave_the_rest_alone():
    image = np.full((40, 40, 3), 60, np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[:16, :16] = True
    picture = striped(image, mask, (255, 255, 255))
    assert (picture[~mask] == 60).all() and (picture[:16, :16, 0] > 60).sum() == 128
    written = write_at(image, [("7", (20.0, 20.0))])
    assert (written[:8] == 60).all() and (written == BACKGROUND).all(axis=2).any() and (image == 60).all()
