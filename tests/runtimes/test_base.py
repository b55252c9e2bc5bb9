from __future__ import annotations

from pathlib import Path

import pytest

from liteseg_plugin.errors import ExportError
from liteseg_plugin.exported import ModelFiles
from liteseg_plugin.runtimes.base import SessionCache
from liteseg_plugin.runtimes.catalog import create


def test_session_used_longest_ago_makes_room_before_the_next_is_prepared():
    events = []
    cache = SessionCache(2, lambda session: events.append(f"close {session}"))

    def get(width):
        def create():
            events.append(f"create {width}")
            return width

        return cache.get((1, 3, 8, width), create)

    assert [get(width) for width in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert events == ["create 1", "create 2", "close 2", "create 3", "close 3", "create 2"]


def test_all_sessions_are_let_go_though_one_raises():
    closed = []

    def close(session):
        closed.append(session)
        if session == "b":
            raise RuntimeError("CUDA is gone")

    cache = SessionCache(3, close)
    for number, name in enumerate("abc"):
        cache.get((number,), lambda name=name: name)
    cache.clear()
    assert sorted(closed) == ["a", "b", "c"]
    cache.clear()
    assert len(closed) == 3


def test_paddle_says_that_it_does_not_read_onnx():
    path = Path("model.onnx")
    with pytest.raises(ExportError, match=r"does not read ONNX files \(model\.onnx\): use another"):
        create("paddle", ModelFiles(path, onnx=path), "cpu", 1)
