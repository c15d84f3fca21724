# %% [markdown]
# # 5. Labels in, labels out: the four patterns
#
# What goes into a recurrent network may be one thing or many, and so may what comes out. That makes four
# patterns. Here is one example of each, and in all four the same decoder.
#
# | | one comes out | many come out |
# |---|---|---|
# | **one goes in** | a picture → a label | a label → a sentence |
# | **many go in** | a sentence → a label | a sentence → a sentence |
#
# The whole notebook takes about three minutes.

# %%
import csv
import os
from pathlib import Path

import gen
from tasks.lessons import show, terminal

QUICK = bool(os.environ.get("GEN_LESSON_QUICK"))  # set by the toolkit's own tests, which have only seconds
BUDGET = "3 steps" if QUICK else "25s"
small = {"hidden_size": 64, "embedding_size": 32, "validations": 3, "learning_rate": 0.005}

# %% [markdown]
# ## The data
#
# Sentences of a small grammar in three languages. The language is the label. (A table of your own works as
# well: news and their topics, reviews and their stars.)

# %%
from tasks.data.phrasebook import phrase_book

sentences = phrase_book(300 if QUICK else 3000)
languages = ("English", "French", "German")
with open("sentences.csv", "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["sentence", "language"])
    writer.writerows((said, name) for each in sentences for said, name in zip(each, languages, strict=True))
print(Path("sentences.csv").read_text(encoding="utf-8")[:230])

# %% [markdown]
# ## Many to one: which language is that?
#
# The encoder reads all the words. The decoder writes a single token, which is the label: a label is a text of
# one token, and nothing else has to be invented.

# %%
run = gen.train(
    "classify",
    data="sentences.csv",
    label="language",
    encoder_size=32,
    out="runs/language",
    budget=BUDGET,
    **small,
)
language = run.model
print(language)
print(f"right: {run.metrics['accuracy']:.1%} of the held-out sentences")
print(language(["Die Katze schläft.", "Un arbre n'est pas vieux.", "My hat is red."]))
show(run.path / "plots" / "confusion.png")

# %% [markdown]
# How sure is it? The probabilities were calibrated at the end of the training: of the answers that it gives
# with 80 %, about 80 % should be right.

# %%
terminal("gen classify runs/language 'The Restaurant is a Katastrophe' --top 3")

# %% [markdown]
# ## One to many: say something in German
#
# Now turn it round. The label goes in, a sentence comes out. With `given` every line has its label, which the
# decoder sees while it writes; and a tenth of the time in training the label is hidden, so that it can also do
# without.

# %%
run = gen.train(
    "text",
    data="sentences.csv",
    column="sentence",
    given="language",
    unit="line",
    level="subword",
    vocab_size=400,
    hidden_size=128,
    embedding_size=64,
    learning_rate=0.008,
    out="runs/speaker",
    budget=BUDGET,
)
speaker = run.model
print(speaker)
for name in languages:
    print(f"{name:8}", speaker({"language": name}, temperature=0.5, seed=1, max_new_tokens=60))

# %% [markdown]
# The two models examine each other: does the classifier recognise what the speaker says?

# %%
orders = [name for name in languages for _ in range(20)]
said = speaker([{"language": name} for name in orders], temperature=0.7, seed=1, max_new_tokens=60)
heard = language(said)
print(
    f"{sum(a == b for a, b in zip(orders, heard, strict=True)) / len(orders):.0%} are taken for what was ordered"
)

# %% [markdown]
# ## Many to many: translate it
#
# This is lesson 3 in one cell.

# %%
Path("phrases.tsv").write_text("".join(f"{a}\t{c}\n" for a, _, c in sentences), encoding="utf-8")
run = gen.train(
    "translate",
    data="phrases.tsv",
    level="word",
    min_frequency=1,
    batch_tokens=500,
    embedding_size=64,
    encoder_size=64,
    encoder_layers=1,
    hidden_size=128,
    num_layers=1,
    learning_rate=0.008,
    out="runs/phrases",
    budget=BUDGET,
)
translator = run.model
print(translator)
print(translator("The old cat does not see the mouse."))

# %% [markdown]
# There is a second kind of many-to-many, without an encoder: one answer for *every* input, at once. You know it
# from lesson 1, where the answer was always the next character.
#
# ## One to one: above or beside?
#
# One picture, one label. The pictures are those of lesson 4, and we ask how their two things lie. The network
# in front is the same, frozen one; so this is mostly a question of what it noticed.

# %%
import json

from tasks.data.shapes import write_shapes

write_shapes(Path("shapes-few"), 30 if QUICK else 600, 6)
with open("arranged.jsonl", "w", encoding="utf-8") as file:
    for line in Path("shapes-few", "captions.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        stacked = any(f" {word} " in entry["captions"][0] for word in ("above", "below"))
        row = {"image": entry["image"], "label": "one above the other" if stacked else "side by side"}
        file.write(json.dumps(row) + "\n")

# %%
run = gen.train(
    "classify",
    data="arranged.jsonl",
    image="image",
    images="shapes-few",
    label="label",
    encoder_size=64,
    out="runs/arranged",
    budget=BUDGET,
    **small,
)
picture = Path("shapes-few", "val-00000.png")
print(run.model)
show(picture)
print(run.model(picture), f"(right in {run.metrics['accuracy']:.0%} of the held-out pictures)")

# %% [markdown]
# Four patterns, and four times a line that begins with `Model(` and has a decoder in it. What differs is the
# encoder, which makes a memory of whatever goes in, and the vocabulary of what comes out.
#
# ## Exercises
#
# **1.** Which pattern is it? (a) a film review → its stars; (b) a photograph → a caption; (c) notes played so far
# → the next note, at every note; (d) a question about a picture → an answer.
#
# <details><summary>Answer</summary>
#
# (a) Many to one. (b) One to many, as in lesson 4. (c)
# Many to many without an encoder, as lesson 1. (d) Many to many: two inputs, a picture and a sentence, lie side
# by side in one memory.
#
# </details>
#
# **2.** The classifier is right nearly always. Give it a sentence that mixes two languages, and one in a
# language that it has never met. What do its probabilities tell you, and what not?
#
# <details><summary>Answer</summary>
#
# A mixture may get mixed probabilities. Spanish gets one of the three labels, often with great confidence: it
# can only choose among the labels it knows. Calibration holds for texts like those it was calibrated on.
#
# </details>
#
# **3.** Ask the speaker without a label. What do you expect, and what do you get?
#
# <details><summary>Answer</summary>
#
# ```python
# for seed in range(6):
#     print(speaker("", temperature=0.7, seed=seed, max_new_tokens=60))
# ```
#
# Sentences in all three languages, each in one of them: it chooses with the first word and keeps to it. That is
# what the hidden labels in training were for.
#
# </details>
#
# **4.** Whoever labelled the data made a mistake in one of ten examples, and the held-out examples have as many.
# What accuracy can a perfect model reach on them?
#
# <details><summary>Answer</summary>
#
# 90 %: it says what is right, and a tenth of the answer sheet is wrong. A model that reaches more has learned
# the errors, or was lucky.
#
# </details>
