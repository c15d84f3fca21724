"""Trained networks as a static page that runs in the reader's browser; `gen export --web` writes it.

The page is that of `gen serve` (`gen/serve/page`): one front end, two back ends. There `api.js` asks a server;
here `engine/api.js` stands in its place and asks a worker, which answers with the JavaScript in `engine`: search,
tokenizers and preprocessing of `gen.runtime` once more, and ONNX Runtime's WebAssembly for the steps.

`pack` makes one file of an exported model, `site` the folder or the single file, `assets` fetches ONNX Runtime.
"""
