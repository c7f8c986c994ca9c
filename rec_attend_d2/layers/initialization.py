"""Initial weights of conv and linear layers; biases start at 0."""

from collections.abc import Callable

from torch import nn

from ..registry import look_up

_CONVS = (nn.Conv2d, nn.ConvTranspose2d)


def _kaiming(layer: nn.Module) -> None:
    if isinstance(layer, _CONVS):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)


def _truncated_normal(layer: nn.Module) -> None:
    if isinstance(layer, (*_CONVS, nn.Linear)):
        nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)


# Functions that set the weights of one conv or linear layer, in place.
INITIALIZERS: dict[str, Callable[[nn.Module], None]] = {"kaiming": _kaiming, "truncated_normal": _truncated_normal}


def initialize(module: nn.Module, initializer: str) -> None:
    """Initialise every conv and linear layer of ``module``, in place.

    Args:
        module: any module.
        initializer: "kaiming" (convs; Xavier for linear layers, which feed tanh and softmax) or "truncated_normal"
            (std 0.01, cut at two standard deviations, as the original code).

    Raises:
        ValueError: unknown initializer.
    """
    function = look_up(INITIALIZERS, initializer, "MODEL.REC_ATTEND.INIT")
    for layer in module.modules():
        if isinstance(layer, (*_CONVS, nn.Linear)):
            function(layer)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
