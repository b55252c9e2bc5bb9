"""From a trained network to files and label maps."""
