"""Segmenting images: finding them, and naming what is written for them."""
