"""answer.h5: what is written, checked and scored."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Instances

from miniature.cvppp import write_cvppp_png
from rec_attend_d2.data.datasets.builtin import register_builtin_datasets
from rec_attend_d2.data.datasets.cvppp import register_cvppp
from rec_attend_d2.data.segmentation import annotation_mask
from rec_attend_d2.evaluation.counting_evaluator import LeafEvaluator
from rec_attend_d2.evaluation.submission_cvppp import check, label_image, label_instances, label_problem, pack, score

PLANTS = {"A1": 3, "A4": 2}
TEST = "cvppp_all_test"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cvppp")
    write_cvppp_png(root, {**PLANTS, "A2": 1, "A3": 1}, {"A1": 2, "A2": 1, "A3": 1, "A4": 1})
    return root


@pytest.fixture(autouse=True)
def _registered(root):
    register_cvppp(root)
    yield
    register_builtin_datasets()


@pytest.fixture
def records() -> list[dict]:
    """The test set: no labels, five subsets."""
    return DatasetCatalog.get(TEST)


def predict(record: dict) -> Instances:
    """0 to 3 vertical stripes that do not overlap; how many depends on the image's name."""
    height, width = record["height"], record["width"]
    count = sum(map(ord, record["image_id"])) % 4
    masks = torch.zeros((count, height, width), dtype=torch.bool)
    for index in range(count):
        masks[index, :, index * 20 : index * 20 + 15] = True
    return Instances((height, width), pred_masks=masks, scores=torch.linspace(0.9, 0.5, count))


@pytest.fixture
def packed(records, tmp_path) -> Path:
    path = tmp_path / "out" / "submission.zip"
    pack(path, TEST, ((record["image_id"], predict(record)) for record in records))
    return path


def change(path: Path, edit: Callable[[h5py.File], None]) -> None:
    """Edit the answer of a submission."""
    with zipfile.ZipFile(path) as zip_:
        content = io.BytesIO(zip_.read("answer.h5"))
    with h5py.File(content, "r+") as file:
        edit(file)
    with zipfile.ZipFile(path, "w") as zip_:
        zip_.writestr("answer.h5", content.getvalue())


def strips(*ends: tuple[int, int]) -> np.ndarray:
    """Masks [N, 1, 6] that are on from start to stop (exclusive)."""
    masks = np.zeros((len(ends), 1, 6), dtype=bool)
    for mask, (start, stop) in zip(masks, ends, strict=True):
        mask[:, start:stop] = True
    return masks


class TestLabelImage:
    @pytest.mark.parametrize(
        ("ends", "scores", "expected"),
        [
            ([(0, 3), (3, 6)], [0.5, 0.9], [2, 2, 2, 1, 1, 1]),
            ([(0, 4), (2, 6)], [0.5, 0.9], [2, 2, 1, 1, 1, 1]),
            ([(0, 4), (2, 6)], [0.9, 0.5], [1, 1, 1, 1, 2, 2]),
            ([(0, 4), (2, 6)], [0.7, 0.7], [1, 1, 1, 1, 2, 2]),
            # The second is hidden by the first: there is no gap.
            ([(0, 4), (1, 3), (4, 6)], [0.9, 0.8, 0.7], [1, 1, 1, 1, 2, 2]),
            ([(0, 0), (1, 2)], [0.9, 0.8], [0, 1, 0, 0, 0, 0]),
            ([], [], [0] * 6),
        ],
    )
    def test_higher_scores_win_and_numbers_have_no_gap(self, ends, scores, expected):
        labels = label_image(strips(*ends), np.array(scores))
        assert labels.tolist() == [expected]

    def test_there_and_back(self):
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 5, (9, 11))
        instances = label_instances(labels)
        assert instances.image_size == (9, 11) and len(instances) == 4
        again = label_image(instances.pred_masks.numpy(), instances.scores.numpy())
        np.testing.assert_array_equal(again, labels)

    def test_instances_of_an_empty_image(self):
        instances = label_instances(np.zeros((2, 3), dtype=np.uint8))
        assert len(instances) == 0 and instances.pred_masks.shape == (0, 2, 3)


class TestPack:
    def test_layout(self, records, packed):
        with zipfile.ZipFile(packed) as zip_:
            assert zip_.namelist() == ["answer.h5"]
            content = io.BytesIO(zip_.read("answer.h5"))
        with h5py.File(content) as file:
            assert sum(len(plants) for plants in file.values()) == len(records)
            assert set(file) == {"A1", "A2", "A3", "A4", "A5"}
            for record in records:
                labels = file[f"{record['subset']}/{record['plant']}/label"]
                assert labels.dtype == np.uint8
                expected = np.zeros((record["height"], record["width"]), dtype=np.uint8)
                for number, mask in enumerate(predict(record).pred_masks.numpy(), start=1):
                    expected[mask] = number
                np.testing.assert_array_equal(labels[()], expected)
        assert {len(predict(record)) for record in records} > {0, 1}
        assert list(packed.parent.iterdir()) == [packed]

    def test_predictions_are_taken_one_by_one(self, records, tmp_path):
        taken = []

        def predictions():
            for record in records:
                taken.append(record["image_id"])
                yield record["image_id"], predict(record)

        pack(tmp_path / "a.zip", TEST, predictions())
        assert taken == [record["image_id"] for record in records]

    def test_overlaps_and_vanished_masks(self, tmp_path):
        (record,) = DatasetCatalog.get("cvppp_A2_test")
        masks = torch.zeros((3, record["height"], record["width"]), dtype=torch.bool)
        masks[0, :5] = masks[1, 2:4] = masks[2, 3:8] = True
        instances = Instances(masks.shape[1:], pred_masks=masks, scores=torch.tensor([0.8, 0.2, 0.9]))
        pack(tmp_path / "a.zip", "cvppp_A2_test", [(record["image_id"], instances)])
        assert check(tmp_path / "a.zip", "cvppp_A2_test") == []
        with zipfile.ZipFile(tmp_path / "a.zip") as zip_, h5py.File(io.BytesIO(zip_.read("answer.h5"))) as file:
            rows = file[f"A2/{record['plant']}/label"][:9, 0].tolist()
        assert rows == [2, 2, 2, 1, 1, 1, 1, 1, 0]

    def test_number_of_instances(self, tmp_path):
        record = {"file_name": "a.png", "image_id": 1, "height": 16, "width": 16, "subset": "A1", "plant": "p"}
        DatasetCatalog.register("many", lambda: [record])
        try:
            pack(tmp_path / "a.zip", "many", [(1, label_instances(np.arange(256).reshape(16, 16)))])
            with pytest.raises(ValueError, match=r"'a\.png' has 256 instances, but .* holds 255: raise the score"):
                pack(tmp_path / "b.zip", "many", [(1, label_instances(np.arange(1, 257).reshape(16, 16)))])
        finally:
            DatasetCatalog.remove("many")

    def test_data_sets_of_other_images(self, tmp_path):
        DatasetCatalog.register("others", lambda: [{"file_name": "a.png", "image_id": 1, "height": 2, "width": 3}])
        empty = Instances((2, 3), pred_masks=torch.zeros((0, 2, 3), dtype=torch.bool), scores=torch.zeros(0))
        try:
            with pytest.raises(ValueError, match=r"'a\.png' has no 'subset' and 'plant'.*only the data sets cvppp_\*"):
                pack(tmp_path / "a.zip", "others", [(1, empty)])
        finally:
            DatasetCatalog.remove("others")
        assert list(tmp_path.iterdir()) == []

    def test_failure_leaves_no_file(self, records, tmp_path):
        with pytest.raises(ValueError, match="images have no prediction"):
            pack(tmp_path / "a.zip", TEST, [])
        assert list(tmp_path.iterdir()) == []


def erase(file: h5py.File) -> None:
    del file["A5"]


class TestCheck:
    def test_valid(self, records, packed):
        assert check(packed, TEST) == []

    @pytest.mark.parametrize(
        ("edit", "problem"),
        [
            (
                lambda f: f.pop("A2/plant001"),
                "answer.h5 lacks A2/plant001/label; an image without objects needs an empty",
            ),
            (lambda f: f.move("A2/plant001/label", "A2/plant001/labels"), "answer.h5 lacks A2/plant001/label;"),
            (
                lambda f: f.create_dataset("A2/plant999/label", data=[1]),
                "answer.h5 has A2/plant999/label, which is not",
            ),
            (
                lambda f: f["A2/plant001/label"].__setitem__((0, 0), 77),
                "answer.h5: A2/plant001/label does not number its instances 1 to n: ",
            ),
        ],
        ids=["no plant", "no label", "surplus", "gap"],
    )
    def test_one_fault(self, records, packed, edit, problem):
        change(packed, edit)
        problems = check(packed, TEST)
        assert problems[0].startswith(problem)
        # A dataset of another name is missing and surplus.
        assert problems[1:] in ([], ["answer.h5 has A2/plant001/labels, which is not in the data set."])

    @pytest.mark.parametrize(
        ("replacement", "problem"),
        [
            (lambda labels: labels.astype(np.uint16), "is uint16, but the format asks for uint8."),
            (lambda labels: labels.astype(np.uint16) * 300, "is uint16, but the format asks for uint8."),
            (lambda labels: labels[:-1], r"has the shape (83, 90), but the image is (84, 90) (height, width)."),
            (
                lambda labels: labels[..., None],
                r"has the shape (84, 90, 1), but the image is (84, 90) (height, width).",
            ),
        ],
    )
    def test_wrong_arrays(self, records, packed, replacement, problem):
        def edit(file: h5py.File) -> None:
            labels = file["A2/plant001/label"][()]
            del file["A2/plant001/label"]
            file["A2/plant001/label"] = replacement(labels)

        change(packed, edit)
        assert check(packed, TEST)[0] == f"answer.h5: A2/plant001/label {problem}"

    def test_a_whole_subset_is_missing(self, records, packed):
        change(packed, erase)
        assert len(check(packed, TEST)) == sum(record["subset"] == "A5" for record in records)

    def test_no_zip(self, records, packed):
        packed.write_bytes(b"no zip")
        (problem,) = check(packed, TEST)
        assert problem.startswith(f"{packed} is no zip archive")
        assert check(packed.parent / "b.zip", TEST) == [f"{packed.parent / 'b.zip'} does not exist."]

    def test_answer_in_a_folder(self, records, packed):
        with zipfile.ZipFile(packed, "w") as zip_:
            zip_.writestr("results/answer.h5", b"")
        assert check(packed, TEST) == [f"{packed} has no answer.h5 at its root, only ['results/answer.h5']."]

    def test_answer_is_no_h5(self, records, packed):
        with zipfile.ZipFile(packed, "w") as zip_:
            zip_.writestr("answer.h5", b"text")
        (problem,) = check(packed, TEST)
        assert problem.startswith(f"{packed}: answer.h5 cannot be read (")

    def test_damaged_zip(self, records, packed):
        content = bytearray(packed.read_bytes())
        content[len(content) // 2] ^= 0xFF
        packed.write_bytes(content)
        (problem,) = check(packed, TEST)
        assert problem.startswith(f"{packed}: answer.h5 cannot be read (")


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (np.array([[0, 1, 2, 2, 0, 3]], dtype=np.uint8), ""),
        (np.zeros((1, 6), dtype=np.uint8), ""),
        (np.ones((1, 6), dtype=np.uint8), ""),
        (np.array([[0, 1, 1, 3, 4, 4]], dtype=np.uint8), "does not number its instances 1 to n: 2 is missing"),
        (np.full((1, 6), 255, dtype=np.uint8), "does not number its instances 1 to n: 1 is missing"),
        (np.ones((1, 6), dtype=np.uint16), "is uint16, but the format asks for uint8"),
        (np.ones((1, 6), dtype=np.float32), "is float32, but the format asks for uint8"),
        (np.ones((6, 1), dtype=np.uint8), "has the shape (6, 1), but the image is (1, 6) (height, width)"),
        (np.ones((1, 6, 3), dtype=np.uint8), "has the shape (1, 6, 3), but the image is (1, 6) (height, width)"),
        (np.array(3), "has the shape (), but the image is (1, 6) (height, width)"),
    ],
)
def test_label_problem(labels, problem):
    assert label_problem(labels, (1, 6)) == problem


class TestScore:
    def test_is_the_evaluators(self, tmp_path):
        name = "cvppp_all_trainval"
        records = DatasetCatalog.get(name)
        pack(tmp_path / "a.zip", name, ((record["image_id"], predict(record)) for record in records))
        evaluator = LeafEvaluator(name)
        evaluator.reset()
        for record in records:
            evaluator.process([record], [{"instances": predict(record)}])
        results = score(tmp_path / "a.zip", name)
        assert results == evaluator.evaluate()["lsc"]
        assert 0 < results["all_SBD"] < 1 and results["A1_num_images"] == 3

    def test_truth_is_perfect(self, tmp_path):
        records = DatasetCatalog.get("cvppp_A4_trainval")
        truth = {}
        for record in records:
            size = (record["height"], record["width"])
            masks = torch.from_numpy(np.array([annotation_mask(a, size, "") for a in record["annotations"]]))
            truth[record["image_id"]] = Instances(size, pred_masks=masks, scores=torch.rand(len(masks)))
        pack(tmp_path / "a.zip", "cvppp_A4_trainval", truth.items())
        results = score(tmp_path / "a.zip", "cvppp_A4_trainval")
        assert (results["A4_SBD"], results["A4_FBD"], results["all_abs_DiC"]) == (1, 1, 0)

    def test_invalid_submission(self, packed):
        with pytest.raises(
            ValueError, match=r"submission\.zip is no valid submission; \d+ problem\(s\):\n  answer\.h5 lacks"
        ):
            score(packed, "cvppp_A1_trainval")

    def test_data_set_without_labels(self, packed):
        with pytest.raises(ValueError, match="no annotations to score a submission against"):
            score(packed, TEST)
