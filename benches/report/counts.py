"""Makes a table of the instructions that `benches/counts.rs` had counted, an operation each.

The harness leaves a summary of each part; its total is divided by the operations, whose number is in the bench. With
`--publish` the table also goes into the page on performance, with a date of its own, since it is counted on its own and
not with the figures of the report. Standard library only.

Usage: counts.py SUMMARIES BENCH [--publish PAGE]
"""

import argparse
import datetime
import json
import pathlib
import re
import sys

import report

OPERATIONS = re.compile(r"^const OPERATIONS: usize = ([0-9_]+);$", re.MULTILINE)


def operations(bench):
    """So many were counted together."""
    found = OPERATIONS.search(bench)
    if not found:
        raise SystemExit("the bench does not say how many operations it counts")
    return int(found[1].replace("_", ""))


def instructions(summary):
    """All of this run; beside it the harness tells what there was before, if anything."""
    [profile] = [profile for profile in summary["profiles"] if profile["tool"] == "Callgrind"]
    count = profile["data"]["total"]["metrics"]["Ir"]["values"]["new"]
    # Names that were stripped from the program look like a part that does nothing.
    if count == 0:
        raise SystemExit(f"nothing counted: {summary['id']}")
    return count


def part(summary):
    """As `micro` calls it."""
    return summary["id"].replace("__", "/").replace("_", " ")


def collect(folder, each):
    summaries = [json.loads(path.read_text()) for path in pathlib.Path(folder).glob("**/summary.json")]
    if not summaries:
        raise SystemExit("no summaries")
    return sorted((part(summary), instructions(summary) / each) for summary in summaries)


def table(counts):
    lines = ["| part | instructions an operation |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {count:,.0f} |" for name, count in counts])


def fill(page, counts, date):
    """The page with this table; what belongs to the report stays as it is."""
    named = {"counts.date": date, "counts.table": f"\n\n{table(counts)}\n\n"}
    missing = sorted(named.keys() - {name for _, name, _ in report.SLOT.findall(page)})
    if missing:
        raise SystemExit(f"the page has no place for {', '.join(missing)}")
    return report.put(page, named)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("summaries", help="folder in which the harness left its summaries")
    parser.add_argument("bench", type=pathlib.Path, help="the bench itself, which says how many operations it counts")
    parser.add_argument("--publish", type=pathlib.Path, metavar="PAGE", help="the page whose table to replace")
    arguments = parser.parse_args()
    counts = collect(arguments.summaries, operations(arguments.bench.read_text()))
    print(table(counts))
    if arguments.publish:
        date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
        arguments.publish.write_text(fill(arguments.publish.read_text(), counts, date))


if __name__ == "__main__":
    sys.exit(main())
