"""The report says what was measured, and nothing else."""

import json
import pathlib
import tempfile
import unittest
import xml.etree.ElementTree as xml

import chart
import counts
import report


def row(name="one", value=90.0, unit="/s", ceiling=100.0, ratio=0.9, aim=None, reached=None):
    beside = None if ceiling is None else {"name": "bare <loop>", "value": ceiling}
    return {
        "name": name,
        "figure": f"figure {name}",
        "value": value,
        "unit": unit,
        "ceiling": beside,
        "ratio": ratio,
        "aim": aim,
        "reached": reached,
    }


REACHED = row("good", aim={"at_least": 0.8}, reached=True)
MISSED = row("bad", value=200.0, unit="µs", ceiling=50.0, ratio=None, aim={"at_most": 80}, reached=False)
NONE = row("none", value=0.0, unit="", ceiling=None, ratio=None, aim={"at_most": 0}, reached=True)


class Report(unittest.TestCase):
    def test_the_table_tells_figure_ceiling_ratio_aim_and_whether_it_was_reached(self):
        lines = report.table([REACHED, MISSED, NONE]).splitlines()[2:]
        self.assertEqual(lines[0], "| figure good | 90/s | bare <loop>: 100/s | 0.90 | ≥ 0.8 | yes |")
        self.assertEqual(lines[1], "| figure bad | 200 µs | bare <loop>: 50 µs |  | ≤ 80 µs | **no** |")
        self.assertEqual(lines[2], "| figure none | 0 |  |  | ≤ 0 | yes |")

    def test_the_verdict_names_what_was_missed(self):
        self.assertEqual(report.verdict([REACHED, row()]), "1 of 1 aims reached.")
        self.assertEqual(report.verdict([REACHED, MISSED]), "1 of 2 aims reached; missed: figure bad.")

    def test_figures_have_the_digits_that_tell_something(self):
        spelled = [report.number(value) for value in (50_876.4, 164.6, 19.934, 1.357, 0.0, 3.0)]
        self.assertEqual(spelled, ["50,876", "165", "19.9", "1.36", "0", "3"])

    def test_rows_come_in_reading_order_and_no_name_twice(self):
        with tempfile.TemporaryDirectory() as folder:
            for bench, name in (("festival", "late"), ("new", "last"), ("cached", "first")):
                pathlib.Path(folder, f"{bench}.jsonl").write_text(json.dumps(row(name)) + "\n")
            self.assertEqual([one["name"] for one in report.collect(folder)], ["first", "late", "last"])
            pathlib.Path(folder, "other.jsonl").write_text(json.dumps(row("late")) + "\n")
            with self.assertRaisesRegex(SystemExit, "late"):
                report.collect(folder)

    def test_a_page_gets_its_figures_and_keeps_its_words(self):
        page = "a <!-- good.value -->old<!-- / --> b <!-- good.ratio --><!-- / --> c <!-- bad.ceiling -->x\ny<!-- / -->"
        filled = report.fill(page, report.make([REACHED, MISSED]))
        expected = "a <!-- good.value -->90/s<!-- / --> b <!-- good.ratio -->0.90<!-- / --> c <!-- bad.ceiling -->50 µs<!-- / -->"
        self.assertEqual(filled, expected)
        self.assertEqual(report.fill(filled, report.make([REACHED, MISSED])), expected)

    def test_a_page_that_names_what_was_not_measured_is_refused(self):
        with self.assertRaisesRegex(SystemExit, "gone.value"):
            report.fill("<!-- gone.value -->7<!-- / -->", report.make([REACHED]))

    def test_a_page_keeps_the_table_of_counts(self):
        page = "<!-- counts.date -->2026-01-01<!-- / --> <!-- good.value --><!-- / -->"
        filled = report.fill(page, report.make([REACHED]))
        self.assertEqual(filled, "<!-- counts.date -->2026-01-01<!-- / --> <!-- good.value -->90/s<!-- / -->")

    def test_the_page_of_the_project_can_be_filled_again(self):
        page = pathlib.Path(__file__).parents[2] / "docs" / "performance.md"
        names = {slot[2] for slot in report.SLOT.finditer(page.read_text())}
        self.assertTrue({"date", "machine", "table", "verdict", "counts.date", "counts.table"} <= names, names)


def summary(part, **values):
    total = {"metrics": {"Ir": {"values": values}}}
    return {"id": part, "profiles": [{"tool": "Callgrind", "data": {"total": total}}]}


class Counts(unittest.TestCase):
    def test_parts_are_named_as_people_read_them_and_counted_an_operation_each(self):
        with tempfile.TemporaryDirectory() as folder:
            for one in (summary("payment__fingerprint", new=41_000), summary("codec__reply_in_JSON", new=2_000_600, old=9)):
                place = pathlib.Path(folder, "part", one["id"])
                place.mkdir(parents=True)
                (place / "summary.json").write_text(json.dumps(one))
            found = counts.collect(folder, 1_000)
        self.assertEqual(counts.table(found).splitlines()[2:], ["| codec/reply in JSON | 2,001 |", "| payment/fingerprint | 41 |"])

    def test_a_program_without_names_is_not_taken_for_a_fast_one(self):
        with self.assertRaisesRegex(SystemExit, "codec__reply"):
            counts.instructions(summary("codec__reply", new=0))

    def test_the_bench_says_how_many_operations_it_counts(self):
        bench = pathlib.Path(__file__).parents[1] / "counts.rs"
        self.assertGreater(counts.operations(bench.read_text()), 0)

    def test_a_page_gets_its_table_and_keeps_the_rest(self):
        page = "<!-- good.value -->9<!-- / --> <!-- counts.date -->old<!-- / --> <!-- counts.table --><!-- / -->"
        filled = counts.fill(page, [("one", 7.0)], "2026-06-08")
        self.assertTrue(filled.startswith("<!-- good.value -->9<!-- / --> <!-- counts.date -->2026-06-08<!-- / -->"), filled)
        self.assertIn("| one | 7 |", filled)
        with self.assertRaisesRegex(SystemExit, "counts.table"):
            counts.fill("<!-- counts.date -->old<!-- / -->", [], "2026-06-08")


class Chart(unittest.TestCase):
    def test_better_is_right_of_the_aim_and_worse_left_of_it(self):
        self.assertGreater(chart.steps(REACHED), 0)
        self.assertLess(chart.steps(MISSED), 0)
        self.assertEqual(chart.steps(NONE), 0)
        self.assertEqual(chart.steps(row(value=3.0, ratio=None, aim={"at_most": 0}, reached=False)), -float("inf"))

    def test_every_figure_with_an_aim_is_drawn_and_said_in_words(self):
        drawn = xml.fromstring(chart.draw([REACHED, MISSED, NONE, row("aimless")], report.aim))
        texts = [text for text in drawn.itertext()]
        for one in (REACHED, MISSED, NONE):
            self.assertTrue(any(one["figure"] in text for text in texts), one["figure"])
        self.assertFalse(any("aimless" in text for text in texts))
        self.assertTrue(any("200 µs, to reach ≤ 80 µs: missed" in text for text in texts), texts)


if __name__ == "__main__":
    unittest.main()
