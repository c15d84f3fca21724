"""Modules joined to one script, for a page in a single file, which can import nothing."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

_IMPORT = re.compile(r'^import (?:\* as (?P<all>\w+)|\{ (?P<names>[^}]*?),? \}) from "(?P<path>\.[^"]+)";$', re.M)
_EXPORT = re.compile(r"^export (?=(?:const|let|class|function\*?|async function\*?) (\w+))", re.M)
_EXPORTS = re.compile(r"\bexport ?\{(?P<names>[^}]*)\};?")  # at the end of a module that others have minified


def bundle(modules: Mapping[str, str], entry: str) -> str:
    """A module and all that it imports as one script without imports: each becomes a function that returns what it
    exports.

    Args:
        modules: path → text.
        entry: the path to begin with.

    Example:
        >>> modules = {"a.js": 'import { b as c } from "./b.js";\\nc();', "b.js": "export const b = () => 1;"}
        >>> print(bundle(modules, "a.js"))
        const module_0 = (() => {
        const b = () => 1;
        return { b };
        })();
        const module_1 = (() => {
        const { b: c } = module_0;
        c();
        return {  };
        })();
    """
    names: dict[str, str] = {}
    parts: list[str] = []

    def add(path: str) -> str:
        """Joins a module after those it imports. Returns its name."""
        if path in names:
            return names[path]
        text = modules[path]

        def imported(match: re.Match[str]) -> str:
            name = add(posixpath.normpath(posixpath.join(posixpath.dirname(path), match["path"])))
            if match["all"]:
                return f"const {match['all']} = {name};"
            return f"const {{ {match['names'].replace(' as ', ': ')} }} = {name};"

        text = _IMPORT.sub(imported, text)
        exports = _EXPORT.findall(text)
        text = _EXPORT.sub("", text)
        if match := _EXPORTS.search(text):
            pairs = [each.split(" as ") for each in match["names"].split(",")]
            exports += [f"{pair[-1]}: {pair[0]}" for pair in pairs if pair[-1] != "default"]
            text = text[: match.start()] + text[match.end() :]
        if left := re.search(r"^(?:import|export)\b.*", text, re.M):
            raise ValueError(f"{path}: cannot be joined: {left[0][:80]}")
        names[path] = f"module_{len(names)}"
        text = re.sub(r"^//# sourceMappingURL.*$", "", text, flags=re.M).rstrip()
        text = text.replace("import.meta.url", "location.href")
        parts.append(f"const {names[path]} = (() => {{\n{text}\nreturn {{ {', '.join(exports)} }};\n}})();\n")
        return names[path]

    add(entry)
    return "".join(parts).rstrip()
