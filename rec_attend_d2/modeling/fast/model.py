"""The fast model: an image is encoded once, and everything that stands apart is claimed in one glance.

It is trained on single glances. No gradient flows through the memory, so that a glance is an ordinary feed-forward
problem once its memory is given; memories are drawn from the true masks (:func:`.training.draw_memory`).

Shapes: `B` images, `n` candidates, `N` object slots, `F` side of a patch, `H, W` network input.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances
from fvcore.common.registry import Registry
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import check_keys_of_fast_model
from ...data.large_images import LARGEST_WHOLE
from ...layers.boxes import CenterBoxes
from ...layers.patches import cut_patches
from ..ranks import as_of_all_ranks
from ..rec_attend import RecurrentAttention
from ..registries import (
    BOX_PROPOSER_REGISTRY,
    FAST,
    PREPROCESSOR_REGISTRY,
    SEGMENTATION_HEAD_REGISTRY,
    STOP_SCORER_REGISTRY,
    look_up_part,
)
from ..steps import Cut, ExtraMaps, Feeder, Proposal, Scan, Step, StepInputs, Where, select
from .claims import Claims, instances_of_claims, mask_pixels, new_objects, write_claims
from .image_encoder import FEATURE_STRIDES
from .losses import MIN_BOX_IOU, PatchPairs, box_loss, box_quality, class_loss, mask_loss, place_losses, score_loss
from .scorer import ClassScorer
from .sizes import Sizes, rounded_up
from .targets import ObjectTargets, match_candidates, overlap_with_objects
from .tiles import USUAL_TILE, Progress, find_in_tiles
from .training import TrueBoxes, draw_memory, glance_statistics

# A model never goes on for longer: each glance claims at least a pixel, so that only a broken one gets there.
_MAX_GLANCES = 100_000


@META_ARCH_REGISTRY.register()
class FastRecAttend(RecurrentAttention):
    """Glances until a glance claims nothing."""

    step_name = "glance"

    @configurable
    def __init__(
        self,
        *,
        box_proposer: nn.Module,
        segmentation_head: nn.Module,
        stop_scorer: nn.Module,
        class_scorer: ClassScorer | None,
        sizes: Sizes,
        object_size: float,
        **trunk: Any,
    ):
        """
        Args:
            box_proposer, segmentation_head, stop_scorer: the parts.
            class_scorer: gives objects their class; None where there is one kind.
            sizes: what follows from the width of objects in the network.
            object_size: their typical width in pixels of the file, which is kept with the weights.
            trunk: arguments of :class:`RecurrentAttention`.
        """
        super().__init__(**trunk)
        self.box_proposer = box_proposer
        self.segmentation_head = segmentation_head
        self.stop_scorer = stop_scorer
        self.class_scorer = class_scorer
        self.sizes = sizes
        # Set by whoever predicts: masks may overlap; side of the tiles that pictures of any size are cut into (0: only
        # large ones are), and what shows how far they are.
        self.overlapping_masks = False
        self.tile = 0
        self.progress: Progress = iter
        self.object_size: Tensor
        self.register_buffer("object_size", torch.tensor(float(object_size)))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node, key = cfg.MODEL.REC_ATTEND, "MODEL.REC_ATTEND"
        check_keys_of_fast_model(cfg)

        def part(registry: Registry, name: str) -> Any:
            return look_up_part(registry, node[name].NAME, f"{key}.{name}.NAME", FAST)

        preprocessor = part(PREPROCESSOR_REGISTRY, "PREPROCESSOR")(cfg)
        features = preprocessor.feature_channels
        proposer = part(BOX_PROPOSER_REGISTRY, "BOX_PROPOSER")(cfg, features)
        in_channels = len(cfg.MODEL.PIXEL_MEAN) + 1 + features[0]
        head = part(SEGMENTATION_HEAD_REGISTRY, "SEGMENTATION_HEAD")(cfg, in_channels)
        scorer = part(STOP_SCORER_REGISTRY, "STOP_SCORER")
        if node.NUM_CLASSES < 0 or node.NUM_CLASSES == 1:
            raise ValueError(
                f"{key}.NUM_CLASSES is {node.NUM_CLASSES}. Give 0 for objects of one kind, or their number."
            )
        return {
            "preprocessor": preprocessor,
            "box_proposer": proposer,
            "segmentation_head": head,
            "stop_scorer": scorer(cfg, proposer.hidden_dim, head.feature_channels),
            "class_scorer": ClassScorer(node.NUM_CLASSES, head.feature_channels) if node.NUM_CLASSES else None,
            "sizes": Sizes(cfg.INPUT.OBJECT_PIXELS),
            "object_size": cfg.INPUT.OBJECT_SIZE,
            "stop_early": True,
            "stop_threshold": node.TEST.SCORE_THRESHOLD,
            "max_steps": _MAX_GLANCES,
            "recompute": node.TRAINING.RECOMPUTE,
            "precision": node.TEST.AUTOCAST,
            **cls.image_arguments(cfg),
            "image_size": None,
        }

    # Images of any size.

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The smallest (H, W), multiples of what the image encoder needs, with room for an image of ``size`` (h, w)."""
        multiple: Any = self.preprocessor.multiple
        return rounded_up(size[0], multiple), rounded_up(size[1], multiple)

    def preprocess_image(self, batched_inputs: list[dict]) -> Tensor:
        """Images [B, 3, H, W], BGR, normalised, with black below and right of smaller ones.

        (H, W) is the :meth:`padded_size` of the largest height and width.
        """
        sizes = [entry["image"].shape[-2:] for entry in batched_inputs]
        heights, widths = zip(*sizes, strict=True)
        height, width = self.padded_size((max(heights), max(widths)))
        images = [
            F.pad(entry["image"], (0, width - columns, 0, height - rows))
            for entry, (rows, columns) in zip(batched_inputs, sizes, strict=True)
        ]
        return self.normalize(torch.stack(images))

    def first_inputs(self, batched_inputs: list[dict]) -> StepInputs:
        """As of any model, but what lies outside of an image counts as claimed."""
        inputs = super().first_inputs(batched_inputs)
        for memory, entry in zip(inputs.memory, batched_inputs, strict=True):
            height, width = entry["image"].shape[-2:]
            memory[height:], memory[:, width:] = 1, 1
        return inputs

    def detect(self, batched_inputs: list[dict]) -> list[dict]:
        """What is found in images, which go through the networks together where they have one size."""
        outputs: list[dict] = [{} for _ in batched_inputs]
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, entry in enumerate(batched_inputs):
            groups.setdefault(tuple(entry["image"].shape[-2:]), []).append(number)
        for size, numbers in groups.items():
            entries = [batched_inputs[number] for number in numbers]
            if self.tile or math.prod(size) > LARGEST_WHOLE:
                side = self.tile or USUAL_TILE
                found = [find_in_tiles(self, entry["image"], side, self.progress) for entry in entries]
            else:
                found = [Claims.of_steps(steps) for steps in self.run(entries)[0]]
            for number, entry, claims in zip(numbers, entries, found, strict=True):
                outputs[number] = {"instances": self.to_instances(claims, entry), "notes": entry.get("notes", ())}
        return outputs

    def run(self, batched_inputs: list[dict], memory: Tensor | None = None) -> tuple[list[list[Step]], ExtraMaps]:
        """See :meth:`RecurrentAttention.run`.

        Raises:
            RuntimeError: the largest number of glances was not enough, which no sound model reaches.
        """
        steps, extra = super().run(batched_inputs, memory)
        if any(len(own) == _MAX_GLANCES for own in steps):
            raise RuntimeError(
                f"{batched_inputs[0].get('file_name', 'An image')} was looked at {_MAX_GLANCES} times and is not done, "
                "so that its count would be wrong: the weights are broken, or trained for something else."
            )
        return steps, extra

    # What it does in a glance.

    def look(self, inputs: StepInputs) -> tuple[Proposal, Scan]:
        """All places that stand apart."""
        return self.box_proposer(inputs)

    def cut_out(self, inputs: StepInputs, proposal: Proposal, where: Where) -> Cut:
        """Patches of image, memory and features, and their mask logits."""
        seen = torch.cat([inputs.image, inputs.memory[:, None]], dim=1)
        # The mask's loss does not flow through the box, which has its own.
        boxes = CenterBoxes(where.boxes.center.detach(), where.boxes.size.detach())
        sharp = cut_patches(seen, where.image, boxes, self.sizes.patch)
        fine = cut_patches(inputs.extra.features[0], where.image, boxes, self.sizes.patch, FEATURE_STRIDES[0])
        patch = torch.cat([sharp, fine], dim=1)
        logits, features = self.segmentation_head(patch)
        return Cut(None, patch, logits, features)

    def decide(self, proposal: Proposal, cut: Cut) -> tuple[Tensor, Tensor | None]:
        """Scores of the candidates, which come first in ``cut``; classes of all patches."""
        assert cut.features is not None
        score = self.stop_scorer(proposal.hidden, cut.features[: proposal.hidden.shape[0]])
        return score, None if self.class_scorer is None else self.class_scorer(cut.features)

    @torch.no_grad()
    def remember(self, inputs: StepInputs, step: Step, feeder: Feeder) -> Tensor:
        """The memory with the masks of all candidates that are claimed: sure enough, and not claimed before."""
        image, count = step.proposal.image, len(step.score)
        assert step.cut.patch_mask is not None
        pixels = mask_pixels(step.cut.patch_mask[:count], select(step.where.boxes, slice(count)), inputs.image_size)
        step.claimed = (step.score >= self.stop_threshold) & new_objects(pixels, image, inputs.memory, count)
        return write_claims(select(pixels, step.claimed[pixels.box]), image, inputs.memory)

    def instances(self, steps: list[Step], extra: ExtraMaps, entry: dict) -> Instances:
        """See :meth:`RecurrentAttention.instances`."""
        return self.to_instances(Claims.of_steps(steps), entry)

    def to_instances(self, claims: Claims, entry: dict) -> Instances:
        """All that was claimed in the image of a dataset dict, at its original size."""
        height, width = entry["image"].shape[-2:]
        return instances_of_claims(
            claims, (height, width), self.original_size(entry), self.sizes.smallest_area, self.overlapping_masks
        )

    # Training.

    def extract_targets(self, batched_inputs: list[dict]) -> ObjectTargets:
        """Targets of a training batch, on the model's device.

        Raises:
            ValueError: an entry without labels, or with a class that the model does not tell apart.
        """
        for entry in batched_inputs:
            if "labels" not in entry:
                raise ValueError(
                    f"{entry.get('file_name', 'An image')} has no 'labels', which training needs: its data set has no "
                    "annotations, or another mapper than WindowMapper made it."
                )
            largest = max(entry["gt_classes"].tolist(), default=0)
            if self.class_scorer is not None and largest >= self.class_scorer.classes:
                raise ValueError(
                    f"{entry.get('file_name', 'An image')} has an object of class {largest} (counted from 0), but "
                    f"MODEL.REC_ATTEND.NUM_CLASSES is {self.class_scorer.classes}."
                )
        labels = torch.stack([entry["labels"] for entry in batched_inputs]).to(self.device)
        return ObjectTargets.from_labels(labels, [entry["gt_classes"] for entry in batched_inputs], self.sizes.padding)

    def losses(self, batched_inputs: list[dict]) -> tuple[dict[str, Tensor], Callable[[], dict[str, Tensor]]]:
        """Losses of one glance at each image, from a memory that is drawn."""
        targets = self.extract_targets(batched_inputs)
        inputs = self.first_inputs(batched_inputs)
        inputs.memory = torch.stack(list(map(draw_memory, targets.labels, targets.taken)))
        unclaimed = targets.unclaimed(inputs.memory)
        fed = TrueBoxes(targets, unclaimed)
        step = self.step(inputs, fed)

        image, scan = step.proposal.image, step.scan
        owners = targets.place_owners(unclaimed, scan.logits.shape[1:], scan.stride)
        losses = place_losses(scan, owners, box_quality(scan, owners, targets))
        losses["loss_box"] = box_loss(scan, owners, targets)
        overlap = overlap_with_objects(step.proposal.boxes, image, targets)
        matched = match_candidates(overlap, image, unclaimed, MIN_BOX_IOU)
        found = matched >= 0
        losses["loss_score"] = score_loss(step.score, found)
        # Patches of candidates that found something, and of the true boxes.
        judged = torch.cat([found, torch.ones_like(fed.instance, dtype=torch.bool)])
        instance, where = torch.cat([matched, fed.instance])[judged], select(step.where, judged)
        assert step.cut.patch_mask is not None
        truth = targets.cut(where.image, instance, where.boxes, self.sizes.patch)
        pairs = PatchPairs(step.cut.patch_mask[judged], *truth)
        losses["loss_mask"] = mask_loss(pairs)
        if step.class_probabilities is not None:
            losses["loss_class"] = class_loss(step.class_probabilities[judged], targets.classes[where.image, instance])

        places, patches = (owners > 0).sum(), len(instance)
        counts: dict[str, Tensor | int] = {"loss_place": (owners > 0).any(1).sum(), "loss_object": places}
        counts |= {"loss_box": places, "loss_score": len(found), "loss_mask": patches, "loss_class": patches}
        losses = as_of_all_ranks(losses, counts)
        return losses, partial(glance_statistics, step, found, overlap, unclaimed, pairs)
