"""Train with PaddleSeg's loop and then with ours, in each process of a launch, and compare."""

import sys

import liteseg_plugin  # isort: split

import paddle
from paddleseg.core import train
from paddleseg.cvlibs import Config, SegBuilder
from paddleseg.utils import utils

from liteseg_plugin.training import trainer
from liteseg_plugin.training.settings import Settings

config, save_dir = sys.argv[1:3]
liteseg_plugin.activate()
paddle.set_device("cpu")
weights = []
for which in ("paddleseg", "ours"):
    builder = SegBuilder(Config(config))
    utils.set_seed(7)
    options = {"iters": 3, "batch_size": 2, "log_iters": 1, "save_dir": f"{save_dir}/{which}"}
    model, optimizer, losses = builder.model, builder.optimizer, builder.loss
    if which == "paddleseg":
        train(model, builder.train_dataset, optimizer=optimizer, losses=losses, **options)
    else:
        trainer.train(model, optimizer, losses, builder.train_dataset, Settings(**options))
    weights.append({name: tensor.numpy() for name, tensor in model.state_dict().items()})
theirs, ours = weights
assert all((ours[name] == theirs[name]).all() for name in ours)
print(f"rank {paddle.distributed.get_rank()}: {len(ours)} arrays are equal")
