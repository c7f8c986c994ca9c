"""Registering data sets that are read later, and once."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from rec_attend_d2.data.datasets.registration import register_lazily


def test_registering_again_replaces(clean_catalog):
    calls = []
    for number in (1, 2):
        register_lazily("later", lambda number=number: calls.append(number) or [], image_root=f"root{number}")
    assert calls == []
    assert DatasetCatalog.get("later") == []
    assert calls == [2]
    assert MetadataCatalog.get("later").image_root == "root2"


def test_files_are_read_once_until_it_is_registered_again(clean_catalog):
    content = [{"image_id": 1}]
    register_lazily("later", lambda: list(content))
    assert DatasetCatalog.get("later") == [{"image_id": 1}]
    content.append({"image_id": 2})
    assert DatasetCatalog.get("later") == [{"image_id": 1}]
    register_lazily("later", lambda: list(content))
    assert DatasetCatalog.get("later") == content


def test_nobody_gets_dicts_that_another_has_changed(clean_catalog):
    register_lazily("later", lambda: [{"image_id": 1, "annotations": [{"bbox": [0, 0, 1, 1]}]}])
    records = DatasetCatalog.get("later")
    records[0]["annotations"][0]["bbox"][0] = 5
    records.append({})
    assert DatasetCatalog.get("later") == [{"image_id": 1, "annotations": [{"bbox": [0, 0, 1, 1]}]}]


def test_a_failure_is_not_kept(clean_catalog):
    attempts = []

    def load() -> list[dict]:
        attempts.append(1)
        if len(attempts) == 1:
            raise FileNotFoundError("unpack the archive")
        return [{"image_id": 1}]

    register_lazily("later", load)
    with pytest.raises(FileNotFoundError, match="unpack"):
        DatasetCatalog.get("later")
    assert DatasetCatalog.get("later") == [{"image_id": 1}]
