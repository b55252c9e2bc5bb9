"""The best weights so far: of the network, and of its exponential moving average."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

from paddle import nn
from paddleseg.utils import logger

from liteseg_plugin.training import checkpoint, processes
from liteseg_plugin.training.state import Best
from liteseg_plugin.training.validation import Score
from liteseg_plugin.weights import load_weights


class BestWeights:
    """Keeps the best weights of one network; worse ones never replace them.

    Args:
        path: The file. It may exist if training is resumed.
        name: What the log calls the network, ``model`` `EMA model``.

    Attributes:
        best: Score of the weights in the file.
        below: Number of evaluations in a row below that.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.best = checkpoint.read_best(path.parent)
        self.below = 0
        self._path = path
        self._name = name

    def restore(self, best: Best, below: int = 0) -> None:
        """Continue from a checkpoint; the file may hold later and better weights."""
        self.best, self.below = max(self.best, best), below

    def rate_file(self, model: nn.Layer, evaluate: Callable[[nn.Layer], Score]) -> None:
        """Evaluate a file of PaddleSeg's loop, which does not record its score.

        ``model`` is a network of the same structure.
        """
        if self.best.miou >= 0 or not self._path.is_file():
            return
        logger.info(f"Evaluating {self._path}, because its score is unknown")
        rated = frozen_copy(model)
        load_weights(rated, self._path)
        self.best = Best(evaluate(rated).miou, -1)

    def keep(self, model: nn.Layer, score: Score, iteration: int) -> None:
        """Write the weights if they are the best, and log which are."""
        if score.miou > self.best.miou:
            self.best, self.below = Best(score.miou, iteration), 0
            if processes.is_main():
                checkpoint.save_best(self._path, model.state_dict(), self.best)
        elif score.miou < self.best.miou:
            self.below += 1
        logger.info(
            f"[EVAL] The {self._name} with the best validation mIoU ({self.best.miou:.4f}) was "
            f"saved at iter {self.best.iteration}."
        )


def frozen_copy(model: nn.Layer) -> nn.Layer:
    """Return a copy in evaluation mode that no gradient reaches."""
    copied = copy.deepcopy(model)
    copied.eval()
    for parameter in copied.parameters():
        parameter.stop_gradient = True
    return copied
