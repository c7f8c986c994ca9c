#!/usr/bin/env python
"""Train StarDist from scratch with a budget of CPU minutes and let it count, for comparison with this project.

    python3 -m venv stardist-venv
    stardist-venv/bin/pip install stardist==0.9.2 tensorflow-cpu==2.21.0 pycocotools
    stardist-venv/bin/python research/compare_stardist.py --train fields/train.json --test fields/val.json \
        --images fields/images --output output/stardist_fields [--minutes 25]

Runs in an environment of its own: nothing of this project is imported, and this project does not need StarDist.

The settings are StarDist's published ones for 2D images: values stretched between the percentiles 1 and 99.8 of the
image, 32 rays, a grid of 2 pixels, patches of 256 pixels in batches of 4, augmentation by flips, quarter turns and
changes of intensity, Adam at 0.0003, the weights of the smallest loss on images held out of the training set, and
thresholds that StarDist optimises on these. One thing is added in its favour: the learning rate falls to 0 along a
cosine over the budget, because the published rule (half of it after 40 epochs of 100 steps without progress) would not
act in minutes.

The budget is CPU time of the process (one thread) from the start of the training to its end, without the evaluations
of held-out images. Written to the folder of --output:

* predictions.json: COCO results with RLE masks, down to a probability of 0.1 so that AP sees them, scores in [0, 1].
* results.json: the threshold from which on StarDist calls a prediction an object, the number of such objects, minutes
  trained, seconds per image, memory, versions and the command.
"""

import argparse
import json
import math
import os
import platform
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

PERCENTILES = (1, 99.8)
RAYS, GRID, PATCH, BATCH = 32, (2, 2), (256, 256), 4
EPOCH_STEPS, LEARNING_RATE = 100, 0.0003
# Read by TensorFlow and StarDist's OpenMP when they are loaded.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
# One image in so many is held out of the training images.
HELD_OUT = 8
# Images on which the thresholds are optimised, at most.
THRESHOLD_IMAGES = 16
LOWEST_PROBABILITY = 0.1
NAMES = ("predictions.json", "results.json")


def read_truth(path: Path) -> dict[str, Any]:
    """Content of a COCO json. Raises SystemExit, with the file and what is missing, where it is none."""
    try:
        content = json.loads(path.read_text())
        missing = {"images", "annotations", "categories"} - content.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise SystemExit(f"{path} is no COCO json: {error}") from error
    if missing:
        raise SystemExit(f"{path} has no {', '.join(sorted(missing))}: give a COCO json of instances.")
    return content


def annotation_mask(annotation: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """bool [H, W] of an annotation of any of COCO's three forms: polygons, RLE as numbers or as text."""
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        segmentation = mask_util.frPyObjects(segmentation, *size)
    return mask_util.decode(segmentation).astype(bool)


def label_image(annotations: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> np.ndarray:
    """int32 [H, W]: 0 where nothing is, else the number of an object from 1 on.

    A pixel of several objects belongs to the first one. Crowd regions are left out.
    """
    labels = np.zeros(size, np.int32)
    objects = [annotation for annotation in annotations if not annotation.get("iscrowd", 0)]
    for number, annotation in enumerate(objects, start=1):
        labels[annotation_mask(annotation, size) & (labels == 0)] = number
    return labels


def label_images(content: Mapping[str, Any]) -> list[np.ndarray]:
    """The label image of each image of a COCO json, in their order."""
    of_image: dict[Any, list] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    return [label_image(of_image[image["id"]], (image["height"], image["width"])) for image in content["images"]]


def normalize(image: np.ndarray) -> np.ndarray:
    """float32 [H, W]: 0 at the lower one of :data:`PERCENTILES` of the image and 1 at the upper one."""
    low, high = np.percentile(image, PERCENTILES)
    return ((image - low) / max(high - low, 1e-6)).astype(np.float32)


def read_images(content: Mapping[str, Any], folder: Path) -> list[np.ndarray]:
    """The images of a COCO json, grey and normalized, float32 [H, W]."""
    from PIL import Image

    return [normalize(np.asarray(Image.open(folder / image["file_name"]).convert("L"))) for image in content["images"]]


def augment(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A patch [H, W] and its labels, turned by quarters, mirrored, and with other values; H = W."""
    turns, mirrored = np.random.randint(4), np.random.rand() < 0.5
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if mirrored:
        image, labels = image[::-1], labels[::-1]
    return image * np.random.uniform(0.6, 2.0) + np.random.uniform(-0.2, 0.2), labels


def split(count: int) -> tuple[list[int], list[int]]:
    """Positions of the training and of the held-out images, of the latter every :data:`HELD_OUT`-th."""
    held_out = list(range(HELD_OUT // 2, count, HELD_OUT)) or [count - 1]
    return [position for position in range(count) if position not in held_out] or held_out, held_out


def spread(values: Sequence, count: int) -> list:
    """At most so many of the values, evenly over them."""
    if len(values) <= count:
        return list(values)
    return [values[int(position)] for position in np.linspace(0, len(values) - 1, count)]


def to_coco(image_id: Any, category_id: int, labels: np.ndarray, scores: Sequence[float]) -> list[dict[str, Any]]:
    """COCO results of a label image [H, W], in which label i has ``scores[i - 1]``; what has no pixel is left out."""
    results = []
    for number in np.unique(labels[labels > 0]):
        rle = mask_util.encode(np.asfortranarray(labels == number, dtype=np.uint8))
        results.append(
            {
                "image_id": image_id,
                "category_id": category_id,
                "bbox": [float(value) for value in mask_util.toBbox(rle)],
                "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
                "score": float(scores[int(number) - 1]),
            }
        )
    return results


class Budget:
    """CPU seconds of this process, of which some do not count.

    Attributes:
        limit: seconds to spend.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.process_time):
        self.limit = 60 * minutes
        self._clock = clock
        self._start = clock()
        self._paused_at: float | None = None

    def pause(self) -> None:
        """What follows does not count."""
        self._paused_at = self._clock()

    def resume(self) -> None:
        """What follows counts again."""
        if self._paused_at is not None:
            self._start += self._clock() - self._paused_at
            self._paused_at = None

    @property
    def spent(self) -> float:
        """Seconds that counted so far."""
        return (self._clock() if self._paused_at is None else self._paused_at) - self._start

    def learning_rate(self) -> float:
        """Half a cosine from :data:`LEARNING_RATE` to 0 over the budget."""
        return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * min(1.0, self.spent / self.limit)))


def budget_callback(budget: Budget) -> Any:
    """A callback of Keras that moves the learning rate and ends the training when the budget is spent."""
    import keras

    class Callback(keras.callbacks.Callback):
        steps = 0

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.model.optimizer.learning_rate = budget.learning_rate()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.steps += 1
            self.model.stop_training = budget.spent >= budget.limit

        def on_test_begin(self, logs: Any = None) -> None:
            budget.pause()

        def on_test_end(self, logs: Any = None) -> None:
            budget.resume()

    return Callback()


def train(images: Sequence, labels: Sequence, folder: Path, minutes: float, seed: int) -> tuple[Any, dict[str, Any]]:
    """A trained model with its thresholds, and what the training took."""
    from stardist.models import Config2D, StarDist2D

    config = Config2D(
        n_rays=RAYS,
        grid=GRID,
        n_channel_in=1,
        train_patch_size=PATCH,
        train_batch_size=BATCH,
        train_steps_per_epoch=EPOCH_STEPS,
        train_learning_rate=LEARNING_RATE,
        train_tensorboard=False,
    )
    model = StarDist2D(config, name="model", basedir=str(folder))
    model.prepare_for_training()
    training, held_out = split(len(images))
    budget = Budget(minutes)
    callback = budget_callback(budget)
    model.callbacks.append(callback)
    model.train(
        [images[i] for i in training],
        [labels[i] for i in training],
        validation_data=([images[i] for i in held_out], [labels[i] for i in held_out]),
        augmenter=augment,
        seed=seed,
        epochs=10**6,  # the callback ends it
    )
    spent = budget.spent
    chosen = spread(held_out, THRESHOLD_IMAGES)
    model.optimize_thresholds([images[i] for i in chosen], [labels[i] for i in chosen])
    return model, {"seconds": spent, "cpu_seconds": spent, "iterations": callback.steps, "images_per_iteration": BATCH}


def predict(model: Any, images: Sequence, content: Mapping[str, Any]) -> tuple[list[dict], list[float], int]:
    """Results of all images, CPU seconds of each one, and the number of objects from the model's threshold on.

    The seconds are those of network, suppression and label image at the model's own threshold; the first image of a
    size is run once before, because TensorFlow then builds its graph.
    """
    category = content["categories"][0]["id"]
    results, seconds, objects, seen = [], [], 0, set()
    for image, entry in zip(images, content["images"], strict=True):
        if image.shape not in seen:
            model.predict_instances(image)
            seen.add(image.shape)
        start = time.process_time()
        labels, _ = model.predict_instances(image)
        seconds.append(time.process_time() - start)
        objects += len(np.unique(labels[labels > 0]))
        labels, details = model.predict_instances(image, prob_thresh=LOWEST_PROBABILITY)
        results.extend(to_coco(entry["id"], category, labels, details["prob"]))
    return results, seconds, objects


def describe(minutes: float, seed: int) -> dict[str, Any]:
    """The run, its settings and what it ran on, without paths that only this machine has."""
    arguments = [Path(word).name if word.startswith(os.sep) else word for word in sys.argv[1:]]
    return {
        "command": shlex.join(["python", "research/compare_stardist.py", *arguments]),
        "minutes": minutes,
        "seed": seed,
        "settings": {
            "percentiles": PERCENTILES,
            "rays": RAYS,
            "grid": GRID,
            "patch": PATCH,
            "batch": BATCH,
            "learning_rate": LEARNING_RATE,
        },
        "environment": {
            "threads": 1,
            "python": platform.python_version(),
            **{name: version(name) for name in ("stardist", "tensorflow-cpu", "keras", "numpy")},
        },
    }


def parse_arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="COCO json of the training images")
    parser.add_argument("--test", type=Path, required=True, help="COCO json of the images to count on")
    parser.add_argument("--images", type=Path, required=True, help="folder of the images of both")
    parser.add_argument("--output", type=Path, required=True, help="folder of everything that is written")
    parser.add_argument("--minutes", type=float, default=25.0, help="CPU minutes of training (default 25)")
    parser.add_argument("--seed", type=int, default=1, help="of the training (default 1)")
    arguments = parser.parse_args()
    if arguments.minutes <= 0:
        parser.error(f"--minutes is {arguments.minutes:g}; give more than 0.")
    if not arguments.images.is_dir():
        parser.error(f"--images names {arguments.images}, which is no folder.")
    return arguments


def main() -> None:
    """Train, predict and write."""
    arguments = parse_arguments()
    os.environ.update(ONE_THREAD)
    truth, test = read_truth(arguments.train), read_truth(arguments.test)
    arguments.output.mkdir(parents=True, exist_ok=True)
    images, labels = read_images(truth, arguments.images), label_images(truth)
    model, training = train(images, labels, arguments.output, arguments.minutes, arguments.seed)
    found, seconds, objects = predict(model, read_images(test, arguments.images), test)
    (arguments.output / NAMES[0]).write_text(json.dumps(found))
    results = {
        **describe(arguments.minutes, arguments.seed),
        "training": training,
        "threshold": float(model.thresholds.prob),
        "nms_threshold": float(model.thresholds.nms),
        "objects": objects,
        "parameters": int(model.keras_model.count_params()),
        "seconds_per_image": {"median": statistics.median(seconds), "mean": statistics.mean(seconds)},
        # Of training, thresholds and inference together; Linux counts in kilobytes.
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    (arguments.output / NAMES[1]).write_text(json.dumps(results, indent=2) + "\n")
    print(f"{objects} objects in {len(test['images'])} images, written to {arguments.output}")


if __name__ == "__main__":
    main()
