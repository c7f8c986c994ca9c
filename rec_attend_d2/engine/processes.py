"""Trainings in several processes: on GPUs or the CPU, on one machine or several, started by us or by torchrun."""

import argparse
import os
import sys
from collections.abc import Callable

import torch
from detectron2.engine import HookBase, launch
from detectron2.utils import comm
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException

from ..whole_files import FullDisk
from .output_folder import Refused

# What torchrun (and other launchers) tell each process.
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

Main = Callable[[argparse.Namespace], object]


def run(main: Main, arguments: argparse.Namespace) -> None:
    """Call ``main`` in as many processes as the command line or torchrun asks for; if one of them dies, all end.

    Without CUDA they compute on the CPU. What is :class:`Refused` is one line, and exit status 1.

    Args:
        main: is given ``arguments``.
        arguments: of ``detectron2.engine.default_argument_parser``.
    """
    try:
        if all(name in os.environ for name in _VARIABLES) and os.environ["WORLD_SIZE"] != "1":
            _join(main, arguments)
            return
        gpus = torch.cuda.device_count()
        if torch.cuda.is_available() and arguments.num_gpus > gpus:
            raise Refused(f"--num-gpus is {arguments.num_gpus}, but this machine has {gpus}.")
        launch(
            _guarded,
            arguments.num_gpus,
            num_machines=arguments.num_machines,
            machine_rank=arguments.machine_rank,
            dist_url=arguments.dist_url,
            args=(main, arguments),
        )
    except Refused as error:
        sys.exit(f"Error: {error}")
    except ProcessExitedException as error:
        if error.exit_code == 1:  # it has said why
            sys.exit(1)
        sys.exit(f"Error: {error}, and all processes ended with it. The same command with --resume goes on.")


def _guarded(main: Main, arguments: argparse.Namespace) -> None:
    try:
        main(arguments)
    except Refused as error:  # by all processes
        sys.exit(f"Error: {error}" if comm.is_main_process() else 1)
    except FullDisk as error:
        sys.exit(f"Error: {error.strerror}")
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"Error: {error}")


def _join(main: Main, arguments: argparse.Namespace) -> None:
    """Be one of the processes that torchrun has started."""
    if arguments.num_gpus > 1 or arguments.num_machines > 1:
        raise Refused("torchrun starts all processes: leave out --num-gpus and --num-machines.")
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        if local_size > torch.cuda.device_count():
            raise Refused(f"torchrun starts {local_size} processes here, for {torch.cuda.device_count()} GPUs.")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.distributed.init_process_group("nccl" if on_gpus else "gloo")
    comm.create_local_process_group(local_size)
    _guarded(main, arguments)
    torch.distributed.destroy_process_group()


def refuse_together(check: Callable[[], object]) -> None:
    """Let the main process check something, and all processes raise the :class:`Refused` that it raises."""
    message = ""
    if comm.is_main_process():
        try:
            check()
        except Refused as error:
            message = str(error)
    message = comm.all_gather(message)[0]
    if message:
        raise Refused(message)


def distributed(model: nn.Module) -> nn.Module:
    """The model, wrapped where there are several processes.

    Raises:
        Refused: it is on the CPU, but its process talks to others by GPU.
    """
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    if not on_gpu and torch.distributed.get_backend() == "nccl":
        raise Refused(
            "MODEL.DEVICE is 'cpu' in several processes on a machine with GPUs: set MODEL.DEVICE to 'cuda', or hide "
            "the GPUs by CUDA_VISIBLE_DEVICES=''."
        )
    devices = [torch.cuda.current_device()] if on_gpu else None
    return nn.parallel.DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


@torch.no_grad()
def make_buffers_equal(model: nn.Module) -> None:
    """Set the buffers in which processes differ, such as running statistics, to their mean over the processes."""
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point() and buffer.numel() > 0]
    if comm.get_world_size() == 1 or not buffers:
        return
    own = torch.cat([buffer.flatten().double() for buffer in buffers])
    mean = _reduced(own, torch.distributed.ReduceOp.SUM) / comm.get_world_size()
    least, most = (_reduced(own, op) for op in (torch.distributed.ReduceOp.MIN, torch.distributed.ReduceOp.MAX))
    # Constants stay as they are, to the last digit.
    equal = torch.where(least == most, own, mean)
    for buffer, values in zip(buffers, equal.split([buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(values.view_as(buffer))


def _reduced(values: Tensor, operation: torch.distributed.ReduceOp.RedOpType) -> Tensor:
    result = values.clone()
    torch.distributed.all_reduce(result, operation)
    return result


class EqualBuffersHook(HookBase):
    """Makes buffers equal before checkpoints and evaluations, in all processes.

    What is evaluated is then one model, and a resumed training's processes go on as those that were interrupted.
    """

    def __init__(self, models: list[nn.Module], periods: list[int]):
        """
        Args:
            models: not wrapped.
            periods: iterations between two checkpoints and between two evaluations; 0 = only after the last one.
        """
        self._models = models
        self._periods = [period for period in periods if period > 0]

    def after_step(self) -> None:
        """Make them equal where a checkpoint or an evaluation is due."""
        done = self.trainer.iter + 1
        if done >= self.trainer.max_iter or any(done % period == 0 for period in self._periods):
            for model in self._models:
                make_buffers_equal(model)
