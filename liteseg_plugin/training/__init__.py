"""Training: PaddleSeg's steps, with complete checkpoints and exact resuming."""
