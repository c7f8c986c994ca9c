"""A user's annotated pictures, in whichever of three forms they are, as data sets in COCO format.

The forms: a json in COCO format with a folder of images; a folder of images and one of label images; and the layout of
the Data Science Bowl 2018, a folder for each image with a mask file for each object.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...whole_files import write_json
from .coco_files import read_coco_json, register_coco_files
from .label_conversion import convert_images, write_coco
from .label_images import Background
from .label_sources import LabelImage, MaskFiles, Selection, find_mask_folders, pair_files, unused_entries


@dataclass(frozen=True)
class Annotated:
    """Where annotated pictures are, and how to read them.

    Attributes:
        images: folder of the images, or of a folder for each image.
        labels: folder of label images; None = there are none.
        coco: json in COCO format; None = there is none.
        image_suffix, label_suffix: with which names of images and label images end, see :class:`.Selection`.
        background: value or colour of label images that is no object; None = 0, unless that looks wrong.
        unlabeled: one of UNLABELED: what becomes of images without a label image.
        pieces: one of PIECES: what becomes of objects in several pieces.
        category: what objects of label images are.
    """

    images: Path
    labels: Path | None = None
    coco: Path | None = None
    image_suffix: str = ""
    label_suffix: str = ""
    background: Background | None = None
    unlabeled: str = "refuse"
    pieces: str = "check"
    category: str = "object"

    def absolute(self) -> "Annotated":
        """The same, by paths that do not depend on the working directory."""
        labels, coco = (path and path.absolute() for path in (self.labels, self.coco))
        return replace(self, images=self.images.absolute(), labels=labels, coco=coco)

    def sources(self) -> Sequence[LabelImage | MaskFiles]:
        """The pictures of a folder with label images, or with mask files. Raises ValueError, FileNotFoundError."""
        if self.labels is None:
            return find_mask_folders(self.images)
        images, labels = (
            Selection(self.images, self.image_suffix),
            Selection(self.labels, self.label_suffix),
        )
        return pair_files(images, labels, self.unlabeled, self.background or 0)

    def unused(self) -> list[Path]:
        """Files and folders beside the images and label images that are not used."""
        if self.labels is None or self.coco is not None:
            return []
        pairs = [source for source in self.sources() if isinstance(source, LabelImage)]
        return unused_entries(pairs, [self.images, self.labels])

    def read(self, json_file: Path) -> dict:
        """The annotations as the content of a json in COCO format; ``json_file`` keeps those of converted labels.

        Raises:
            FileNotFoundError, ValueError: something is missing or wrong; the message names it.
        """
        if self.coco is not None:
            return read_coco_json(str(self.coco), str(self.images))
        images = convert_images(self.sources(), self.images, self.pieces, self.background is not None)
        write_coco(images, self.category, json_file)
        return read_coco_json(str(json_file), str(self.images))


def register_annotated(name: str, pictures: Annotated, json_folder: Path) -> None:
    """Register annotated pictures as the data set ``name``, after checking them.

    Args:
        name: of the data set.
        pictures: where they are.
        json_folder: gets ``name``.json of label images and mask files.

    Raises:
        FileNotFoundError, ValueError: something is missing or wrong; the message names it.
    """
    json_file = pictures.coco
    if json_file is None:
        json_file = json_folder / f"{name}.json"
        pictures.read(json_file)
    register_coco_files([[name, str(json_file), str(pictures.images)]])


def write_part(content: dict, file_names: set[str], path: Path) -> None:
    """Write the images of some names, and their annotations, of a json in COCO format as one of their own."""
    images = [image for image in content["images"] if image["file_name"] in file_names]
    kept = {image["id"] for image in images}
    annotations = [annotation for annotation in content["annotations"] if annotation["image_id"] in kept]
    write_json(path, {**content, "images": images, "annotations": annotations}, indent=None)
