"""Segmenting images and videos with an exported model."""
