"""YAML within bounds, text in UTF-8, and rates."""

from __future__ import annotations

import pytest

from liteseg_plugin.errors import ConfigError
from liteseg_plugin.system.parallel import per_second
from liteseg_plugin.system.text import read_yaml

ALIASES = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
)
MERGES = "\n".join(
    ["a0: &a0 {k: v}"]
    + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)]
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ALIASES, "aliases .* expand to more than 50000 values"),
        (MERGES, "aliases .* expand to more than 50000 values"),
        ("a: &a [*a]", "an alias inside its own anchor"),
        ("[" * 20_000, "more than 100 levels"),
        ("- a\n" * 60_000, "more than 50000 values"),
        ("1" + ":1" * 20_000, "a value of 40001 characters"),
        ("#" * (1 << 20) + "\na: 1", r"has \d+ bytes"),
        ("a: [", "not valid YAML"),
        ("a: 2001-99-99", "not valid YAML"),
    ],
)
def test_read_yaml_refuses(tmp_path, text, reason):
    path = tmp_path / "large.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"large\.yml .*{reason}"):
        read_yaml(path)


@pytest.mark.parametrize(
    "tag",
    [
        "name:os.system",
        "module:os",
        "tuple [1, 2]",
        "object:collections.Counter {}",
        "object/apply:os.system [id]",
        "object/new:os.system [id]",
    ],
)
def test_read_yaml_makes_plain_values_only(tmp_path, tag):
    path = tmp_path / "config.yml"
    path.write_text(f"a: !!python/{tag}", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(path)


def test_read_yaml_reads_aliases_and_merges_of_sensible_size(tmp_path):
    path = tmp_path / "config.yml"
    path.write_text("\ufeffbase: &base {a: 1}\nfirst: {<<: *base, b: é}\nsecond: *base\n", "utf-8")
    content = {"base": {"a": 1}, "first": {"a": 1, "b": "é"}, "second": {"a": 1}}
    assert read_yaml(path) == content


def test_read_yaml_says_where_a_byte_is_not_utf8(tmp_path):
    path = tmp_path / "config.yml"
    path.write_bytes("a: 1\nname: Café\n".encode("cp1252"))
    with pytest.raises(
        ConfigError,
        match=r"config\.yml is not UTF-8: byte 0xe9 at line 2, column 10; save as UTF-8",
    ):
        read_yaml(path)


def test_rate_of_a_clock_that_stands_still_is_finite():
    assert per_second(10, 2.5) == 4
    assert 0 < per_second(10, 0) < float("inf")
