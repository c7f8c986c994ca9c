#!/usr/bin/env python
"""Parameters, operations and activations of a model, part by part, in fvcore's table.

    python tools/analyze_model.py --config-file configs/CVPPP/stage_c.yaml [--depth N] [--device cpu|cuda] [KEY VALUE]

takes any config of this project and, for comparison, Detectron2's own, by path or by its name in the model zoo
(COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml). Weights are random, and the one image, of INPUT.IMAGE_SIZE (also
for Detectron2's models), is synthetic. Of the paper's models all T steps are counted, of the fast one a glance at
as many objects as the image has; both without post-processing.

fvcore counts a multiplication and an addition as one operation (two for tools/benchmark_speed.py); activations are the
outputs of matrix products and convolutions. A Detectron2 detector with random weights finds nothing;
MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 lets it find objects.
"""

import argparse
import warnings
from contextlib import nullcontext

import torch
from benchmark_speed import configure
from detectron2.export import TracingAdapter
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis, flop_count_table

from rec_attend_d2.benchmark import speed
from rec_attend_d2.benchmark.probes import NetworksOnly, known_objects, usual_objects
from rec_attend_d2.modeling import RecurrentAttention


def main() -> None:
    """Print the table, or say in one line what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="the config, or its name in Detectron2's model zoo")
    parser.add_argument("--depth", type=int, default=4, metavar="N", help="how deep parts of parts go (default 4)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default cpu")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config changes")
    arguments = parser.parse_args()
    try:
        cfg = configure(arguments)
        model, batch = speed.build_random_model(cfg).eval(), speed.inference_batch(cfg, 1)
    except (ValueError, OSError) as error:
        raise SystemExit(f"analyze_model: {error}") from error
    recurrent = isinstance(model, RecurrentAttention)
    objects = known_objects(model, usual_objects(cfg), stop=True) if recurrent else nullcontext()
    with torch.no_grad(), objects, warnings.catch_warnings():
        # Of the tracer: that values of Python are constants, as they should be.
        warnings.simplefilter("ignore")
        network = NetworksOnly(model) if recurrent else model
        adapter = TracingAdapter(network, batch, allow_non_tensor=True)
        counters = [kind(adapter, adapter.flattened_inputs) for kind in (FlopCountAnalysis, ActivationCountAnalysis)]
        for counter in counters:
            counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        print(flop_count_table(counters[0], max_depth=arguments.depth, activations=counters[1]))


if __name__ == "__main__":
    main()
