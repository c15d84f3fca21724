# %% [markdown]
# # 7. Ship it
#
# A model that only its author can run is not finished. In this lesson one goes out three ways: as a small
# folder that runs without torch, behind a server that existing programs can talk to, and as a web page that
# needs no server at all.
#
# It needs the extras: `pip install 'gen-toolkit[export,serve]'`. The whole notebook takes about two minutes.

# %%
import os
import time
from pathlib import Path

import gen
from tasks.lessons import terminal

QUICK = bool(os.environ.get("GEN_LESSON_QUICK"))  # set by the toolkit's own tests, which have only seconds
BUDGET = "3 steps" if QUICK else "45s"

# %%
from tasks.data.prose import python_documentation

Path("documentation.txt").write_text(python_documentation()[: 30_000 if QUICK else None], encoding="utf-8")
run = gen.train("text", data="documentation.txt", out="runs/ship", budget=BUDGET)
print(run.model)

# %% [markdown]
# ## The card
#
# A model folder carries its own papers: the data, the command, every option with the reason for it, and the
# figures. Whoever gets the folder gets them as well.

# %%
print((run.path / "best" / "README.md").read_text(encoding="utf-8")[:600])

# %% [markdown]
# ## Export
#
# `gen export` writes the network as ONNX graphs, next to its vocabulary. What is left runs on numpy and ONNX
# Runtime; the search is the same code as before.

# %%
terminal("gen export runs/ship -o exported/ship")

# %% [markdown]
# **int8**: the large weights become whole numbers between −127 and 127, times a scale per column. That is a
# quarter of the size, and whole numbers are multiplied faster. It costs a little precision, so the command
# measures how much, on held-out text, and refuses to lose more than `--max-loss`.

# %%
terminal("gen export runs/ship -o exported/ship-int8 --int8")

# %%
models = {
    "torch": gen.load("runs/ship"),
    "float32": gen.load("exported/ship"),
    "int8": gen.load("exported/ship-int8"),
}
folders = {"torch": run.path / "best", "float32": Path("exported/ship"), "int8": Path("exported/ship-int8")}
for name, model in models.items():
    size = sum(file.stat().st_size for file in folders[name].rglob("*") if file.is_file()) / 1e6
    model("The ", max_new_tokens=5, seed=1)  # the first call sets things up
    start = time.perf_counter()
    model("The ", temperature=0.7, seed=1, max_new_tokens=200, min_new_tokens=200)
    print(f"{name:8} {size:5.1f} MB  {200 / (time.perf_counter() - start):6,.0f} characters per second")

# %% [markdown]
# In float32 greedy search writes the very same text, character for character. In int8 it may take another turn
# somewhere.

# %%
texts = {name: model("The ", temperature=0, max_new_tokens=80) for name, model in models.items()}
for name, text in texts.items():
    print(f"{name:8} {text!r}")
print("float32 writes what torch writes:", texts["float32"] == texts["torch"])

# %% [markdown]
# Where torch is not wanted, `gen-runtime` is enough: a package of its own with numpy, ONNX Runtime,
# sentencepiece, regex and pillow.
#
# ## A server
#
# `gen serve` puts models behind the interfaces that clients of OpenAI and LibreTranslate speak, and a page at
# `/` to play with. In a terminal you would type `gen serve exported/ship-int8` and leave it running. Here we
# start it beside the notebook, and ask it the way any program would.

# %%
import subprocess
import sys

server = subprocess.Popen(
    [sys.executable, "-m", "gen", "serve", "exported/ship-int8", "--port", "0"], stderr=subprocess.PIPE, text=True
)
for line in server.stderr:  # "… serving on http://127.0.0.1:PORT", or what is missing
    print(line, end="")
    if "http://" in line:
        address = line.split()[-1]
        break

# %%
import json
import urllib.request


def ask(path, **question):
    body = json.dumps(question).encode() if question else None
    request = urllib.request.Request(address + path, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


name = ask("/v1/models")["data"][0]["id"]
answer = ask("/v1/completions", model=name, prompt="The ", max_tokens=80, temperature=0.7, seed=1)
print(answer["choices"][0]["text"])
print(answer["usage"])

# %% [markdown]
# So any program that knows OpenAI's interface can use your model, if it is told the address. Now put it away.

# %%
server.terminate()
server.communicate()
print("ended")

# %% [markdown]
# ## In the browser
#
# The last way needs no server. `gen export --web` writes a page that runs the model in the reader's own
# browser: the same search, in JavaScript and WebAssembly. Nothing is sent anywhere. With `--single-file` it is
# one HTML file, which you can pass on on a stick. (It fetches ONNX Runtime for browsers once, with npm; without
# a network or npm a line says so.)

# %%
if terminal("gen export exported/ship-int8 --web --single-file -o ship.html") == 0:
    print(f"ship.html: open it in a browser ({Path('ship.html').stat().st_size / 1e6:.0f} MB)")

# %% [markdown]
# ## Exercises
#
# **1.** An int8 weight is a whole number times a scale. A column has the weights 0.02, −0.5 and 0.254. What is
# its scale, and what becomes of 0.02?
#
# <details><summary>Answer</summary>
#
# The largest, 0.5, should become 127, so the scale is 0.5 / 127 = 0.00394. 0.02 / 0.00394 = 5.08 becomes 5, and
# 5 × 0.00394 = 0.0197: off by 1.6 %. Small weights in a column with a large one suffer most.
#
# </details>
#
# **2.** Why is one text at a time slow on a large GPU, and fast with int8 on a small CPU?
#
# <details><summary>Answer</summary>
#
# For one text, every step reads all weights once and does little with each. So what counts is how few bytes
# they are, and how quickly a step can be started. Large GPUs are made for many rows at once.
#
# </details>
#
# **3.** Ask the server for the five likeliest next characters.
#
# <details><summary>Answer</summary>
#
# Start it again (run its cell), then:
#
# ```python
# answer = ask("/v1/completions", model=name, prompt="The ", max_tokens=1, temperature=0, logprobs=5)
# print(answer["choices"][0]["logprobs"]["top_logprobs"])
# ```
#
# </details>
#
# **4.** Somebody sends you a model folder. What could it do to your machine when you load it?
#
# <details><summary>Answer</summary>
#
# Nothing: it holds weights, configuration and vocabularies, and loading runs no code of it. Formats that hold
# pickled Python objects are another matter: unpickling may run anything.
#
# </details>
