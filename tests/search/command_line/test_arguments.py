"""Arguments of a command: read from `name=value`, refused in one line, listed for `--help`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from lightning_modules.errors import InputError
from search.command_line.arguments import argument_names, argument_table, read_arguments
from search.settings.field import required, setting


@dataclass(frozen=True)
class Arguments:
    images: str = required("an image")
    size: int = setting(3, "of a batch", low=1)
    port: int | None = setting(None, "of a page", low=1, high=9)
    maps: bool = setting(False, "whether they are drawn")
    kinds: tuple[str, ...] = setting(("a", "b"), "which", choices=("a", "b", "c"))
    root: Path = setting(Path("runs"), "folder", name="tracking.root")  # noqa: RUF009


def test_values_have_the_types_of_their_fields() -> None:
    words = ["images=7", "size=0012", "port=9", "maps=true", "kinds=[c, a]", "tracking.root=x=y"]
    assert read_arguments(Arguments, words) == Arguments("7", 12, 9, True, ("c", "a"), Path("x=y"))
    assert read_arguments(Arguments, ["images=a", "kinds=b"]) == Arguments("a", kinds=("b",))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "images= is missing: an image; required"),
        (["images"], "arguments must be name=value, got 'images'"),
        (["=3"], "arguments must be name=value, got '=3'"),
        (["imags=x"], "unknown argument 'imags'; did you mean images?"),
        (["root=x"], "unknown argument 'root'; did you mean port?"),
        (["qqq=x"], "unknown argument 'qqq'; known: images, size, port, maps, kinds, tracking.root"),
        (["images=a", "images=b"], "images must be given once, got it again as 'images=b'"),
        (["size="], "size must not be empty; it is of a batch (default 3)"),
        (["images=a", "size=0"], "size must be a whole number of at least 1, got '0'"),
        (["images=a", f"size={'9' * 5000}"], f"size must be a whole number of at least 1, got '{'9' * 5000}'"),
        (["images=a", "size=2147483648"], "size must be a whole number of at least 1, got '2147483648'"),
        (["images=a", "port=10"], "port must be a number in 1..9, got '10'"),
        (["images=a", "maps=yes"], "maps must be one of true, false, got 'yes'"),
        (["images=a", "kinds=[a,d]"], "kinds must be a list of a, b, c, got '[a,d]'"),
        (["images=a", "kinds=[a,,b]"], "kinds must be a list of a, b, c, got '[a,,b]'"),
        (["images=a", "kinds=[a,a]"], "kinds must not name one twice, got ['a', 'a']"),
    ],
)
def test_one_line_says_what_is_wrong(words: list[str], message: str) -> None:
    with pytest.raises(InputError) as refused:
        read_arguments(Arguments, words)
    assert str(refused.value) == message


def test_a_short_command_answers_with_its_usage() -> None:
    for words, message in (
        ([], "images must be named, got nothing; accepted: images=FILE"),
        (["imags=x"], "unknown argument 'imags=x'; accepted: images=FILE"),
        (["images=a", "images=b"], "images is given twice; accepted: images=FILE"),
    ):
        with pytest.raises(InputError) as refused:
            read_arguments(Arguments, words, usage="images=FILE")
        assert str(refused.value) == message


def test_the_table_names_meanings_and_defaults() -> None:
    lines = argument_table(Arguments).splitlines()
    assert [line.split()[0] for line in lines] == list(argument_names(Arguments))
    assert lines[0].endswith("an image; required") and lines[2].endswith("of a page")
    assert lines[4].endswith("which (default [a,b])") and lines[5] == "  tracking.root  folder (default runs)"
