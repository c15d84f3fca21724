"""The phrase book's grammar, against sentences written by hand; and the sequence tasks."""

from __future__ import annotations

from itertools import islice

import pytest
from tasks.data.phrasebook import (
    ADJECTIVES,
    BE,
    BEINGS,
    CAN,
    THINGS,
    VERBS,
    WANT,
    Clause,
    Phrase,
    clauses,
    held_out_combinations,
    phrase_book,
)
from tasks.data.sequences import sequence_pairs

NOUN = {noun.en[0]: noun for noun in BEINGS + THINGS}
ADJECTIVE = {a.en: a for a in ADJECTIVES}
VERB = {v.en[1]: v for v in VERBS}


def phrase(words):
    """ "my old cat" → a `Phrase`; a plural is marked by a star, as in "the cat*"."""
    parts = words.split()
    if len(parts) == 1:
        return Phrase(None, pronoun=parts[0])
    noun = parts[-1].rstrip("*")
    adjective = ADJECTIVE[parts[1]] if len(parts) == 3 else None
    return Phrase(NOUN[noun], parts[0], adjective, parts[-1].endswith("*"))


def say(subject, verb, seen, **more):
    clause = Clause(phrase(subject), VERB[verb], phrase(seen), **more)
    return clause.english(), clause.french(), clause.german()


@pytest.mark.parametrize(
    ("clause", "english", "french", "german"),
    [
        (
            say("the black cat", "see", "a small house"),
            "The black cat sees a small house.",
            "Le chat noir voit une petite maison.",
            "Die schwarze Katze sieht ein kleines Haus.",
        ),
        (
            say("I", "buy", "this heavy tree", negated=True),
            "I do not buy this heavy tree.",
            "Je n'achète pas cet arbre lourd.",
            "Ich kaufe diesen schweren Baum nicht.",
        ),
        (
            say("we", "sell", "a old tree*", negated=True),
            "We do not sell old trees.",
            "Nous ne vendons pas de vieux arbres.",
            "Wir verkaufen keine alten Bäume.",
        ),
        (
            say("the man*", "find", "a apple", negated=True, modal=CAN, frame="know"),
            "I know that the men cannot find an apple.",
            "Je sais que les hommes ne peuvent pas trouver de pomme.",
            "Ich weiß, dass die Männer keinen Apfel finden können.",
        ),
        (
            say("she", "love", "my beautiful bird", frame="ask"),
            "Does she love my beautiful bird?",
            "Est-ce qu'elle aime mon bel oiseau ?",
            "Liebt sie meinen schönen Vogel?",
        ),
        (
            say("a old doctor*", "look for", "the key*", modal=WANT, frame="hope"),
            "We hope that old doctors want to look for the keys.",
            "Nous espérons que de vieux médecins veulent chercher les clés.",
            "Wir hoffen, dass alte Ärzte die Schlüssel suchen wollen.",
        ),
        (
            say("this child", "paint", "my strange picture", negated=True, frame="say"),
            "She says that this child does not paint my strange picture.",
            "Elle dit que cet enfant ne peint pas mon image étrange.",
            "Sie sagt, dass dieses Kind mein seltsames Bild nicht malt.",
        ),
    ],
)
def test_sentences(clause, english, french, german):
    assert clause == (english, french, german)


def test_qualities_agree():
    clause = Clause(phrase("this flower*"), BE, quality=ADJECTIVE["white"], negated=True)
    assert clause.english() == "These flowers are not white."
    assert clause.french() == "Ces fleurs ne sont pas blanches."
    assert clause.german() == "Diese Blumen sind nicht weiß."
    asked = Clause(phrase("my old car"), BE, quality=ADJECTIVE["beautiful"], frame="ask")
    assert asked.english() == "Is my old car beautiful?"
    assert asked.french() == "Est-ce que ma vieille voiture est belle ?"
    assert asked.german() == "Ist mein altes Auto schön?"


def test_held_out_combinations_are_never_in_the_training_part():
    rare = held_out_combinations()
    assert len(rare) > 40
    training, held_out = (list(islice(clauses(1, held_out=h), 3000)) for h in (False, True))
    assert not any(clause.combinations() & rare for clause in training)
    assert all(clause.combinations() & rare for clause in held_out)
    words = {word for clause in training for word in clause.english().lower().strip(".?").split()}
    assert {word for c in held_out for word in c.english().lower().strip(".?").split()} <= words


def test_the_book_is_large_distinct_and_the_same_every_time():
    book = phrase_book(30_000)
    assert len({english for english, _, _ in book}) == 30_000
    assert book[:500] == phrase_book(500)
    assert book[:500] != phrase_book(500, seed=1)
    assert {e for e, _, _ in book}.isdisjoint(e for e, _, _ in phrase_book(500, held_out=True))


def test_an_english_sentence_means_one_thing():
    meanings = {}
    for clause in islice(clauses(3), 20_000):
        meanings.setdefault(clause.english(), set()).add((clause.french(), clause.german()))
    assert all(len(said) == 1 for said in meanings.values())


def test_sequence_tasks():
    assert all(b == a for a, b in sequence_pairs("copy", 50))
    assert all(b == a[::-1] for a, b in sequence_pairs("reverse", 50))
    assert all(b == "".join(sorted(a)) for a, b in sequence_pairs("sort", 50))
    assert sequence_pairs("sort", 9, seed=2) == sequence_pairs("sort", 9, seed=2)
    lengths = {len(a) for a, _ in sequence_pairs("copy", 500, lengths=(2, 5))}
    assert lengths == {2, 3, 4, 5}
