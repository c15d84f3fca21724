# %% [markdown]
# # 2. Titles, words, and pieces of words
#
# First you train a network that writes titles, and knows when a title is over. Then a laboratory: a network that
# writes letters has to learn to spell before it can learn anything else. Why not give it whole words? You train
# three networks on the same book, one on characters, one on words and one on pieces of words, and compare them.
#
# The whole notebook takes about six minutes.

# %%
import os
from pathlib import Path

import gen
from tasks.lessons import show

QUICK = bool(os.environ.get("GEN_LESSON_QUICK"))  # set by the toolkit's own tests, which have only seconds
BUDGET = "3 steps" if QUICK else "80s"
BOOK = ""  # your own book. "Alice in Wonderland" is free at gutenberg.org, and a good one
PROMPT = "The"  # how a text begins; for a book in another language, a word of that

# %% [markdown]
# ## Texts that end by themselves
#
# In lesson 1 the book was one endless stream, and the network stopped when we told it to. Titles, verses and
# names are different: each is a text of its own. With `unit="line"` every line is an example, and after its last
# character comes a token that means *the end*, `</s>`. So the network learns where to stop, as it learns
# everything else.
#
# Python's own programs have thousands of titles: the first line that describes a function. We collect them from
# the files on your machine. (Or name a file of yours as `TITLES`, with a title per line.)

# %%
import ast
import sysconfig

TITLES = ""


def first_lines(files):
    for path in files:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (said := ast.get_docstring(node)):
                yield " ".join(said.splitlines()[0].split())


if not TITLES:
    TITLES = "titles.txt"
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[: 12 if QUICK else None]
    titles = sorted({line for line in first_lines(files) if 15 <= len(line) <= 80})
    Path(TITLES).write_text("\n".join(titles) + "\n", encoding="utf-8")
titles = Path(TITLES).read_text(encoding="utf-8").splitlines()
print(f"{len(titles):,} titles, such as:", *titles[:: len(titles) // 5], sep="\n  ")

# %%
run = gen.train("text", data=TITLES, unit="line", out="runs/titles", budget=BUDGET)
titler = run.model

START = "Return the"
for hypothesis in titler.generate(START, temperature=0.6, num_samples=6, seed=1, max_new_tokens=80):
    print(START + hypothesis.text, "" if hypothesis.finished else "… (cut off)")

# %% [markdown]
# `finished` tells whether a text ended by itself or was cut at `max_new_tokens`. Are its titles as long as real
# ones? And are they its own?

# %%
from matplotlib.figure import Figure

written = titler.generate("", temperature=1.0, num_samples=20 if QUICK else 200, seed=1, max_new_tokens=120)
figure = Figure(figsize=(6, 2.8), layout="constrained")
axes = figure.subplots()
axes.hist([list(map(len, titles)), [len(each.text) for each in written]], bins=16, density=True)
axes.legend(["real titles", "written ones"])
axes.set_xlabel("characters")
figure.savefig("titles-lengths.png")
show("titles-lengths.png")
print(f"{sum(each.finished for each in written) / len(written):.0%} ended by themselves")
copied = sum(each.text in set(titles) for each in written)
print(f"{copied / len(written):.0%} are titles that it has read, word for word")

# %% [markdown]
# ## Three ways to cut a text
#
# Back to books. A **token** is what the network reads and writes at one step; so far it was a character. Cut the
# same sentence three ways.

# %%
from tasks.data.prose import python_documentation

if not BOOK:
    BOOK = "python-documentation.txt"
    Path(BOOK).write_text(python_documentation()[: 30_000 if QUICK else None], encoding="utf-8")
text = Path(BOOK).read_text(encoding="utf-8")

# %%
from gen.inputs.subword import SubwordTokenizer
from gen.inputs.tokenizer import CharTokenizer, WordTokenizer

tokenizers = {
    "char": CharTokenizer.train([text]),
    "word": WordTokenizer.train([text], min_frequency=2),
    "subword": SubwordTokenizer.train([text], vocab_size=2000, at_most=True),
}
sentence = "The following functions are unforgettable."
for level, tokenizer in tokenizers.items():
    token_ids = tokenizer.encode(sentence)
    print(f"{level:8} {len(tokenizer):6,} tokens: {[tokenizer.decode([i]) for i in token_ids]}")

# %% [markdown]
# Words take their space along, so that joining the tokens gives the text back. A word that the book does not
# have at least twice is `<unk>`, unknown: nothing better can be done for it. **Subwords** have no such hole.
# They begin with single letters and join the pair that occurs most often, again and again (*byte-pair
# encoding*). Frequent words end up as one piece, rare ones as several.

# %%
words = tokenizers["word"].words(text)
unknown = sum(i == tokenizers["word"].unk_id for i in tokenizers["word"].encode(text))
print(f"{len(words):,} words and marks in the text, {len(set(words)):,} different ones")
print(f"{unknown / len(words):.1%} of the text is unknown")

# %% [markdown]
# ## Three networks

# %%
runs = {}
for level in ("char", "word", "subword"):
    runs[level] = gen.train("text", data=BOOK, level=level, out=f"runs/words-{level}", budget=BUDGET)
    print(level, runs[level].model)

# %% [markdown]
# How do they compare? The network itself measures **nats per token**, and `exp` of that is the *perplexity*:
# between how many equal choices it hesitates. But a word is a longer step than a letter, so perplexities of
# different tokens say nothing about each other. Divide by the number of *characters* instead: bits per
# character.

# %%
print(f"{'level':8} {'perplexity':>10} {'bits/char':>10}")
for level, run in runs.items():
    print(f"{level:8} {run.metrics['perplexity']:10.1f} {run.metrics['bits_per_char']:10.3f}")

# %% [markdown]
# Read the line of the words with care. An unknown word costs its network one `<unk>`, while the others have to
# spell it. So its bits per character look better than they are.

# %%
for level, run in runs.items():
    print(f"--- {level}")
    print(PROMPT + run.model(PROMPT, temperature=0.7, seed=2, max_new_tokens=300 if level == "char" else 70), "\n")

# %% [markdown]
# With words every word is a real one, and sentences hold together a little longer. Letters can make up words.
# Subwords are in between, and are what nearly all large models use today.
#
# ## Completing words
#
# A model of text can help somebody who types. `suggest` adds up all the ways to end the word that has been
# begun.

# %%
for typed in ("The sta", "The function re", "If the "):
    found = runs["subword"].model.suggest(typed, n_best=4)
    print(f"{typed!r}: " + ", ".join(f"{word} {p:.0%}" for word, p in found))

# %% [markdown]
# ## Exercises
#
# **1.** Let the titles end later, or sooner: what do `min_new_tokens=60` and `max_new_tokens=10` do to them, and
# what does a temperature of 0.2?
#
# <details><summary>Answer</summary>
#
# ```python
# print(START + titler(START, temperature=0.6, seed=1, min_new_tokens=60, max_new_tokens=120))
# print(START + titler(START, temperature=0.6, seed=1, max_new_tokens=10))
# print(START + titler(START, temperature=0.2, seed=1, max_new_tokens=120))
# ```
#
# `min_new_tokens` forbids the end for so long: the network has to go on where it would have stopped, and
# rambles. `max_new_tokens` simply cuts, in the middle of a word if need be. At 0.2 it writes the plainest title
# that it knows.
#
# </details>
#
# **2.** What happens to the word model if only words that occur at least ten times are kept
# (`min_frequency=10`)? Which figures look better, and is it better?
#
# <details><summary>Answer</summary>
#
# ```python
# rare = gen.train("text", data=BOOK, level="word", min_frequency=10, out="runs/words-10", budget=BUDGET)
# print(rare.metrics["perplexity"], rare.metrics["bits_per_char"])
# print(rare.model(PROMPT, temperature=0.7, max_new_tokens=70))
# ```
#
# Perplexity and bits per character fall: more words are `<unk>`, and `<unk>` is easy to guess. The text gets
# worse, it is full of holes. A figure is only as good as what it leaves out.
#
# </details>
#
# **3.** How many subwords are best? Try 400, 2000 and 8000 on your book.
#
# <details><summary>Answer</summary>
#
# ```python
# for size in (400, 2000, 8000):
#     found = gen.train("text", data=BOOK, level="subword", vocab_size=size, out=f"runs/sub-{size}", budget=BUDGET)
#     print(size, found.metrics["bits_per_char"])
# ```
#
# With 400 it nearly spells. With 8000 many pieces are too rare to learn much about from one book. Somewhere
# between there is an optimum, which moves up with the size of the text.
#
# </details>
#
# **4.** Perplexity 50 for words of 5.5 characters on average (with their space): how many bits per character is
# that?
#
# <details><summary>Answer</summary>
#
# log₂ 50 = 5.64 bits per word, divided by 5.5 characters: 1.03 bits per character.
#
# </details>
