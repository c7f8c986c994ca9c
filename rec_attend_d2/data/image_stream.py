"""The endless stream of training images, which a resumed training enters where it left.

What an image looks like after augmentation depends on the seed and its place in the stream alone: neither on the
number of workers nor on where the training was interrupted.
"""

import itertools
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, build_detection_train_loader
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from ..random_numbers import run_seed, seeded

# Key of a dataset dict that says where it comes from: (place in the stream, index in the data set).
ORIGIN = "origin"


class StreamSampler(Sampler):
    """Gives ``(place, index)`` for the indices of another, endless sampler, from the place ``start`` on."""

    def __init__(self, sampler: Sampler, start: int):
        self.sampler = sampler
        self.start = start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return itertools.islice(enumerate(self.sampler), self.start, None)


class SeededDataset(Dataset):
    """Maps dataset dicts with random numbers that depend on the place in the stream."""

    def __init__(self, dicts: list[dict], mapper: Callable[[dict], dict], seed: int):
        """
        Args:
            dicts: dataset dicts.
            mapper: makes of one what the model takes; may draw random numbers.
            seed: of the training.
        """
        self._dicts = DatasetFromList(dicts, copy=False)
        self._mapper = mapper
        self._numbers = seed, comm.get_rank()

    def __len__(self) -> int:
        return len(self._dicts)

    def __getitem__(self, origin: tuple[int, int]) -> dict:
        place, index = origin
        with seeded(*self._numbers, place):
            return {**self._mapper(self._dicts[index]), ORIGIN: (place, index)}


class ImageStream:
    """Endless batches of mapped dataset dicts of DATASETS.TRAIN, SOLVER.IMS_PER_BATCH over all processes.

    DATALOADER.SAMPLER_TRAIN decides on their order. DATALOADER.ASPECT_RATIO_GROUPING makes no difference: all images
    have the same size when they enter a network.
    """

    def __init__(self, cfg: CfgNode, mapper: Callable[[dict], dict]):
        self._cfg = cfg
        self._mapper = mapper
        self.start = 0
        self.reseed(run_seed(cfg))

    def reseed(self, seed: int) -> None:
        """Take another seed for the order and the augmentation of the images."""
        self.seed = seed
        with seeded(seed):  # which the sampler draws its own from
            self._arguments: dict[str, Any] = build_detection_train_loader.from_config(self._cfg, mapper=self._mapper)
        self._dataset = SeededDataset(self._arguments["dataset"], self._mapper, seed)

    @property
    def fingerprint(self) -> tuple[int, int]:
        """Number of images, and checksum of their files' names in order: what places in the stream refer to."""
        names = "\n".join(os.path.basename(entry.get("file_name", "")) for entry in self._arguments["dataset"])
        return len(self._arguments["dataset"]), zlib.crc32(names.encode())

    def read(self, origin: tuple[int, int]) -> dict:
        """The dataset dict that the stream gives, or gave, with this :data:`ORIGIN`."""
        return self._dataset[origin]

    def _build_loader(self) -> DataLoader:
        return build_detection_train_loader(
            self._dataset,
            mapper=None,
            sampler=StreamSampler(self._arguments["sampler"], self.start),
            total_batch_size=self._arguments["total_batch_size"],
            aspect_ratio_grouping=False,
            num_workers=self._arguments["num_workers"],
            seed=self.seed,  # so that starting the workers draws no number that the model would have got
        )

    def __iter__(self) -> Iterator[list[dict]]:
        """Batches from the place ``start`` on."""
        return iter(self._build_loader())


class StreamLoader:
    """Yields an :class:`ImageStream`'s batches and knows how many images were handed out."""

    def __init__(self, stream: ImageStream):
        self._stream = stream
        self._taken = 0
        self._images = stream.fingerprint

    def __iter__(self) -> Iterator[list[dict]]:
        """Endless batches."""
        for batch in self._stream:
            self._taken += len(batch)
            yield batch

    def state_dict(self) -> dict:
        """What a resumed training needs; of every process the same."""
        return {"seed": self._stream.seed, "taken": self._taken, "images": self._images}

    def load_state_dict(self, state: dict) -> None:
        """Go on after the images that were handed out when ``state`` was saved. Goes before the iteration.

        Raises:
            ValueError: the training set is another one; older versions' states do not tell.
        """
        before = tuple(state.get("images", self._images))
        if before != self._images:
            raise ValueError(
                f"DATASETS.TRAIN has {self._images[0]} images, and the interrupted training had "
                f"{'as many others' if before[0] == self._images[0] else before[0]}: resume it with its own data, or "
                "give another OUTPUT_DIR."
            )
        restore_stream(self._stream, state)
        self._taken = state["taken"]


def restore_stream(stream: ImageStream, state: dict) -> None:
    """Let a stream start where the ``taken`` images of a loader's state end, with its seed."""
    if state["seed"] != stream.seed:
        stream.reseed(state["seed"])
    stream.start = state["taken"]
