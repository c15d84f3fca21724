# %% [markdown]
# # 6. Your own encoder, strategy and task
#
# The toolkit is meant to be taken apart. In this lesson you write three things of your own, each small enough
# for one file: a **task** (what to read, what to build, how to judge), an **encoder** (how to read), and a
# **strategy** (how to choose what to write).
#
# The whole notebook takes about two minutes.

# %%
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

import gen
from tasks.lessons import terminal

QUICK = bool(os.environ.get("GEN_LESSON_QUICK"))  # set by the toolkit's own tests, which have only seconds
BUDGET = "3 steps" if QUICK else "30s"

# %%
from tasks.data.prose import python_documentation

words = sorted(set(re.findall(r"\b[a-z]{3,8}\b", python_documentation())))
Path("words.txt").write_text("\n".join(words[:: 10 if QUICK else 1]), encoding="utf-8")
print(len(words), "words:", *words[:: len(words) // 8])

# %% [markdown]
# ## An encoder
#
# An encoder is a `torch` module that turns its input into a `Memory`: one vector per position, which attention
# looks at; a mask that says which positions are real; and a summary, from which the decoder's first state is
# made. B is the number of inputs, S the number of positions, M the size of a vector.
#
# This one knows the letters of a word and nothing of their order: a *bag* of letters. With `places=True` it
# adds a vector for each place, first, second, third, …

# %%
from gen.inputs.processors import SentenceProcessor
from gen.inputs.tokenizer import CharTokenizer
from gen.models.encoders import register as register_encoder


@register_encoder("bag")
class Bag(gen.Encoder):
    def __init__(self, tokenizer, memory_size=64, places=False):
        super().__init__()
        self.memory_size = memory_size
        self.processors = {"sentence": SentenceProcessor(tokenizer)}  # text → numbers, without torch
        self.letters = torch.nn.Embedding(len(tokenizer), memory_size, padding_idx=tokenizer.pad_id)
        self.places = torch.nn.Embedding(32, memory_size) if places else None
        self.config = {"memory_size": memory_size, "places": places}  # how to make it again, for saving

    def forward(self, source):
        mask = source["sentence"] != self.letters.padding_idx  # (B, S), True = real
        values = self.letters(source["sentence"])  # (B, S, M)
        if self.places is not None:
            values = values + self.places(torch.arange(mask.size(1), device=mask.device))
        summary = (values * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)  # (B, M)
        return gen.Memory(values, mask, summary)

    @classmethod
    def from_config(cls, config, read):
        return cls(CharTokenizer.from_bytes(read("tokenizer.bin")), **config)


# %%
letters = CharTokenizer.train(words)
encoder = Bag(letters)
memory = encoder(encoder.prepare(["abc", "cba", "hello"]).source)
print("values:", tuple(memory.values.shape))
print("abc and cba have the same summary:", torch.allclose(memory.summary[0], memory.summary[1]))

# %% [markdown]
# ## A task
#
# A task is one class. `Data` holds its options: a field is an option, the text below it is its help. `read`
# gives examples, `build` a model. The metric decides which weights are the best.

# %%
from gen.models.encoders import RNNEncoder


@dataclass(frozen=True)
class Words:
    data: str = ""
    """A file of words."""
    encoder: Literal["rnn", "bag", "places"] = "rnn"
    """What reads them."""


# %%
@gen.register("backwards")
class Backwards(gen.Task):
    """Learn to write words backwards."""

    Data = Words
    metric = gen.Metric("exact", higher_is_better=True)

    def read(self, data):
        words = Path(data.data).read_text(encoding="utf-8").split()
        examples = [gen.Example(word, self.answer(word)) for word in words]
        held_out = set(range(0, len(words), 10))
        train = [example for i, example in enumerate(examples) if i not in held_out]
        return gen.Split(train, [examples[i] for i in held_out], CharTokenizer.train(words))

    def answer(self, word):
        return word[::-1]

    def build(self, sizes, split):
        letters, kind = split.tokenizer, self.config.data.encoder
        encoder = RNNEncoder(letters, hidden_size=64) if kind == "rnn" else Bag(letters, places=kind == "places")
        decoder = gen.DecoderConfig(len(letters), hidden_size=128, attention="dot")
        return gen.Model(encoder, decoder, letters)


# %% [markdown]
# That is enough for `gen.train`, for saving and loading, `gen evaluate`, `score`, `export` and the rest. Three
# encoders in a race: a recurrent network, the bag, and the bag with places.

# %%
runs = {}
for kind in ("rnn", "bag", "places"):
    out = f"runs/backwards-{kind}"
    runs[kind] = gen.train(
        "backwards", data="words.txt", encoder=kind, out=out, budget=BUDGET, learning_rate=0.005
    )
    print(f"{kind:7} {runs[kind].metrics['exact']:.0%} exactly right; night → {runs[kind].model('night')}")

# %% [markdown]
# The bag has the right letters and cannot know their order, for it has never been told. It can only write words
# as words tend to be. A vector per place is all that is missing. Transformers do exactly this: attention by
# itself does not know any order, so they add the places.
#
# The file that defines the task has to be imported before a saved model is loaded. As a package with an entry
# point in the group `gen.tasks` it is found by itself, and `gen train backwards` works in a terminal, too.

# %%
model = gen.load("runs/backwards-rnn")
print(model(["stressed", "drawer", "python"]))
terminal("gen info runs/backwards-rnn")

# %% [markdown]
# ## A strategy
#
# A strategy picks the next token of every row. It gets the log-probabilities of all tokens, (R, V) for R rows
# and V tokens, and returns for every row which row it continues (None: itself), the token, and the score that rows
# are ranked by (here unchanged; the score that is reported is always the model's own). `self.ops` has the
# operations on arrays for torch and for numpy, so that a strategy also runs with exported models.
#
# This one takes the second-best token at every third step, to see how the network gets out of it.

# %%
from gen.search import register as register_strategy


@register_strategy("stumble")
class Stumble(gen.Strategy):
    def pick(self, log_probs, scores, finished, lengths):
        token_ids = self.ops.topk(log_probs, 2)[1]  # (R, 2), best first
        stumbles = (lengths % 3 == 2) & ~finished
        return None, self.ops.where(stumbles, token_ids[:, 1], token_ids[:, 0]), scores


print("greedy: ", model("reading", temperature=0))
print("stumble:", model("reading", strategy="stumble", max_new_tokens=12))

# %% [markdown]
# Scores are the model's own log-probabilities, whatever a strategy does. So what stumbling costs can be read
# off:

# %%
for how in ({"temperature": 0}, {"strategy": "stumble", "max_new_tokens": 12}, {"beam": 4}):
    found = model.generate("reading", **how)
    print(f"{found.score:7.2f}  {found.text}")

# %% [markdown]
# ## Exercises
#
# **1.** Let the task sort the letters instead of reversing them. Which encoder wins now?
#
# <details><summary>Answer</summary>
#
# ```python
# @gen.register("in-order")
# class InOrder(Backwards):
#     """Learn to sort the letters of words."""
#
#     def answer(self, word):
#         return "".join(sorted(word))
#
# for kind in ("rnn", "bag", "places"):
#     out = f"runs/sorted-{kind}"
#     run = gen.train("in-order", data="words.txt", encoder=kind, out=out, budget=BUDGET, learning_rate=0.005)
#     print(f"{kind:7} {run.metrics['exact']:.0%} exactly right; night → {run.model('night')}")
# ```
#
# Now the bag is at home: the answer does not depend on the order of the letters, so nothing is lost.
#
# </details>
#
# **2.** Write a strategy that never writes the same token twice in a row.
#
# <details><summary>Answer</summary>
#
# It has to remember what it picked, and forget it when a new search starts:
#
# ```python
# @register_strategy("no-doubles")
# class NoDoubles(gen.Strategy):
#     def start(self, ops, rows):
#         super().start(ops, rows)
#         self.last = ops.full((rows,), -1, "int64")
#
#     def pick(self, log_probs, scores, finished, lengths):
#         two = self.ops.topk(log_probs, 2)[1]
#         self.last = self.ops.where((two[:, 0] == self.last) & ~finished, two[:, 1], two[:, 0])
#         return None, self.last, scores
#
#     def keep(self, rows):
#         self.last = self.last[rows]
#
# print(model("balloon", strategy="no-doubles"))
# ```
#
# `keep` is called when finished inputs leave the search: row i is then what row `rows[i]` was.
#
# </details>
#
# **3.** The encoder with places has 32 of them. What happens to a word of 40 letters? How could the encoder be
# changed so that it reads that, too?
#
# <details><summary>Answer</summary>
#
# An `IndexError`: there is no vector for place 33. Recurrent encoders have no such limit, but a word longer
# than all in training is a surprise to them as well. One could cut longer words in `forward`, or compute the
# vectors of places from sines, as the first transformers did.
#
# </details>
