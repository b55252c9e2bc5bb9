"""Errors that a server answers with a status."""

from __future__ import annotations


class RefusedError(Exception):
    """An answer by a status of HTTP; ``detail`` says what is wrong, and what to do."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
