"""Makes one report of what all benches found.

Each bench leaves a file with one row a line (`benches/support/report.rs` writes them). From these come a table, the same
as Markdown and as JSON, and a chart; with `--publish` also the figures of the page on performance, which names them by
row: nobody copies a figure by hand. Standard library only.

Usage: report.py ROWS OUT [--publish PAGE]
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

import chart

# The order in which people read. What is not listed comes last.
ORDER = ["cached", "forwarded", "tls", "uncached", "read_counts", "payment", "replica_payment", "events", "crowd", "festival", "journal", "scale", "footprint"]

# In a page: `<!-- NAME -->what a publication replaces<!-- / -->`.
SLOT = re.compile(r"(<!-- ([a-z0-9.-]+) -->).*?(<!-- / -->)", re.DOTALL)

# Places with such a name are filled by another program, at a time of its own.
OTHERS = "counts."


def number(value):
    """As people read it: no digits that the next run would change, and commas in what is long."""
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def figure(value, unit):
    return f"{number(value)}{unit if unit.startswith('/') else ' ' + unit if unit else ''}"


def aim(row):
    """What is to be reached, in the ratio's terms, or in the value's where there is no ratio."""
    if row["aim"] is None:
        return ""
    [(kind, bound)] = row["aim"].items()
    unit = "" if row["ratio"] is not None else row["unit"]
    # The shortest spelling: an aim is given, not measured.
    return f"{'≥' if kind == 'at_least' else '≤'} {bound:g}{' ' + unit if unit else ''}"


def reached(row):
    return {None: "", True: "yes", False: "**no**"}[row["reached"]]


def table(rows):
    lines = ["| figure | bridge | ceiling | ratio | to reach | reached |", "|---|---|---|---|---|---|"]
    for row in rows:
        ceiling = row["ceiling"]
        beside = f"{ceiling['name']}: {figure(ceiling['value'], row['unit'])}" if ceiling else ""
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        cells = [row["figure"], figure(row["value"], row["unit"]), beside, ratio, aim(row), reached(row)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(rows):
    aims = [row for row in rows if row["aim"]]
    missed = [row["figure"] for row in aims if not row["reached"]]
    said = f"{len(aims) - len(missed)} of {len(aims)} aims reached"
    return f"{said}; missed: {', '.join(missed)}." if missed else f"{said}."


def output(*command):
    """The one line that a program says; a tree without it is measured all the same."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine():
    models = re.findall(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", pathlib.Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "cores": os.cpu_count(),
        "cpu": models[0] if models else platform.machine(),
        "memory_gib": round(int(memory.group(1)) / 1024 / 1024, 1) if memory else None,
        "kernel": f"{platform.system()} {platform.release()}",
        "rustc": output("rustc", "--version"),
    }


def machine_text(of):
    return f"{of['cores']} cores of {of['cpu']}, {of['memory_gib']} GiB, {of['kernel']}, {of['rustc']}"


def collect(folder):
    def place(path):
        return (ORDER.index(path.stem) if path.stem in ORDER else len(ORDER), path.stem)

    rows = []
    for path in sorted(pathlib.Path(folder).glob("*.jsonl"), key=place):
        rows += [json.loads(line) for line in path.read_text().splitlines()]
    names = [row["name"] for row in rows]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise SystemExit(f"two rows of one name: {', '.join(sorted(twice))}")
    return rows


def make(rows):
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "date": now.strftime("%Y-%m-%d"),
        "time": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": output("git", "rev-parse", "--short=10", "HEAD"),
        "changed_since_commit": bool(output("git", "status", "--porcelain", "--untracked-files=no")),
        "machine": machine(),
        "rows": rows,
    }


def markdown(report):
    head = f"Measured {report['date']} on {machine_text(report['machine'])}."
    return f"{head}\n\n{table(report['rows'])}\n\n{verdict(report['rows'])}\n"


def slots(report):
    """What a page may name: `ROW.value`, `.ceiling`, `.ratio`, and what concerns the whole."""
    named = {
        "date": report["date"],
        "machine": machine_text(report["machine"]),
        "table": f"\n\n{table(report['rows'])}\n\n",
        "verdict": verdict(report["rows"]),
    }
    for row in report["rows"]:
        named[f"{row['name']}.value"] = figure(row["value"], row["unit"])
        if row["ceiling"]:
            named[f"{row['name']}.ceiling"] = figure(row["ceiling"]["value"], row["unit"])
        if row["ratio"] is not None:
            named[f"{row['name']}.ratio"] = f"{row['ratio']:.2f}"
    return named


def put(page, named):
    """The page with these texts in the places of their names; all other places stay as they are."""
    return SLOT.sub(lambda slot: slot[1] + named[slot[2]] + slot[3] if slot[2] in named else slot[0], page)


def fill(page, report):
    """The page with the report's figures. One that names a figure which was not measured is not published."""
    named = slots(report)
    unknown = {name for _, name, _ in SLOT.findall(page)} - named.keys()
    unknown = sorted(name for name in unknown if not name.startswith(OTHERS))
    if unknown:
        raise SystemExit(f"the page names what was not measured: {', '.join(unknown)}")
    return put(page, named)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", help="folder with a file of rows from each bench")
    parser.add_argument("out", type=pathlib.Path, help="folder for report.md, report.json and report.svg")
    parser.add_argument("--publish", type=pathlib.Path, metavar="PAGE", help="the page whose figures to replace")
    arguments = parser.parse_args()
    rows = collect(arguments.rows)
    if not rows:
        raise SystemExit("no rows")
    report = make(rows)
    drawn = chart.draw(rows, aim)
    if arguments.publish:
        page = fill(arguments.publish.read_text(), report)
        arguments.publish.write_text(page)
        arguments.publish.with_suffix(".svg").write_text(drawn)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    (arguments.out / "report.md").write_text(markdown(report))
    (arguments.out / "report.svg").write_text(drawn)
    print(markdown(report), end="")


if __name__ == "__main__":
    sys.exit(main())
