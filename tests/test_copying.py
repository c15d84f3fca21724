"""Protected spans, and words behind `<unk>`: what comes from the input as it is."""

from __future__ import annotations

import httpx
import openai
import pytest
import torch

from gen.base.errors import ConfigError, UserError
from gen.inputs.processors import SentenceProcessor
from gen.inputs.protected import KINDS, find_protected, put_back, split_protected, take_out
from gen.inputs.subword import SubwordTokenizer
from gen.inputs.tokenizer import CharTokenizer, WordTokenizer
from gen.models.decoder import DecoderConfig
from gen.models.encoders import RNNEncoder
from gen.models.model import Model
from gen.search.copying import Copying
from gen.search.ensemble import Ensemble
from gen.search.info import ModelInfo
from gen.search.output import Hypothesis
from tasks.translate.lines import translate_lines
from tests.serving import calibrated, running, writer

SPANS = [
    "12,345.60 €",
    "10:45",
    "+49 30 1234-56",
    "Kowalczyk",
    "Zoë O'Brien",
    "https://en.wikipedia.org/wiki/Dog_(animal)?a=1&b=%20c#top",
    "www.example.org",
    "a.b+c@mail.example.co.uk",
    "{name}",
    "{n, plural, one {# dog} other {# dogs}}",
    "%1$s",
    "%(total)d",
    "${HOME}",
    "<br/>",
    "👩‍👩‍👧",
    "🇩🇪",
]
WORDS = [a + b for a in "bdfgklmnpst" for b in "aeiou"]
LINES = [
    *(f"fo ma {span} pi di." for span in SPANS),
    *(f"{span} fo tu" for span in SPANS),
    *(f"fo ma so ({span})." for span in SPANS),
    f"be {SPANS[0]} di {SPANS[8]} fo {SPANS[14]}",
    f"{SPANS[5]} {SPANS[7]}",
]


def translator(attention="dot", tokenizer=None):
    """An untrained translator of words, its choices made clear."""
    torch.manual_seed(0)
    words = WordTokenizer([f" {word}" for word in [*WORDS, ".", ","]], dummy_prefix=True)
    encoder = RNNEncoder(words, embedding_size=12, hidden_size=8, num_layers=1, max_length=9)
    target = tokenizer or words
    config = DecoderConfig(len(target), 12, 16, 2, attention=attention)
    info = ModelInfo("translate", search={"beam": 3, "max_ratio": 2.0})
    model = Model(encoder, config, target, info)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return translator()


def spans_of(line):
    return [span for span in SPANS if span in line]


@pytest.mark.parametrize("span", SPANS)
def test_what_is_protected(model, span):
    tokenizer = model.processors["sentence"].tokenizer
    for text in (f"fo ma {span} pi", f"{span}, di.", f"be “{span}”!", f"di fo {span}"):
        (begin, end), *more = find_protected(text, KINDS, tokenizer)
        assert not more
        assert text[begin:end].strip(',"“”') == span
    rest, gaps = take_out(f"fo ma {span} pi.", [(6, 6 + len(span))])
    assert rest == "fo ma pi."
    assert put_back(rest, gaps, [gaps[0].at])[0] == f"fo ma {span} pi."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A well-known T-shirt, e.g. of the U.S., costs a lot.", []),
        ("the 24-year-old paid 50% or COVID-19", ["24-year-old", "50%", "19"]),
        ("see <b>this</b>", ["<b>", "</b>"]),
        ("at a-b-c.d-e.example.co.uk/f now 🇩🇪🇫🇷 %05.2f", ["a-b-c.d-e.example.co.uk/f", "🇩🇪🇫🇷 %05.2f"]),
        ("a 😀 {x} b", ["😀 {x}"]),
        ("Click: {x}", ["{x}"]),
    ],
)
def test_what_is_one_span(text, found):
    kinds = [kind for kind in KINDS if kind != "names"]
    spans = find_protected(text, kinds, CharTokenizer([]))
    assert [text[begin:end] for begin, end in spans] == found


@pytest.mark.parametrize("begin", ["", "%"])
@pytest.mark.parametrize("text", ["a", "-", "<!--", "a://", "A 1 ", "a-", "-aa.", "🇩", "0"])
def test_long_lines_take_no_square_of_their_length(begin, text):
    """Else this does not end."""
    assert len(find_protected(begin + text * (60_000 // len(text)), KINDS, WordTokenizer([" a"]))) <= 2


def test_names_are_what_a_vocabulary_spells():
    words = "The the man and woman walk with a dog in green park of London Park Woman"
    tokenizer = WordTokenizer([f" {word}" for word in words.split()], dummy_prefix=True)

    def names(line):
        return [line[begin:end] for begin, end in find_protected(line, ["names"], tokenizer)]

    assert names("The man and Kowalczyk walk with Zoe Quimby") == ["Kowalczyk", "Zoe Quimby"]
    assert names("Kowalczyk and a man in the green park of London with a dog") == ["Kowalczyk"]
    assert names("The Park of the Woman and of Zuse") == []  # all nouns have capitals
    assert names("The Park of the Woman and of Konrad Zuse, IBM") == ["Konrad Zuse, IBM"]
    assert find_protected("Zuse", ["names"], CharTokenizer([])) == []
    lines = ["the old workers and the young workers work\n", "a worker works with the young\n"] * 40
    subwords = SubwordTokenizer.train(lines, vocab_size=300, dummy_prefix=True, at_most=True)
    found = find_protected("the worker and Szczęsny work", KINDS, subwords)
    assert found == [(15, 23)]


def test_tags_stay_beside_their_words():
    source = "a <b>red</b> house"
    rest, gaps = take_out(source, find_protected(source, KINDS, CharTokenizer([])))
    assert rest == "a red house"
    assert put_back("ein rotes Haus", gaps, [4, 9])[0] == "ein <b>rotes</b> Haus"
    assert put_back("一个房子", gaps[:1], [2])[0] == "一个<b>房子"


def test_what_is_kept_is_sure_and_all_else_as_sure_as_without_it():
    rated = calibrated(translator())
    plain, kept = (rated.generate(line, protect=True) for line in ("fo ma pi di.", "fo ma 2024 pi di."))
    spans = {word.text: word.confidence for word in kept.words}
    assert spans.pop("2024") == 1.0
    assert spans == {word.text: word.confidence for word in plain.words}
    assert kept.confidence == plain.confidence


@pytest.mark.parametrize(
    ("line", "goes_on"),
    [
        ("2 hunde rennen", True),
        ("2 Hunde rennen", True),  # a noun of German, which has a capital wherever it stands
        ("2 Die Hunde rennen", False),  # the number of a line
        ("2. Hunde rennen", False),
    ],
)
def test_a_number_that_a_sentence_needs_is_not_taken_away(line, goes_on):
    known = ["2", "John", "rennen", "die", "Die", "hunde" if "hunde" in line else "Hunde"]
    words = WordTokenizer([f" {word}" for word in known], dummy_prefix=True)
    read = Copying({"sentence": SentenceProcessor(words)}, [line], KINDS, words, False, {}, True)
    assert bool(read.must[0]) == goes_on
    assert read.items[0].startswith("2 ") == goes_on


def test_lines_are_not_split_inside_of_what_is_protected():
    line = "be di `fo. Gu` ma. Ne {a. B} pi."
    processor = translator().processors["sentence"]
    processor.multi_sentence_p90 = 1
    assert split_protected(processor, line, KINDS).texts == [line[:18], line[19:]]
    odd = "be \ue000 " + line  # as fonts of pictures use it
    assert " ".join(split_protected(processor, odd, KINDS).texts) == odd


@pytest.mark.parametrize("way", [{"beam": 3}, {"beam": 1}, {"temperature": 0.0}, {"temperature": 1.0, "seed": 3}])
def test_each_comes_through_once(model, way):
    lines = [*LINES[::3], LINES[-1]]
    alone = [model.generate(line, protect=True, **way) for line in lines]
    together = model.generate(lines, protect=True, **way)
    assert [(o.text, o[0].kept) for o in together] == [(o.text, o[0].kept) for o in alone]
    for line, output in zip(lines, alone, strict=True):
        for span in spans_of(line):
            assert output.text.count(span) == 1
            assert output.text.startswith(span) or not line.startswith(span)
            assert f"({span})" in output.text or f"({span})" not in line
        for kept in output[0].kept:
            assert line[kept.source :].startswith(kept.text)
            assert output.text[kept.target :].startswith(kept.text)
    assert alone[-1].text == LINES[-1]  # there is nothing to translate


def test_the_rest_is_translated_as_without_it(model):
    for line, span in list(zip(LINES, SPANS, strict=False))[::3]:
        plain, output = model.generate(line.replace(f" {span}", "")), model.generate(line, protect=True)
        assert output.token_ids == plain.token_ids
        assert output.text.replace(f"{span}", "").split() == plain.text.split()


def test_ensembles_write_the_same(model):
    lines = LINES[::5]
    found = [output.text for output in model.generate(lines, protect=True)]
    assert [output.text for output in Ensemble([model, model]).generate(lines, protect=True)] == found


def test_kinds_and_what_cannot_be(model):
    output = model.generate("be {x} di 12", protect_only="placeholders")
    assert "{x}" in output.text
    assert "12" not in output.text
    with pytest.raises(ConfigError, match=r"protect_only must be one of urls, .*, not 'colours'"):
        model.generate("be", protect_only="colours")
    with pytest.raises(ConfigError, match="protect must be true or false, not 3"):
        model.generate("be", protect=3)
    with pytest.raises(UserError, match="protect is for models that read a sentence"):
        writer().generate("the ", protect=True)


def test_must_and_protect(model):
    output = model.generate("{x} be di", protect=True, must="tu", beam=4)
    assert output.missing == []
    assert output.text.count("{x}") == 1
    assert "tu" in output.text


def test_words_are_aligned_with_spans_in_the_line(model):
    line = f"fo ma {SPANS[0]} pi {SPANS[3]} di"
    (plain,) = translate_lines(model, ["fo ma pi di"], attention=True)
    (found,) = translate_lines(model, [line], attention=True, protect=True)
    words = found.hypotheses[0].text.split()
    links = {t: s for s, t in found.alignments[0]}
    for part in (*SPANS[0].split(), SPANS[3]):
        assert line.split()[links[words.index(part)]] == part
    others = [line.split()[links[t]] for t, w in enumerate(words) if t in links and w in WORDS]
    assert others == [["fo", "ma", "pi", "di"][s] for s, _ in plain.alignments[0]]


def test_source_words_stand_for_unknown_ones(model):
    unsure = translator()
    with torch.no_grad():
        unsure.decoder.output.bias[3] += 60  # <unk> and nothing else
    options = {"replace_unk": True, "max_new_tokens": 4}
    assert "<unk>" not in model.generate("be Zoë di").text
    output = unsure.generate("be Zoë di", **options)
    looked = [["be", "Zoë", "di"][row[:3].argmax()] for row in output.attention]
    assert output.text.split() == looked
    lexicon = {"be": "eins", "zoë": "Zoe", "di": "zwei"}
    translated = unsure.generate("be Zoë di", lexicon=lexicon, **options)
    assert translated.text.split() == [lexicon[word.lower()] for word in looked]
    assert "".join(unsure.stream("be Zoë di", temperature=0.0, **options)).split() == looked
    with pytest.raises(UserError, match="replace_unk is for models of words"):
        translator(tokenizer=CharTokenizer.train(["abc"])).generate("be", replace_unk=True)
    blind = translator("none")
    with torch.no_grad():
        blind.decoder.output.bias[3] += 60
    with pytest.raises(UserError, match="replace_unk: this model has no attention"):
        blind.generate("be", **options)


def test_skipped_words_are_neither_written_nor_counted(model):
    """Attention sees the words that are left."""
    unsure = translator()
    with torch.no_grad():
        unsure.decoder.output.bias[3] += 60
    how = {"replace_unk": True, "max_new_tokens": 3}
    assert unsure.generate("Qqq be Rrr di", unknown="skip", **how).text == unsure.generate("be di", **how).text
    for line in ("Qqq fo ma 17 pi di", "fo Qqq Rrr Sss ma 17 Ttt pi di"):
        output = model.generate(line, protect_only="numbers", unknown="skip", max_new_tokens=12)
        assert output.text == model.generate("fo ma 17 pi di", protect_only="numbers", max_new_tokens=12).text


def test_what_is_skipped_has_no_links(model):
    """Each word is linked to one of the whole line, whatever the model did not read of it."""
    line = "qqq fo ma rrr pi di sss"
    (whole,) = translate_lines(model, [line], attention=True, unknown="skip", protect_only="numbers")
    (read,) = translate_lines(model, ["fo ma pi di"], attention=True)
    place = [1, 2, 4, 5]
    assert whole.hypotheses[0].text == read.hypotheses[0].text
    assert whole.alignments[0] == [(place[source], target) for source, target in read.alignments[0]]


def test_spans_after_a_replaced_word(model):
    """A word that stands for <unk> has another length than the mark."""
    item = "be {x} di"
    words = model.tokenizer
    copying = Copying(model.processors, [item], ["placeholders"], words, replaces=True, lexicon={}, stands=False)
    ids = [words.unk_id, *words.encode("di")]
    output = Hypothesis(ids, 0.0, [0.0, 0.0], True, text="Straße di", tokens=["Straße", " di"])
    assert copying._boundaries(output.text, output) == [(0, 0), (1, 6), (2, 9)]


def test_from_the_command_line(model, gen, tmp_path):
    model.save(tmp_path / "model")
    (tmp_path / "lines").write_text("\n".join(LINES) + "\n")
    words = ("translate", tmp_path / "model", "-i", tmp_path / "lines", "--protect", "--unknown", "skip")
    status, out, err = gen(*words)
    assert status == 0, err
    assert [all(s in said for s in spans_of(line)) for line, said in zip(LINES, out.splitlines(), strict=True)]
    (tmp_path / "lexicon.tsv").write_text("be\teins\n")
    words = ("translate", tmp_path / "model", "--text", "be di")
    assert gen(*words, "--replace-unk", "--lexicon", tmp_path / "lexicon.tsv")[0] == 0
    assert "--lexicon goes with --replace-unk" in gen(*words, "--lexicon", tmp_path / "lexicon.tsv")[2]
    (tmp_path / "lexicon.tsv").write_text("be\teins\nw2\t\n")
    said = gen(*words, "--replace-unk", "--lexicon", tmp_path / "lexicon.tsv")
    assert said[0] == 2
    assert "lexicon.tsv: line 2: a source or a target is empty" in said[2]


def test_served(model):
    text = "be di {x. Y} fo.\nGu https://example.org/a?b ma"
    with running({"en-de": model}) as (url, _), openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        asked = {"model": "en-de", "input": "be {x} di", "protect": True, "attention": True, "min_new_tokens": 2}
        found = httpx.post(f"{url}/api/generate", json=asked).json()
        assert found["outputs"][0]["text"] == model.generate("be {x} di", protect=True, min_new_tokens=2).text
        assert len(found["outputs"][0]["attention"][0]) == len(found["input_labels"])
        for said in (text, text.splitlines()[0]):
            chat = {"model": "en-de", "messages": [{"role": "user", "content": said}]}
            whole = client.chat.completions.create(**chat, extra_body={"protect": True})
            pieces = client.chat.completions.create(
                **chat, stream=True, temperature=0.0, extra_body={"protect": True, "beam": None}
            )
            streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
            for answer in (whole.choices[0].message.content, streamed):
                assert answer.count("{x. Y}") == 1
                assert answer.count("https://example.org/a?b") == said.count("https")
