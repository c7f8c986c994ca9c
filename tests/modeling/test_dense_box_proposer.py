"""The dense box proposer: where its places are, which box it proposes, and what learns from what."""

import math

import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor, nn

from rec_attend_d2.modeling.box_proposer import build_box_proposer
from rec_attend_d2.modeling.dense_box_proposer import DenseBoxProposer
from rec_attend_d2.modeling.inputs import StepInputs
from rec_attend_d2.modeling.step_types import ExtraMaps

# Cells of 8 x 16 pixels, so that no two numbers are the same by accident.
IMAGE_SIZE, MAP_SIZE, CHANNELS = (32, 48), (4, 3), 5
STRIDE = (8, 16)
PLACES = MAP_SIZE[0] * MAP_SIZE[1]


class GivenMap(nn.Module):
    """Stands in for a control CNN: its map is what it was given."""

    out_channels, map_size = CHANNELS, MAP_SIZE

    def __init__(self, features: Tensor):
        super().__init__()
        self.features = nn.Parameter(features)

    def forward(self, inputs: StepInputs, step: int) -> Tensor:
        return self.features


@pytest.fixture
def inputs() -> StepInputs:
    return StepInputs(torch.rand(3, 3, *IMAGE_SIZE), torch.zeros(3, *IMAGE_SIZE), ExtraMaps())


def proposer(fresh: bool) -> DenseBoxProposer:
    """A proposer that looks at a random map of three images."""
    generator = torch.Generator().manual_seed(4)
    control_cnn = GivenMap(torch.randn(3, CHANNELS, *MAP_SIZE, generator=generator))
    result = DenseBoxProposer(control_cnn=control_cnn, initial_size=[0.25 * side for side in IMAGE_SIZE])
    if not fresh:
        with torch.no_grad():
            for parameter in (result.place.weight, result.box.weight, result.box.bias):
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return result


def cell_center(row: int, column: int) -> tuple[float, float]:
    """Mean index of the pixels of a cell."""
    return (
        float(np.mean(range(row * STRIDE[0], (row + 1) * STRIDE[0]))),
        float(np.mean(range(column * STRIDE[1], (column + 1) * STRIDE[1]))),
    )


def expected_boxes(part: DenseBoxProposer, image: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres and sizes [places, 2] in the order of the rows, written out."""
    features = part.control_cnn.features[image].detach().double().numpy()
    weight, bias = part.box.weight[:, :, 0, 0].detach().double().numpy(), part.box.bias.detach().double().numpy()
    centers, sizes = [], []
    for row in range(MAP_SIZE[0]):
        for column in range(MAP_SIZE[1]):
            dy, dx, log_height, log_width = weight @ features[:, row, column] + bias
            y, x = cell_center(row, column)
            centers.append((y + dy * STRIDE[0], x + dx * STRIDE[1]))
            sizes.append((math.exp(log_height) * 0.25 * IMAGE_SIZE[0], math.exp(log_width) * 0.25 * IMAGE_SIZE[1]))
    return np.array(centers), np.array(sizes)


def test_fresh_boxes_lie_at_their_cells_with_the_initial_size(inputs: StepInputs):
    boxes = proposer(fresh=True)(inputs, 0).places.boxes
    centers = [cell_center(row, column) for row in range(MAP_SIZE[0]) for column in range(MAP_SIZE[1])]
    np.testing.assert_allclose(boxes.center.detach().numpy(), [centers] * 3, rtol=1e-6)
    np.testing.assert_allclose(boxes.size.detach().numpy(), np.full((3, PLACES, 2), [8.0, 12.0]), rtol=1e-6)


def test_hardly_any_place_is_an_objects_at_first(inputs: StepInputs):
    logits = proposer(fresh=True)(inputs, 0).places.logits
    assert logits.shape == (3, *MAP_SIZE)
    np.testing.assert_allclose(scipy.special.expit(logits.detach().numpy()), 0.018, atol=0.005)


def test_a_box_is_read_at_every_cell(inputs: StepInputs):
    part = proposer(fresh=False)
    boxes = part(inputs, 0).places.boxes
    for image in range(3):
        centers, sizes = expected_boxes(part, image)
        np.testing.assert_allclose(boxes.center[image].detach().numpy(), centers, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(boxes.size[image].detach().numpy(), sizes, rtol=1e-4)


def test_boxes_of_a_window_are_those_of_the_image(inputs: StepInputs):
    """A box depends on what is seen at its place, not on how large the picture around it is."""
    part = proposer(fresh=False)
    whole = part(inputs, 0).places.boxes
    part.control_cnn.features = nn.Parameter(part.control_cnn.features[:, :, 1:, 1:].detach())
    window = inputs.image[:, :, STRIDE[0] :, STRIDE[1] :]
    boxes = part(StepInputs(window, torch.zeros(3, *window.shape[2:]), ExtraMaps()), 0).places.boxes
    inside = torch.arange(PLACES).view(MAP_SIZE)[1:, 1:].flatten()
    torch.testing.assert_close(boxes.size, whole.size[:, inside])
    torch.testing.assert_close(boxes.center + torch.tensor(STRIDE), whole.center[:, inside])


def test_the_box_of_the_best_place_is_proposed(inputs: StepInputs):
    part = proposer(fresh=False)
    proposal = part(inputs, 0)
    features, weight = part.control_cnn.features.detach().numpy(), part.place.weight[0, :, 0, 0].detach().numpy()
    logits = np.einsum("bchw,c->bhw", features, weight) + part.place.bias.item()
    np.testing.assert_allclose(proposal.places.logits.detach().numpy(), logits, rtol=1e-4, atol=1e-5)
    best = [int(np.argmax(image)) for image in logits]
    assert len(set(best)) == 3
    for image, place in enumerate(best):
        centers, sizes = expected_boxes(part, image)
        np.testing.assert_allclose(proposal.boxes.center[image].detach().numpy(), centers[place], rtol=1e-4)
        np.testing.assert_allclose(proposal.boxes.size[image].detach().numpy(), sizes[place], rtol=1e-4)


def test_the_best_place_is_wherever_the_logit_is_highest(inputs: StepInputs):
    part = proposer(fresh=True)
    nn.init.zeros_(part.place.weight)
    with torch.no_grad():
        part.place.weight[0, 2] = 1
    for row in range(MAP_SIZE[0]):
        for column in range(MAP_SIZE[1]):
            with torch.no_grad():
                part.control_cnn.features.zero_()
                part.control_cnn.features[:, 2, row, column] = 0.1
            center = part(inputs, 0).boxes.center
            np.testing.assert_allclose(center.detach().numpy(), [cell_center(row, column)] * 3, rtol=1e-6)


def test_other_fields_of_a_proposal(inputs: StepInputs):
    proposal = proposer(fresh=False)(inputs, 0)
    center, size = proposal.boxes.center.detach().numpy(), proposal.boxes.size.detach().numpy()
    sides = np.array(IMAGE_SIZE)
    np.testing.assert_allclose(
        proposal.center_normalized.detach().numpy(), (center - sides / 2) / (sides / 2), atol=1e-5
    )
    np.testing.assert_allclose(proposal.log_size.detach().numpy(), np.log(size / sides), rtol=1e-4)
    for field, shape in (("learned_log_variance", (3, 2)), ("learned_patch_log_gain", (3,))):
        assert getattr(proposal, field).shape == shape and (getattr(proposal, field) == 0).all()
    assert proposal.learned_mask_log_gain.tolist() == [0.0] * 3
    assert proposal.box_map_log_gain.tolist() == [2.0] * 3


def test_the_glimpse_map_is_the_distribution_over_places(inputs: StepInputs):
    proposal = proposer(fresh=False)(inputs, 0)
    expected = scipy.special.softmax(proposal.places.logits.detach().numpy().reshape(3, -1), axis=1)
    assert proposal.glimpse_maps.shape == (3, 1, *MAP_SIZE)
    np.testing.assert_allclose(proposal.glimpse_maps.detach().numpy().reshape(3, -1), expected, rtol=1e-4)


def test_what_the_stop_scorer_reads(inputs: StepInputs):
    part = proposer(fresh=False)
    proposal = part(inputs, 0)
    assert proposal.hidden.shape == (3, part.hidden_dim) == (3, 2 * CHANNELS + 2)
    features = part.control_cnn.features.detach().numpy()
    logits = proposal.places.logits.detach().numpy()
    for image in range(3):
        row, column = np.unravel_index(logits[image].argmax(), MAP_SIZE)
        best = logits[image].max()
        expected = [
            *features[image, :, row, column],
            *features[image].reshape(CHANNELS, -1).max(1),
            best / 4,
            scipy.special.expit(best),
        ]
        np.testing.assert_allclose(proposal.hidden[image].detach().numpy(), expected, rtol=1e-5)


def test_a_box_never_overflows_or_vanishes(inputs: StepInputs):
    part = proposer(fresh=True)
    nn.init.constant_(part.box.bias, 1000.0)
    with torch.no_grad():
        part.box.bias[3] = -1000.0
    size = part(inputs, 0).boxes.size
    # A factor of e^4 to either side of the initial 8 and 12 pixels.
    np.testing.assert_allclose(size.detach().numpy(), [[8 * math.exp(4), 12 * math.exp(-4)]] * 3, rtol=1e-5)


def test_places_teach_the_convs_and_the_map(inputs: StepInputs):
    part = proposer(fresh=False)
    places = part(inputs, 0).places
    losses = {"place": places.logits.sum(), "box": places.boxes.center.sum() + places.boxes.size.sum()}
    for name, loss in losses.items():
        part.zero_grad()
        loss.backward(retain_graph=True)
        for other in losses:
            for parameter in getattr(part, other).parameters():
                assert (parameter.grad is not None and (parameter.grad != 0).all()) == (other == name)
        assert (part.control_cnn.features.grad != 0).all()


def test_a_fresh_proposers_boxes_can_learn(inputs: StepInputs):
    part = proposer(fresh=True)
    proposal = part(inputs, 0)
    (proposal.boxes.center.sum() + proposal.boxes.size.sum()).backward()
    for parameter in part.box.parameters():
        assert (parameter.grad != 0).all()


def test_gradients_of_the_places(inputs: StepInputs):
    part = proposer(fresh=False).double()

    def places(features: Tensor, place: Tensor, box: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        values = {"control_cnn.features": features, "place.weight": place, "box.weight": box, "box.bias": bias}
        proposal = torch.func.functional_call(part, values, (inputs, 0))
        return proposal.places.logits, proposal.places.boxes.center, proposal.places.boxes.size, proposal.hidden

    parameters = [part.control_cnn.features, part.place.weight, part.box.weight, part.box.bias]
    assert torch.autograd.gradcheck(places, [p.detach().clone().requires_grad_() for p in parameters])


def fast_inputs(batch: int) -> StepInputs:
    generator = torch.Generator().manual_seed(6)

    def rand(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator)

    return StepInputs(rand(3, 32, 64), rand(32, 64), ExtraMaps(features=(rand(4, 8, 16), rand(6, 4, 8))))


def test_built_from_config(fast_cfg):
    part = build_box_proposer(fast_cfg({"BOX_PROPOSER.INITIAL_SIZE": 0.125}))
    assert isinstance(part, DenseBoxProposer)
    proposal = part(fast_inputs(2), 2)
    assert proposal.places.logits.shape == (2, 4, 8)
    assert proposal.hidden.shape == (2, part.hidden_dim) == (2, 18)
    np.testing.assert_allclose(proposal.boxes.size.detach().numpy(), [[4.0, 8.0]] * 2, rtol=1e-5)
    # Cells of 8 pixels: a centre is 3.5, 11.5, ...
    np.testing.assert_allclose(proposal.boxes.center.detach().numpy() % 8, 3.5, rtol=1e-5)
    assert not [name for name in part.state_dict() if name.startswith("_")]


def test_it_also_looks_at_the_papers_control_cnn(tiny_cfg):
    part = build_box_proposer(tiny_cfg({"BOX_PROPOSER.NAME": "DenseBoxProposer"}))
    given = StepInputs(torch.rand(2, 3, 32, 48), torch.rand(2, 32, 48), ExtraMaps())
    assert part(given, 1).places.logits.shape == (2, 4, 6)


def test_images_of_a_batch_do_not_see_each_other_in_evaluation(fast_cfg):
    part = build_box_proposer(fast_cfg()).eval()
    nn.init.normal_(part.box.weight)
    together, alone = part(fast_inputs(3), 0), part(fast_inputs(3).select(torch.tensor([1])), 0)
    torch.testing.assert_close(alone.boxes.center, together.boxes.center[1:2])
    torch.testing.assert_close(alone.places.logits, together.places.logits[1:2])
    torch.testing.assert_close(alone.hidden, together.hidden[1:2])


@pytest.mark.parametrize(
    "overrides", [{"ATTENTION.LEARN_GAINS": True}, {"ATTENTION.FILTER_VARIANCE": "learned"}], ids=["gains", "variance"]
)
def test_what_it_does_not_learn_is_refused(fast_cfg, overrides: dict):
    with pytest.raises(ValueError, match="DenseBoxProposer.*MODEL.REC_ATTEND.ATTENTION.LEARN_GAINS.*FILTER_VARIANCE"):
        build_box_proposer(fast_cfg(overrides))


@pytest.mark.parametrize("initial_size", [0.0, -0.5])
def test_an_initial_size_of_nothing_is_refused(fast_cfg, initial_size: float):
    with pytest.raises(ValueError, match=f"MODEL.REC_ATTEND.BOX_PROPOSER.INITIAL_SIZE is {initial_size}"):
        build_box_proposer(fast_cfg({"BOX_PROPOSER.INITIAL_SIZE": initial_size}))
