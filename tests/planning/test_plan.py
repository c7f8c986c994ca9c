"""Settings that follow from data, and the file that keeps them."""

from dataclasses import replace

import pytest
import yaml

from rec_attend_d2.data.datasets.annotated import Annotated
from rec_attend_d2.planning import Plan, Setting, choose_settings, survey
from rec_attend_d2.planning.schedule import make_schedule


@pytest.fixture
def found(draw):
    return survey([draw(f"p{i}.png", [(5, 5, 12, 12), (40, 30, 12, 12)], seed=i) for i in range(4)], ["cell"])


def values(found):
    return {key: setting.value for key, setting in choose_settings(found).items()}


def test_small_round_things_on_a_dark_ground(found):
    chosen = values(found)
    assert (chosen["INPUT.OBJECT_SIZE"], chosen["INPUT.OBJECT_PIXELS"], chosen["INPUT.WINDOW_SIZE"]) == (12.0, 12.0, 96)
    assert chosen["INPUT.CONTRAST_PERCENTILES"] == [1.0, 99.8]
    assert chosen["INPUT.AUGMENTATIONS"][-1] == "EmptyPictures"
    assert "MODEL.REC_ATTEND.NUM_CLASSES" not in chosen


def test_ragged_things_in_colours(found):
    pictures = [
        replace(p, grey=False, solidity=0.8, brightness=90.0, areas=[3600, 3600], size=(1000, 2000))
        for p in found.pictures
    ]
    chosen = values(replace(found, pictures=pictures, class_names=["leaf", "stem"]))
    assert (chosen["INPUT.OBJECT_SIZE"], chosen["INPUT.OBJECT_PIXELS"], chosen["INPUT.WINDOW_SIZE"]) == (
        60.0,
        24.0,
        256,
    )
    assert chosen["INPUT.CONTRAST_PERCENTILES"] == [] and "EmptyPictures" not in chosen["INPUT.AUGMENTATIONS"]
    assert chosen["MODEL.REC_ATTEND.NUM_CLASSES"] == 2
    assert chosen["MODEL.REC_ATTEND.CLASS_NAMES"] == ["leaf", "stem"]


def test_small_objects_among_large_ones_decide_on_the_scale(found):
    pictures = [replace(p, areas=[40 * 40] * 8 + [8 * 8] * 2) for p in found.pictures]
    chosen = values(replace(found, pictures=pictures))
    assert chosen["INPUT.OBJECT_SIZE"] == 16.0  # at 12 network pixels a width of 8 becomes 6


def test_a_plan_is_what_was_written(found, tmp_path):
    data = Annotated(tmp_path / "images", labels=tmp_path / "labels", background=(0, 0, 255), pieces="keep")
    plan = Plan(data, ["a.png"], "drawn", 20.0, choose_settings(found), ["cell"], 17.5)
    plan.write(tmp_path / "plan.yaml")
    assert Plan.read(tmp_path / "plan.yaml") == plan
    cfg = plan.config()
    assert cfg.MODEL.META_ARCHITECTURE == "FastRecAttend" and cfg.INPUT.OBJECT_SIZE == 12.0


def test_an_edited_plan(found, tmp_path):
    plan = Plan(Annotated(tmp_path), ["a.png"], "drawn", 20.0, choose_settings(found), ["cell"])
    plan.write(tmp_path / "plan.yaml")
    content = yaml.safe_load((tmp_path / "plan.yaml").read_text())
    content["settings"]["INPUT.OBJECT_SIZE"] = 30
    content["settings"]["SOLVER.BASE_LR"]["value"] = 0.001
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(content))
    edited = Plan.read(tmp_path / "edited.yaml")
    assert edited.settings["INPUT.OBJECT_SIZE"] == Setting(30)
    assert (edited.config().INPUT.OBJECT_SIZE, edited.config().SOLVER.BASE_LR) == (30.0, 0.001)
    content["settings"]["INPUT.OBJECT_SIZ"] = 30
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="OBJECT_SIZ"):
        Plan.read(tmp_path / "edited.yaml").config()


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "no YAML"), ("data: 1", "has no minutes"), ("- 1", "has no data")]
)
def test_a_broken_plan_is_named(tmp_path, text, words):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"plan.yaml' .*{words}"):
        Plan.read(tmp_path / "plan.yaml")


def test_time_is_divided():
    schedule = make_schedule(1200.0, 0.2, [(256, 256)] * 25, 1.0, 120)
    assert 0.85 * 1200 < schedule.learning < 1200
    period = schedule.settings["TEST.EVAL_PERIOD"].value
    assert 6 * period * 0.2 == pytest.approx(schedule.learning, rel=0.1)
    # Pictures that take long leave no time for evaluations on the way, but still half of all for learning.
    slow = make_schedule(60.0, 0.2, [(4096, 4096)] * 25, 1.0, 120)
    assert slow.learning == 30.0 and "TEST.EVAL_PERIOD" not in slow.settings
