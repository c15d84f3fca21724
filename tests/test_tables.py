"""Tables in every layout that people bring."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.base.dialects import sniff
from gen.base.errors import UserError
from gen.base.files import TextFiles
from gen.base.lines import read_lines
from gen.base.tables import Table, kind_of
from gen.base.tmx import tmx_rows

settings.register_profile("same", derandomize=True, deadline=None, max_examples=150, database=None)
settings.load_profile("same")

SENTENCES = [
    ("A dog, a cat and a man.", "Ein Hund; eine Katze, ein Mann."),
    ('"Stop," he said.', '"Halt", sagte er.'),
    ("It | that", "Es | das"),
    ("Yes.", "Ja, ja, ja."),
    ('"Come in!"', "Herein!"),
]


def rows_of(path, content, **how):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [row for _, row in Table(str(path), **how)]


def written(rows, **dialect):
    text = io.StringIO()
    csv.writer(text, **dialect).writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_dialect_is_recognised_whatever_the_file_is_called(tmp_path, delimiter, suffix, end, mark):
    text = written([("source", "target"), *SENTENCES], delimiter=delimiter, lineterminator=end)
    rows = rows_of(tmp_path / f"pairs{suffix}", mark + text.encode())
    assert rows == [{"source": a, "target": b} for a, b in SENTENCES]


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0\ufeff"), max_size=12)


@given(
    st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), min_size=1, max_size=8)),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_table_reads_back(tmp_path_factory, rows, delimiter, quoting, end):
    names = [f"column{n}" for n in range(len(rows[0]))]
    text = written([names, *rows], delimiter=delimiter, quoting=quoting, lineterminator=end)
    found = rows_of(tmp_path_factory.mktemp("tables") / "any.csv", text, wanted=names)
    assert [list(row.values()) for row in found] == rows
    assert all(list(row) == names for row in found)


def test_quotation_marks_of_sentences_stay(tmp_path):
    plain = "".join(f"{a}\t{b}\n" for a, b in SENTENCES)
    assert [tuple(row.values()) for row in rows_of(tmp_path / "a.tsv", plain)] == SENTENCES
    quoted = '"A ""big"" dog"\tein Hund\nA cat\t"eine\tKatze"\n'
    found = rows_of(tmp_path / "b.tsv", quoted)
    assert found == [{"1": 'A "big" dog', "2": "ein Hund"}, {"1": "A cat", "2": "eine\tKatze"}]


def test_quotation_marks_that_come_late(tmp_path):
    plain = [f"a dog {i}.\tein Hund {i}." for i in range(2100)]
    late = 'He said ""hi"" to ""me"".'
    rows = rows_of(tmp_path / "a.tsv", "\n".join([*plain, f'"{late}"\tx', '"a\tb"\ty']))
    assert [[*row.values()] for row in rows[-2:]] == [[late.replace('""', '"'), "x"], ["a\tb", "y"]]
    marks = ['"Come in!"\tx', '"Go" now\ty']  # of sentences: they are no format
    rows = rows_of(tmp_path / "b.tsv", "\n".join([*plain, *marks]))
    assert ["\t".join(row.values()) for row in rows[-2:]] == marks


def test_spaces_after_delimiters_and_backslashes(tmp_path):
    spaced = "image_name| comment_number| comment\na.jpg| 0| Two dogs, and a cat .\nb.jpg| 1| A man .\n"
    first, second = rows_of(tmp_path / "results.csv", spaced)
    assert first == {"image_name": "a.jpg", "comment_number": "0", "comment": "Two dogs, and a cat ."}
    assert second["comment"] == "A man ."
    assert rows_of(tmp_path / "a.csv", 'en, de\n"a, b", c\n"d, e", f\n')[1] == {"en": "d, e", "de": "f"}
    assert rows_of(tmp_path / "b.csv", 'en,de\n"say \\"hi\\"",c\n')[0]["en"] == 'say "hi"'


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([["1", "Hello there.", "2", "Guten Tag."], ["2", "Yes.", "3", "Ja."]], False),
        ([["number", "comment"], ["1", "Hello there."]], True),
        ([["English", "German"], ["Hello there.", "Guten Tag."]], True),
        ([["no", "it"], ["is", "es"], ["de", "da"]], False),  # words of a dictionary
        ([["Hello there.", "Guten Tag."], ["Yes.", "Ja."]], False),
        ([["", "en", "de"], ["0", "Yes.", "Ja."]], True),  # pandas' index
    ],
)
def test_a_header_is_told_from_a_row(tmp_path, rows, named):
    table_rows = rows_of(tmp_path / "a.tsv", written(rows, delimiter="\t"))
    assert len(table_rows) == len(rows) - named
    assert list(table_rows[0]) == (rows[0] if named else [str(n + 1) for n in range(len(rows[0]))])


def test_a_first_row_with_a_label_of_others_is_no_header(tmp_path):
    assert rows_of(tmp_path / "a.csv", "a cat,none\na dog,dog\na cow,none\n")[0] == {"1": "a cat", "2": "none"}
    assert rows_of(tmp_path / "b.csv", "dog,Hund\ncat,Katze\n", header=False)[0] == {"1": "dog", "2": "Hund"}
    assert rows_of(tmp_path / "c.csv", "source,target\ncat,Katze\n", header=False) == [
        {"source": "cat", "target": "Katze"}
    ]


def test_columns_of_one_name_are_told_apart(tmp_path):
    (tmp_path / "a.csv").write_text("text,label,text\none,x,two\nthree,y,four\n")
    table = Table(str(tmp_path / "a.csv"), ["label"])
    assert table.head[0][1] == {"text": "one", "label": "x", "text (2)": "two"}
    assert table.texts == ["text", "label", "text (2)"]
    assert (table.find("1"), table.find("3"), table.find("label")) == ("text", "text (2)", "label")
    with pytest.raises(UserError, match="several columns are called 'text': rename one, or name it by its number"):
        table.find("Text")


def test_names_that_are_empty_at_the_end_of_a_header(tmp_path):
    """As Kaggle's spam.csv has them; in a few rows there is something."""
    rows = rows_of(tmp_path / "spam.csv", 'v1,v2,,\nham,"Ok, then",,\nspam,Win,now,\n')
    assert [(row["v1"], row["v2"]) for row in rows] == [("ham", "Ok, then"), ("spam", "Win")]
    with pytest.raises(UserError, match="line 2 has more fields than the header"):
        rows_of(tmp_path / "more.csv", "a,b\n1,2,3\n")


def test_parts_of_a_json_document(tmp_path):
    rows = rows_of(tmp_path / "a.json", json.dumps({"train": [{"en": "a"}], "validation": [{"en": "b"}]}))
    assert rows == [{"split": "train", "en": "a"}, {"split": "validation", "en": "b"}]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("hello there".encode("utf-16"), "UTF-16 text"),
        ("hello there".encode("utf-16-be"), "UTF-16 text, or no text"),
        (b"PK\x03\x04 and so on", "a zip archive or an office document"),
        (b"%PDF-1.7 and so on", "a PDF document"),
    ],
)
def test_what_is_no_utf8_text_is_named(tmp_path, content, kind):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    for read in (lambda: list(read_lines(str(path))), lambda: list(TextFiles([str(path)], "replace"))):
        with pytest.raises(UserError, match=f"a.txt: is {kind}: save or unpack it as UTF-8 text"):
            read()


def test_nan_of_pandas_is_an_empty_cell(tmp_path):
    rows = rows_of(tmp_path / "a.jsonl", '{"text": NaN, "translation": {"de": NaN}}\n{"text": "a"}\n')
    assert rows == [{"text": None, "de": None}, {"text": "a"}]


def test_numbers_and_lacking_fields_of_json_are_texts(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"to": "x"}\n{"to": 1984}\n{"to": 2.5}\n{"from": "a"}\n{"to": true}\n')
    table = Table(str(tmp_path / "a.jsonl"))
    found = [(where, row) for where, row in table]
    assert [table.text(*each, "to") for each in found[:4]] == ["x", "1984", "2.5", ""]
    with pytest.raises(UserError, match="line 5 has no text in field 'to'"):
        table.text(*found[4], "to")


def test_columns_by_name_and_by_number(tmp_path):
    (tmp_path / "a.csv").write_text("id,2,de\n1,a dog,ein Hund\n")
    table = Table(str(tmp_path / "a.csv"), wanted=["de"])
    assert [table.find(asked) for asked in ("de", "DE", "2", "3", "1")] == ["de", "de", "2", "de", "id"]
    assert [table.find(asked) for asked in ("4", "0", "en")] == [None, None, None]


LAYOUTS = {
    "a.json": [{"en": "dog", "de": "Hund"}, {"en": "cat", "de": None}],
    "b.json": {
        "version": 2,
        "data": [{"translation": {"en": "dog", "de": "Hund"}}, {"translation": {"en": "cat", "de": None}}],
    },
    "c.json": {"en": ["dog", "cat"], "de": ["Hund", None]},
    "d.json": {"en": {"0": "dog", "1": "cat"}, "de": {"0": "Hund", "1": None}},
    "e.json": {"x": {"en": "dog", "de": "Hund"}, "y": {"en": "cat", "de": None}},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_json(tmp_path, name):
    for text in (json.dumps(LAYOUTS[name]), json.dumps(LAYOUTS[name], indent=2)):
        assert rows_of(tmp_path / name, text) == [{"en": "dog", "de": "Hund"}, {"en": "cat", "de": None}]


def test_excel_may_name_the_delimiter(tmp_path):
    assert rows_of(tmp_path / "a.csv", "sep=;\r\nen;de\r\na, b;c\r\n") == [{"en": "a, b", "de": "c"}]


def test_lists_lines_and_pairs_in_json(tmp_path):
    pairs = [{"1": "dog", "2": "Hund"}, {"1": "cat", "2": "Katze"}]
    assert rows_of(tmp_path / "a.json", '[["dog", "Hund"], ["cat", "Katze"]]') == pairs
    assert rows_of(tmp_path / "a.json", '{"dog": "Hund", "cat": "Katze"}') == pairs
    assert rows_of(tmp_path / "a.jsonl", '["dog", "Hund"]\n\n["cat", "Katze"]\n') == pairs
    lines = '{"en": "dog"}\n{"en": "cat"}\n'
    for name, text in (("b.json", lines), ("b.jsonl", lines), ("c.jsonl", '[{"en": "dog"},\n {"en": "cat"}]')):
        assert rows_of(tmp_path / name, text) == [{"en": "dog"}, {"en": "cat"}]
    null = '{"translation": {"en": "dog", "de": "Hund"}}\n{"translation": null}\n'
    assert rows_of(tmp_path / "d.jsonl", null)[1] == {"en": None, "de": None}


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["12", "7.5", "1,000"], "numbers"),
        (["2024-05-01", "2024-05-02"], "numbers"),
        (["https://a.org/1", "www.b.org"], "web addresses"),
        (["0f8fad5b-d9cb-469f-a165-70867728950e", "7c9e6679-7425-40de-944b-e07fc1f90ae7"], "ids"),
        (["s_0001", "s_0002", "s_0007"], "ids"),
        (["eng", "eng", "deu"], "language codes"),
        (["same words"] * 4, "one value"),
        ([["a"], ["b"]], "lists"),
        ([], "nothing"),
        (["Room 7", "Two dogs.", "9"], ""),
        (["犬", "猫", "犬"], ""),
        (["dog", "cat", "man"], ""),
    ],
)
def test_what_a_column_holds(cells, kind):
    assert kind_of(cells) == kind


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", 'en,de\na,"b\n', "line 2: .* is a quote not closed there"),
        (
            "a.csv",
            "en,de\nyes, yes,ja\n",
            "line 2 has more fields than the header: quote texts that contain commas",
        ),
        ("a.json", '{"a": [1, 2', "is not JSON"),
        ("a.json", "[]", "holds no rows of a table"),
        ("a.csv", "\n", "holds no rows of a table"),
        ("a.json", "[1, 2]", "entry 1 is not an object"),
    ],
)
def test_damaged_tables(tmp_path, name, content, message):
    with pytest.raises(UserError, match=f"{name}:? {message}"):
        rows_of(tmp_path / name, content)


def test_only_delimiters_that_are_in_every_line_count(tmp_path):
    (tmp_path / "a.csv").write_text("title\nDogs, cats; men\nA | B\n")
    assert sniff(str(tmp_path / "a.csv"), ",").delimiter == ","
    (tmp_path / "b.csv").write_text(
        "".join(f"{i},word; and\tmore\n" if i == 2 else f"{i},word\n" for i in range(9))
    )
    assert sniff(str(tmp_path / "b.csv"), ",").delimiter == ","


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"one\rtwo\rthree", ["one", "two", "three"]),
        (b"one\r\rthree\r", ["one", "", "three"]),
        (b"\xef\xbb\xbfone\rtwo", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"one\rstill one\ntwo\n", ["one\rstill one", "two"]),  # files in step stay so
        ("a\x0bb\x0cc\x85d\u2028e\x1cf\n".encode(), ["a\x0bb\x0cc\x85d\u2028e\x1cf"]),
        ("a\x0bb\x0cc\x85d\u2028e\x1cf\rg".encode(), ["a\x0bb\x0cc\x85d\u2028e\x1cf", "g"]),
        (b"x" * 100_000 + b"\r\ny\r\n", ["x" * 100_000, "y"]),
    ],
)
def test_line_ends(tmp_path, content, lines):
    (tmp_path / "a.txt").write_bytes(content)
    assert list(read_lines(str(tmp_path / "a.txt"))) == lines


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\ufeff")), min_size=1))
def test_any_lines_read_back(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes("".join(line + end for line in lines).encode())
        assert list(read_lines(str(path))) == lines


@pytest.mark.parametrize(("encoding", "why"), [("Big5", "encoding"), ("x-nobody", "encoding")])
def test_a_translation_memory_in_an_encoding_that_is_not_read(tmp_path, encoding, why):
    path = tmp_path / "memory.tmx"
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?><tmx></tmx>')
    with pytest.raises(UserError, match=why):
        list(tmx_rows(str(path)))


def test_languages_of_a_translation_memory_in_other_letters(tmp_path):
    unit = '<tu><tuv xml:lang="{}"><seg>a</seg></tuv><tuv xml:lang="de"><seg>b</seg></tuv></tu>'
    path = tmp_path / "memory.tmx"
    path.write_text(f"<tmx><body>{unit.format('EN-US')}{unit.format('en-us')}</body></tmx>")
    assert [row for _, row in tmx_rows(str(path))] == [{"EN-US": "a", "de": "b"}] * 2
