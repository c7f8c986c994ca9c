"""What is found out about pictures and their outlines."""

import numpy as np
import pytest

from rec_attend_d2.planning.survey import count_touching, doubts, findings, look, solidity, survey


def test_facts_of_a_picture(draw):
    record = draw("a.png", [(5, 5, 10, 10), (16, 5, 10, 10), (50, 30, 20, 5)])
    record["annotations"].append({**record["annotations"][0], "iscrowd": 1})
    facts = look(record)
    assert (facts.size, facts.depth, facts.grey) == ((60, 80), "uint8", True)
    assert facts.areas == [100, 100, 100]
    # One pixel lies between the first two.
    assert (facts.crowds, facts.touching, facts.in_pieces, facts.solidity) == (1, 2, 0, 1.0)
    assert facts.levels[0] < 0.1 and facts.levels[1] > 0.9


def test_touching_is_a_gap_of_one_pixel_at_most():
    labels = np.zeros((20, 20), np.int32)
    labels[0:4, 0:4], labels[5:8, 0:4], labels[0:4, 6:9], labels[8:11, 4:8] = 1, 2, 3, 4
    assert count_touching(labels) == 3  # 1 and 2 by a gap, 2 and 4 by a corner; 3 is two pixels away


def test_solidity_tells_round_from_bent():
    disc = np.hypot(*np.mgrid[-12:13, -12:13]) < 11
    bent = np.zeros((30, 30), bool)
    bent[:, :6] = bent[-6:] = True
    assert solidity(disc) > 0.95 > 0.7 > solidity(bent)
    assert solidity(np.ones((1, 1), bool)) == 1.0


def test_findings_and_doubts_name_what_is_odd(draw):
    records = [draw(f"p{i}.png", [(5, 5, 12, 12), (40, 30, 12, 12)], seed=i) for i in range(4)]
    records.append(draw("copy.png", [(5, 5, 12, 12), (40, 30, 12, 12)], seed=0))
    records[4]["annotations"].pop()
    records.append(draw("speck.png", [(7, 7, 1, 1), (20, 20, 12, 12)], seed=9))
    records.append(draw("ground.png", [(0, 0, 80, 40)], seed=10))
    records[1]["annotations"][0]["segmentation"] *= 2
    records[1]["annotations"][0]["segmentation"][1] = [60, 5, 64, 5, 64, 9, 60, 9]
    found = survey(records, ["cell"])
    rows = dict(findings(found))
    assert rows["pictures"] == "7" and rows["objects"].startswith("12;")
    assert rows["sizes"] == "80 x 60" and rows["pixels"] == "uint8, grey"
    text = "\n".join(doubts(found))
    for words in ("1 objects of one pixel (first: ", "1 objects in several pieces", "covers more than half", "copies"):
        assert words in text
    assert "outlined differently" in text and "copy.png" in text


@pytest.mark.parametrize(("crowd", "reason"), [(0, "there is no annotation"), (1, "all 1 annotations are crowds")])
def test_data_without_objects_are_an_error(draw, crowd, reason):
    record = draw("a.png", [(5, 5, 10, 10)] if crowd else [])
    for annotation in record["annotations"]:
        annotation["iscrowd"] = 1
    with pytest.raises(ValueError, match=f"no object to train on: {reason}"):
        survey([record], ["cell"])
