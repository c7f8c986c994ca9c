"""Pictures that belong together stay on one side."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rec_attend_d2.planning.groups import beside_validation, choose_validation, name_stem
from rec_attend_d2.planning.survey import look


@pytest.fixture
def pictures(draw):
    """Makes pictures that look different, of given names."""

    def make(names):
        generator = np.random.default_rng(0)
        boxes = [[(int(x), int(y), 6, 6) for x, y in generator.integers(0, 50, (5, 2))] for _ in names]
        return [look(draw(name, these, seed=i)) for i, (name, these) in enumerate(zip(names, boxes, strict=True))]

    return make


def names(split):
    return {Path(name).name for name in split.validation}


def test_a_name_without_its_last_number():
    assert name_stem("a/plate1_007.png") == str(Path("a/plate1_"))
    assert name_stem("a/b.png") == str(Path("a/b"))
    assert name_stem("t12_crop.png") == "t"


def test_pictures_of_one_plate_stay_together(pictures):
    facts = pictures([f"plate{p}_{i}.png" for p in "abcdefgh" for i in range(4)])
    split = choose_validation(facts)
    plates = {name.split("_")[0] for name in names(split)}
    assert len(split.validation) == 4 * len(plates) == 8
    assert "last number" in split.why


def test_kinds_of_pictures_are_on_both_sides(pictures):
    split = choose_validation(pictures([f"{kind}_{i}.png" for kind in ("large", "small") for i in range(10)]))
    assert len(split.validation) == 4 and split.why.endswith("drawn by chance")


def test_copies_and_near_equal_pictures_stay_together(pictures):
    facts = pictures([f"p{chr(97 + i)}.png" for i in range(20)])
    facts += [replace(fact, file_name=fact.file_name + "_", digest=fact.digest + "_") for fact in facts]
    split = choose_validation(facts)
    assert len(split.validation) == 8
    assert len({name.removesuffix("_") for name in names(split)}) == 4
    assert "nearly equal" in split.why


def test_a_film_is_cut_into_runs(pictures):
    first = pictures(["t1.png"])[0]
    facts = [replace(first, file_name=f"t{i}.png", digest=str(i)) for i in range(30)]
    numbers = sorted(int(name[1:-4]) for name in split_names(facts))
    assert len(numbers) == 6
    assert sum(after - before > 1 for before, after in zip(numbers, numbers[1:], strict=False)) <= 1
    assert "film" in choose_validation(facts).why


def split_names(facts):
    return names(choose_validation(facts))


def test_both_sides_have_objects(pictures):
    facts = [
        replace(fact, areas=fact.areas if i < 2 else []) for i, fact in enumerate(pictures(["a.png", "b.png", "c.png"]))
    ]
    for seed in range(5):
        chosen = set(choose_validation(facts, seed).validation)
        sides = [[fact for fact in facts if (fact.file_name in chosen) == side] for side in (True, False)]
        assert all(any(fact.areas for fact in side) for side in sides)
    with pytest.raises(ValueError, match="1 picture has objects, but at least two"):
        choose_validation(facts[1:])


def test_what_was_not_looked_at_beside_validation_is_for_neither_side():
    names = [f"plate{p}_{i}.png" for p in range(12) for i in range(3)]
    looked_at = names[1::3]
    found = beside_validation(["plate3_1.png", "plate11_1.png"], looked_at, names)
    assert found == ["plate3_0.png", "plate3_2.png", "plate11_0.png", "plate11_2.png"]
    assert beside_validation(["plate3_1.png"], names, names) == []
