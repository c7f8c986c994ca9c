"""Loaders over a user's own data set."""

import pytest
import torch

from rec_attend_d2.data import StatePoolLoader
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


@pytest.fixture
def fast(own):
    own.MODEL.META_ARCHITECTURE = "FastRecAttend"
    return own


def test_the_fast_model_gets_images_back(fast):
    loader = build_train_loader(fast)
    assert isinstance(loader, StatePoolLoader)
    assert loader.slots == 2
    batches = iter(loader)
    first = list(next(batches))
    first[0]["state"].advance(torch.zeros(32, 48), claimed=False)
    second = next(batches)
    assert second[0] is first[1]
    assert second[1]["state"].glances == 0 and second[1]["image"].shape == (3, 32, 48)


def test_the_pool_is_shared_by_all_processes(fast, monkeypatch):
    fast.SOLVER.IMS_PER_BATCH = 6
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 3)
    monkeypatch.setattr("detectron2.utils.comm.shared_random_seed", lambda: 0)
    assert build_train_loader(fast).slots == 2


@pytest.mark.parametrize("architecture", ["RecAttend", "RecAttendBoxProposer", "RecAttendPreprocessor"])
def test_the_papers_models_get_every_image_once_a_round(own, architecture: str):
    own.MODEL.META_ARCHITECTURE = architecture
    assert "state" not in next(iter(build_train_loader(own)))[0]


@pytest.mark.parametrize(
    ("architecture", "kept"),
    [
        ("FastRecAttend", [0, 2]),
        ("RecAttend", [0, 1]),
        ("RecAttendBoxProposer", [0, 1]),
        ("RecAttendPreprocessor", [0, 1]),
    ],
)
def test_only_the_fast_model_learns_from_all_objects(own, architecture: str, kept: list[int]):
    own.MODEL.META_ARCHITECTURE = architecture
    own.MODEL.REC_ATTEND.TIME_STEPS = 1
    own.INPUT.AUGMENTATIONS = []
    assert sorted(len(entry["instances"]) for entry in next(iter(build_train_loader(own)))) == kept


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
