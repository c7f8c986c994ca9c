"""Loaders over a user's own data set."""

import pytest
import torch

from rec_attend_d2.data.build import build_test_loader, build_train_loader, register_datasets


@pytest.fixture
def own(cfg, coco_content, write_coco, clean_catalog):
    """A config that trains and tests on a data set of DATASETS.COCO_FILES."""
    cfg.DATASETS.COCO_FILES = [["own_cells", *write_coco(coco_content)]]
    cfg.DATASETS.TRAIN = ("own_cells",)
    cfg.DATASETS.TEST = ("own_cells",)
    return cfg


def test_train_loader_keeps_images_without_objects(own):
    own.INPUT.MAX_SHIFT = 0  # which can move an object out of the image
    loader = iter(build_train_loader(own))
    batches = [next(loader) for _ in range(4)]
    assert all(len(batch) == 2 for batch in batches)
    counts = {entry["image_id"]: len(entry["instances"]) for batch in batches for entry in batch}
    assert counts == {7: 2, 9: 0}
    assert {tuple(entry["image"].shape) for batch in batches for entry in batch} == {(3, 32, 48)}


@pytest.mark.parametrize(
    ("architecture", "kept"),
    [
        ("RecAttend", [0, 1]),
        ("RecAttendBoxProposer", [0, 1]),
        ("RecAttendPreprocessor", [0, 1]),
    ],
)
def test_the_papers_models_learn_from_so_many_objects(own, architecture: str, kept: list[int]):
    own.MODEL.META_ARCHITECTURE = architecture
    own.MODEL.REC_ATTEND.TIME_STEPS = 1
    own.INPUT.AUGMENTATIONS = []
    assert sorted(len(entry["instances"]) for entry in next(iter(build_train_loader(own)))) == kept


def test_the_fast_model_gets_windows_with_all_objects_in_training_and_whole_pictures_otherwise(own):
    own.MODEL.META_ARCHITECTURE = "FastRecAttend"
    own.MODEL.REC_ATTEND.TIME_STEPS = 1
    own.INPUT.AUGMENTATIONS, own.INPUT.WINDOW_SIZE, own.INPUT.OBJECT_SIZE = [], 64, 12.0
    entries = next(iter(build_train_loader(own)))
    assert sorted(entry["gt_classes"].tolist() for entry in entries) == [[], [1, 1]]
    assert all(entry["image"].shape[1:] == entry["labels"].shape == (64, 64) for entry in entries)
    entries = [entry for batch in build_test_loader(own, "own_cells") for entry in batch]
    assert {tuple(entry["image"].shape) for entry in entries} == {(3, 20, 30)}


def test_test_loader_gives_each_image_once(own):
    entries = [entry for batch in build_test_loader(own, "own_cells") for entry in batch]
    assert [entry["image_id"] for entry in entries] == [7, 9]
    assert [(entry["height"], entry["width"]) for entry in entries] == [(20, 30)] * 2
    assert [len(entry["instances"]) for entry in entries] == [2, 0]


def test_workers_give_what_the_main_process_gives(own):
    own.DATALOADER.NUM_WORKERS = 1
    from_worker = [entry for batch in build_test_loader(own, "own_cells") for entry in batch]
    own.DATALOADER.NUM_WORKERS = 0
    direct = [entry for batch in build_test_loader(own, "own_cells") for entry in batch]
    for left, right in zip(from_worker, direct, strict=True):
        assert torch.equal(left["image"], right["image"])
        assert torch.equal(left["instances"].gt_masks.tensor, right["instances"].gt_masks.tensor)


@pytest.mark.parametrize("key", ["TRAIN", "TEST"])
def test_unknown_data_set(own, key):
    own.DATASETS[key] = ("own_cell",)
    with pytest.raises(ValueError, match=rf"DATASETS\.{key} names the data set 'own_cell'.*own_cells.*COCO_FILES"):
        register_datasets(own)


def test_unknown_test_data_set(own):
    with pytest.raises(ValueError, match=r"DATASETS\.TEST names the data set 'nuclei_vall'.*nuclei_val"):
        build_test_loader(own, "nuclei_vall")
