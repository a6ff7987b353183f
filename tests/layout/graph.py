"""Print the import graph of a package: rooms (packages and loose modules), arrows between them, circles.

``python tests/layout/graph.py [folder]``; the folder is ``certified`` unless another is given, such as that of an older
checkout. An arrow is a pair of files in different rooms of which one imports the other.
"""

import ast
import sys
from collections import defaultdict
from pathlib import Path


def imports_of(path: Path, root: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file imports, at whatever place in it."""
    own, out = name_of(path, root), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").partition(".")[0] == root.name:
            base = (node.module or "").partition(".")[2]
            for alias in node.names:
                full = f"{base}.{alias.name}".strip(".")
                out.add(full if full in known else base)
    return {name for name in out if name in known and name != own}


def name_of(path: Path, root: Path) -> str:
    """The module's name below the package."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def graph_of(root: Path) -> dict[str, set[str]]:
    """Every module of the package with those that it imports."""
    files = [path for path in sorted(root.rglob("*.py")) if path != root / "__init__.py"]
    known = {name_of(path, root) for path in files}
    return {name_of(path, root): imports_of(path, root, known) for path in files}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of the graph, empty where there is none."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        found: list[str] = []
        if node not in done:
            found = next((c for other in sorted(graph.get(node, ())) if (c := walk(other, [*path, node]))), [])
            done.add(node)
        return found

    return next((c for node in graph if (c := walk(node, []))), [])


def rooms(graph: dict[str, set[str]]) -> dict[str, dict[str, int]]:
    """Arrows between the packages and loose modules on top, counted by pairs of files."""
    out: dict[str, dict[str, int]] = {module.partition(".")[0]: {} for module in graph}
    counted: dict[tuple[str, str], int] = defaultdict(int)
    for module, others in graph.items():
        for other in others:
            counted[module.partition(".")[0], other.partition(".")[0]] += 1
    for (start, end), n in counted.items():
        if start != end:
            out[start][end] = n
    return out


def main() -> None:
    """Print the graph of the folder given."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "certified").resolve()
    graph = graph_of(root)
    found = rooms(graph)
    for room in sorted(found):
        print(f"{room:24} <- {', '.join(f'{end} {n}' for end, n in sorted(found[room].items())) or '-'}")
    pairs, files = sum(map(len, found.values())), sum(sum(ends.values()) for ends in found.values())
    print(f"\n{len(found)} rooms, {pairs} pairs of them with arrows, {files} arrows between files of different rooms.")
    print(f"Circles: {' -> '.join(circle(graph)) or 'none'}.")


if __name__ == "__main__":
    main()
