"""What research/try_reliability.py compares and computes; what it tries takes too long for a test."""

import pytest
import torch


@pytest.fixture
def tool(script):
    return script("try_reliability")


def test_checkpoints_differ_in_single_bits_but_not_in_where_they_were_trained(tool, tmp_path):
    content = {"model": {"a": torch.ones(2)}, "trainer": {"config": "here", "hooks": [1, {"seed": 2}]}}
    torch.save(content, tmp_path / "one.pth")
    content["trainer"]["config"] = "there"
    torch.save(content, tmp_path / "two.pth")
    assert tool.differing(tmp_path / "one.pth", tmp_path / "two.pth") == []
    content["model"]["a"][1] += 2**-23
    content["trainer"]["hooks"][1]["seed"] = 3
    torch.save(content, tmp_path / "two.pth")
    assert tool.differing(tmp_path / "one.pth", tmp_path / "two.pth") == ["/model/a", "/trainer/hooks/1/seed"]


def test_growth_is_that_of_the_second_half(tool):
    assert tool.growth_per_thousand([0, 500, 900, 1000, 1003, 1006, 1009, 1012]) == 3000


def test_pictures_are_a_data_set_with_and_without_objects(tool, tmp_path):
    options = tool.draw_pictures(tmp_path)
    assert options[0] == "DATASETS.COCO_FILES" and str(tmp_path / "discs.json") in options[1]
    content = tool.json.loads((tmp_path / "discs.json").read_text())
    with_objects = {entry["image_id"] for entry in content["annotations"]}
    assert 0 < len(with_objects) < len(content["images"]) == len(list((tmp_path / "images").iterdir()))
