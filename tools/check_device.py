#!/usr/bin/env python
"""Check what this project computes on a device, above all on CUDA, and write one json.

    python tools/check_device.py [--device cuda] [--minutes 8] [--output device.json]
    python tools/check_device.py --show docs/results/device/h200_1.json

Parts, each of which stands in the json with its figures or its error:

* parity: the paper's model in float32 (TF32 off) and its gradients in float64 against the original's numbers;
* counts: the published weights find as many objects on the device as on the CPU;
* training: each recipe for the same share of the time, with and without AMP: losses, images per second, memory;
* recompute: gradients with TRAINING.RECOMPUTE and without;
* compile: the networks under torch.compile;
* processes: two processes on the one device, which agree on the gradients (gloo; NCCL wants a device for each);
* checkpoint: what was trained there is read on the CPU.

Recipes whose data are not in DETECTRON2_DATASETS train on miniatures (tools/make_miniature.py). What the minutes did
not suffice for is named under "left_out". A table of it, in Markdown, is written beside the json; --show writes that of
an earlier check. Ends with 1 where something failed.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from tabulate import tabulate

from rec_attend_d2.benchmark.measuring import count_flops, describe_environment, matmul_peak, on_cuda
from rec_attend_d2.benchmark.speed import measure_memory, synthetic_batch, training_step
from rec_attend_d2.checkpoint import convert_original_weights, load_weights, to_original_names
from rec_attend_d2.config import load_config
from rec_attend_d2.data import build_test_loader, register_datasets
from rec_attend_d2.data.datasets import register_builtin_datasets
from rec_attend_d2.engine import Trainer
from rec_attend_d2.engine.early_stopping import TrainingStopped
from rec_attend_d2.modeling.paper.targets import Targets
from rec_attend_d2.modeling.steps import ExtraMaps, StepInputs
from rec_attend_d2.whole_files import write_json

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = Path(os.environ.get("REC_ATTEND_REFERENCE", ROOT.parent / "shared" / "reference"))
PROBLEMS = ("full_leaf", "full_kitti", "full_city", "full_sampling_corners")
# Convolution libraries add up in another order than the CPU's; batch norm amplifies it. Largest differences allowed:
# of boxes in pixels, of other outputs (patch masks relative to their largest), of losses and gradients, relative.
PIXELS, VALUES, LOSSES, GRADIENTS = 1e-3, 1e-4, 1e-3, 5e-3
RECIPES = ("Rosettes/fast", "Nuclei/fast", "CVPPP/stage_b", "CVPPP/stage_c", "Cityscapes/stage_a", "Cityscapes/stage_c")
PUBLISHED = ("rosettes", "nuclei", "cells")
# Iterations that warm up the device, those whose losses are averaged, and those after which they must have fallen:
# before, what differs between batches is more than what was learned.
WARMUP, AVERAGED, ENOUGH = 10, 10, 40


class Clock(HookBase):
    """Ends a training after so many seconds, and keeps its losses and times."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.losses: list[float] = []
        self.times: list[float] = []

    def before_train(self) -> None:
        self.start = time.perf_counter()

    def after_step(self) -> None:
        self.losses.append(self.trainer.storage.latest()["total_loss"][0])
        self.times.append(time.perf_counter() - self.start)
        if self.times[-1] > self.seconds and len(self.losses) > WARMUP + AVERAGED:
            self.trainer.checkpointer.save("model_final")
            raise TrainingStopped


def load_problem(name: str, device: str) -> tuple[dict[str, np.ndarray], Any, Any]:
    """The original's printed numbers (arrays by name), its options as a config, and our model with its weights."""
    paths = [folder / f"{name}.npz" for folder in (REFERENCE, ROOT / "tests" / "reference")]
    with np.load(next(path for path in paths if path.is_file()), allow_pickle=False) as file:
        data = dict(file)
    options = json.loads(data["meta"].item().decode())["opt"]
    cfg, state = convert_original_weights({k[2:]: v for k, v in data.items() if k.startswith("w/")}, options)
    cfg.MODEL.DEVICE = device
    model = build_model(cfg)
    model.load_state_dict(state)
    return data, cfg, model


def run_problem(data: dict[str, np.ndarray], cfg: CfgNode, model: Any) -> tuple[Any, Any]:
    """All steps of a problem, and the criterion's output."""

    def image_like(key: str) -> torch.Tensor | None:
        if key not in data:
            return None
        return torch.from_numpy(data[key]).permute(0, 3, 1, 2).to(model.pixel_mean).contiguous()

    node, images = cfg.MODEL.REC_ATTEND.LOSS, image_like("in/x")
    assert images is not None
    masks = torch.from_numpy(data["in/y_gt"]).to(model.pixel_mean)
    targets = Targets.from_masks(masks, node.BOX_PADDING_RATIO, node.BOX_PADDING_PIXELS)
    maps = ExtraMaps(angle=image_like("in/d_in"), foreground=image_like("in/y_in"))
    sequence = model.sequence(StepInputs(images, torch.zeros_like(images[:, 0]), maps), model.feeder(targets))
    return sequence, model.compute_losses(sequence, targets)


def difference(ours: torch.Tensor, theirs: np.ndarray, relative: bool = False) -> float:
    """Largest absolute difference, relative to the largest value where that is above 1 or if asked to."""
    largest = float(np.abs(theirs).max())
    scale = largest if relative else max(1.0, largest)
    return float(np.abs(ours.detach().cpu().numpy() - theirs).max()) / max(scale, 1e-12)


def check_parity(device: str) -> dict[str, Any]:
    """The paper's model against the original's numbers: see the constants for what is allowed."""
    rows: dict[str, dict[str, Any]] = {}
    for name in PROBLEMS:
        if not any((folder / f"{name}.npz").is_file() for folder in (REFERENCE, ROOT / "tests" / "reference")):
            rows[name] = {"left_out": f"{name}.npz is not here; REC_ATTEND_REFERENCE may name its folder"}
            continue
        data, cfg, model = load_problem(name, device)
        with torch.no_grad():
            sequence, output = run_problem(data, cfg, model.eval())
        boxes = sequence.steps.where.boxes
        corners = {"attn_top_left": boxes.top_left, "attn_bot_right": boxes.bottom_right}
        row = {
            "pixels": max(float(np.abs(o.cpu().numpy() - data[f"eval/{k}"]).max()) for k, o in corners.items()),
            "masks": difference(sequence.masks, data["eval/y_out"]),
            "scores": difference(sequence.steps.score, data["eval/s_out"]),
            "loss": difference(sum(output.losses.values()), data["eval/loss"], relative=True),
        }
        _, output = run_problem(data, cfg, model.double().train())
        sum(output.losses.values()).backward()
        gradients = to_original_names(
            model, {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}
        )
        theirs = {k[5:]: v for k, v in data.items() if k.startswith("grad/")}
        # Biases in front of batch norm make no difference: their gradients are rounding noise, and tiny.
        large = [key for key, value in theirs.items() if np.abs(value).max() > 1e-4]
        row["train_loss"] = difference(sum(output.losses.values()), data["train/loss"], relative=True)
        row["gradients"] = max(difference(torch.as_tensor(gradients[k]), theirs[k], relative=True) for k in large)
        allowed = {"pixels": PIXELS, "masks": VALUES, "scores": VALUES, "loss": LOSSES, "train_loss": LOSSES}
        row["ok"] = all(row[key] <= most for key, most in {**allowed, "gradients": GRADIENTS}.items())
        rows[name] = row
    return {"allowed": {"pixels": PIXELS, "values": VALUES, "losses": LOSSES, "gradients": GRADIENTS}, "problems": rows}


def check_counts(device: str) -> dict[str, Any]:
    """Objects of the held-out images that the published weights find on the device and on the CPU."""
    rows: dict[str, dict[str, Any]] = {}
    for name in PUBLISHED:
        cfg = load_config(str(ROOT / "weights" / f"{name}.yaml"), ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0])
        try:
            batches = list(build_test_loader(cfg, cfg.DATASETS.TEST[0]))
        except (FileNotFoundError, ValueError) as error:
            rows[name] = {"left_out": str(error)}
            continue
        counts = {}
        for where in ("cpu", device):
            cfg.MODEL.DEVICE = where
            model = build_model(cfg).eval()
            load_weights(model, str(ROOT / "weights" / f"{name}.pth"), complete=True)
            with torch.no_grad():
                counts[where] = [len(found["instances"]) for batch in batches for found in model(batch)]
        differing = sum(a != b for a, b in zip(counts["cpu"], counts[device], strict=True))
        rows[name] = {"images": len(counts["cpu"]), "objects": sum(counts["cpu"]), "images_that_differ": differing}
        rows[name]["ok"] = differing == 0
    return rows


def check_training(
    recipe: str, amp: bool, device: str, seconds: float, folder: Path, peaks: Sequence[float]
) -> dict[str, Any]:
    """Train a recipe for so many seconds: losses, images per second, memory, share of the device's peak."""
    options = ["OUTPUT_DIR", str(folder), "MODEL.DEVICE", device, "SOLVER.AMP.ENABLED", amp, "TEST.EVAL_PERIOD", 0]
    cfg = load_config(str(ROOT / "configs" / f"{recipe}.yaml"), [*options, "MODEL.WEIGHTS", "", "TEST.BEST_METRIC", ""])
    cfg.DATASETS.TEST = ()
    register_datasets(cfg)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(cfg.dump())
    if on_cuda(device):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer, clock = Trainer(cfg), Clock(seconds)
    trainer.register_hooks([clock])
    trainer.train()
    batch, losses = cfg.SOLVER.IMS_PER_BATCH, clock.losses
    per_second = (len(losses) - WARMUP) * batch / (clock.times[-1] - clock.times[WARMUP - 1])
    row = {
        "iterations": len(losses),
        "batch": batch,
        "first_loss": float(np.mean(losses[:AVERAGED])),
        "last_loss": float(np.mean(losses[-AVERAGED:])),
        "images_per_second": per_second,
        "memory_mb": torch.cuda.max_memory_allocated() / 1e6 if on_cuda(device) else None,
    }
    if not amp:
        flops = count_flops(training_step(cfg, build_model(cfg), batch))
        row["share_of_peak"] = flops / batch * per_second / peaks[0]
    falls = row["last_loss"] < row["first_loss"]
    row["ok"] = bool(np.isfinite(losses).all()) and (falls or len(losses) < ENOUGH)
    return row


def check_checkpoint(folder: Path) -> dict[str, Any]:
    """Weights trained on the device, read into a model on the CPU, which then predicts."""
    cfg = load_config(str(folder / "config.yaml"), ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg).eval()
    report = load_weights(model, str(folder / "model_final.pth"), complete=True)
    with torch.no_grad():
        found = model(synthetic_batch(cfg, 1))
    return {"tensors": len(report.loaded), "objects": len(found[0]["instances"]), "ok": bool(report.loaded)}


def check_recompute(device: str) -> dict[str, Any]:
    """Gradients and memory of a training step with TRAINING.RECOMPUTE, beside the same step taken twice without."""
    rows = {}
    for recipe in ("Rosettes/fast", "CVPPP/stage_c"):
        gradients, memory = [], []
        for recompute in (False, False, True):
            cfg = load_config(str(ROOT / "configs" / f"{recipe}.yaml"), ["MODEL.DEVICE", device, "MODEL.WEIGHTS", ""])
            cfg.MODEL.REC_ATTEND.TRAINING.RECOMPUTE = recompute
            torch.manual_seed(0)
            model = build_model(cfg)
            training_step(cfg, model, 2)()
            gradients.append([p.grad.cpu() for p in model.parameters() if p.grad is not None])
            memory.append(measure_memory(cfg, cfg.SOLVER.IMS_PER_BATCH)["peak"] / 1e6)
        first, *others = gradients
        # Not of those that are rounding noise, as a bias's in front of batch norm.
        large = [i for i, gradient in enumerate(first) if gradient.abs().max() > 1e-4]
        repeated, recomputed = (
            max(float((first[i] - other[i]).abs().max() / first[i].abs().max()) for i in large) for other in others
        )
        rows[recipe] = {"repeated": repeated, "recomputed": recomputed, "memory_mb": memory[1:]}
        rows[recipe]["ok"] = recomputed <= max(GRADIENTS, 2 * repeated)
    return rows


def check_compile(device: str) -> dict[str, Any]:
    """The image encoder of the fast model under torch.compile."""
    cfg = load_config(str(ROOT / "configs" / "Rosettes" / "fast.yaml"), ["MODEL.DEVICE", device])
    model = build_model(cfg).eval()
    batch = synthetic_batch(cfg, 2)
    with torch.no_grad():
        images = model.preprocess_image(batch)
        expected = model.preprocessor(images, batch).features
        features = torch.compile(model.preprocessor)(images, batch).features
    pairs = list(zip(features, expected, strict=True))
    largest = max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs)
    return {"maps": len(pairs), "difference": largest, "ok": largest < VALUES}


def check_processes(device: str, folder: Path) -> dict[str, Any]:
    """Two processes take a training step each on images of their own; their gradients must be the same mean."""
    torch.multiprocessing.spawn(_process, (device, str(folder)), nprocs=2)
    first, second = (torch.load(folder / f"gradients_{rank}.pth", weights_only=True) for rank in range(2))
    largest = float((first - second).abs().max() / first.abs().max())
    return {"backend": "gloo", "gradients": len(first), "difference": largest, "ok": largest < LOSSES}


def _process(rank: int, device: str, folder: str) -> None:
    """One of the processes of :func:`check_processes`; leaves its gradients in the folder."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    cfg = load_config(str(ROOT / "configs" / "Rosettes" / "fast.yaml"), ["MODEL.DEVICE", device])
    cfg.INPUT.OBJECT_SIZE = cfg.INPUT.OBJECT_PIXELS
    torch.manual_seed(0)
    model = build_model(cfg).train()
    wrapped = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    torch.manual_seed(rank)
    with EventStorage():
        sum(wrapped(synthetic_batch(cfg, 2 + rank)).values()).backward()
    gradients = [parameter.grad.flatten().cpu() for parameter in model.parameters() if parameter.grad is not None]
    torch.save(torch.cat(gradients), f"{folder}/gradients_{rank}.pth")
    torch.distributed.destroy_process_group()


def table(result: Mapping[str, Any]) -> str:
    """What was checked as a table in Markdown: a row per part, with its figures."""
    environment = result["environment"]
    rows = [
        [name, "no" if name in result["failed"] else "yes", "; ".join(_figures(part))]
        for name, part in result.items()
        if name not in ("command", "environment", "left_out", "failed", "miniatures")
    ]
    text = tabulate(rows, ["part", "passed", "figures"], tablefmt="github", disable_numparse=True)
    left_out, drawn = (", ".join(result[key]) or "nothing" for key in ("left_out", "miniatures"))
    return (
        f"`{result['command']}` on {environment['device_name']}, PyTorch {environment['torch']}. Left out: {left_out}. "
        f"Trained on miniatures: {drawn}.\n\n{text}\n"
    )


def _figures(part: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The figures of a part as short texts."""
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _figures(value, f"{prefix}{name} ")
        elif name != "ok" and value is not None:
            yield f"{prefix}{name} {value:.3g}" if isinstance(value, float) else f"{prefix}{name} {value}"


def parts(device: str, minutes: float, folder: Path) -> Iterator[tuple[str, Callable[[], Any], float]]:
    """Name, check, and the seconds it may take at least, in the order of their weight."""
    peaks: list[float] = []

    def peak() -> dict[str, float]:
        rates = matmul_peak(device)
        peaks.append(max(rates.values()))
        return rates

    yield "matmul_flops", peak, 5
    yield "parity", lambda: check_parity(device), 20
    yield "counts", lambda: check_counts(device), 20
    seconds = minutes * 60 * 0.5 / (2 * len(RECIPES))
    for recipe in RECIPES:
        for amp in (False, True) if on_cuda(device) else (False,):
            name = recipe + (" AMP" if amp else "")
            target = folder / name.replace("/", "_").replace(" ", "_")
            train = partial(check_training, recipe, amp, device, seconds, target, peaks)
            yield f"training {name}", train, seconds
    yield "checkpoint", lambda: check_checkpoint(folder / "Rosettes_fast"), 5
    yield "recompute", lambda: check_recompute(device), 20
    yield "processes", lambda: check_processes(device, folder), 40
    yield "compile", lambda: check_compile(device), 60


def use_miniatures(folder: Path) -> list[str]:
    """Draw what DETECTRON2_DATASETS lacks, and register it. Returns the names of what was drawn."""
    sys.path.insert(0, str(ROOT / "tests"))
    from miniature.cityscapes import write_cityscapes
    from miniature.cvppp import write_cvppp

    given = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    drawn = []
    for name, write in (("cvppp", write_cvppp), ("cityscapes", write_cityscapes)):
        if (given / name).is_dir():
            (folder / name).symlink_to((given / name).resolve())
        else:
            write(folder)
            drawn.append(name)
    for name in ("nuclei", "fields", "cells", "rosettes"):
        if (given / name).is_dir():
            (folder / name).symlink_to((given / name).resolve())
    register_builtin_datasets(str(folder))
    return drawn


def main() -> int:
    """Run all parts; 1 where one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=8, help="everything together")
    parser.add_argument("--output", type=Path, default=Path("device.json"))
    parser.add_argument(
        "--show", type=Path, metavar="JSON", help="write the table of an earlier check, and nothing else"
    )
    arguments = parser.parse_args()
    if arguments.show:
        arguments.show.with_suffix(".md").write_text(table(json.loads(arguments.show.read_text())), encoding="utf-8")
        return 0
    start, device = time.perf_counter(), arguments.device
    # Trainers set Detectron2's own logging up where it says nothing.
    logging.getLogger("detectron2").setLevel(logging.INFO)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    result: dict[str, Any] = {
        "command": f"python tools/check_device.py --device {device} --minutes {arguments.minutes:g}"
    }
    result |= {"environment": describe_environment(device, torch.get_num_threads()), "left_out": [], "failed": []}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "data").mkdir()
        result["miniatures"] = use_miniatures(Path(folder, "data"))
        for name, check, seconds in parts(device, arguments.minutes, Path(folder)):
            left = arguments.minutes * 60 - (time.perf_counter() - start)
            if left < seconds:
                result["left_out"].append(name)
                continue
            begin = time.perf_counter()
            try:
                result[name] = check()
            except Exception as error:  # the other parts are worth knowing all the same
                traceback.print_exc()
                result[name] = {"error": f"{type(error).__name__}: {error}", "ok": False}
            text = json.dumps(result[name])
            if '"ok": false' in text:
                result["failed"].append(name)
            print(f"{name} ({time.perf_counter() - begin:.0f} s): {text}", flush=True)
            write_json(arguments.output, result)
    write_json(arguments.output, result)
    arguments.output.with_suffix(".md").write_text(table(result), encoding="utf-8")
    print(f"failed: {result['failed'] or 'nothing'}; left out: {result['left_out'] or 'nothing'}; {arguments.output}")
    return int(bool(result["failed"]))


if __name__ == "__main__":
    sys.exit(main())
