"""The fast model's mapper: label images of windows in training, whole scaled pictures otherwise."""

import copy

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T

from rec_attend_d2.data import build_mapper, picture_cache, window_mapper
from rec_attend_d2.data.picture_cache import PictureCache
from rec_attend_d2.data.window_mapper import WindowMapper
from rec_attend_d2.data.windows import CLAIMED, RandomWindow, WindowTransform

SIZE = (40, 60)


class Window(T.Augmentation):
    """The window of side 32 whose top left corner is given."""

    def __init__(self, top: float, left: float, scale: float = 1.0):
        super().__init__()
        self.side = 32
        self.transform = WindowTransform((left + 16 / scale, top + 16 / scale), (scale, scale), (32, 32))

    def get_transform(self, image: np.ndarray) -> WindowTransform:
        return self.transform


def annotation(top: int, left: int, height: int, width: int, category: int = 0, **more) -> dict:
    """A rectangle."""
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + height, left : left + width] = 1
    return {"category_id": category, "segmentation": mask, **more}


@pytest.fixture
def write(tmp_path):
    """A function that writes a picture and returns its dataset dict; it may be called again for another picture."""

    def make(*annotations: dict, pixels: np.ndarray | None = None, name: str = "picture.png") -> dict:
        pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8) if pixels is None else pixels
        cv2.imwrite(str(tmp_path / name), pixels)
        record = {"file_name": str(tmp_path / name), "image_id": 5, "height": SIZE[0], "width": SIZE[1]}
        return {**record, "annotations": list(annotations)}

    return make


def mapper_of(**arguments) -> WindowMapper:
    return WindowMapper(object_size=12.0, **arguments)


def mapped(record: dict, top: float = 0, left: float = 0, scale: float = 1.0) -> tuple[np.ndarray, list[int]]:
    """Labels and classes of a window."""
    before = copy.deepcopy(record)
    entry = mapper_of(scale=scale, window=Window(top, left, scale))(record)
    np.testing.assert_equal(record, before)
    assert str(entry["labels"].dtype) == "torch.int32" and str(entry["gt_classes"].dtype) == "torch.int64"
    assert (entry["file_name"], entry["image_id"]) == (record["file_name"], 5)
    assert (entry["height"], entry["width"]) == SIZE
    return entry["labels"].numpy(), entry["gt_classes"].tolist()


# ---------------------------------------------------------------- labels


def test_labels_have_no_gaps_and_classes_follow(write):
    # The largest comes first; the second is not in the window.
    record = write(annotation(2, 2, 4, 4, 3), annotation(30, 50, 6, 6, 1), annotation(10, 10, 9, 9, 2))
    labels, classes = mapped(record)
    assert classes == [2, 3]
    expected = np.zeros((32, 32))
    expected[2:6, 2:6], expected[10:19, 10:19] = 2, 1
    np.testing.assert_array_equal(labels, expected)


def test_slivers_are_claimed(write):
    record = write(annotation(10, 30, 10, 10), annotation(25, 20, 4, 4, 1))
    labels, classes = mapped(record)  # a fifth of the first
    assert classes == [0, 1] and (labels[10:20, 30:] == 1).all()
    labels, classes = mapped(record, 0, -1)
    assert classes == [1] and (labels[10:20, 31:] == CLAIMED).all() and (labels[25:29, 21:25] == 1).all()
    assert (labels[:, 0] == CLAIMED).all()  # outside of the picture


def test_crowds_are_claimed_where_no_object_is(write):
    record = write(annotation(10, 10, 4, 4), annotation(4, 4, 20, 20, iscrowd=1))
    labels, classes = mapped(record)
    expected = np.zeros((32, 32))
    expected[4:24, 4:24], expected[10:14, 10:14] = CLAIMED, 1
    np.testing.assert_array_equal(labels, expected)
    assert classes == [0]


def test_the_smaller_of_overlapping_objects_has_the_pixels(write):
    small, large = annotation(10, 10, 4, 4, 1), annotation(4, 4, 20, 20, 2)
    for record in (write(small, large), write(large, small)):
        labels, classes = mapped(record)
        assert classes == [2, 1] and (labels[10:14, 10:14] == 2).all() and (labels == 1).sum() == 400 - 16


def test_a_hidden_object_is_no_object(write):
    labels, classes = mapped(write(annotation(8, 8, 6, 6, 1), annotation(8, 8, 6, 6, 2), annotation(20, 20, 5, 5, 3)))
    assert classes == [2, 3] and sorted(np.unique(labels)) == [0, 1, 2]


def test_a_single_pixel_is_an_object(write):
    labels, classes = mapped(write(annotation(5, 7, 1, 1, 4)))
    assert classes == [4] and np.argwhere(labels == 1).tolist() == [[5, 7]]


def test_shares_count_at_the_windows_scale(write):
    record = write(annotation(10, 20, 20, 20))
    labels, classes = mapped(record, 0, 0, 0.5)
    assert classes == [0] and (labels == 1).sum() == 100
    labels, classes = mapped(record, 0, 0, 2.0)  # of which 12 x 40 pixels of 1600 are not cut off
    assert classes == [] and not (labels > 0).any()


def test_pictures_without_objects(write):
    labels, classes = mapped(write())
    assert classes == [] and not labels.any()


# ---------------------------------------------------------------- pixels


def test_pixels_are_those_of_the_file(write):
    record = write()
    image = cv2.imread(record["file_name"])
    entry = mapper_of(scale=1.0, window=Window(3, 20))(record)
    np.testing.assert_array_equal(entry["image"].numpy().transpose(1, 2, 0), image[3:35, 20:52])


def test_grey_and_deep_pictures_have_three_equal_channels(write):
    deep = np.random.default_rng(0).integers(0, 2**16, SIZE, dtype=np.uint16)
    window = Window(0, 0)
    images = [
        mapper_of(scale=1.0, window=window)(record)["image"].numpy()
        for record in (write(pixels=deep), write(pixels=np.rint(deep / 257).astype(np.uint8), name="grey.png"))
    ]
    np.testing.assert_array_equal(*images)
    assert images[0].shape == (3, 32, 32) and (images[0] == images[0][:1]).all() and images[0].std() > 50


def test_contrast_is_stretched_at_the_files_depth(write):
    ramp = np.tile(np.arange(60, dtype=np.uint16) // 2, (40, 1))
    mapper = mapper_of(scale=1.0, window=Window(0, 0), contrast_percentiles=(0, 100))
    values = mapper(write(pixels=ramp))["image"][0, 0]
    np.testing.assert_array_equal(values, np.rint(np.arange(32) // 2 * 255 / 29))


def test_no_annotations_and_wrong_sizes_are_named(write):
    record = write()
    mapper = mapper_of(scale=1.0, window=Window(0, 0))
    with pytest.raises(ValueError, match=r"picture\.png has no annotations"):
        mapper({key: value for key, value in record.items() if key != "annotations"})
    with pytest.raises(ValueError, match=r"picture\.png is 40 high and 60 wide.*41 high"):
        mapper({**record, "height": 41})
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        mapper({**record, "file_name": "nowhere.png"})
    with pytest.raises(ValueError, match=r"picture\.png: annotation number 0 has category_id -1"):
        mapper({**record, "annotations": [annotation(0, 0, 3, 3, -1)]})


def test_drawn_pictures_show_nothing(write, monkeypatch):
    monkeypatch.setattr(window_mapper, "_EMPTY_SHARE", 1.0)
    np.random.seed(0)
    mapper = mapper_of(scale=0.5, window=RandomWindow(64, 0.5), draws_empty=True, contrast_percentiles=(1, 99))
    entries = [mapper(write(annotation(0, 0, 30, 30))) for _ in range(20)]
    for entry in entries:
        assert entry["image"].shape == (3, 64, 64) and entry["labels"].shape == (64, 64)
        assert not entry["labels"].any() and len(entry["gt_classes"]) == 0
    assert len({entry["image"].sum().item() for entry in entries}) == 20


# ---------------------------------------------------------------- prediction


@pytest.mark.parametrize("size", [(40, 60), (1, 97), (300, 1), (1, 1)])
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
def test_whole_pictures_keep_their_proportions(write, size, scale):
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    record = {"file_name": write(pixels=pixels)["file_name"], "image_id": 3}
    entry = mapper_of(scale=scale, window=None)(record)
    assert set(entry) == {"image", "height", "width", "notes", "file_name", "image_id"}
    assert (entry["height"], entry["width"]) == size
    assert entry["image"].shape == (3, *(max(1, round(length * scale)) for length in size))
    if scale == 1:
        np.testing.assert_array_equal(entry["image"].numpy().transpose(1, 2, 0), pixels)


# ---------------------------------------------------------------- from a config


@pytest.fixture
def fast_cfg(cfg):
    cfg.MODEL.META_ARCHITECTURE = "FastRecAttend"
    cfg.INPUT.OBJECT_SIZE, cfg.INPUT.OBJECT_PIXELS, cfg.INPUT.WINDOW_SIZE = 6.0, 12.0, 64
    cfg.INPUT.AUGMENTATIONS = ["RandomHorizontalFlip", "RandomTranspose", "RandomWarp", "RandomIntensity"]
    return cfg


def test_windows_of_a_config(fast_cfg, write):
    record = write(annotation(10, 10, 6, 6), annotation(20, 40, 6, 6))
    assert build_mapper(fast_cfg, is_train=False)(record)["image"].shape == (3, 80, 120)
    plain = build_mapper(fast_cfg, augment=False)
    first, second = plain(record), plain(record)
    assert first["image"].shape == (3, 64, 64) and (first["labels"] == second["labels"]).all()
    assert plain.scale == 2.0
    random = build_mapper(fast_cfg)
    np.random.seed(0)
    found = 0
    for _ in range(20):
        entry = random(record)
        assert entry["image"].shape == (3, 64, 64) and entry["labels"].shape == (64, 64)
        assert entry["labels"].max() == len(entry["gt_classes"]) == len(entry["labels"].unique()[1:]) or (
            entry["labels"].min() < 0
        )
        # Objects lie where the picture shows them only if labels were flipped as the picture was.
        found += len(entry["gt_classes"])
    assert 10 < found <= 40


def test_labels_are_flipped_as_the_picture_is(fast_cfg, write):
    fast_cfg.INPUT.AUGMENTATIONS = ["RandomHorizontalFlip", "RandomVerticalFlip", "RandomTranspose", "RandomWarp"]
    pixels = np.zeros(SIZE, np.uint8)
    pixels[5:17, 8:30] = pixels[25:31, 40:48] = 255
    mapper, record = build_mapper(fast_cfg), write(annotation(5, 8, 12, 22), annotation(25, 40, 6, 8), pixels=pixels)
    np.random.seed(0)
    for _ in range(30):
        entry = mapper(record)
        bright, known = entry["image"][0].numpy() > 127, entry["labels"].numpy()
        inside = bright & (known != CLAIMED)
        assert (inside != (known > 0)).sum() <= 0.06 * max(inside.sum(), 50)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("INPUT.AUGMENTATIONS", ["RandomShift"], "AUGMENTATIONS has RandomShift.*Take it out"),
        ("INPUT.AUGMENTATIONS", ["RandomCrop"], "INPUT.AUGMENTATIONS.*RandomCrop"),
        ("INPUT.WINDOW_SIZE", 100, "INPUT.WINDOW_SIZE is 100; give a multiple of 32"),
        ("INPUT.WINDOW_SIZE", 0, "INPUT.WINDOW_SIZE is 0"),
        ("INPUT.OBJECT_SIZE", -2.0, "INPUT.OBJECT_SIZE is -2"),
        ("INPUT.OBJECT_PIXELS", 1.0, "INPUT.OBJECT_PIXELS is 1"),
        ("INPUT.CONTRAST_PERCENTILES", [99, 1], "INPUT.CONTRAST_PERCENTILES"),
        ("INPUT.WARP.ROTATION", 200.0, "INPUT.WARP.ROTATION is 200"),
    ],
)
def test_wrong_settings_are_named(fast_cfg, key, value, message):
    fast_cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message):
        build_mapper(fast_cfg)


# ---------------------------------------------------------------- pictures that are kept


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []
    read_image = picture_cache.read_image

    def counted(path, percentiles):
        names.append(path.rpartition("/")[2])
        return read_image(path, percentiles)

    monkeypatch.setattr(picture_cache, "read_image", counted)
    return names


def test_kept_pictures_are_as_fresh_ones(write, reads):
    record = write(annotation(10, 10, 6, 6), annotation(20, 40, 6, 6))
    mapper = mapper_of(scale=1.0, window=RandomWindow(32, 1.0, 45.0))
    for seed in range(10):
        np.random.seed(seed)
        kept = mapper(record)
        np.random.seed(seed)
        fresh = mapper_of(scale=1.0, window=RandomWindow(32, 1.0, 45.0))(record)
        assert all((kept[name] == fresh[name]).all() for name in ("image", "labels", "gt_classes"))
    assert len(reads) == 11


def test_pictures_used_last_are_kept_while_there_is_room(write, reads, monkeypatch):
    records = [write(name=f"{number}.png") for number in range(3)]
    size = SIZE[0] * SIZE[1] * 7  # three bytes of colour and four of labels
    monkeypatch.setattr(picture_cache, "_ROOM", 2 * size)
    cache = PictureCache(())
    for number in (0, 1, 0, 2, 0, 1):
        assert cache.read(records[number]).image.shape == (*SIZE, 3)
    assert reads == ["0.png", "1.png", "2.png", "1.png"]
    assert cache._bytes == 2 * size
    monkeypatch.setattr(picture_cache, "_ROOM", 0)
    cache.read(records[2])
    assert len(cache._pictures) == 1  # the one at hand stays


def test_one_picture_in_two_data_sets_has_the_annotations_of_each(write):
    first, second = write(annotation(10, 10, 6, 6, 1)), write(annotation(20, 20, 3, 3, 2))
    cache = PictureCache(())
    for _ in range(2):
        assert cache.read(first).classes.tolist() == [1] and cache.read(second).classes.tolist() == [2]
