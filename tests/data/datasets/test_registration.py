"""Registering data sets that are read later."""

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
