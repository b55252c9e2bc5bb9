"""Data sets as PaddleSeg reads them: classes, import, checks, loading."""
