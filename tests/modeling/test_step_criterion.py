"""Losses of single steps against loops."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.layers.overlap import pairwise_box_iou
from rec_attend_d2.modeling import Targets
from rec_attend_d2.modeling.attention import build_attention
from rec_attend_d2.modeling.step_criterion import (
    PatchPairs,
    StepCriterion,
    StepTargets,
    assign_steps,
    box_distance,
    place_owners,
)
from rec_attend_d2.modeling.step_types import Places, Proposal

HEIGHT, WIDTH = 32, 64
# Cells, and pixels per cell.
MAP_SIZE, STRIDE = (4, 8), 8
# First row, first column, last row, last column; largest first, as the mapper sorts them. The last two share the cell
# of rows 0-7 and columns 48-55 (its centre is pixel (4, 52)): the last is a corner of it without the centre.
RECTANGLES = ((9, 2, 30, 21), (8, 30, 22, 41), (1, 46, 6, 58), (0, 50, 0, 51))


def make_targets(counts: list[int]) -> Targets:
    masks = torch.zeros(len(counts), len(RECTANGLES), HEIGHT, WIDTH)
    for b, count in enumerate(counts):
        for n, (y0, x0, y1, x1) in enumerate(RECTANGLES[:count]):
            masks[b, n, y0 : y1 + 1, x0 : x1 + 1] = 1
    return Targets.from_masks(masks, 0.0, 1.0)


def make_steps(targets: Targets, unclaimed: Tensor, instance: Tensor | None = None) -> StepTargets:
    """Steps [B, T] for ``unclaimed`` [B, T, N]; nothing hits."""
    anything = unclaimed.any(2)
    instance = unclaimed.int().argmax(2) if instance is None else instance
    return StepTargets(unclaimed, anything, instance, torch.zeros_like(anything), torch.zeros(anything.shape))


@pytest.fixture
def criterion(fast_cfg):
    """A function from config overrides below LOSS to a criterion whose weights are 1 unless told."""

    def make(**overrides) -> StepCriterion:
        weights = {f"{name}_WEIGHT": 1.0 for name in ("MASK", "BOX", "PLACE", "OBJECT", "SCORE")}
        return StepCriterion(fast_cfg({f"LOSS.{key}": value for key, value in {**weights, **overrides}.items()}))

    return make


def corners(center: Tensor, size: Tensor) -> tuple[float, float, float, float]:
    (y, x), (height, width) = center.tolist(), size.tolist()
    return y - height / 2, x - width / 2, y + height / 2, x + width / 2


def giou_and_iou(first: tuple, second: tuple) -> tuple[float, float]:
    """Generalised IoU and IoU of two boxes (y0, x0, y1, x1)."""

    def area(box) -> float:
        return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)

    low, high = [max(first[i], second[i]) for i in (0, 1)], [min(first[i], second[i]) for i in (2, 3)]
    both = area((*low, *high))
    union = area(first) + area(second) - both
    hull = area([min(first[i], second[i]) for i in (0, 1)] + [max(first[i], second[i]) for i in (2, 3)])
    return both / union - (hull - union) / hull, both / union


def box_loss(predicted: tuple[Tensor, Tensor], truth: tuple[Tensor, Tensor]) -> float:
    """1 - GIoU + 0.5 * L1 of two boxes (centre, size)."""
    giou, _ = giou_and_iou(corners(*predicted), corners(*truth))
    l1 = 0.0
    for axis in (0, 1):
        side = truth[1][axis].item()
        l1 += abs(predicted[0][axis].item() - truth[0][axis].item()) / side
        l1 += abs(math.log(predicted[1][axis].item() / side))
    return 1 - giou + 0.5 * l1 / 2


def true_box(targets: Targets, b: int, n: int) -> tuple[Tensor, Tensor]:
    return targets.boxes.center[b, n], targets.boxes.size[b, n]


# ---------------------------------------------------------------- boxes


def test_box_distance_and_iou_by_hand():
    torch.manual_seed(1)
    center, size = torch.rand(40, 2) * 12, torch.rand(40, 2) * 8 + 1
    other_center, other_size = torch.rand(40, 2) * 12, torch.rand(40, 2) * 8 + 1
    predicted, truth = CenterBoxes(center, size), CenterBoxes(other_center, other_size)
    giou, l1 = box_distance(predicted, truth)
    iou = pairwise_box_iou(CenterBoxes(center[None], size[None]), CenterBoxes(other_center[None], other_size[None]))[0]
    iou = iou.diagonal()
    for i in range(40):
        expected = giou_and_iou(corners(center[i], size[i]), corners(other_center[i], other_size[i]))
        assert (1 - giou[i].item(), iou[i].item()) == pytest.approx(expected, abs=1e-5)
        total = box_loss((center[i], size[i]), (other_center[i], other_size[i]))
        assert (giou[i] + 0.5 * l1[i]).item() == pytest.approx(total, rel=1e-4)
    assert (iou == 0).any() and (iou > 0.3).any()


def test_boxes_without_extent_have_a_finite_distance():
    boxes = CenterBoxes(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
    assert all(torch.isfinite(value).all() for value in box_distance(boxes, boxes))


# ---------------------------------------------------------------- who is where


def test_places_belong_to_whom_their_centre_pixel_belongs():
    masks = (torch.rand(2, 4, HEIGHT, WIDTH) < 0.3).float()
    masks[0, 2] = masks[0, 3] = masks[1, 3] = 0
    masks[0, 2, 17, 39] = 1  # one pixel, not the centre of its cell (2, 4)
    masks[1, 1] = 0
    masks[1, 1, 31, 63] = 1  # the last pixel
    targets = Targets.from_masks(masks, 0.2, 3.0)
    owners = place_owners(targets, MAP_SIZE)
    for b in range(2):
        for n in range(4):
            pixels = masks[b, n].nonzero()
            expected = torch.zeros(MAP_SIZE, dtype=torch.bool)
            if len(pixels):
                for i in range(MAP_SIZE[0]):
                    for j in range(MAP_SIZE[1]):
                        expected[i, j] = masks[b, n, i * STRIDE + 4, j * STRIDE + 4] == 1
                y, x = ((pixels.amin(0) + pixels.amax(0) + 1) / 2).tolist()  # from the image's rim to the middle
                expected[int(y // STRIDE), int(x // STRIDE)] = True
            assert torch.equal(owners[b, n].view(MAP_SIZE), expected)
    assert owners[0, 2].nonzero().flatten().tolist() == [2 * 8 + 4]
    assert owners[1, 1].nonzero().flatten().tolist() == [3 * 8 + 7]


def test_steps_are_given_the_nearest_unclaimed_instance():
    targets = make_targets([4, 2, 0])
    claimed = torch.zeros(3, 4, HEIGHT, WIDTH)
    claimed[0, 1] = targets.masks[0, 1]
    claimed[0, 2] = targets.masks[0, :3].amax(0)
    claimed[:, 3] = 1
    # Near instance 1 at all steps, which is claimed from the second on.
    center = torch.tensor([15.0, 36.0]).expand(3, 4, 2) + torch.randn(3, 4, 2)
    boxes = CenterBoxes(center, torch.full((3, 4, 2), 13.0))
    steps = assign_steps(boxes, claimed, targets)
    counts = (4, 2, 0)
    for b in range(3):
        for t in range(4):
            left = [n for n in range(counts[b]) if (claimed[b, t] * targets.masks[b, n]).sum() == 0]
            assert steps.unclaimed[b, t].nonzero().flatten().tolist() == left
            assert steps.anything[b, t] == bool(left)
            if not left:
                assert not steps.hit[b, t]
                continue
            own = corners(center[b, t], boxes.size[b, t])
            overlaps = {n: giou_and_iou(own, corners(*true_box(targets, b, n))) for n in left}
            nearest = max(left, key=lambda n: overlaps[n][0])
            assert steps.instance[b, t] == nearest
            assert steps.box_iou[b, t].item() == pytest.approx(overlaps[nearest][1], abs=1e-5)
            assert steps.hit[b, t] == (overlaps[nearest][1] > 0.25)
    assert steps.instance[0, :3].tolist() == [1, 0, 3]
    assert steps.hit[0].tolist() == [True, False, False, False]


@pytest.mark.parametrize(("share", "hit"), [(0.26, True), (0.24, False)])
def test_a_box_hits_with_an_iou_above_a_quarter(share: float, hit: bool):
    targets = make_targets([1])
    center, size = targets.boxes.center[:, :1], targets.boxes.size[:, :1]
    # As high as the true box and ``share`` of its width, inside of it.
    steps = assign_steps(CenterBoxes(center, size * torch.tensor([1.0, share])), torch.zeros(1, 1, 32, 64), targets)
    assert steps.box_iou.item() == pytest.approx(share, abs=1e-4)
    assert steps.hit.tolist() == [[hit]]


# ---------------------------------------------------------------- places and boxes


def make_proposals(make_proposal, batch: int, steps: int, dense: bool) -> Proposal:
    """Random proposals [B, T, ...] with scored places, whose boxes are read everywhere if ``dense``."""
    boxes = CenterBoxes(torch.rand(batch, steps, 2) * 30, torch.rand(batch, steps, 2) * 20 + 2)
    cells = MAP_SIZE[0] * MAP_SIZE[1]
    read = None
    if dense:
        center = (torch.rand(batch, steps, cells, 2) * 40).requires_grad_()
        read = CenterBoxes(center, torch.rand(batch, steps, cells, 2) * 30 + 2)
    places = Places((torch.randn(batch, steps, *MAP_SIZE) * 2).requires_grad_(), read)
    return make_proposal(boxes.center.requires_grad_(), boxes.size, places=places)


def drawn_unclaimed(targets: Targets, steps: int) -> Tensor:
    """Random unclaimed instances [B, T, N], nothing at the last step."""
    unclaimed = (torch.rand(len(targets.valid), steps, 4) < 0.6) & targets.valid[:, None]
    unclaimed[0, 0] = targets.valid[0]
    unclaimed[:, -1] = False
    return unclaimed


def test_place_object_and_dense_box_losses_by_loop(criterion, make_proposal):
    targets = make_targets([4, 2, 0])
    proposals = make_proposals(make_proposal, 3, 3, dense=True)
    unclaimed = drawn_unclaimed(targets, 3)
    steps = make_steps(targets, unclaimed)
    weights = {"PLACE_WEIGHT": 0.3, "OBJECT_WEIGHT": 0.7, "BOX_WEIGHT": 0.4}
    losses = criterion(**weights).proposal_losses(proposals, steps, targets)

    owners = place_owners(targets, MAP_SIZE)  # its own test is above
    logits = proposals.places.logits.detach().flatten(2).double().numpy()
    missed, entropy, rights, distances = [], 0.0, 0, []
    for b in range(3):
        for t in range(3):
            mass = 0.0
            for cell in range(32):
                here = [n for n in range(4) if unclaimed[b, t, n] and owners[b, n, cell]]
                logit = logits[b, t, cell]
                entropy += math.log1p(math.exp(-logit if here else logit))
                if not here:
                    continue
                rights += 1
                mass += math.exp(logit) / np.exp(logits[b, t]).sum()
                read = proposals.places.boxes
                # Largest first: of several the last is the smallest.
                distances.append(
                    box_loss((read.center[b, t, cell], read.size[b, t, cell]), true_box(targets, b, max(here)))
                )
            if unclaimed[b, t].any():
                missed.append(-math.log(mass))
    assert losses["loss_place"].item() == pytest.approx(0.3 * np.mean(missed), rel=1e-4)
    assert losses["loss_object"].item() == pytest.approx(0.7 * entropy / rights, rel=1e-4)
    assert losses["loss_box"].item() == pytest.approx(0.4 * np.mean(distances), rel=1e-4)
    assert set(losses) == {"loss_place", "loss_object", "loss_box"}


def test_of_two_objects_in_a_cell_the_smaller_one_is_right(criterion, make_proposal):
    targets = make_targets([4])
    cell = 6  # of the first row: the third object's pixels are around its centre, the fourth object's centre is in it
    assert place_owners(targets, MAP_SIZE)[0, :, cell].tolist() == [False, False, True, True]
    proposals = make_proposals(make_proposal, 1, 1, dense=True)
    for left, right in ((range(4), 3), ((2,), 2)):
        unclaimed = torch.zeros(1, 1, 4, dtype=torch.bool)
        unclaimed[0, 0, list(left)] = True
        read = CenterBoxes(torch.zeros(1, 1, 32, 2), torch.full((1, 1, 32, 2), 5.0))
        read.center.requires_grad_()
        proposals.places.boxes = read
        criterion().proposal_losses(proposals, make_steps(targets, unclaimed), targets)["loss_box"].backward()
        owned = place_owners(targets, MAP_SIZE)[0, list(left)].any(0)
        assert torch.equal((read.center.grad[0, 0] != 0).any(1), owned)
        # With the right object's box the cell's loss is 0: nothing but the other cells' is left.
        total = criterion().proposal_losses(proposals, make_steps(targets, unclaimed), targets)["loss_box"].item()
        here = box_loss((torch.zeros(2), torch.full((2,), 5.0)), true_box(targets, 0, right))
        with torch.no_grad():
            read.center[0, 0, cell], read.size[0, 0, cell] = true_box(targets, 0, right)
        less = criterion().proposal_losses(proposals, make_steps(targets, unclaimed), targets)["loss_box"].item()
        assert (total - less) * owned.sum().item() == pytest.approx(here, rel=1e-3)


@pytest.mark.parametrize("places", [True, False])
def test_a_single_box_is_compared_with_the_given_instance(criterion, make_proposal, places: bool):
    targets = make_targets([4, 2, 0])
    proposals = make_proposals(make_proposal, 3, 3, dense=False)
    if not places:
        proposals.places = None
    unclaimed = drawn_unclaimed(targets, 3)
    steps = make_steps(targets, unclaimed, instance=torch.randint(0, 4, (3, 3)))
    losses = criterion(BOX_WEIGHT=0.4).proposal_losses(proposals, steps, targets)
    expected = [
        box_loss(
            (proposals.boxes.center[b, t], proposals.boxes.size[b, t]),
            true_box(targets, b, int(steps.instance[b, t])),
        )
        for b, t in steps.anything.nonzero().tolist()
    ]
    assert losses["loss_box"].item() == pytest.approx(0.4 * np.mean(expected), rel=1e-4)
    assert set(losses) == ({"loss_place", "loss_object", "loss_box"} if places else {"loss_box"})


@pytest.mark.parametrize("dense", [True, False])
def test_nothing_left_gives_no_place_and_box_loss_but_gradients(criterion, make_proposal, dense: bool):
    targets = make_targets([2, 0])
    proposals = make_proposals(make_proposal, 2, 1, dense)
    steps = make_steps(targets, torch.zeros(2, 1, 4, dtype=torch.bool))
    losses = criterion().proposal_losses(proposals, steps, targets)
    assert losses["loss_place"] == losses["loss_box"] == 0
    # Every place is told that nothing is there: the sum over all of them, since there is none to divide by.
    expected = torch.nn.functional.softplus(proposals.places.logits.detach()).sum().item()
    assert losses["loss_object"].item() == pytest.approx(expected, rel=1e-5)
    logits, box = proposals.places.logits, (proposals.places.boxes or proposals.boxes).center
    (place_gradient,) = torch.autograd.grad(losses["loss_place"], logits)
    (box_gradient,) = torch.autograd.grad(losses["loss_box"], box)
    assert (place_gradient == 0).all() and (box_gradient == 0).all()
    assert (torch.autograd.grad(losses["loss_object"], logits)[0] > 0).all()


# ---------------------------------------------------------------- scores


@pytest.mark.parametrize(("name", "truth"), [("hit", [1, 0, 0]), ("anything_left", [1, 1, 0])])
def test_what_scores_should_be(criterion, name: str, truth: list[int]):
    targets = make_targets([2])
    unclaimed = torch.tensor([[[True] * 2 + [False] * 2, [True] + [False] * 3, [False] * 4]])
    steps = make_steps(targets, unclaimed)
    steps.hit = torch.tensor([[True, False, False]])
    scores = [0.7, 0.4, 0.2]
    loss = criterion(SCORE_TRUTH=name, SCORE_WEIGHT=0.5).score_loss(torch.tensor([scores]), steps)
    expected = -np.mean([math.log(score if right else 1 - score) for score, right in zip(scores, truth, strict=True)])
    assert loss.item() == pytest.approx(0.5 * expected, rel=1e-5)


# ---------------------------------------------------------------- masks


@pytest.fixture
def make_pairs(fast_cfg, make_proposal):
    """A function from the config's overrides to pairs of random patches with instances 1, 0 and 2 of two images."""

    def make(overrides: dict | None = None) -> PatchPairs:
        attention = build_attention(fast_cfg(overrides))
        targets = make_targets([3, 3])
        image, instance = torch.tensor([0, 0, 1]), torch.tensor([1, 0, 2])
        boxes = CenterBoxes(targets.boxes.center[image, instance] + 1.3, targets.boxes.size[image, instance] * 1.1)
        window = attention.window(boxes, make_proposal(boxes.center, boxes.size), (HEIGHT, WIDTH))
        logits = torch.randn(3, 12, 16).requires_grad_()
        return PatchPairs.of(logits, None, window, (image, instance), attention, targets)

    return make


def test_truth_and_neighbors_of_a_patch_are_true_masks_cut_out(fast_cfg, make_proposal):
    """At a box as large as the patch, points are pixels."""
    targets = make_targets([3, 3])
    attention = build_attention(fast_cfg())
    center, size = torch.tensor([[12.5, 33.5], [8.5, 47.5]]), torch.tensor([[11.0, 15.0]] * 2)
    window = attention.window(CenterBoxes(center, size), make_proposal(center, size), (HEIGHT, WIDTH))
    image, instance = torch.tensor([1, 0]), torch.tensor([1, 2])
    pairs = PatchPairs.of(torch.zeros(2, 12, 16), None, window, (image, instance), attention, targets)
    for pair, (top, left) in enumerate(((7, 26), (3, 40))):
        mask = targets.masks[image[pair], instance[pair]]
        assert torch.equal(pairs.true_masks[pair], mask)
        others = targets.masks[image[pair]].sum(0) - mask
        for cut, whole in ((pairs.truth, mask), (pairs.neighbors, others)):
            torch.testing.assert_close(cut[pair], whole[top : top + 12, left : left + 16], atol=1e-5, rtol=0)
    assert pairs.neighbors[1].sum() > 1  # two columns of its neighbour


def test_pixels_of_neighbors_weigh_three_times_as_much(criterion, make_pairs):
    pairs = make_pairs()
    pairs.neighbors = (torch.rand_like(pairs.truth) < 0.3).float()
    entropy = F.binary_cross_entropy_with_logits(pairs.logits, pairs.truth, reduction="none")
    expected = (entropy + 2 * entropy * pairs.neighbors).mean().item()
    loss = criterion(STEP_MASK=["patch_neighbor_bce"]).mask_loss(pairs)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert loss > criterion(STEP_MASK=["patch_bce"]).mask_loss(pairs)


def test_mask_losses_on_the_patch_by_loop(criterion, make_pairs):
    pairs = make_pairs()
    logits, truth = pairs.logits.detach().double().numpy(), pairs.truth.double().numpy()
    probability = 1 / (1 + np.exp(-logits))
    entropies, dices = [], []
    for p, y in zip(probability, truth, strict=True):
        entropies += [-(b * math.log(a) + (1 - b) * math.log(1 - a)) for a, b in zip(p.flat, y.flat, strict=True)]
        dices.append(1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))
    bce, dice = np.mean(entropies), np.mean(dices)
    assert criterion(STEP_MASK=["patch_bce"]).mask_loss(pairs).item() == pytest.approx(bce, rel=1e-4)
    assert criterion(STEP_MASK=["patch_dice"]).mask_loss(pairs).item() == pytest.approx(dice, rel=1e-4)
    both = criterion(STEP_MASK=["patch_dice", "patch_bce"], MASK_WEIGHT=0.3).mask_loss(pairs)
    assert both.item() == pytest.approx(0.3 * (bce + dice), rel=1e-4)


@pytest.mark.parametrize("attention", ["BilinearAttention", "GaussianAttention"])
def test_mask_loss_on_the_image_by_loop(criterion, make_pairs, attention: str):
    pairs = make_pairs({"ATTENTION.NAME": attention})
    masks, ious = pairs.masks.detach().double().numpy(), []
    assert masks.shape == (3, HEIGHT, WIDTH) and 0 <= masks.min() and masks.max() <= 1
    for mask, truth in zip(masks, pairs.true_masks.double().numpy(), strict=True):
        both = (mask * truth).sum()
        ious.append(both / (mask.sum() + truth.sum() - both))
    loss = criterion(STEP_MASK=["image_iou"]).mask_loss(pairs)
    assert loss.item() == pytest.approx(1 - np.mean(ious), rel=1e-4)
    assert (torch.autograd.grad(loss, pairs.logits)[0] != 0).any()


@pytest.mark.parametrize("names", [["patch_bce", "patch_dice"], ["patch_neighbor_bce"], ["image_iou"]], ids=str)
def test_perfect_patches_have_a_small_mask_loss(criterion, make_pairs, names: list[str]):
    pairs = make_pairs()
    pairs.logits = (pairs.truth - 0.5) * 40
    pairs.truth = (pairs.truth > 0.5).float()
    loss = criterion(STEP_MASK=names)
    perfect = loss.mask_loss(pairs).item()
    pairs.logits = -pairs.logits
    assert perfect < 0.25 and loss.mask_loss(pairs).item() > 0.9


def test_without_pairs_there_is_no_mask_loss_but_a_gradient(criterion):
    logits = torch.zeros(2, 12, 16, requires_grad=True)
    chosen = logits[torch.zeros(2, dtype=torch.bool)]
    none = torch.zeros(0, HEIGHT, WIDTH)
    pairs = PatchPairs(
        chosen, chosen.detach(), chosen.detach(), None, none, none[:, 0, 0].long(), None, lambda *_: None
    )
    loss = criterion(STEP_MASK=["patch_bce", "patch_neighbor_bce", "patch_dice", "image_iou"]).mask_loss(pairs)
    assert loss == 0
    assert (torch.autograd.grad(loss, logits)[0] == 0).all()


@pytest.mark.parametrize(("key", "value"), [("STEP_MASK", ["patch_bce", "nonsense"]), ("SCORE_TRUTH", "nonsense")])
def test_unknown_names_are_refused(criterion, key: str, value):
    with pytest.raises(ValueError, match=rf"MODEL.REC_ATTEND.LOSS.{key} is 'nonsense'.*(image_iou|anything_left)"):
        criterion(**{key: value})
