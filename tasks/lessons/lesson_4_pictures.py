# %% [markdown]
# # 4. From pictures to words
#
# Take the translator of lesson 3, and put another encoder in front: one that looks at a picture. Everything
# else stays as it is. The decoder does not know that it is not reading French.
#
# The whole notebook takes about four minutes.

# %%
import os
import shlex
from pathlib import Path

import gen
from tasks.lessons import show, terminal

QUICK = bool(os.environ.get("GEN_LESSON_QUICK"))  # set by the toolkit's own tests, which have only seconds
BUDGET = "3 steps" if QUICK else "100s"
TRAINING, HELD_OUT = (30, 6) if QUICK else (1500, 100)
PHOTOS = ""  # a folder with photographs of yours and a file captions.jsonl; gen help train caption has the formats

# %% [markdown]
# ## The pictures
#
# Without photographs of yours we draw some: two shapes of some size and colour, one above the other or side by
# side. Every picture has three captions. The held-out pictures combine two things that are never combined in
# training.

# %%
from tasks.data.shapes import write_shapes

if not PHOTOS:
    PHOTOS = "shapes"
    write_shapes(Path(PHOTOS), TRAINING, HELD_OUT)

# %%
from PIL import Image

from gen.datasets.captions import read_captions


def pictures_in_a_row(paths, to):
    row = Image.new("RGB", (224 * len(paths), 224), "white")
    for place, path in enumerate(paths):
        row.paste(Image.open(path).convert("RGB").resize((216, 216)), (224 * place, 0))
    row.save(to)
    show(to)


some = read_captions(PHOTOS).pictures[:4]
pictures_in_a_row([each.picture for each in some], "some-pictures.png")
for each in some:
    print(each.captions[0])

# %% [markdown]
# ## The encoder
#
# Nobody learns to see from fifteen hundred pictures. So the encoder is a network that has been trained on more
# than a million photographs, EfficientNet-Lite0, without its last layer. It stays as it is (it is *frozen*):
# its output is computed once per picture and kept. What is trained is a small layer behind it, and the decoder.

# %%
run = gen.train(
    "caption",
    images=PHOTOS,
    out="runs/pictures",
    budget=BUDGET,
    batch_tokens=500,
    augment=0,
    image_size=224,  # as the pictures are: 7 × 7 cells of 32 pixels
    memory_size=128,
    embedding_size=64,
    hidden_size=128,
    dropout=0.1,
    embedding_dropout=0,
    learning_rate=7e-3,
    label_smoothing=0,
    ema=0.99,
    validations=5,
)
model = run.model
print(model)
show(run.path / "plots" / "loss.png")

# %% [markdown]
# The training has written down which pictures it held out, to examine the network on. What does the encoder pass
# on of the first one? A grid. Each cell sees its part of the picture, and the decoder attends to cells as it
# attended to words.

# %%
import json

held_out = [json.loads(line) for line in (run.path / "valid.jsonl").read_text(encoding="utf-8").splitlines()]
paths = [entry["image"] for entry in held_out]
picture = paths[0]
memory = model.encoder(model.encoder.prepare([picture]).source)
print("values:", tuple(memory.values.shape), " one picture, 7 × 7 cells, a vector each")
print("summary:", tuple(memory.summary.shape))

# %% [markdown]
# ## Captions

# %%
captions = model(paths)
pictures_in_a_row(paths[:4], "captioned.png")
for caption in captions[:4]:
    print(caption)

# %% [markdown]
# Is that good? For a drawn picture we know everything that may be said. For photographs nobody does, so
# captions are compared with those of several people: BLEU-4 counts common runs of four words, CIDEr-D gives
# rare words more weight.

# %%
right = [caption in entry["captions"] for caption, entry in zip(captions, held_out, strict=True)]
print(f"{sum(right) / len(right):.0%} of {len(right)} new pictures: word for word one of the captions")
print(f"BLEU-4 {run.metrics['bleu4']:.1f}, CIDEr-D {run.metrics['cider']:.1f}")

# %% [markdown]
# A mistake teaches more than ten successes. Which word is wrong?

# %%
wrong = [i for i, good in enumerate(right) if not good][:3]
if wrong:
    pictures_in_a_row([paths[i] for i in wrong], "mistakes.png")
for i in wrong:
    print(f"it says: {captions[i]}\n  drawn: {held_out[i]['captions'][0]}")

# %% [markdown]
# ## Where it looks
#
# For every word, the picture is as bright as the attention on it. Follow the nouns.

# %%
terminal(f"gen plot attention runs/pictures {shlex.quote(picture)} -o looks.png")
show("looks.png")

# %% [markdown]
# ## One picture, many sentences
#
# A caption is a choice. Sampling shows what else it could say, and beam search what it takes for the best.

# %%
for hypothesis in model.generate(picture, num_samples=4, temperature=0.9, seed=1):
    print(f"{hypothesis.score:7.2f}  {hypothesis.text}")
print("beam:   ", model(picture, beam=4))

# %% [markdown]
# ## Search by words
#
# The model knows how probable a sentence is, given a picture. Turned round, that finds pictures: which one
# makes the sentence most probable?

# %%
query = "there is a large red circle above a small blue star"
scores = model.score([query] * len(paths), paths)
best = sorted(range(len(paths)), key=lambda i: -scores[i].log_prob)[:4]
pictures_in_a_row([paths[i] for i in best], "found.png")
print([round(scores[i].log_prob, 1) for i in best])

# %% [markdown]
# In a terminal: `gen caption runs/pictures shapes --search "a red circle" --top 5`.
#
# ## Exercises
#
# **1.** A cell of the 7 × 7 grid is 32 pixels wide. Draw a small red circle beside a small blue square, and move
# them closer until both are in one cell. What does the model say of each picture?
#
# <details><summary>Answer</summary>
#
# ```python
# from PIL import ImageDraw
#
# for far in (110, 60, 30):
#     image = Image.new("RGB", (224, 224), "white")
#     pen = ImageDraw.Draw(image)
#     pen.ellipse((112 - far / 2 - 12, 100, 112 - far / 2 + 12, 124), fill="red")
#     pen.rectangle((112 + far / 2 - 12, 100, 112 + far / 2 + 12, 124), fill="blue")
#     print(f"{far:4} pixels: {model(image)}")
# ```
#
# Two things in one cell share one vector. Whether the decoder can tell them apart depends on what the frozen
# network thought worth keeping; their order is mostly lost. A network with a finer last grid would do better.
#
# </details>
#
# **2.** Train it without attention: the cell with `gen.train` once more, with `attention="none"` and
# `out="runs/pictures-none"`. Which words of the captions are wrong more often now?
#
# <details><summary>Answer</summary>
#
# Which thing is where, and which colour belongs to which shape. The summary of the picture is a mean over the
# cells, which knows that there is red and that there is a circle.
#
# </details>
#
# **3.** The model was trained on drawings. What does it say about a photograph of your desk, and why does it
# say it so confidently?
#
# <details><summary>Answer</summary>
#
# Something about two coloured shapes. It has no other words, and no way to say "none of these": probabilities
# are shared out among the sentences that it knows, and sum to one whatever it sees.
#
# </details>
