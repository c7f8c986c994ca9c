"""The LSTM box proposer: decoding against numpy, the LSTM against torch's, glimpses, initial boxes and bad configs."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rec_attend_d2.modeling.paper.box_proposer import (
    MLP,
    GlimpseLSTM,
    GlimpseLSTMBoxProposer,
    LSTMCell,
    decode_box_parameters,
    initial_log_size,
)
from rec_attend_d2.modeling.paper.control_cnn import ControlCNN
from rec_attend_d2.modeling.paper.sequence import BoxProposal, GlimpseScan
from rec_attend_d2.modeling.steps import ExtraMaps, StepInputs, select

HEIGHT, WIDTH = 32, 48


def decode(parameters: Tensor, squash: bool) -> BoxProposal:
    return decode_box_parameters(parameters, (HEIGHT, WIDTH), squash, torch.zeros(len(parameters), 8))


def inputs(batch: int = 2, seed: int = 5, number: int = 0) -> StepInputs:
    maps = torch.rand(batch, 4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))
    return StepInputs(image=maps[:, :3], memory=maps[:, 3], extra=ExtraMaps(), number=number)


def test_decoding_by_hand():
    parameters = torch.tensor([[0.0, 0.5, math.log(0.5), math.log(0.25), 1.0, 2.0, 3.0, 4.0, 5.0]])
    proposal = decode(parameters, squash=False)
    np.testing.assert_allclose(proposal.boxes.center.numpy(), [[16, 36]])
    np.testing.assert_allclose(proposal.boxes.size.numpy(), [[16, 12]], rtol=1e-6)
    np.testing.assert_allclose(proposal.center_normalized.numpy(), [[0, 0.5]])
    np.testing.assert_allclose(proposal.log_size.numpy(), [[-0.6931472, -1.3862944]], rtol=1e-6)
    assert proposal.learned_log_variance.tolist() == [[1, 2]]
    assert proposal.learned_patch_log_gain.tolist() == [3]
    assert proposal.box_map_log_gain.tolist() == [4]
    assert proposal.learned_mask_log_gain.tolist() == [5]


def test_squashed_decoding_is_tanh_and_minus_softplus():
    parameters = torch.randn(5, 9) * 4
    proposal = decode(parameters, squash=True)
    values = parameters.double().numpy()
    center, log_size = np.tanh(values[:, :2]), -np.log1p(np.exp(values[:, 2:4]))
    sides = np.array([HEIGHT, WIDTH])
    np.testing.assert_allclose(proposal.boxes.center.numpy(), (center + 1) * sides / 2, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(proposal.boxes.size.numpy(), np.exp(log_size) * sides, rtol=1e-4)


def test_a_squashed_box_never_exceeds_the_image():
    proposal = decode(torch.randn(200, 9) * 30, squash=True)
    sides = torch.tensor([HEIGHT, WIDTH])
    assert ((proposal.boxes.center >= 0) & (proposal.boxes.center <= sides)).all()
    assert (proposal.boxes.size <= sides).all()


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("relative_size", [0.1, 0.3, 0.75])
def test_initial_log_size_decodes_to_the_size_asked_for(squash: bool, relative_size: float):
    parameters = torch.zeros(1, 9)
    parameters[:, 2:4] = initial_log_size(relative_size, squash)
    size = decode(parameters, squash).boxes.size[0]
    np.testing.assert_allclose(size.numpy(), [relative_size * HEIGHT, relative_size * WIDTH], rtol=1e-5)


def test_initial_size_of_the_whole_image():
    assert initial_log_size(1.0, squash=False) == 0
    # The squashed size only comes near the whole image.
    assert -math.log1p(math.exp(initial_log_size(1.0, squash=True))) == pytest.approx(math.log(0.99))


def test_lstm_cell_is_torchs_lstm_cell():
    cell, reference = LSTMCell(5, 7), nn.LSTMCell(5, 7)
    # Ours: input, forget, output, candidate. Torch: input, forget, candidate, output, and a second bias.
    order = torch.cat([torch.arange(0, 14), torch.arange(21, 28), torch.arange(14, 21)])
    with torch.no_grad():
        reference.weight_ih.copy_(cell.gates.weight[order, :5])
        reference.weight_hh.copy_(cell.gates.weight[order, 5:])
        reference.bias_ih.copy_(cell.gates.bias[order])
        reference.bias_hh.zero_()
    state = expected = (torch.randn(3, 7), torch.randn(3, 7))
    for _ in range(3):
        x = torch.randn(3, 5)
        state, expected = cell(x, *state), reference(x, expected)
    torch.testing.assert_close(state, expected)


def test_mlp_has_relu_between_but_not_after():
    mlp = MLP([4, 6, 5, 3])
    x = torch.randn(8, 4)
    layers = list(mlp.layers)
    expected = layers[2](torch.relu(layers[1](torch.relu(layers[0](x)))))
    torch.testing.assert_close(mlp(x), expected)
    assert (expected < 0).any()


def test_glimpses_are_weighted_means_of_the_feature_map():
    glimpse = GlimpseLSTM(channels=3, places=6, hidden_size=4, glimpses=4, mlp_layers=2)
    features = torch.randn(2, 3, 2, 3)
    hidden, maps = glimpse(features)
    assert hidden.shape == (2, 4) and maps.shape == (2, 4, 2, 3)

    state = torch.zeros(2, 4), torch.zeros(2, 4)
    for k in range(4):
        weights = torch.full((2, 6), 1 / 6)
        if k > 0:
            layers = glimpse.next_glimpse.layers
            weights = torch.softmax(layers[1](torch.relu(layers[0](state[0]))), 1)
        torch.testing.assert_close(maps[:, k], weights.view(2, 2, 3))
        seen = torch.zeros(2, 3)
        for y in range(2):
            for x in range(3):
                seen += weights[:, y * 3 + x, None] * features[:, :, y, x]
        state = glimpse.lstm(seen, *state)
    torch.testing.assert_close(hidden, state[0])


@pytest.mark.parametrize("glimpses", [1, 3])
def test_shapes_of_a_proposal(tiny_cfg, glimpses: int):
    proposer = GlimpseLSTMBoxProposer(tiny_cfg({"BOX_PROPOSER.GLIMPSES": glimpses}))
    proposal, scan = proposer(inputs())
    assert proposal.boxes.center.shape == proposal.boxes.size.shape == (2, 2)
    assert proposal.center_normalized.shape == proposal.log_size.shape == proposal.learned_log_variance.shape == (2, 2)
    assert proposal.learned_patch_log_gain.shape == proposal.box_map_log_gain.shape == (2,)
    assert proposal.learned_mask_log_gain.shape == (2,)
    assert proposal.hidden.shape == (2, 8)
    assert scan.glimpse_maps.shape == (2, glimpses, 4, 6)
    np.testing.assert_allclose(scan.glimpse_maps.sum((2, 3)).detach().numpy(), 1, rtol=1e-5)
    np.testing.assert_allclose(scan.glimpse_maps[:, 0].detach().numpy(), 1 / 24, rtol=1e-5)


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("box_mlp_dims", [[], [10, 12]])
@pytest.mark.parametrize("init", ["kaiming", "truncated_normal"])
def test_a_fresh_proposer_starts_in_the_middle_with_the_initial_size(
    tiny_cfg, squash: bool, box_mlp_dims: list, init: str
):
    overrides = {
        "BOX_PROPOSER.INITIAL_SIZE": 0.25,
        "BOX_PROPOSER.SQUASH": squash,
        "BOX_PROPOSER.BOX_MLP_DIMS": box_mlp_dims,
        "INIT": init,
    }
    boxes = GlimpseLSTMBoxProposer(tiny_cfg(overrides))(inputs())[0].boxes
    np.testing.assert_allclose(boxes.center.detach().numpy(), [[HEIGHT / 2, WIDTH / 2]] * 2, rtol=0.1)
    np.testing.assert_allclose(boxes.size.detach().numpy(), [[HEIGHT / 4, WIDTH / 4]] * 2, rtol=0.1)


def test_layers_follow_the_config(tiny_cfg):
    overrides = {"BOX_PROPOSER.BOX_MLP_DIMS": [10, 12], "BOX_PROPOSER.GLIMPSE_MLP_LAYERS": 3}
    proposer = GlimpseLSTMBoxProposer(tiny_cfg(overrides))
    assert [layer.weight.shape for layer in proposer.box.layers] == [(10, 8), (12, 10), (9, 12)]
    assert [layer.weight.shape for layer in proposer.glimpse.next_glimpse.layers] == [(8, 8), (8, 8), (24, 8)]
    assert [layer.conv.weight.shape[0] for layer in proposer.control_cnn.layers] == [4, 4, 6, 6]
    assert [layer.pool for layer in proposer.control_cnn.layers] == [2, 2, 1, 2]


def test_a_fresh_lstm_remembers(tiny_cfg):
    bias = GlimpseLSTMBoxProposer(tiny_cfg()).glimpse.lstm.gates.bias
    assert bias.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16


def test_no_state_is_kept_from_step_to_step(tiny_cfg):
    proposer = GlimpseLSTMBoxProposer(tiny_cfg()).eval()
    first, _ = proposer(inputs(number=1))
    proposer(inputs(seed=6))
    again, _ = proposer(inputs(number=1))
    assert torch.equal(first.hidden, again.hidden) and torch.equal(first.boxes.size, again.boxes.size)


def test_images_of_a_batch_do_not_see_each_other_in_evaluation(tiny_cfg):
    proposer = GlimpseLSTMBoxProposer(tiny_cfg()).eval()
    together, looked = proposer(inputs(3))
    alone, looked_alone = proposer(select(inputs(3), torch.tensor([1])))
    assert together.image.tolist() == [0, 1, 2]
    torch.testing.assert_close(together.boxes.center[1:2], alone.boxes.center)
    torch.testing.assert_close(looked.glimpse_maps[1:2], looked_alone.glimpse_maps)


def test_pools_that_do_not_divide_the_image_are_refused(tiny_cfg):
    cfg = tiny_cfg()
    cfg.INPUT.IMAGE_SIZE = [32, 44]
    with pytest.raises(ValueError, match=r"MODEL.REC_ATTEND.BOX_PROPOSER.CONV_POOLS.*INPUT.IMAGE_SIZE = \[32, 44\]"):
        GlimpseLSTMBoxProposer(cfg)


def test_channels_and_pools_of_different_length_are_refused(tiny_cfg):
    with pytest.raises(ValueError, match="(?=.*BOX_PROPOSER.*CONV_CHANNELS)(?=.*CONV_POOLS)"):
        GlimpseLSTMBoxProposer(tiny_cfg({"BOX_PROPOSER.CONV_CHANNELS": [4, 4, 6]}))


@pytest.mark.parametrize("initial_size", [0.0, -1.0])
def test_an_initial_size_of_nothing_is_refused(tiny_cfg, initial_size: float):
    with pytest.raises(ValueError, match="MODEL.REC_ATTEND.BOX_PROPOSER.INITIAL_SIZE"):
        GlimpseLSTMBoxProposer(tiny_cfg({"BOX_PROPOSER.INITIAL_SIZE": initial_size}))


@pytest.mark.parametrize("glimpses", [0, -1])
def test_a_proposer_that_never_looks_is_refused(tiny_cfg, glimpses: int):
    with pytest.raises(ValueError, match=f"MODEL.REC_ATTEND.BOX_PROPOSER.GLIMPSES is {glimpses}"):
        GlimpseLSTMBoxProposer(tiny_cfg({"BOX_PROPOSER.GLIMPSES": glimpses}))


def test_constructor_without_a_config():
    control_cnn = ControlCNN(
        inputs=["image"],
        in_channels=3,
        map_size=(4, 6),
        conv_channels=[3],
        conv_pools=[2],
        norm="none",
        time_steps=1,
        initializer="kaiming",
    )
    proposer = GlimpseLSTMBoxProposer(
        control_cnn=control_cnn,
        image_size=(8, 12),
        hidden_dim=5,
        glimpses=2,
        glimpse_mlp_layers=1,
        box_mlp_dims=[],
        squash=False,
        initial_size=0.5,
        initializer="kaiming",
    )
    given = StepInputs(torch.rand(1, 3, 8, 12), torch.zeros(1, 8, 12), ExtraMaps())
    assert proposer(given)[1].glimpse_maps.shape == (1, 2, 4, 6)


def test_the_heat_of_a_glimpse_is_its_gain_over_uniform_on_a_log_scale():
    maps = torch.zeros(3, 2, 2, 4)
    maps[0, 1] = 1 / 8
    maps[1, 1, 0, 2] = 1
    maps[2, 1, 1] = torch.tensor([0.5, 0.25, 0.25, 0])
    heat = GlimpseScan(maps).heat()
    assert (heat[0] == 0).all() and heat[1, 0, 2] == 1 and heat[1].sum() == 1
    torch.testing.assert_close(heat[2, 1], torch.tensor([2 / 3, 1 / 3, 1 / 3, 0]))
