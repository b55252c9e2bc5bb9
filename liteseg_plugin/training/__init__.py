"""Training: PaddleSeg's, step for step, with checkpoints that survive."""
