"""Data sets as PaddleSeg reads them: what their classes are, and how to get one."""
