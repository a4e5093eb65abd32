"""YAML from outside: what is taken, and that each way of hanging, growing or naming other things is one short error."""

from __future__ import annotations

import pytest

from portdet.errors import PortdetError
from portdet.plain_yaml import EXPANDED, MOST_BYTES, parse_yaml

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "k0: &k0 [x]\n" + "".join(f"k{i}: &k{i} [*k{i - 1}]\n" for i in range(1, 100))

REFUSED = {
    "nine lines of aliases, 10^9 values": (LAUGHS, "aliases written out"),
    "the same by merge keys": (MERGES, "aliases written out"),
    "a long text, 60,000 times": (f"a: &a {'x' * 1000}\nb: [{'*a,' * 60_000}]", "aliases written out"),
    "aliases that nest": (CHAIN, "aliases nest"),
    "a list in itself": ("&a [*a]", "line 1, column 5: *a is inside"),
    "a map merged into itself": ("&a {<<: *a}", "*a is inside"),
    "nested lists": ("[" * 200_000, "nested more than 64"),
    "nested maps": ("{a: " * 50_000, "nested more than 64"),
    "nested blocks": ("- " * 100_000, "nested more than 64"),
    "nested keys": ("? " * 100_000, "nested more than 64"),
    "10^5 digits": ("a: " + "1" * 100_000, "is no int"),
    "10^5 digits of base 60": ("a: " + ":".join("1" * 100_000), "is no int"),
    "over 63 bits": ("a: 9223372036854775808", "9223372036854775808 has over 63 bits"),
    "hexadecimal over 63 bits": ("a: 0x" + "f" * 300, "an integer of 1200 bits has over"),
    "a long unknown alias": ("*" + "a" * 100_000, "undefined alias"),
    "a key twice": ("a:\n  b: 1\n  c: 2\n  b: 3\n", "line 4, column 3: 'b' stands twice"),
    "code": ("!!python/object/apply:os.system [ls]", "python/object/apply:os.system are not taken"),
    "code by a tag of its own": ("%TAG ! tag:yaml.org,2002:python/\n---\n!name:os.system ''", "not taken"),
    "bytes": ("a: !!binary aGVsbG8=", "binary are not taken"),
    "a set": ("a: !!set {b, c}", "set are not taken"),
    "a tagged date": ("!!timestamp 2020-01-01", "timestamp are not taken"),
    "no boolean": ("!!bool maybe", "'maybe' is no bool"),
    "no integer": ('!!int ""', "'' is no int"),
    "no number": ('!!float "x"', "'x' is no float"),
    "a number over 10^308 of base 60": ("1:" * 190 + "1.5", "is no float"),
    "half a surrogate pair": (r'"\ud800"', r"'\ud800' is no Unicode text"),
    "no character": (r'"\UFFFFFFFF"', "not valid YAML"),
    "NUL": ("a: \0", "character 0 at position 3"),
    "two documents": ("a\n---\nb", "line 2"),
    "a list for a key": ("{[a]: 1}", "unhashable"),
    "a merge of text": ("<<: x", "for merging"),
    "an escape sequence in the complaint": ('a: &a 1\nb: *"\x1b[2J"', "not valid YAML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_a_line_that_names_the_place(case: str) -> None:
    text, said = REFUSED[case]
    with pytest.raises(PortdetError) as refused:
        parse_yaml(text, "file.yaml", "mend it")
    words = str(refused.value)
    assert said in words
    assert words.startswith("file.yaml: ")
    assert len(words) < 500
    assert words.replace("\n", "").isprintable()


TAKEN = {
    "a: 2020-01-01": {"a": "2020-01-01"},  # a date is text: a class may have that name
    "a: &x {k: 1}\nb: {<<: *x, k: 2}\nc: *x": {"a": {"k": 1}, "b": {"k": 2}, "c": {"k": 1}},
    "a: &x {k: 1}\nb: &y {<<: *x, k: 2}\nc: *y\nd: {<<: [*y, *x]}": {
        "a": {"k": 1}, "b": {"k": 2}, "c": {"k": 2}, "d": {"k": 2},
    },
    "[yes, No, ~, 0x1f, 1e3, 1.5, .inf, '1']": [True, False, None, 31, "1e3", 1.5, float("inf"), "1"],
    "9223372036854775807": 2**63 - 1,
    "=": "=",
    "": None,
    "é: [日本, 'a[/b]']": {"é": ["日本", "a[/b]"]},
}  # fmt: skip


@pytest.mark.parametrize("text", TAKEN)
def test_taken(text: str) -> None:
    assert parse_yaml(text, "file.yaml") == TAKEN[text]


def test_aliases_may_stand_for_as_much_as_the_bound() -> None:
    """9,000 times 100 characters and quotes are below it, 11,000 times above."""
    head = f"a: &a {'x' * 100}\nb: "
    assert len(parse_yaml(head + "[" + "*a," * 9_000 + "]", "file.yaml")["b"]) == 9_000
    assert 9_000 * 102 < EXPANDED < 11_000 * 102
    with pytest.raises(PortdetError, match="aliases written out"):
        parse_yaml(head + "[" + "*a," * 11_000 + "]", "file.yaml")
    assert len(head) + 3 * 11_000 < MOST_BYTES
