# %% [markdown]
# # 1. A network that writes
#
# A small recurrent network reads a book and learns to write, one character after another. You will see what it
# is shown, how it writes, why it sometimes runs in circles, and what it knows that counting does not.
#
# Run the cells from top to bottom. The training takes two minutes, everything else takes seconds.

# %%
import os
from pathlib import Path

import gen
from tasks.lessons import show

QUICK = bool(os.environ.get("GEN_LESSON_QUICK"))  # set by the toolkit's own tests, which have only seconds
BUDGET = "3 steps" if QUICK else "2m"
BOOK = ""  # the name of a text file of your own, such as "alice.txt"; a megabyte is a good size
PROMPT = "The "  # how a text begins; for a book in another language, a word of that

# %% [markdown]
# Without a book of yours we take one that every Python brings along: the texts that `help()` shows.

# %%
from tasks.data.prose import python_documentation

if not BOOK:
    BOOK = "python-documentation.txt"
    Path(BOOK).write_text(python_documentation()[: 30_000 if QUICK else None], encoding="utf-8")

text = Path(BOOK).read_text(encoding="utf-8")
print(f"{len(text):,} characters, {len(set(text))} different ones. A piece of it:\n")
print(text[5000:5400])

# %% [markdown]
# ## What the network is shown
#
# The task is: given the text so far, which character comes next? The classic recipe cuts the text into windows
# of `nchars` characters. Each window is an example, and the character after it is the answer.

# %%
nchars = 20

for start in range(100, 104):
    window, answer = text[start : start + nchars], text[start + nchars]
    print(repr(window), "→", repr(answer))

# %% [markdown]
# That works, and it wastes nearly everything: the network reads twenty characters to learn from one answer. But
# a recurrent network reads from left to right and could answer after *every* character. So we ask it every
# time. The answers are then the same text, moved by one: **one next character for every input**.

# %%
piece = text[100 : 100 + nchars + 1]
inputs, answers = piece[:-1], piece[1:]
print("inputs ", list(inputs))
print("answers", list(answers))

# %% [markdown]
# One reading of the window now gives twenty answers to learn from. The early ones have little to go by, the
# later ones more; that is as it should be, for a text has a beginning, too.
#
# The toolkit goes one step further. It lays 32 long pieces of the book side by side (`batch_size`) and reads
# them in chunks of up to 64 characters (`chunk`). The next chunk begins in the state in which the last one
# ended. So nothing is ever read twice in a pass over the book, and what the network remembers may be older than
# the window.
#
# Networks calculate with numbers, so every character gets one. Four numbers are kept for special tokens:
# padding, the beginning, the end, and the unknown.

# %%
from gen.inputs.tokenizer import CharTokenizer

tokenizer = CharTokenizer.train([text])
numbers = tokenizer.encode("The book")
print(numbers, "→", tokenizer.decode(numbers))
print(len(tokenizer), "tokens in the vocabulary")

# %% [markdown]
# ## Training
#
# One call reads the book, keeps the last tenth of it to examine the network on, chooses sizes for your machine,
# and trains. Run the cell again and nothing is trained twice. A larger budget goes on from here; for another book
# or a smaller budget name another `out`.

# %%
run = gen.train("text", data=BOOK, out="runs/letters", budget=BUDGET)
model = run.model
print(model)
for option, reason in run.reasons.items():
    print(f"{option:18} {run.config[option]!s:8} {reason}")

# %% [markdown]
# The plot shows the loss: how surprised the network is by the next character, on average, in nats. (A nat is
# 1.44 bits.) The dots are measured on the tenth that was kept.

# %%
show(run.path / "plots" / "loss.png")

# %% [markdown]
# ## Prompt → state → generation
#
# To write, the network reads a beginning, the *prompt*. What it makes of it is its **state**: a fixed number of
# numbers, however long the prompt was. From the state it computes a probability for every character.

# %%
import torch

memory = gen.Memory.empty(1)  # there is nothing to describe or translate; lessons 3 and 4 put something here


def read(token_ids, state):
    with torch.no_grad():
        return model.decoder(torch.tensor([token_ids]), state, memory)


start = model.decoder.init_state(memory)
output = read([model.tokenizer.bos_id, *model.tokenizer.encode(PROMPT)], start)

for layer in output.state.layers:
    print("state:", [tuple(part.shape) for part in layer])
probabilities = output.logits[0, -1].softmax(-1)  # after the last character of the prompt
best = probabilities.topk(8)
for p, token_id in zip(best.values.tolist(), best.indices.tolist(), strict=True):
    print(f"{p:6.1%}  {model.tokenizer.decode([token_id])!r}")

# %% [markdown]
# Choose one of them, give it back as the next input, and go on from the new state. That loop is all there is to
# writing. The simplest choice is the likeliest character, every time: **greedy**.


# %%
def write_greedily(prompt, length):
    token_ids, state, written = model.tokenizer.encode(prompt), start, []
    token_ids = [model.tokenizer.bos_id, *token_ids]
    for _ in range(length):
        output = read(token_ids, state)
        state = output.state
        token_ids = [int(output.logits[0, -1].argmax())]
        written += token_ids
    return model.tokenizer.decode(written)


by_hand = write_greedily(PROMPT, 60)
print(by_hand)
print("The toolkit writes the same:", by_hand == model(PROMPT, temperature=0, max_new_tokens=60))

# %% [markdown]
# ## Greedy runs in circles
#
# Let it write more.

# %%
print(PROMPT + model(PROMPT, temperature=0, max_new_tokens=400))

# %% [markdown]
# Sooner or later it most likely repeats itself. The likeliest continuation is a bland one, it leads back to a
# state that is nearly one it was in before, and a rule without chance does there what it did the last time.
#
# ## Temperature
#
# The cure is chance: draw the next character with its probability. The **temperature** says how much chance.
# All logarithms of probabilities are divided by it first: below 1 the likely becomes likelier, above 1 all
# become more alike. Temperature 0 is greedy.

# %%
logits = output.logits[0, -1]  # after the prompt
for temperature in (0.3, 0.6, 1.0, 1.4, 1.8):
    p = (logits / temperature).softmax(-1)
    nats = -(p * p.clamp_min(1e-30).log()).sum()
    print(f"{temperature}: the best has {p.max():.0%}; as undecided as {nats.exp():.1f} equal choices")

# %%
for temperature in (0.3, 0.6, 1.0, 1.4, 1.8):
    print(f"--- temperature {temperature}")
    print(PROMPT + model(PROMPT, temperature=temperature, seed=1, max_new_tokens=250), "\n")

# %% [markdown]
# At 0.3 it is careful and dull. Around 0.6 it is lively, and most words are real ones. At 1.8 it falls apart:
# once an unlikely character has been drawn, the network has to go on from a text that it has never seen the
# like of.
#
# ## What it learned beside counting
#
# Long before networks, Markov (1913) counted which kinds of letters follow which. A **Markov chain** of order 4
# looks at the last four characters, and predicts what came after them in the book. How well does it predict,
# compared with the network? We ask for the *bits per character* on the tenth that was kept: the fewer, the less
# surprised.

# %%
import numpy as np

from gen.metrics.markov import MarkovChain

tokenizer = model.tokenizer
seen, kept = text[: int(0.9 * len(text))], text[int(0.9 * len(text)) :]
seen, kept = tokenizer.encode_array(seen), tokenizer.encode_array(kept)

chains = [MarkovChain.fit(seen, tokenizer, order) for order in range(9)]
for chain in chains:
    print(f"order {chain.order}: {-chain.log_probs(kept).mean() / np.log(2):.3f} bits per character")
print(f"network: {run.metrics['bits_per_char']:.3f}")

# %% [markdown]
# The chain gets better with every character that it looks back, up to a point, and then worse: the longer the
# context, the rarer it was in the book, and what has never been there cannot be counted. (If the best chain beats
# the network on your machine, two minutes were too few for it: train on with a larger budget.) The network is not
# tied to contexts that it has met. Give it more and more of the text before, and look at how the surprise
# falls.

# %%
places = np.linspace(300, len(kept) - 1, 40 if QUICK else 400).astype(int)
empty = gen.Memory.empty(len(places))


def bits_after(length):
    """The network's surprise at 400 places when it has read only so many characters before."""
    windows = torch.tensor(np.array([[tokenizer.bos_id, *kept[i - length : i]] for i in places]))
    with torch.no_grad():
        output = model.decoder(windows, model.decoder.init_state(empty), empty)
    log_probs = output.logits[:, -1].log_softmax(-1)
    return -log_probs[range(len(places)), kept[places]].mean().item() / np.log(2)


lengths = [1, 2, 3, 4, 5, 6, 8, 16, 32, 64, 128, 256]
network = [bits_after(length) for length in lengths]
counted = [-chain.log_probs(kept)[places].mean() / np.log(2) for chain in chains[1:]]

# %%
from matplotlib.figure import Figure

figure = Figure(figsize=(6, 3.2), layout="constrained")
axes = figure.subplots()
axes.plot(lengths, network, marker="o", label="network")
axes.plot(range(1, 9), counted, marker="s", label="Markov chain")
axes.set_xscale("log", base=2)
axes.set_xlabel("characters it may look at")
axes.set_ylabel("bits per character")
axes.legend()
figure.savefig("letters-context.png")
show("letters-context.png")

# %% [markdown]
# With a few characters counting is better: it has met every such case, and the network is not used to begin in
# the middle of a word. Then the chain turns round and gets worse. The network only gets better, for as far back
# as it has learned to remember. (That grows with training: try ten minutes.) And it does so with one fixed set
# of weights, where the chain keeps a table of everything that it has read.
#
# ## And a large model?
#
# GPT-2 is a network of another kind, a transformer, and 124 million parameters large; it has read eight million
# web pages. `gen compare` measures both and the chain on the same held-out text. GPT-2 predicts pieces of
# words, so its bits are added up and divided by the same number of characters. It needs `pip install
# 'gen-toolkit[hub]'` and downloads half a gigabyte: use the line in the comment if that is fine with
# you.

# %%
from tasks.text.against import compare_text

OTHERS = os.environ.get("GEN_LESSON_MODELS", "").split()  # or: OTHERS = ["hf:openai-community/gpt2"]
print(compare_text("runs/letters", OTHERS, max_characters=3_000 if QUICK else 20_000))

# %% [markdown]
# The same in a terminal: `gen compare runs/letters --with hf:openai-community/gpt2`.
#
# Two warnings about such tables. A model that has read the web may have read your book, too: then it remembers,
# where ours predicts. And speed counts: look at the columns with characters per second.
#
# ## Exercises
#
# **1.** A book has 500,000 characters. How many does the network read in one pass over it if it is shown every
# window of `nchars = 40` with one answer each? And how many with one answer for every input?
#
# <details><summary>Answer</summary>
#
# There are 499,960 windows of 40 characters: about 20 million. With one answer for every input it reads
# 500,000: a fortieth, for (nearly) the same number of answers.
#
# </details>
#
# **2.** What does the network write at a temperature of 0.01, and what at 100? Think first, then try.
#
# <details><summary>Answer</summary>
#
# At 0.01 the best character has all the probability: greedy. At 100 all characters are nearly equally likely,
# and the text is noise from the whole vocabulary.
#
# ```python
# print(model(PROMPT, temperature=0.01, max_new_tokens=100))
# print(model(PROMPT, temperature=100, max_new_tokens=100))
# ```
#
# </details>
#
# **3.** The state goes on from chunk to chunk, but an error is traced back to its causes inside its own chunk only
# (*truncated backpropagation through time*). What do chunks of 8 characters cost? Take 256 pieces side by side
# instead of 32, so that a step learns from as many characters as before.
#
# <details><summary>Answer</summary>
#
# ```python
# short = gen.train("text", data=BOOK, out="runs/letters-8", chunk=8, batch_size=256, budget=BUDGET)
# print(run.metrics["bits_per_char"], short.metrics["bits_per_char"])
# ```
#
# The short chunks are worse: what is worth remembering for longer than 8 characters is learned by luck.
#
# </details>
#
# **4.** An LSTM has a state of two parts, a GRU has one, and a plain recurrent network (`cell="rnn"`) is a single
# matrix product. Which of the three has the fewest bits per character after the same time?
#
# <details><summary>Answer</summary>
#
# ```python
# for cell in ("lstm", "gru", "rnn"):
#     found = gen.train("text", data=BOOK, out=f"runs/letters-{cell}", cell=cell, budget=BUDGET)
#     print(cell, found.metrics["bits_per_char"])
# ```
#
# LSTM and GRU are usually close together, the plain one is behind: without gates it forgets too fast.
#
# </details>
