"""Fitted exponents of growth."""

import pytest

from rec_attend_d2.benchmark.growth import fit_exponent, measure_growth


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law(exponent):
    sizes = [5, 10, 20, 40]
    assert fit_exponent(sizes, [3 * size**exponent for size in sizes]) == pytest.approx(exponent)


def test_least_squares_on_the_logarithms():
    # log2 of the values: 0.1, 0.9, 2.1, 2.9 at 0, 1, 2, 3; the line through them has slope 0.96.
    assert fit_exponent([1, 2, 4, 8], [2**0.1, 2**0.9, 2**2.1, 2**2.9]) == pytest.approx(0.96)


@pytest.mark.parametrize(("sizes", "values"), [([5], [1.0]), ([5, 5], [1.0, 2.0]), ([5, 10], [0.0, 1.0])])
def test_no_exponent_without_two_sizes_and_positive_values(sizes, values):
    with pytest.raises(ValueError, match="two different sizes"):
        fit_exponent(sizes, values)


def work(cfg) -> dict[str, float]:
    """A model whose time is linear in steps and pixels, and whose memory grows with the root of the pixels."""
    height, width = cfg.INPUT.IMAGE_SIZE
    node = cfg.MODEL.REC_ATTEND
    assert node.TEST.MAX_STEPS in (0, 5)
    return {"time": 2e-6 * node.TIME_STEPS * height * width, "memory": (height * width) ** 0.5}


def test_both_series(quick_cfg):
    growth = measure_growth(quick_cfg("fast"), work, time_steps=(5, 10, 20), sides=(32, 64, 128))
    assert growth["time steps"]["exponents"] == {"time": pytest.approx(1), "memory": pytest.approx(0)}
    assert growth["pixels"]["exponents"] == {"time": pytest.approx(1), "memory": pytest.approx(0.5)}
    assert [row["size"] for row in growth["pixels"]["rows"]] == [1024, 4096, 16384]
    assert growth["time steps"]["rows"][0] == {"size": 5, **work_at(5)}


def work_at(steps: int) -> dict[str, float]:
    return {"time": pytest.approx(2e-6 * steps * 32 * 64), "memory": pytest.approx((32 * 64) ** 0.5)}


def test_a_model_without_steps_has_one_series(quick_cfg):
    assert list(measure_growth(quick_cfg("Cityscapes/stage_a"), work, sides=(32, 64))) == ["pixels"]
