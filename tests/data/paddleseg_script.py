"""A script of PaddleSeg's kind: it builds from a config and knows nothing of the plugin."""

import sys

from paddleseg.core import train
from paddleseg.cvlibs import Config, SegBuilder

config, save_dir = sys.argv[1:3]
builder = SegBuilder(Config(config))
model = builder.model
for built in (model, model.ppseg_head.cm, model.ppseg_head.arm_list[0], builder.loss["types"][0]):
    print(f"built {type(built).__name__} of {type(built).__module__}", flush=True)
if save_dir == "build-only":
    sys.exit()
train(
    model,
    builder.train_dataset,
    val_dataset=builder.val_dataset,
    optimizer=builder.optimizer,
    save_dir=save_dir,
    iters=2,
    batch_size=2,
    log_iters=1,
    losses=builder.loss,
)
