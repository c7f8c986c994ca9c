"""How training goes through the time steps: one after another as the paper does, or many single steps at once.

Shapes: `B` images, `T` steps, `N` instance slots, `n` patches, `F_h, F_w` patch, `H, W` network input.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.evaluation import inference_context
from torch import Tensor

from ..layers.boxes import CenterBoxes, scale_axes
from ..registry import look_up
from .claims import DrawnMemories, unclaimed_instances
from .criterion import MaskCriterion
from .inputs import StepInputs
from .losses import weight_decay_loss
from .registries import TRAINING_MODE_REGISTRY
from .statistics import step_statistics, training_statistics
from .step_criterion import PatchPairs, StepCriterion, StepTargets, assign_steps
from .step_types import ExtraMaps, Proposal, select, stack_steps
from .targets import Targets

if TYPE_CHECKING:
    from .rec_attend import RecAttend

_KEY = "MODEL.REC_ATTEND.TRAINING"


def training_mode_class(cfg: CfgNode) -> Any:
    """The class named by MODEL.REC_ATTEND.TRAINING.MODE.

    Its ``criterion_class`` says what judges its steps, ``single_steps`` whether an image passes the step's networks
    once per iteration rather than T times, and ``whole_sequences`` whether all T steps are matched with the image's
    objects.
    """
    return look_up(TRAINING_MODE_REGISTRY, cfg.MODEL.REC_ATTEND.TRAINING.MODE, f"{_KEY}.MODE")


def trains_whole_sequences(cfg: CfgNode) -> bool:
    """Whether training matches all T steps of an image with its objects, rather than judging single steps."""
    return cfg.MODEL.META_ARCHITECTURE not in ("RecAttend", "FastRecAttend") or cfg.MODEL.META_ARCHITECTURE == "RecAttend" and training_mode_class(cfg).whole_sequences


# Losses by name, and a function that computes statistics, called only where somebody listens.
TrainingResult = tuple[dict[str, Tensor], Callable[[], dict[str, Tensor]]]


@dataclass
class Cuts:
    """Boxes to cut patches at.

    Attributes:
        image: [n] which image of the batch.
        instance: [n] which true instance of it.
        boxes: [n, 2] each, pixels.
        judged: [n] bool, whether the mask is compared with the instance.
    """

    image: Tensor
    instance: Tensor
    boxes: CenterBoxes
    judged: Tensor


@TRAINING_MODE_REGISTRY.register()
class Sequential:
    """The paper's: all T steps of an image one after another, matched with the true instances as a whole."""

    criterion_class = MaskCriterion
    single_steps = False
    whole_sequences = True

    @configurable
    def __init__(self) -> None:
        pass

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        if cfg.MODEL.REC_ATTEND.BOX_PROPOSER.NAME == "DenseBoxProposer":
            raise ValueError(
                f"{_KEY}.MODE 'Sequential' matches whole sequences, from which DenseBoxProposer cannot learn where to "
                "look. Set it to 'SequentialSteps', 'ParallelTeacherForcing' or 'StatePool'."
            )
        return {}

    def __call__(
        self, model: "RecAttend", batched_inputs: list[dict], images: Tensor, extra: ExtraMaps, targets: Targets
    ) -> TrainingResult:
        """Losses of a batch."""
        output = model.compute_losses(model.unroll(images, extra, targets), targets)
        return output.losses, partial(training_statistics, output)


def check_single_steps(cfg: CfgNode) -> None:
    """Raise a ValueError where a config's parts cannot be trained on single steps."""
    node = cfg.MODEL.REC_ATTEND
    if node.NORM == "per_step":
        raise ValueError(
            f"{_KEY}.MODE '{node.TRAINING.MODE}' trains steps out of order, so there are no statistics per time step: "
            "set MODEL.REC_ATTEND.NORM to 'shared' or 'group'."
        )
    for name in ("OWN_STEPS", "TRUE_PATCHES"):
        if node.TRAINING[name] < 0:
            raise ValueError(f"{_KEY}.{name} is {node.TRAINING[name]}; give 0 or more.")


def judge(
    model: "RecAttend", proposals: Proposal, scores: Tensor, pairs: PatchPairs, steps: StepTargets, targets: Targets
) -> TrainingResult:
    """All losses of single steps: proposals [B, T, ...], scores [B, T] and the patches to compare."""
    losses = model.criterion.proposal_losses(proposals, steps, targets)
    losses["loss_mask"] = model.criterion.mask_loss(pairs)
    losses["loss_score"] = model.criterion.score_loss(scores, steps)
    losses.update(model.criterion.class_losses(pairs))
    losses["loss_weight_decay"] = weight_decay_loss(model, model.weight_decay)
    return losses, partial(step_statistics, proposals.boxes, scores, steps, pairs)


@TRAINING_MODE_REGISTRY.register()
class ParallelTeacherForcing:
    """One step per image, all in one batch, each from a memory of its own that is drawn from true masks.

    With own steps the model first goes on by itself from the drawn memory, so that it also meets its own mistakes.
    """

    criterion_class = StepCriterion
    single_steps = True
    whole_sequences = False

    @configurable
    def __init__(self, *, drawn_memories: DrawnMemories, own_steps: int, true_patches: int, box_noise: float):
        """
        Args:
            drawn_memories: how memories are drawn.
            own_steps: largest number of steps that the model takes itself, without gradient, before the trained one.
            true_patches: patches per image that are cut out at the true boxes of unclaimed instances, besides the
                one at the proposed box.
            box_noise: true boxes move by up to this share of their size, half to either side, and their size changes
                by a factor of up to ``exp(box_noise)``.
        """
        self.drawn_memories = drawn_memories
        self.own_steps = own_steps
        self.true_patches = true_patches
        self.box_noise = box_noise

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        check_single_steps(cfg)
        node = cfg.MODEL.REC_ATTEND.TRAINING
        return {
            "drawn_memories": DrawnMemories(cfg),
            "own_steps": node.OWN_STEPS,
            "true_patches": node.TRUE_PATCHES,
            "box_noise": node.BOX_NOISE,
        }

    def draw(self, model: "RecAttend", inputs: StepInputs, targets: Targets, index: int) -> Tensor:
        """A memory [...] for image ``index`` of the batch, drawn from its true masks."""
        image = select(inputs, slice(index, index + 1))
        memory = model.memory.initial(image.image)
        for mask in self.drawn_memories.draw(targets.masks[index, targets.valid[index]]):
            memory = model.memory.update(memory, mask[None], image.extra)
        return memory[0]

    def start(self, model: "RecAttend", batched_inputs: list[dict], inputs: StepInputs, targets: Targets) -> Tensor:
        """The memories [B, ...] to train on."""
        memory = torch.stack([self.draw(model, inputs, targets, index) for index in range(len(inputs.image))])
        count = int(torch.randint(0, self.own_steps + 1, ()))
        return self.go_on(model, dataclasses.replace(inputs, memory=memory), targets, count)

    @staticmethod
    def go_on(model: "RecAttend", inputs: StepInputs, targets: Targets, count: int) -> Tensor:
        """The memories [B, ...] after the model has taken ``count`` steps by itself.

        An image that has no more than ``count`` instances left stays as it is, so that neither its last instances nor
        the stop is skipped.
        """
        if count == 0:
            return inputs.memory
        left = unclaimed_instances(model.memory.claimed(inputs.memory)[:, None], targets).sum((1, 2))
        goes_on = (left > count).to(inputs.image)[:, None, None]
        with inference_context(model), torch.no_grad():
            for _ in range(count):
                mask = model.take_step(inputs, 0).mask * goes_on
                inputs = dataclasses.replace(inputs, memory=model.memory.update(inputs.memory, mask, inputs.extra))
        return inputs.memory

    def finish(
        self,
        model: "RecAttend",
        batched_inputs: list[dict],
        inputs: StepInputs,
        mask: Tensor,
        steps: StepTargets,
        targets: Targets,
    ) -> None:
        """Called after the step with its predicted masks [B, H, W]; nothing is kept between batches."""

    def _cuts(self, proposal: Proposal, steps: StepTargets, targets: Targets) -> Cuts:
        """The proposed boxes (first, one per image) and noisy true boxes of some unclaimed instances."""
        batch = len(targets.masks)
        device = targets.masks.device
        # A random order of the slots in which the unclaimed ones come first.
        priority = torch.rand(targets.valid.shape, device=device) + steps.unclaimed[:, 0]
        instance = priority.topk(min(self.true_patches, priority.shape[1]), dim=1).indices
        usable = steps.unclaimed[:, 0].gather(1, instance)
        image = torch.arange(batch, device=device)[:, None].expand_as(instance)[usable]
        instance = instance[usable]
        center, size = targets.boxes.center[image, instance], targets.boxes.size[image, instance]
        noise = (torch.rand(2, *center.shape, device=device) - 0.5) * self.box_noise
        own = proposal.boxes
        return Cuts(
            image=torch.cat([torch.arange(batch, device=device), image]),
            instance=torch.cat([steps.instance[:, 0], instance]),
            boxes=CenterBoxes(
                # The box learns from its own loss; the mask's does not flow through it.
                torch.cat([own.center.detach(), center + noise[0] * size]),
                torch.cat([own.size.detach(), size * torch.exp(2 * noise[1])]),
            ),
            judged=torch.cat([steps.hit[:, 0], torch.ones_like(image, dtype=torch.bool)]),
        )

    def __call__(
        self, model: "RecAttend", batched_inputs: list[dict], images: Tensor, extra: ExtraMaps, targets: Targets
    ) -> TrainingResult:
        """Losses of a batch of single steps."""
        inputs = StepInputs(images, model.memory.initial(images), extra)
        inputs.memory = self.start(model, batched_inputs, select_detached(inputs), targets)
        proposal = model.run_part(model.box_proposer, inputs, 0)
        claimed = model.memory.claimed(inputs.memory)[:, None]
        steps = assign_steps(stack_steps([proposal.boxes]), claimed, targets)
        cuts = self._cuts(proposal, steps, targets)
        cut_proposal = at_boxes(select(proposal, cuts.image), cuts.boxes, inputs.image_size)
        window = model.attention.window(cuts.boxes, cut_proposal, inputs.image_size)
        patch = model.attention.cut(inputs.select(cuts.image), model.mask_inputs, window)
        patch_mask, features = model.run_part(model.segmentation_head, patch, 0)
        score = model.stop_scorer(proposal.hidden, features[: len(images)])

        classes = model.class_probabilities(features)
        pairs = PatchPairs.of(patch_mask, classes, window, (cuts.image, cuts.instance), model.attention, targets)
        pairs = select(pairs, cuts.judged)
        result = judge(model, stack_steps([proposal]), score[:, None], pairs, steps, targets)
        own = torch.arange(len(images), device=images.device)
        mask = model.attention.paste(patch_mask[own].detach(), select(window, own))
        visible = model.memory.visible(mask, claimed[:, 0])
        self.finish(model, batched_inputs, select_detached(inputs), visible, steps, targets)
        return result


@TRAINING_MODE_REGISTRY.register()
class StatePool(ParallelTeacherForcing):
    """On-policy memory for nothing: every image stays in the batch until all its objects are claimed.

    Each iteration trains every image on its present memory and then adds the model's own prediction to it. What the
    memory holds in training is therefore what it will hold at inference. An image with nothing left is trained on
    stopping, and its slot is given to the next one (:class:`rec_attend_d2.data.StatePoolLoader`).
    """

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        if cfg.MODEL.REC_ATTEND.TRAINING.OWN_STEPS < 1:
            raise ValueError(f"{_KEY}.OWN_STEPS must be at least 1 for StatePool: the memory has to go on.")
        return super().from_config(cfg)

    def start(self, model: "RecAttend", batched_inputs: list[dict], inputs: StepInputs, targets: Targets) -> Tensor:
        """The memory each image has reached; a drawn one for new images."""
        memories = []
        for index, entry in enumerate(batched_inputs):
            if "state" not in entry:
                raise ValueError(
                    f"{entry.get('file_name', 'An image')} has no 'state': training in {_KEY}.MODE 'StatePool' needs "
                    "the batches of rec_attend_d2.data.StatePoolLoader, which Trainer.build_train_loader makes."
                )
            memory = entry["state"].memory
            # That of a checkpoint comes from the CPU.
            memories.append(self.draw(model, inputs, targets, index) if memory is None else memory.to(model.device))
        return torch.stack(memories)

    def finish(
        self,
        model: "RecAttend",
        batched_inputs: list[dict],
        inputs: StepInputs,
        mask: Tensor,
        steps: StepTargets,
        targets: Targets,
    ) -> None:
        """Write the predictions to the memories of the batch's images."""
        memory = model.memory.update(inputs.memory, mask, inputs.extra)
        memory = self.go_on(model, dataclasses.replace(inputs, memory=memory), targets, self.own_steps - 1)
        outcome = zip(steps.hit[:, 0].tolist(), steps.anything[:, 0].tolist(), strict=True)
        for entry, reached, (hit, anything) in zip(batched_inputs, memory, outcome, strict=True):
            entry["state"].advance(reached, hit, anything)


def select_detached(inputs: StepInputs) -> StepInputs:
    """``inputs`` without the gradient of the features."""
    features = tuple(level.detach() for level in inputs.extra.features)
    return dataclasses.replace(inputs, extra=dataclasses.replace(inputs.extra, features=features))


def at_boxes(proposal: Proposal, boxes: CenterBoxes, image_size: tuple[int, int]) -> Proposal:
    """``proposal`` as if it had proposed ``boxes``, on whose size the filters' variance may depend."""
    log_size = torch.log(scale_axes(boxes.size, (1 / image_size[0], 1 / image_size[1])))
    return dataclasses.replace(proposal, boxes=boxes, log_size=log_size)


@TRAINING_MODE_REGISTRY.register()
class SequentialSteps:
    """All T steps one after another with the model's own predictions in memory, each judged as a single step."""

    criterion_class = StepCriterion
    single_steps = False
    whole_sequences = False

    @configurable
    def __init__(self) -> None:
        pass

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        check_single_steps(cfg)
        return {}

    def __call__(
        self, model: "RecAttend", batched_inputs: list[dict], images: Tensor, extra: ExtraMaps, targets: Targets
    ) -> TrainingResult:
        """Losses of all steps of a batch."""
        sequence = model.unroll(images, extra)
        steps = assign_steps(sequence.proposals.boxes, sequence.memories, targets)
        image, step = steps.hit.nonzero(as_tuple=True)
        proposal = select(sequence.proposals, (image, step))
        window = model.attention.window(select(sequence.used_boxes, (image, step)), proposal, targets.image_size)
        instances = image, steps.instance[image, step]
        classes = select(sequence.class_probabilities, (image, step))
        patches = sequence.patch_masks[image, step]
        pairs = PatchPairs.of(patches, classes, window, instances, model.attention, targets)
        return judge(model, sequence.proposals, sequence.scores, pairs, steps, targets)
