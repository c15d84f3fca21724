"""A phrase book: English sentences with their French and German, made by a small grammar.

Each sentence is one meaning (`Clause`) said three times. What makes translation more than a look-up is in it:
French adjectives agree and mostly follow their noun, negation has two parts, articles elide; German has three
genders, two cases, adjective endings that depend on the article, and verbs at the end of a subordinate clause.

Some pairs of adjective and noun, and of verb and object, are held out: no training sentence has them together.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """Forms and genders. ``elides``: French begins with a vowel sound."""

    en: tuple[str, str]
    fr: tuple[str, str]
    fr_gender: str
    de: tuple[str, str]
    de_gender: str
    elides: bool = False
    kind: str = "thing"


def _noun(en: str, fr: str, fr_gender: str, de: str, de_gender: str, kind: str = "thing") -> Noun:
    def forms(words: str, plural: str) -> tuple[str, str]:
        one, _, many = words.partition(" ")
        return one, many or one + plural

    french = forms(fr, "s")
    return Noun(forms(en, "s"), french, fr_gender, forms(de, ""), de_gender, french[0][0] in "aeéiouh", kind)


BEINGS = [
    _noun("cat", "chat", "m", "Katze Katzen", "f", "animal"),
    _noun("dog", "chien", "m", "Hund Hunde", "m", "animal"),
    _noun("horse", "cheval chevaux", "m", "Pferd Pferde", "n", "animal"),
    _noun("bird", "oiseau oiseaux", "m", "Vogel Vögel", "m", "animal"),
    _noun("cow", "vache", "f", "Kuh Kühe", "f", "animal"),
    _noun("mouse mice", "souris souris", "f", "Maus Mäuse", "f", "animal"),
    _noun("woman women", "femme", "f", "Frau Frauen", "f", "person"),
    _noun("man men", "homme", "m", "Mann Männer", "m", "person"),
    _noun("child children", "enfant", "m", "Kind Kinder", "n", "person"),
    _noun("girl", "fille", "f", "Mädchen", "n", "person"),
    _noun("doctor", "médecin", "m", "Arzt Ärzte", "m", "person"),
    _noun("king", "roi", "m", "König Könige", "m", "person"),
]
THINGS = [
    _noun("house", "maison", "f", "Haus Häuser", "n"),
    _noun("car", "voiture", "f", "Auto Autos", "n"),
    _noun("book", "livre", "m", "Buch Bücher", "n"),
    _noun("boat", "bateau bateaux", "m", "Boot Boote", "n"),
    _noun("picture", "image", "f", "Bild Bilder", "n"),
    _noun("tree", "arbre", "m", "Baum Bäume", "m"),
    _noun("apple", "pomme", "f", "Apfel Äpfel", "m"),
    _noun("chair", "chaise", "f", "Stuhl Stühle", "m"),
    _noun("table", "table", "f", "Tisch Tische", "m"),
    _noun("letter", "lettre", "f", "Brief Briefe", "m"),
    _noun("key", "clé", "f", "Schlüssel", "m"),
    _noun("hat", "chapeau chapeaux", "m", "Hut Hüte", "m"),
    _noun("flower", "fleur", "f", "Blume Blumen", "f"),
    _noun("door", "porte", "f", "Tür Türen", "f"),
    _noun("lamp", "lampe", "f", "Lampe Lampen", "f"),
]


@dataclass(frozen=True)
class Adjective:
    """``fr``: masculine, feminine, both plurals, and the masculine before a vowel. ``before``: its noun."""

    en: str
    fr: tuple[str, str, str, str, str]
    before: bool
    de: str
    kinds: tuple[str, ...]

    def suits(self, noun: Noun) -> bool:
        return noun.kind in self.kinds


def _adjective(en: str, fr: str, de: str, kinds: str, *, before: bool = False) -> Adjective:
    words = fr.split()
    m = words[0]
    f = words[1] if len(words) > 1 else (m if m.endswith("e") else m + "e")
    plural = m if m[-1] in "sx" else m + ("x" if m.endswith("eau") else "s")
    return Adjective(
        en, (m, f, plural, f + "s", words[2] if len(words) > 2 else m), before, de, tuple(kinds.split())
    )


ADJECTIVES = [
    _adjective("small", "petit", "klein", "person animal thing", before=True),
    _adjective("big", "grand", "groß", "person animal thing", before=True),
    _adjective("young", "jeune", "jung", "person animal", before=True),
    _adjective("old", "vieux vieille vieil", "alt", "person animal thing", before=True),
    _adjective("beautiful", "beau belle bel", "schön", "person animal thing", before=True),
    _adjective("new", "nouveau nouvelle nouvel", "neu", "thing", before=True),
    _adjective("red", "rouge", "rot", "thing"),
    _adjective("black", "noir", "schwarz", "animal thing"),
    _adjective("white", "blanc blanche", "weiß", "animal thing"),
    _adjective("green", "vert", "grün", "thing"),
    _adjective("heavy", "lourd", "schwer", "animal thing"),
    _adjective("strange", "étrange", "seltsam", "person animal thing"),
    _adjective("cold", "froid", "kalt", "thing"),
    _adjective("round", "rond", "rund", "thing"),
]


@dataclass(frozen=True)
class Verb:
    """``en``: third person, infinitive. ``fr``: je, il, nous, ils, infinitive. ``de``: ich, er, wir (infinitive).
    ``kinds``: of objects."""

    en: tuple[str, ...]
    fr: tuple[str, ...]
    de: tuple[str, ...]
    kinds: tuple[str, ...]

    def takes(self, noun: Noun) -> bool:
        return noun.kind in self.kinds


def _verb(en: str, fr: str, de: str, kinds: str = "") -> Verb:
    return Verb(tuple(en.split("/")), tuple(fr.split()), tuple(de.split()), tuple(kinds.split()))


VERBS = [
    _verb("sees/see", "vois voit voyons voient voir", "sehe sieht sehen", "person animal thing"),
    _verb("buys/buy", "achète achète achetons achètent acheter", "kaufe kauft kaufen", "animal thing"),
    _verb("finds/find", "trouve trouve trouvons trouvent trouver", "finde findet finden", "person animal thing"),
    _verb("loves/love", "aime aime aimons aiment aimer", "liebe liebt lieben", "person animal thing"),
    _verb(
        "looks for/look for",
        "cherche cherche cherchons cherchent chercher",
        "suche sucht suchen",
        "person animal thing",
    ),
    _verb("sells/sell", "vends vend vendons vendent vendre", "verkaufe verkauft verkaufen", "animal thing"),
    _verb("paints/paint", "peins peint peignons peignent peindre", "male malt malen", "person animal thing"),
    _verb("carries/carry", "porte porte portons portent porter", "trage trägt tragen", "animal thing"),
    _verb("loses/lose", "perds perd perdons perdent perdre", "verliere verliert verlieren", "thing"),
    _verb(
        "knows/know", "connais connaît connaissons connaissent connaître", "kenne kennt kennen", "person animal"
    ),
]
BE = _verb("is/are", "suis est sommes sont être", "bin ist sind")
WANT = _verb("wants to/want to", "veux veut voulons veulent vouloir", "will will wollen")
CAN = _verb("can/can", "peux peut pouvons peuvent pouvoir", "kann kann können")

PRONOUNS = {  # English → French, German, person: 0 je, 1 il, 2 nous, 3 ils
    "I": ("je", "ich", 0),
    "he": ("il", "er", 1),
    "she": ("elle", "sie", 1),
    "we": ("nous", "wir", 2),
    "they": ("ils", "sie", 3),
}
FRAMES = {  # what a subordinate clause hangs on: English, French, German
    "": ("", "", ""),
    "know": ("I know that", "je sais que", "ich weiß, dass"),
    "hope": ("we hope that", "nous espérons que", "wir hoffen, dass"),
    "say": ("she says that", "elle dit que", "sie sagt, dass"),
    "ask": ("", "est-ce que", ""),
}
_GERMAN = {  # nominative masculine, feminine, neuter, plural; accusative masculine
    "the": ("der", "die", "das", "die", "den"),
    "this": ("dieser", "diese", "dieses", "diese", "diesen"),
    "a": ("ein", "eine", "ein", "", "einen"),
    "my": ("mein", "meine", "mein", "meine", "meinen"),
    "no": ("kein", "keine", "kein", "keine", "keinen"),
}
_FRENCH = {  # masculine, feminine, plural, before a vowel: masculine, feminine
    "the": ("le ", "la ", "les ", "l'", "l'"),
    "this": ("ce ", "cette ", "ces ", "cet ", "cette "),
    "a": ("un ", "une ", "des ", "un ", "une "),
    "my": ("mon ", "ma ", "mes ", "mon ", "mon "),
    "no": ("de ", "de ", "de ", "d'", "d'"),
}


@dataclass(frozen=True)
class Phrase:
    """A determiner, perhaps an adjective, and a noun in one number; or a pronoun."""

    noun: Noun | None
    determiner: str = "the"
    adjective: Adjective | None = None
    plural: bool = False
    pronoun: str = ""

    @property
    def person(self) -> int:
        """0 je, 1 il, 2 nous, 3 ils."""
        return PRONOUNS[self.pronoun][2] if self.pronoun else 3 if self.plural else 1

    def english(self) -> str:
        """The phrase as it stands in a sentence."""
        if self.noun is None:
            return self.pronoun
        words = [self.adjective.en] if self.adjective else []
        words.append(self.noun.en[self.plural])
        determiner = self.determiner
        if determiner == "a":
            determiner = "" if self.plural else "an" if words[0][0] in "aeiou" else "a"
        elif determiner == "this" and self.plural:
            determiner = "these"
        return " ".join([determiner, *words]).strip()

    def french(self, negated: bool = False) -> str:
        """The same in French; ``negated``: the object of a negated verb, whose indefinite article becomes de."""
        if self.noun is None:
            return PRONOUNS[self.pronoun][0]
        noun, adjective = self.noun, self.adjective
        feminine = noun.fr_gender == "f"
        before = adjective is not None and adjective.before
        vowel = noun.elides and not before
        words = [noun.fr[self.plural]]
        if adjective:
            form = adjective.fr[2 * self.plural + feminine]
            if before and noun.elides and not feminine and not self.plural:
                form = adjective.fr[4]
            words.insert(0 if before else 1, form)
        # Nothing is left of an indefinite article after a negation; and des becomes de before an adjective.
        none = self.determiner == "a" and (negated or (self.plural and before))
        forms = _FRENCH["no" if none else self.determiner]
        column = 2 if self.plural and not none else 3 + feminine if vowel else feminine
        return forms[column] + " ".join(words)

    def german(self, case: str, negated: bool = False) -> str:
        """The same in German, in the "nominative" or "accusative"; ``negated`` makes ein to kein."""
        if self.noun is None:
            return PRONOUNS[self.pronoun][1]
        determiner = "no" if negated and self.determiner == "a" else self.determiner
        column = 3 if self.plural else "mfn".index(self.noun.de_gender)
        accusative_masculine = case == "accusative" and column == 0
        article = _GERMAN[determiner][4 if accusative_masculine else column]
        words = [article] if article else []
        if self.adjective:
            if accusative_masculine or (self.plural and article):
                ending = "en"
            elif self.plural or determiner in ("the", "this"):
                ending = "e"
            else:
                ending = ("er", "e", "es")[column]
            words.append(self.adjective.de + ending)
        return " ".join([*words, self.noun.de[self.plural]])


@dataclass(frozen=True)
class Clause:
    """A meaning: a subject that does something to an object, or is somehow."""

    subject: Phrase
    verb: Verb
    object: Phrase | None = None
    quality: Adjective | None = None
    modal: Verb | None = None
    negated: bool = False
    frame: str = ""

    def english(self) -> str:
        """The English sentence."""
        s, o = self.subject.english(), self.object.english() if self.object else ""
        third = self.subject.person == 1
        if self.quality:
            be = "am" if self.subject.pronoun == "I" else BE.en[not third]
            said = [be, s] if self.frame == "ask" else [s, be]
            return _sentence(FRAMES[self.frame][0], *said, "not" * self.negated, self.quality.en, ask=self.frame)
        base, inflected = self.verb.en[1], self.verb.en[not third]
        if self.modal is CAN:
            can = "cannot" if self.negated else "can"
            said = [can, s, base] if self.frame == "ask" else [s, can, base]
            return _sentence(FRAMES[self.frame][0], *said, o, ask=self.frame)
        if self.modal:
            base, inflected = f"want to {base}", f"{WANT.en[not third]} {base}"
        does = "does" if third else "do"
        if self.frame == "ask":
            said = [does, s, "not" * self.negated, base]
        else:
            said = [s, does, "not", base] if self.negated else [s, inflected]
        return _sentence(FRAMES[self.frame][0], *said, o, ask=self.frame)

    def french(self) -> str:
        """The French sentence."""
        person = self.subject.person
        first = (self.modal or self.verb).fr[person]
        rest = [self.verb.fr[4]] if self.modal else []
        if self.quality:
            noun = self.subject.noun
            feminine = self.subject.pronoun == "she" or (noun is not None and noun.fr_gender == "f")
            rest = [self.quality.fr[2 * (person >= 2) + feminine]]
        if self.object:
            rest.append(self.object.french(self.negated))
        said = ["ne", first, "pas", *rest] if self.negated else [first, *rest]
        text = _sentence(FRAMES[self.frame][1], self.subject.french(), *said, ask=self.frame, space=" ")
        for word in ("je", "Je", "ne", "que"):
            text = _elide(text, word)
        return text

    def german(self) -> str:
        """The German sentence."""
        s = self.subject.german("nominative")
        finite = (self.modal or self.verb).de[min(self.subject.person, 2)]
        infinitive = self.verb.de[2] if self.modal else ""
        o = self.object.german("accusative", self.negated) if self.object else ""
        no = "kein" in o.split(" ")[0]
        middle = [o, "nicht" * (self.negated and not no), self.quality.de if self.quality else ""]
        if self.frame == "ask":
            said = [finite, s, *middle, infinitive]
        elif self.frame:
            said = [s, *middle, infinitive, finite]
        else:
            said = [s, finite, *middle, infinitive]
        return _sentence(FRAMES[self.frame][2], *said, ask=self.frame)

    def combinations(self) -> set[tuple[str, str]]:
        """What may be held out: (adjective, noun) and (verb, object noun), in English."""
        found = set()
        for phrase in (self.subject, self.object):
            if phrase and phrase.noun and phrase.adjective:
                found.add((phrase.adjective.en, phrase.noun.en[0]))
        if self.object and self.object.noun:
            found.add((self.verb.en[1], self.object.noun.en[0]))
        return found


def _sentence(*words: str, ask: str, space: str = "") -> str:
    text = " ".join(filter(None, words))
    return text[0].upper() + text[1:] + (f"{space}?" if ask == "ask" else ".")


def _elide(text: str, word: str) -> str:
    """je aime → j'aime."""
    parts = text.split(" ")
    for i in range(len(parts) - 1, 0, -1):
        if parts[i - 1] == word and parts[i][0].lower() in "aeéiouh":
            parts[i - 1 : i + 1] = [word[:-1] + "'" + parts[i]]
    return " ".join(parts)


def held_out_combinations(share: float = 0.1) -> set[tuple[str, str]]:
    """Combinations that no training sentence has: the same every time."""
    nouns = BEINGS + THINGS
    every = [(a.en, noun.en[0]) for a in ADJECTIVES for noun in nouns if a.suits(noun)]
    every += [(verb.en[1], noun.en[0]) for verb in VERBS for noun in nouns if verb.takes(noun)]
    return set(random.Random(7).sample(every, int(share * len(every))))


def _phrase(rng: random.Random, nouns: list[Noun]) -> Phrase:
    determiner = rng.choice(("the", "the", "a", "a", "this", "my"))
    noun = rng.choice(nouns)
    adjective = rng.choice([a for a in ADJECTIVES if a.suits(noun)]) if rng.random() < 0.5 else None
    return Phrase(noun, determiner, adjective, rng.random() < 0.35)


def _clause(rng: random.Random) -> Clause:
    frame = rng.choice(("", "", "", "know", "hope", "say", "ask"))
    negated = rng.random() < 0.3
    if rng.random() < 0.2:
        subject = _phrase(rng, BEINGS + THINGS)
        qualities = [a for a in ADJECTIVES if subject.noun and a.suits(subject.noun)]
        return Clause(subject, BE, quality=rng.choice(qualities), negated=negated, frame=frame)
    subject = Phrase(None, pronoun=rng.choice(list(PRONOUNS))) if rng.random() < 0.3 else _phrase(rng, BEINGS)
    verb = rng.choice(VERBS)
    modal = rng.choice((None, None, WANT, CAN))
    seen = _phrase(rng, [noun for noun in BEINGS + THINGS if verb.takes(noun)])
    return Clause(subject, verb, seen, None, modal, negated, frame)


def clauses(seed: int, *, held_out: bool = False) -> Iterator[Clause]:
    """Meanings without end, in a random order; with at least one held-out combination, or with none."""
    rng, rare = random.Random(seed), held_out_combinations()
    while True:
        clause = _clause(rng)
        if bool(clause.combinations() & rare) == held_out:
            yield clause


def phrase_book(size: int, seed: int = 0, *, held_out: bool = False) -> list[tuple[str, str, str]]:
    """Distinct sentences: (English, French, German) each.

    Args:
        size: how many; there are millions.
        seed: of the order.
        held_out: sentences that have a combination of words that the others never have.

    Example:
        >>> phrase_book(1)[0]
        ('We do not find my letter.', 'Nous ne trouvons pas ma lettre.', 'Wir finden meinen Brief nicht.')
    """
    found: dict[str, tuple[str, str, str]] = {}
    for clause in clauses(seed, held_out=held_out):
        said = (clause.english(), clause.french(), clause.german())
        found.setdefault(said[0], said)
        if len(found) == size:
            return list(found.values())
    return []
