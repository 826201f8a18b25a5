"""Which module of a crate uses which, read from the sources.

A module is a file. It uses another one if it names it, or something that is defined in it, by `use` or by a path; what is
re-exported counts where it is defined. Code behind `#[cfg(test)]` is left out: a test may use what it needs.
"""

import re
from pathlib import Path

ATTRIBUTE = r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*"
VISIBILITY = r"(?:pub(?:\([^)]*\))?\s+)?"
TEST_ITEM = re.compile(ATTRIBUTE + VISIBILITY + r"[^{;]*[{;]")
SUBMODULE = re.compile(r"\bmod\s+(\w+)\s*;")
USE = re.compile(r"\buse\s+([^;]+);")
FROM_ROOT = re.compile(r"\b(?:crate|super|self)(?:::\w+)+")
PATH = re.compile(r"(?<![\w:])([a-z_]\w*)(?:::\w+)+")


def without_comments_and_strings(text):
    """Neither quotes nor braces in them are code. Raw strings come first: a `//` in them is no comment."""
    text = re.sub(r'\br#*".*?"#*', '""', text, flags=re.DOTALL)
    literal = r"'(?:[^'\\\n]|\\.)'|\"(?:[^\"\\]|\\.)*\""
    comment = r"//[^\n]*|/\*.*?\*/"
    return re.sub(
        f"{literal}|{comment}",
        lambda found: "" if found.group().startswith("/") else '""',
        text,
        flags=re.DOTALL,
    )


def without_tests(text):
    kept, done = [], 0
    for item in TEST_ITEM.finditer(text):
        if item.start() < done:
            continue
        kept.append(text[done : item.start()])
        done = item.end()
        depth = int(text[done - 1] == "{")
        while depth and done < len(text):
            depth += {"{": 1, "}": -1}.get(text[done], 0)
            done += 1
    return "".join(kept) + text[done:]


def split(tree):
    """The paths of a `use` tree, each with the name that it gets."""
    before, brace, rest = tree.strip().partition("{")
    if not brace:
        path, _, name = before.partition(" as ")
        path = re.sub(r"\s", "", path).removesuffix("::self")
        yield path, name.strip() or path.rsplit("::", 1)[-1]
        return
    depth, part = 0, ""
    for letter in rest[: rest.rindex("}")] + ",":
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            if part.strip():
                yield from split(before + part)
            part = ""
        else:
            part += letter


class Crate:
    """The modules of one crate: `sources` by path, such as `("staging", "parts")`."""

    def __init__(self, root):
        self.sources, self.names = {}, {}
        self._load((), Path(root), Path(root).parent)
        for module, text in self.sources.items():
            trees = (tree for use in USE.findall(text) for tree in split(use))
            self.names[module] = {name: path for path, name in trees}

    def _load(self, module, file, folder):
        self.sources[module] = without_tests(without_comments_and_strings(file.read_text()))
        for name in SUBMODULE.findall(self.sources[module]):
            for source in (folder / f"{name}.rs", folder / name / "mod.rs"):
                if source.exists():
                    self._load((*module, name), source, folder / name)

    def _defines(self, module, path, depth=0):
        """The module in which `path` leads to something, as seen from `module`; none outside of this crate."""
        first, *rest = path.split("::")
        here = module
        if first == "crate":
            here = ()
        elif first == "super":
            here = module[:-1]
        elif first != "self":
            rest = [first, *rest]
            known = self.names[module].get(first, "")
            if (*module, first) not in self.sources:
                if depth > 8 or not known or known == path:
                    return None
                return self._defines(module, "::".join([known, *rest[1:]]), depth + 1)
        while rest:
            if rest[0] == "super":
                here = here[:-1]
            elif (*here, rest[0]) in self.sources:
                here = (*here, rest[0])
            elif rest[0] in self.names[here] and depth <= 8:
                exported = "::".join([self.names[here][rest[0]], *rest[1:]])
                return self._defines(here, exported, depth + 1) or here
            else:
                break
            rest = rest[1:]
        return here

    def edges(self):
        """The modules that each module uses."""
        edges = {}
        for module, text in self.sources.items():
            body = USE.sub("", text)
            paths = [path for use in USE.findall(text) for path, _ in split(use)]
            paths += FROM_ROOT.findall(body)
            paths += [found.group() for found in PATH.finditer(body)]
            used = {self._defines(module, path) for path in paths}
            edges[module] = used - {None, module}
        return edges


def circles(edges):
    """Groups of modules that use each other, by Tarjan's algorithm (SIAM Journal on Computing 1, 1972)."""
    order, low, stack, found = {}, {}, [], []

    def visit(module):
        order[module] = low[module] = len(order)
        stack.append(module)
        for used in edges.get(module, ()):
            if used not in order:
                visit(used)
                low[module] = min(low[module], low[used])
            elif used in stack:
                low[module] = min(low[module], order[used])
        if low[module] == order[module]:
            at = stack.index(module)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(edges):
        if module not in order:
            visit(module)
    return found


def shown(module):
    return "::".join(module) or "the crate's root"


def problems(root):
    """A line for each circle of the crate whose root is `root`, with the uses that make it."""
    edges = Crate(root).edges()
    for group in circles(edges):
        uses = [
            f"{shown(module)} uses {shown(used)}"
            for module in group
            for used in sorted(edges[module] & set(group))
        ]
        yield f"{root}: modules use each other in a circle: {'; '.join(uses)}"
