"""The fast model: an image is encoded once, and everything that stands apart is claimed in one glance.

It is trained on single glances. No gradient flows through the memory, so that a glance is an ordinary feed-forward
problem once its memory is given; memories are drawn from the true masks (:func:`.training.draw_memory`).

Shapes: `B` images, `n` candidates, `N` object slots, `F` side of a patch, `H, W` network input.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances
from fvcore.common.registry import Registry
from torch import Tensor, nn

from ...config import check_keys_of_fast_model
from ...layers.boxes import CenterBoxes
from ...layers.patches import cut_patches
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
from .claims import instances_of_glances, mask_pixels, new_objects, write_claims
from .image_encoder import FEATURE_STRIDES
from .losses import MIN_BOX_IOU, PatchPairs, box_loss, class_loss, mask_loss, place_losses, score_loss
from .scorer import ClassScorer
from .targets import ObjectTargets, match_candidates, overlap_with_objects
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
        patch_size: int,
        padding: tuple[float, float],
        min_area: int,
        **trunk: Any,
    ):
        """
        Args:
            box_proposer, segmentation_head, stop_scorer: the parts.
            class_scorer: gives objects their class; None where there is one kind.
            patch_size: F, pixels.
            padding: of true boxes: each side moves out by max(first * size, second).
            min_area: objects of at most so many pixels are left out.
            trunk: arguments of :class:`RecurrentAttention`.
        """
        super().__init__(**trunk)
        self.box_proposer = box_proposer
        self.segmentation_head = segmentation_head
        self.stop_scorer = stop_scorer
        self.class_scorer = class_scorer
        self.patch_size = patch_size
        self.padding = padding
        self.min_area = min_area

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
        side, *other_sides = node.ATTENTION.PATCH_SIZE
        if other_sides != [side] or side < 4:
            raise ValueError(
                f"{key}.ATTENTION.PATCH_SIZE is {list(node.ATTENTION.PATCH_SIZE)}; the fast model's are square, "
                "of at least 4 pixels."
            )
        return {
            "preprocessor": preprocessor,
            "box_proposer": proposer,
            "segmentation_head": head,
            "stop_scorer": scorer(cfg, proposer.hidden_dim, head.feature_channels),
            "class_scorer": ClassScorer(node.NUM_CLASSES, head.feature_channels) if node.NUM_CLASSES else None,
            "patch_size": side,
            "padding": (node.LOSS.BOX_PADDING_RATIO, node.LOSS.BOX_PADDING_PIXELS),
            "min_area": node.TEST.MIN_AREA,
            "stop_early": True,
            "stop_threshold": node.TEST.SCORE_THRESHOLD,
            "max_steps": _MAX_GLANCES,
            "recompute": node.TRAINING.RECOMPUTE,
            "precision": node.TEST.AUTOCAST,
            **cls.image_arguments(cfg),
        }

    # What it does in a glance.

    def look(self, inputs: StepInputs) -> tuple[Proposal, Scan]:
        """All places that stand apart."""
        return self.box_proposer(inputs)

    def cut_out(self, inputs: StepInputs, proposal: Proposal, where: Where) -> Cut:
        """Patches of image, memory and features, and their mask logits."""
        seen = torch.cat([inputs.image, inputs.memory[:, None]], dim=1)
        # The mask's loss does not flow through the box, which has its own.
        boxes = CenterBoxes(where.boxes.center.detach(), where.boxes.size.detach())
        sharp = cut_patches(seen, where.image, boxes, self.patch_size)
        fine = cut_patches(inputs.extra.features[0], where.image, boxes, self.patch_size, FEATURE_STRIDES[0])
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
        return instances_of_glances(steps, self.image_size, self.original_size(entry), self.min_area)

    # Training.

    def extract_targets(self, batched_inputs: list[dict]) -> ObjectTargets:
        """Targets of a training batch, on the model's device.

        Raises:
            ValueError: an entry without instances, with instances of another size than the network's input, or of a
                class that the model does not tell apart.
        """
        for entry in batched_inputs:
            self.check_instances(entry)
            largest = max(entry["instances"].gt_classes.tolist(), default=0)
            if self.class_scorer is not None and largest >= self.class_scorer.classes:
                raise ValueError(
                    f"{entry.get('file_name', 'An image')} has an object of class {largest} (counted from 0), but "
                    f"MODEL.REC_ATTEND.NUM_CLASSES is {self.class_scorer.classes}."
                )
        return ObjectTargets.from_instances(
            [entry["instances"] for entry in batched_inputs], *self.padding, self.device
        )

    def losses(self, batched_inputs: list[dict]) -> tuple[dict[str, Tensor], Callable[[], dict[str, Tensor]]]:
        """Losses of one glance at each image, from a memory that is drawn."""
        targets = self.extract_targets(batched_inputs)
        inputs = self.first_inputs(batched_inputs)
        inputs.memory = torch.stack([draw_memory(labels) for labels in targets.labels])
        unclaimed = targets.unclaimed(inputs.memory)
        fed = TrueBoxes(targets, unclaimed)
        step = self.step(inputs, fed)

        image, scan = step.proposal.image, step.scan
        owners = targets.place_owners(unclaimed, scan.logits.shape[1:], scan.stride)
        losses = place_losses(scan, owners)
        losses["loss_box"] = box_loss(scan, owners, targets)
        overlap = overlap_with_objects(step.proposal.boxes, image, targets)
        matched = match_candidates(overlap, image, unclaimed, MIN_BOX_IOU)
        found = matched >= 0
        losses["loss_score"] = score_loss(step.score, found)
        # Patches of candidates that found something, and of the true boxes.
        judged = torch.cat([found, torch.ones_like(fed.instance, dtype=torch.bool)])
        instance, where = torch.cat([matched, fed.instance])[judged], select(step.where, judged)
        assert step.cut.patch_mask is not None
        truth = targets.cut(where.image, instance, where.boxes, self.patch_size)
        pairs = PatchPairs(step.cut.patch_mask[judged], *truth)
        losses["loss_mask"] = mask_loss(pairs)
        if step.class_probabilities is not None:
            losses["loss_class"] = class_loss(step.class_probabilities[judged], targets.classes[where.image, instance])

        return losses, partial(glance_statistics, step, found, overlap, unclaimed, pairs)
