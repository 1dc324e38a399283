#!/usr/bin/env python3
"""Makes imports.json: which names a release of trl or peft imports from transformers that a release of that lacks.

Read from the wheels, without running them: every `from transformers... import NAME` at the top level of a file,
outside of `try`, `if` and functions, is looked for in the other wheel. A name imported from `transformers` itself must
be defined at the top level of some file there; one imported from a module, in that module. What is guarded by a
version check inside a function is not seen, and a file that nothing imports is counted all the same: a number says
that something in the package fails, not that the package does.

usage: make_imports.py --pip PIP --work DIR     (DIR keeps the wheels)
"""

import argparse, ast, datetime, json, pathlib, subprocess, zipfile

TRANSFORMERS = ("4.40.2 4.44.2 4.45.2 4.46.3 4.47.1 4.48.3 4.49.0 4.50.3 4.51.3 4.52.4 4.53.3 4.55.4 4.56.2 4.57.6 "
                "5.0.0 5.5.4 5.17.0 5.23.0").split()
OTHERS = {
    "trl": ("0.8.6 0.9.6 0.11.4 0.12.2 0.13.0 0.15.2 0.16.1 0.17.0 0.18.2 0.19.1 0.20.0 0.21.0 0.23.1 0.24.0 0.25.1 0.26.2 0.27.0 0.29.1 1.0.0 "
            "1.5.0 1.9.2 1.14.2 1.15.0 1.16.0").split(),
    "peft": "0.7.1 0.10.0 0.13.2 0.14.0 0.15.2 0.16.0 0.17.1 0.18.0 0.21.2".split(),
}


def wheel(pip, work, name, version):
    def there():
        return next(work.glob(f"{name}-{version}-*.whl"), None)
    if not there():
        subprocess.run([pip, "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", "3.12", "-d", str(work),
                        f"{name}=={version}"], check=True, capture_output=True)
    return there()


def bound(body):
    """Names a module's top level binds, whatever the condition."""
    names = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {a.asname or a.name.split(".")[0] for a in node.names}
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            parts = [node.body, getattr(node, "orelse", []), getattr(node, "finalbody", [])]
            parts += [h.body for h in getattr(node, "handlers", [])]
            for part in parts:
                names |= bound(part)
    return names


def surface(path):
    """Names bound by each module of a wheel, and by any of them."""
    modules, anywhere = {}, set()
    with zipfile.ZipFile(path) as archive:
        for file in archive.namelist():
            if not file.startswith("transformers/") or not file.endswith(".py"):
                continue
            try:
                names = bound(ast.parse(archive.read(file)).body)
            except SyntaxError:
                continue
            module = file[:-3].replace("/", ".").removesuffix(".__init__")
            modules[module] = names
            anywhere |= names
            anywhere.add(module.rsplit(".")[-1])
    return modules, anywhere


def imports(path, name):
    """(module, name) of every unconditional import from transformers."""
    wanted = set()
    with zipfile.ZipFile(path) as archive:
        for file in archive.namelist():
            if not file.startswith(f"{name}/") or not file.endswith(".py"):
                continue
            for node in ast.parse(archive.read(file)).body:
                if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "transformers":
                    wanted |= {(node.module, a.name) for a in node.names}
    return wanted


def missing(wanted, modules, anywhere):
    lacks = []
    for module, name in sorted(wanted):
        if module == "transformers":
            found = name in anywhere
        elif module not in modules:
            found = False
        else:
            # A package's __init__ may hand names out lazily.
            lazy = any("_LazyModule" in names for names in [modules[module]])
            found = name in modules[module] or f"{module}.{name}" in modules or "*" in modules[module] or (lazy and name in anywhere)
        if not found:
            lacks.append(name if module == "transformers" else f"{module.removeprefix('transformers.')}.{name}")
    return lacks


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--pip", required=True)
    args.add_argument("--work", required=True)
    args = args.parse_args()
    work = pathlib.Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    surfaces = [surface(wheel(args.pip, work, "transformers", v)) for v in TRANSFORMERS]
    rows = []
    for name, versions in OTHERS.items():
        for version in versions:
            try:
                wanted = imports(wheel(args.pip, work, name, version), name)
            except subprocess.CalledProcessError:
                print("not on PyPI:", name, version)
                continue
            rows.append({"package": name, "version": version, "missing": [missing(wanted, *s) for s in surfaces]})
            print(name, version, [len(m) for m in rows[-1]["missing"]], flush=True)
    out = {"date": datetime.date.today().isoformat(), "transformers": TRANSFORMERS, "rows": rows}
    (pathlib.Path(__file__).parent / "imports.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


main()
