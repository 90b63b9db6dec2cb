"""The rules of the house, kept by reading the code: who may import whom, and what never happens. Each failure is a file:line."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from quatrain.methods import METHODS

ROOT = Path(__file__).parent.parent / "quatrain"
FILES = sorted(ROOT.rglob("*.py"))

STAGES = {"prompts", "rollouts", "rewards", "objective", "update"}
EVERYTHING = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES}

SHARED = {"types", "config", "errors", "tensors"}

STAR: dict[str, set[str]] = {
    "tensors": set(),
    "types": {"tensors"},
    "errors": set(),
    "config": {"errors"},
    "policies": SHARED,
    "envs": SHARED,
    "prompts": SHARED,
    "rollouts": SHARED | {"policies"},
    "rewards": SHARED,
    "objective": SHARED,
    "update": SHARED | {"policies", "objective"},
    "methods": SHARED | {"objective"},
    "recipes": SHARED | {"methods"},
    "diagnostics": SHARED,
    "loop": SHARED | {"diagnostics"},
    "tunnel": SHARED | {"policies", "prompts"},
    "assembly": EVERYTHING - {"cli", "commands", "run", "review", "loop", "experiment", "claims", "stress"},
    "run": EVERYTHING - {"cli", "commands", "review", "experiment", "claims", "stress"},
    "review": EVERYTHING - {"cli", "commands", "run", "loop", "experiment", "claims", "stress"},
    "experiment": EVERYTHING - {"cli", "commands", "review", "claims", "stress"},
    "claims": EVERYTHING - {"cli", "commands", "review", "stress"},
    "stress": EVERYTHING - {"cli", "commands", "review", "claims"},
    "commands": EVERYTHING - {"cli"},
    "cli": EVERYTHING,
    "__init__": EVERYTHING - {"cli", "commands"},
    "__main__": {"cli"},
}
"""What each module or package of quatrain imports of the others, besides itself."""

PROTOCOLS: dict[str, set[str]] = {"rollouts": {"envs"}, "loop": STAGES}
"""Of whom it may import protocols besides, and nothing else."""

HEAVY = {
    "diagnostics/tensorboard.py",
    "diagnostics/trackio.py",
    "diagnostics/wandb.py",
}
"""Optional engines, one file each: the only ones that may import inside a function."""

UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "numpy.load", "np.load"}

TREES = {path: ast.parse(path.read_text()) for path in FILES}


def where(path: Path, node: ast.AST) -> str:
    return f"quatrain/{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def package(path: Path) -> str:
    """``rollouts`` for quatrain/rollouts/engine.py, ``loop`` for quatrain/loop.py."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[ast.AST, str, str | None]]:
    """(node, package of quatrain, name imported from it or None) of every import from quatrain, those in functions included."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name.split(".")[1], None) for alias in node.names if alias.name.startswith("quatrain."))
        elif isinstance(node, ast.ImportFrom) and node.module == "quatrain":
            yield from ((node, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("quatrain."):
            yield from ((node, node.module.split(".")[1], alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node, "a relative module", None


def is_protocol(owner: str, name: str | None) -> bool:
    """Whether `name` is defined in the package `owner` as a class that lists Protocol as a base."""
    classes = [
        n for path in FILES if package(path) == owner for n in TREES[path].body if isinstance(n, ast.ClassDef) and n.name == name
    ]
    return any("Protocol" in ast.unparse(base) for found in classes for base in found.bases)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def fail_if(faults: list[str]) -> None:
    assert not faults, "\n" + "\n".join(faults)


def test_every_package_has_its_place_in_the_star():
    fail_if([f"quatrain/{name}: say in STAR what it may import" for name in sorted(EVERYTHING - set(STAR))])


def test_imports_form_a_star():
    faults = []
    for path in FILES:
        own = package(path)
        for node, target, name in imports(path):
            allowed = target == own or target in STAR.get(own, set())
            if not allowed and not (target in PROTOCOLS.get(own, set()) and is_protocol(target, name)):
                faults.append(f"{where(path, node)}: {own} imports {target}{f'.{name}' if name else ''}")
    fail_if(faults)


def test_only_heavy_engines_import_inside_functions():
    faults = []
    for path in FILES:
        if str(path.relative_to(ROOT)) not in HEAVY:
            inner = {node for function in functions(TREES[path]) for node in ast.walk(function)}
            faults += [
                f"{where(path, node)}: {ast.unparse(node)}" for node in inner if isinstance(node, ast.Import | ast.ImportFrom)
            ]
    fail_if(sorted(faults))


def test_heavy_engines_are_files():
    fail_if([f"quatrain/{name}: no such file, take it out of HEAVY" for name in sorted(HEAVY) if not (ROOT / name).exists()])


def test_no_method_is_known_by_name():
    """Outside of the catalogue and the recipes; the default of a setting is no knowledge."""
    faults = []
    for path in FILES:
        if package(path) in ("methods", "recipes"):
            continue
        tree = TREES[path]
        defaults = (
            {node.value for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)} if package(path) == "config" else set()
        )
        for node in ast.walk(tree):
            words = _words(node) if node not in defaults else set()
            faults += [f"{where(path, node)}: {name}" for name in METHODS if name in words]
    fail_if(faults)


def _words(node: ast.AST) -> set[str]:
    """The identifiers that a node brings in, whole and in parts, or the string that it is."""
    if isinstance(node, ast.Constant):
        return {node.value.strip().lower()} if isinstance(node.value, str) else set()
    names = [getattr(node, field, None) for field in ("id", "attr", "name", "arg", "asname")]
    names = [name.lower() for name in names if isinstance(name, str)]
    names = [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name) for name in names]
    return {word for name in names for word in (name, *name.split("_"))}


def test_nothing_unsafe_is_loaded():
    faults = []
    for path in FILES:
        for node in ast.walk(TREES[path]):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            unsafe = [name for name in modules if name.split(".")[0] in UNSAFE_MODULES]
            unsafe += [ast.unparse(node.func)] if isinstance(node, ast.Call) and ast.unparse(node.func) in UNSAFE_CALLS else []
            faults += [f"{where(path, node)}: {name}" for name in unsafe]
    fail_if(faults)


def public(tree: ast.Module) -> Iterator[tuple[ast.AST, bool]]:
    """(node, whether a class holds it) of each public class and function, and of the public functions of such classes."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node, False
            if isinstance(node, ast.ClassDef):
                members = (n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
                yield from ((n, True) for n in members if not n.name.startswith("_") or n.name in ("__init__", "__call__"))


def test_public_names_say_what_they_are():
    faults = [
        f"{where(path, node)}: {node.name} has no docstring"
        for path in FILES
        for node, member in public(TREES[path])
        if not member and not ast.get_docstring(node)
    ]
    fail_if(faults)


def test_public_functions_are_typed():
    faults = []
    for path in FILES:
        for node, member in public(TREES[path]):
            if isinstance(node, ast.ClassDef):
                continue
            static = any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)
            arguments = [*node.args.posonlyargs, *node.args.args][1 if member and not static else 0 :]
            arguments += [*node.args.kwonlyargs, *(a for a in (node.args.vararg, node.args.kwarg) if a)]
            bare = [a.arg for a in arguments if a.annotation is None] + ([] if node.returns else ["return"])
            faults += [f"{where(path, node)}: {node.name} does not annotate {', '.join(bare)}"] if bare else []
    fail_if(faults)


def test_modules_open_with_what_they_are():
    fail_if([f"{where(path, tree)}: no docstring" for path, tree in TREES.items() if tree.body and not ast.get_docstring(tree)])
