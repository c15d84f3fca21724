# %% [markdown]
# # 3. Encoder and decoder, with and without attention
#
# A translator reads before it writes. One network, the **encoder**, reads the source. Another, the **decoder**,
# writes the target, and is the same network that wrote letters in lesson 1. What lies between them is the
# subject of this lesson: one vector for the whole sentence, or **attention** to every word of it.
#
# The whole notebook takes about five minutes.

# %%
import os
from pathlib import Path

import gen
from tasks.lessons import show, terminal

QUICK = bool(os.environ.get("GEN_LESSON_QUICK"))  # set by the toolkit's own tests, which have only seconds
BUDGET = "3 steps" if QUICK else "40s"

# %% [markdown]
# ## A small language: backwards
#
# To see what attention is good for, take a task that you could do yourself: write a string of letters
# backwards.

# %%
from tasks.data.sequences import sequence_pairs

pairs = sequence_pairs("reverse", 500 if QUICK else 8000, lengths=(3, 16))
train, held_out = pairs[:-200], pairs[-200:]
for name, part in (("train", train), ("held-out", held_out)):
    Path(f"backwards-{name}.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in part), encoding="utf-8")
print(pairs[:3])

# %% [markdown]
# Two models that differ in one word. Without attention all that the decoder gets is the encoder's summary of
# the string, a vector of fixed size, from which it starts. With attention ("dot") it may, for every letter it
# writes, look at the vectors of all letters it has read.

# %%
small = {"encoder_size": 64, "encoder_layers": 1, "hidden_size": 128, "embedding_size": 32, "num_layers": 1}
runs = {}
for attention in ("none", "dot"):
    runs[attention] = gen.train(
        "translate",
        data="backwards-train.tsv",
        valid="backwards-held-out.tsv",
        level="char",
        attention=attention,
        learning_rate=0.005,
        label_smoothing=0,
        dropout=0.1,
        out=f"runs/backwards-{attention}",
        budget=BUDGET,
        **small,
    )
    print(f"{attention:5} right on new strings: {runs[attention].metrics['exact']:.0%}")

# %% [markdown]
# How does it depend on the length of the string?

# %%
from matplotlib.figure import Figure

figure = Figure(figsize=(6, 3), layout="constrained")
axes = figure.subplots()
for attention, run in runs.items():
    written = run.model([source for source, _ in held_out], temperature=0)
    right = {}
    for (source, target), output in zip(held_out, written, strict=True):
        right.setdefault(len(source), []).append(output == target)
    lengths = sorted(right)
    axes.plot(
        lengths, [sum(right[n]) / len(right[n]) for n in lengths], marker="o", label=f"attention: {attention}"
    )
axes.set_xlabel("letters in the string")
axes.set_ylabel("share that is right")
axes.set_ylim(0, 1.05)
axes.legend()
figure.savefig("backwards.png")
show("backwards.png")

# %% [markdown]
# Short strings fit into one vector, long ones hardly: the vector is full. That was the trouble of the first
# neural translators, and attention the cure (Bahdanau, Cho and Bengio, 2014).
#
# ## Look at it
#
# The weights say where the decoder looked: a row per letter written, a column per letter read. Each row sums to
# 1.

# %%
from gen.metrics.plots import plot_attention

model = runs["dot"].model
output = model.generate("abcdefgh", temperature=0)
print(output.text, output.attention.shape)
plot_attention(output.attention, output.tokens, model.encoder.labels("abcdefgh"), Path("backwards-attention.png"))
show("backwards-attention.png")

# %% [markdown]
# Nobody told it to read from right to left. It found that out from the errors alone. (The mark ∎ is the end of
# the string, which the encoder reads like a letter. A trained model often looks one letter beside the one it
# writes: the vectors of an encoder that reads in both directions know their neighbours.)
#
# By hand it is five lines. The decoder's state asks a question (q), each vector of the memory answers how well
# it fits, and `softmax` makes weights of the answers. What the decoder gets is the weighted sum.

# %%
import torch

memory = torch.randn(8, 16)  # 8 letters, a vector of 16 numbers each
q = torch.randn(16)
scores = memory @ q  # (8,): one number per letter
weights = scores.softmax(0)
context = weights @ memory  # (16,)
print([round(weight, 2) for weight in weights.tolist()], "sum:", round(weights.sum().item(), 3))

# %% [markdown]
# ## A real language
#
# Now English into German. The sentences come from a small grammar, with some of what makes German hard:
# genders, cases, and verbs at the end. The held-out sentences combine words that are never combined in
# training. (To use pairs of your own, name a table with two columns as `PAIRS`. Without `HELD_OUT`, another one,
# a tenth of them is held out.)

# %%
from tasks.data.phrasebook import phrase_book

PAIRS, HELD_OUT = "", ""

if not PAIRS:
    PAIRS, HELD_OUT = "phrases.tsv", "phrases-held-out.tsv"
    sizes = (
        {PAIRS: (600, False), HELD_OUT: (50, True)} if QUICK else {PAIRS: (12_000, False), HELD_OUT: (300, True)}
    )
    for name, (size, new) in sizes.items():
        lines = [f"{english}\t{german}\n" for english, _, german in phrase_book(size, held_out=new)]
        Path(name).write_text("".join(lines), encoding="utf-8")
print(Path(PAIRS).read_text(encoding="utf-8")[:300])

# %%
german = {}
for attention in ("none", "dot"):
    german[attention] = gen.train(
        "translate",
        data=PAIRS,
        valid=HELD_OUT or (),
        level="word",
        min_frequency=1,
        attention=attention,
        batch_tokens=500,
        embedding_size=128,
        encoder_size=128,
        encoder_layers=1,
        hidden_size=256,
        num_layers=1,
        dropout=0.1,
        learning_rate=0.008,
        label_smoothing=0,
        out=f"runs/german-{attention}",
        budget=BUDGET if QUICK else "75s",
    )
    metrics = german[attention].metrics
    print(f"{attention:5} BLEU {metrics['bleu']:.1f}, chrF {metrics['chrf']:.1f}, exact {metrics['exact']:.0%}")

# %% [markdown]
# BLEU and chrF compare a translation with a reference, word by word and letter by letter; 100 is the reference
# itself.

# %%
for sentence in ("I know that the king wants to buy this red book.", "The cat does not see the mouse."):
    print(sentence)
    for attention, run in german.items():
        print(f"  {attention:5} {run.model(sentence)}")

# %% [markdown]
# The order of words differs between the languages, so the line of attention is no longer straight.

# %%
terminal(
    'gen plot attention runs/german-dot --text "I know that the king wants to buy this red book." -o german.png'
)
show("german.png")

# %% [markdown]
# ## Beam search
#
# Greedy search takes the best word at every step and may regret it. **Beam search** keeps the best few
# beginnings side by side. It is what `gen translate` does by default; `n_best` shows what else it considered.
# The number is the sum of the log-probabilities of a translation's tokens. Every token makes it smaller, so
# translations are ranked by it *per token*, nearly: a shorter one may come second with a larger number.

# %%
output = german["dot"].model.generate("We hope that the young doctor can sell the boat.", beam=5, n_best=4)
for hypothesis in output:
    print(f"{hypothesis.score:7.2f}  {hypothesis.text}")

# %% [markdown]
# ## Exercises
#
# **1.** How many numbers pass from the encoder to the decoder for a string of 16 letters, without attention and
# with it? (`encoder_size=64`, read in both directions.)
#
# <details><summary>Answer</summary>
#
# Without: one summary of 2 × 64 = 128 numbers, for 3 letters as for 16. With: 17 vectors (16 letters and the
# end) of 128 numbers, and the summary. The memory grows with the input.
#
# ```python
# memory = model.encoder(model.encoder.prepare(["abcdefghabcdefgh"]).source)
# print(memory.values.shape, memory.summary.shape)
# ```
#
# </details>
#
# **2.** Draw on paper what attention should look like if strings are to be copied instead of reversed, and if
# their letters are to be sorted. Then train both: `sequence_pairs` also makes pairs for `"copy"` and `"sort"`.
#
# <details><summary>Answer</summary>
#
# ```python
# for task in ("copy", "sort"):
#     pairs = sequence_pairs(task, 8000, lengths=(3, 16))
#     Path(f"{task}.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8")
#     found = gen.train(
#         "translate", data=f"{task}.tsv", level="char", attention="dot", learning_rate=0.005, out=f"runs/{task}",
#         label_smoothing=0, dropout=0.1, budget=BUDGET, **small,
#     )
#     output = found.model.generate("hbdgacfe", temperature=0)
#     labels = found.model.encoder.labels("hbdgacfe")
#     plot_attention(output.attention, output.tokens, labels, Path(f"{task}.png"))
#     show(f"{task}.png")
# ```
#
# Copy: the diagonal from top left to bottom right. Sort: for every letter in turn it looks for the places where
# that letter stands, wherever they are. (Both may look a letter beside it, as above.)
#
# </details>
#
# **3.** To reverse a string, a simpler rule than comparing vectors is enough: *begin at the right, and look one
# place further to the left at every step*. Would such a rule be enough to translate, too?
#
# <details><summary>Answer</summary>
#
# No. The word that is needed next may be anywhere: see the German verb at the end of a clause. Comparing vectors
# finds it by what it means, and not by where it stands.
#
# </details>
#
# **4.** There are two more kinds of attention, `"additive"` and `"multihead"`. Do they translate the phrases
# better? (Add them to the loop over `("none", "dot")`.)
#
# <details><summary>Answer</summary>
#
# All three solve it, at slightly different speeds. On data this small, whether there is attention matters much
# more than which.
#
# </details>
