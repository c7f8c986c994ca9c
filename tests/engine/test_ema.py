"""The averaged weights: their arithmetic, and what trainings evaluate, write, resume and load with them."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from torch import Tensor, nn

from rec_attend_d2.checkpoint import load_weights
from rec_attend_d2.checkpoint.files import save_inference_weights
from rec_attend_d2.config import load_config
from rec_attend_d2.data import register_datasets
from rec_attend_d2.engine import Trainer, evaluate, hooks
from rec_attend_d2.engine.ema import build_average, read_ema_decay, warmed_up_decay
from rec_attend_d2.modeling.paper.sequence_model import SequenceModel
from rec_attend_d2.modeling.steps import Feeder

QUICK = Path(__file__).resolve().parents[2] / "tests" / "configs"


@pytest.mark.parametrize(("updates", "expected"), [(0, 0.1), (1, 2 / 11), (90, 0.91), (980, 981 / 990), (1000, 0.991)])
def test_the_decay_warms_up(updates, expected):
    assert warmed_up_decay(0.991, updates) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_bad_decay_is_named_before_data_are_read(decay):
    cfg = load_config(str(QUICK / "stage_c.yaml"), ["DATASETS.TRAIN", "('nowhere',)"])
    cfg.SOLVER.EMA_DECAY = decay
    with pytest.raises(ValueError, match="SOLVER.EMA_DECAY is .*at least 0 .* below 1"):
        Trainer(cfg)


def test_there_is_no_average_by_default():
    assert read_ema_decay(load_config("", [])) == 0


def test_parameters_and_running_statistics_are_averaged_and_counters_copied():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    model.register_buffer("constant", torch.tensor(0.3), persistent=False)
    average = build_average(model, 0.25)
    copied, expected = average.module, 0.0
    # The first update takes the weight as it is; then the decays are 2 / 11, 3 / 12 and, bounded, 0.25.
    for step, decay in enumerate([0.0, 2 / 11, 0.25, 0.25]):
        value = float(step**2 + 1)
        with torch.no_grad():
            model[0].weight.fill_(value)
            model[1].running_mean.fill_(-value)
            model[1].num_batches_tracked.fill_(step)
        average.update_parameters(model)
        expected = decay * expected + (1 - decay) * value
        assert copied[0].weight.item() == pytest.approx(expected)
        assert copied[1].running_mean.item() == pytest.approx(-expected)
        assert copied[1].num_batches_tracked.item() == step
    assert average.n_averaged.item() == 4
    assert torch.equal(copied.constant, model.constant)
    assert model[0].weight.item() == 10.0


@pytest.mark.parametrize("stage", ["stage_b", "stage_c"])
def test_the_average_of_our_models_is_a_model_of_its_own(stage):
    torch.manual_seed(0)
    model = build_model(load_config(str(QUICK / f"{stage}.yaml"), ["MODEL.DEVICE", "cpu"])).eval()
    average = build_average(model, 0.5)
    copied = average.module
    images = torch.randint(0, 256, (2, 3, *model.image_size), dtype=torch.uint8)

    def centers(model: SequenceModel) -> Tensor:
        inputs = model.first_inputs([{"image": image} for image in images])
        return model.sequence(inputs, Feeder()).steps.proposal.boxes.center

    with torch.no_grad():
        before = centers(model)
        assert torch.equal(centers(copied), before)
        average.update_parameters(model)
        for parameter in model.parameters():
            parameter.add_(0.05)
        assert torch.equal(centers(copied), before)
        assert not torch.equal(centers(model), before)
    model.scheduled_sampling.iteration = 7
    assert copied.scheduled_sampling.iteration == 0
    assert not copied.training and not any(parameter.requires_grad for parameter in copied.parameters())
    assert [name for name, _ in copied.named_buffers()] == [name for name, _ in model.named_buffers()]


# ---------------------------------------------------------------- trainings


class RecordingTrainer(Trainer):
    """Keeps the weights of every evaluation."""

    tested: list[dict[str, Tensor]] = []

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        cls.tested.append({name: value.clone() for name, value in model.state_dict().items()})
        return super().test(cfg, model, evaluators)


@pytest.fixture(scope="module")
def cfg(picture_files) -> Iterator[CfgNode]:
    """Stage C on data of our own, four iterations."""
    cfg = load_config(str(QUICK / "stage_c.yaml"), ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    cfg.DATASETS.COCO_FILES = [["ema_pictures", *map(str, picture_files)]]
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("ema_pictures",)
    solver = cfg.SOLVER
    solver.OPTIMIZER, solver.WEIGHT_DECAY, solver.EMA_DECAY, solver.BASE_LR = "AdamW", 0.05, 0.9, 0.01
    solver.LR_SCHEDULER_NAME, solver.WARMUP_ITERS = "WarmupCosineLR", 1
    solver.CLIP_GRADIENTS.CLIP_TYPE, solver.CHECKPOINT_PERIOD = "full_model", 1
    register_datasets(cfg)
    # Otherwise Detectron2's trainer changes the loggers for all tests that follow.
    logger = logging.getLogger("detectron2")
    level = logger.level
    logger.setLevel(logging.INFO)
    yield cfg
    logger.setLevel(level)
    DatasetCatalog.remove("ema_pictures")
    MetadataCatalog.remove("ema_pictures")


def train(cfg: CfgNode, folder: Path, resume: bool = False) -> dict:
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(folder)
    trainer = RecordingTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer.train()


@dataclass
class Run:
    """A finished training: its folder and results, the weights of its evaluations, and the scores it drew."""

    folder: Path
    results: dict
    tested: list[dict[str, Tensor]]
    drawn: list[Tensor]

    def read(self, name: str = "model_final.pth") -> dict:
        """A checkpoint, with the averaged weights as "averaged"."""
        content = torch.load(self.folder / name, weights_only=True)
        averaged = {key.removeprefix("module."): value for key, value in content["ema"].items()}
        del averaged["n_averaged"]
        return {**content, "averaged": averaged}


@pytest.fixture(scope="module")
def run(cfg, tmp_path_factory) -> Run:
    folder, drawn = tmp_path_factory.mktemp("run"), []

    def draw(trace):
        drawn.append(torch.cat([step.score for step in trace.steps]))
        return trace.image

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordingTrainer, "tested", [])
        patch.setattr(hooks, "draw_steps", draw)
        results = train(cfg, folder)
        return Run(folder, results, RecordingTrainer.tested, drawn)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_checkpoint_holds_the_weights_and_their_average(run):
    content = run.read()
    assert {"model", "ema", "trainer"} <= set(content)
    assert content["ema"]["n_averaged"].item() == 4
    assert list(content["averaged"]) == list(content["model"])
    for name in ("box_proposer.glimpse.lstm.gates.weight", "segmentation_head.conv.layers.0.norm.running_mean"):
        assert not torch.equal(content["averaged"][name], content["model"][name])


def test_every_iteration_adds_its_weights(run):
    name, expected = "box_proposer.glimpse.lstm.gates.weight", torch.zeros(())
    for iteration, decay in enumerate([0.0, 2 / 11, 3 / 12, 4 / 13]):
        content = run.read(f"model_{iteration:07}.pth")
        expected = decay * expected + (1 - decay) * content["model"][name]
        torch.testing.assert_close(content["averaged"][name], expected)


def test_evaluations_in_training_use_the_average(run):
    assert len(run.tested) == 2
    assert equal(run.tested[0], run.read("model_0000001.pth")["averaged"])
    assert equal(run.tested[1], run.read()["averaged"])


def test_pictures_show_the_average(run, cfg):
    assert len(run.drawn) == 2
    example = next(iter(Trainer.build_test_loader(cfg, "ema_pictures")))[0]
    model = build_model(cfg).eval()
    for key, same in (("averaged", True), ("model", False)):
        model.load_state_dict(run.read()[key], strict=False)
        with torch.no_grad():
            (steps,), _ = model.run([example])
        assert torch.equal(torch.cat([step.score for step in steps]), run.drawn[1]) is same


def test_the_best_checkpoint_holds_the_average_that_was_evaluated(run, cfg):
    content = run.read("model_best.pth")
    model = build_model(cfg)
    assert load_weights(model, str(run.folder / "model_best.pth"), complete=True).averaged
    assert equal(dict(model.state_dict()), run.tested[(content["iteration"] - 1) // 2])


def test_resuming_continues_weights_and_average_exactly(run, cfg, tmp_path):
    (tmp_path / "model_0000001.pth").write_bytes((run.folder / "model_0000001.pth").read_bytes())
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    train(cfg, tmp_path, resume=True)
    whole, resumed = run.read(), torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert equal(resumed["model"], whole["model"])
    assert equal(resumed["ema"], whole["ema"])


def test_evaluating_the_final_file_gives_the_results_of_training(run, cfg, tmp_path):
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(tmp_path / "full")
    results = evaluate(cfg, str(run.folder / "model_final.pth"))
    assert json.dumps(results, sort_keys=True) == json.dumps(run.results, sort_keys=True)
    assert save_inference_weights(str(run.folder / "model_final.pth"), str(tmp_path / "small.pth"))
    model = build_model(cfg)
    load_weights(model, str(tmp_path / "small.pth"), complete=True)
    assert equal(dict(model.state_dict()), run.tested[1])


def test_without_an_average_the_model_itself_is_evaluated_and_written(cfg, tmp_path):
    cfg = cfg.clone()
    cfg.SOLVER.EMA_DECAY, cfg.SOLVER.MAX_ITER = 0.0, 1
    train(cfg, tmp_path)
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert "ema" not in content
    assert equal(RecordingTrainer.tested[-1], content["model"])
