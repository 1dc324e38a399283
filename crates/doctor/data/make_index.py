#!/usr/bin/env python3
"""Makes index.json.gz: what the packages of the Python training stack require, version by version.

`prospect stack mend` and `stack check` solve over this index, so it carries exactly what a resolver
reads: versions, upload dates, the Python versions with an installable wheel, Requires-Dist. It asks
PyPI through pip and uv alone (metadata files, never a wheel), and keeps only requirements on packages
of the index itself: any other package is taken to be available.

usage: make_index.py --pip PIP --uv UV --work DIR     (pip >= 26, uv >= 0.13; DIR keeps partial results)
"""

import argparse, concurrent.futures, datetime, gzip, json, pathlib, re, subprocess, tomllib

# name: lowest version kept. The floor is a little below the oldest set anybody still asks for.
STACK = {
    "torch": "2.0", "torchvision": "0.16", "triton": "2.1", "xformers": "0.0.26", "torchao": "0.5",
    "transformers": "4.40", "tokenizers": "0.15", "huggingface-hub": "0.20", "safetensors": "0.3.1",
    "trl": "0.7", "peft": "0.7", "accelerate": "0.26", "datasets": "2.14", "bitsandbytes": "0.41",
    "unsloth": "2024.8", "unsloth-zoo": "0", "cut-cross-entropy": "0",
    "flash-attn": "2.5", "numpy": "1.24", "pyarrow": "12", "fsspec": "2023.1", "certifi": "2024.1",
}
PYTHONS = ["3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]
# Packages whose metadata names no other package of the index: their versions and dates are enough.
LEAVES = {"numpy", "pyarrow", "fsspec", "certifi", "safetensors", "triton"}
SOURCE_ONLY = {"flash-attn"}  # its metadata needs torch at build time; torch is all it requires here
PLATFORMS = ["manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_24_x86_64",
             "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]


def key(version):
    """Orders final and post releases; other forms sort by their numbers."""
    return [int(n) for n in re.findall(r"\d+", version.replace("post", "."))]


def final(version):
    return re.fullmatch(r"\d+(\.\d+)*(\.post\d+)?", version) is not None


def flags(python):
    out = ["--python-version", python, "--only-binary=:all:"]
    for platform in PLATFORMS:
        out += ["--platform", platform]
    return out


def versions(pip, name, python):
    only = [] if name in SOURCE_ONLY else flags(python)
    done = subprocess.run([pip, "index", "versions", name, "--json", *only], capture_output=True, text=True)
    if done.returncode:
        return []
    floor = key(STACK[name])
    return [v for v in json.loads(done.stdout)["versions"] if final(v) and key(v) >= floor]


def report(pip, python, pins, path):
    done = subprocess.run(
        [pip, "install", "--dry-run", "--ignore-installed", "--no-deps", "--ignore-requires-python", "-q",
         "--target", str(path.parent / "target"), "--report", str(path), *flags(python), *pins],
        capture_output=True, text=True)
    if done.returncode == 0:
        return [item["metadata"] for item in json.loads(path.read_text())["install"]]
    if len(pins) == 1:
        print("left out:", pins[0], done.stderr.strip().splitlines()[-1:])
        return []
    half = len(pins) // 2
    return report(pip, python, pins[:half], path) + report(pip, python, pins[half:], path)


def dates(uv, python, pins, work, tag):
    source, target = work / f"dates-{tag}.txt", work / f"dates-{tag}.pylock.toml"
    target = work / f"pylock.dates{tag}.toml"
    source.write_text("\n".join(pins) + "\n")
    done = subprocess.run(
        [uv, "pip", "compile", "-q", "--no-deps", "--python-version", python, "--python-platform",
         "x86_64-manylinux_2_34", "--format", "pylock.toml", "--cache-dir", str(work / "uv"), str(source),
         "-o", str(target)], capture_output=True, text=True)
    if done.returncode:
        if len(pins) == 1:
            print("no date:", pins[0])
            return {}
        half = len(pins) // 2
        return dates(uv, python, pins[:half], work, tag) | dates(uv, python, pins[half:], work, tag)
    out = {}
    for package in tomllib.loads(target.read_text())["packages"]:
        files = package.get("wheels", []) + [package[k] for k in ("sdist",) if k in package]
        out[package["name"], package["version"]] = min(str(f["upload-time"])[:10] for f in files)
    return out


def batches(todo):
    """One version of each package per batch: pip refuses two versions of one name."""
    while any(todo.values()):
        yield [f"{name}=={rest.pop(0)}" for name, rest in todo.items() if rest]


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def main():
    args = argparse.ArgumentParser()
    for flag in ("--pip", "--uv", "--work"):
        args.add_argument(flag, required=True)
    args.add_argument("--out", default=str(pathlib.Path(__file__).with_name("index.json.gz")))
    args = args.parse_args()
    work = pathlib.Path(args.work)
    work.mkdir(parents=True, exist_ok=True)

    listed = work / "versions.json"
    if not listed.exists():
        found = {name: {p: versions(args.pip, name, p) for p in PYTHONS} for name in STACK}
        listed.write_text(json.dumps(found))
    found = json.loads(listed.read_text())

    pythons = {}  # (name, version) -> Pythons with a wheel
    for name, per_python in found.items():
        for python, some in per_python.items():
            for version in some:
                pythons.setdefault((name, version), []).append(python)

    metadata, day, jobs = {}, {}, []
    for python in ["3.10", "3.12", "3.9", "3.11", "3.13", "3.14"]:
        mine = {k for k, p in pythons.items() if python in p and not any(k in job[1] for job in jobs)}
        jobs.append((python, mine))
    for python, mine in jobs:
        todo = {}
        for name, version in sorted(mine, key=lambda k: (k[0], key(k[1]))):
            todo.setdefault(name, []).append(version)
        wanted = {n: list(v) for n, v in todo.items() if n not in LEAVES | SOURCE_ONLY}
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            def one(numbered):
                number, pins = numbered
                kept = work / f"report-{python}-{number}.json"
                if not kept.exists():
                    got = [{k: m.get(k) for k in ("name", "version", "requires_dist", "requires_python", "provides_extra")}
                           for m in report(args.pip, python, pins, work / f"raw-{python}-{number}.json")]
                    kept.write_text(json.dumps(got))
                return json.loads(kept.read_text())
            for items in pool.map(one, enumerate(list(batches(wanted)))):
                for item in items:
                    metadata[normal(item["name"]), item["version"]] = item
        for number, pins in enumerate(list(batches({n: list(v) for n, v in todo.items()}))):
            kept = work / f"day-{python}-{number}.json"
            if not kept.exists():
                got = dates(args.uv, python, pins, work, f"{python.replace('.', '')}x{number}")
                kept.write_text(json.dumps([[*k, v] for k, v in got.items()]))
            for name, version, date in json.loads(kept.read_text()):
                day[normal(name), version] = date

    packages = {}
    for name in STACK:
        sets, rows = [], []
        for version in sorted({v for n, v in pythons if n == name}, key=key):
            item = metadata.get((name, version))
            if item is None and name not in LEAVES | SOURCE_ONLY:
                continue
            requires = [] if item is None else item["requires_dist"] or []
            if name in SOURCE_ONLY:
                requires = ["torch"]
            needs = [r for r in requires if normal(re.match(r"[A-Za-z0-9._-]+", r)[0]) in STACK]
            extras = [] if item is None else item["provides_extra"] or []
            entry = {"python": (item or {}).get("requires_python") or "", "extras": extras, "requires": needs}
            if entry not in sets:
                sets.append(entry)
            rows.append([version, day.get((name, version), ""), sets.index(entry), pythons[name, version]])
        packages[name] = {"sets": sets, "versions": rows}
        print(name, len(rows), "versions,", len(sets), "sets")
    index = {"date": datetime.date.today().isoformat(), "source": "PyPI, through pip and uv; linux x86_64", "packages": packages}
    with gzip.GzipFile(args.out, "wb", mtime=0) as out:
        out.write(json.dumps(index, separators=(",", ":")).encode())
    print(args.out, pathlib.Path(args.out).stat().st_size, "bytes")


main()
