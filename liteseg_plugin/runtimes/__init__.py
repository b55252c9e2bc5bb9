"""The engines that run an exported model."""
