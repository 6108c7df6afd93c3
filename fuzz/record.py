"""Append one fuzz run to fuzz/RESULTS.md: record.py TARGET LOG EXIT_CODE (fuzz/run --record).

The table is the only store: the total above it is counted from its rows each time."""
import datetime
import pathlib
import re
import sys

RESULTS = pathlib.Path(__file__).with_name("RESULTS.md")
COUNTED = ("parser", "head-lean", "chunked", "chunked-lean")
TOTAL = "Total of the head and chunked targets: "


def rows_of(text):
    """(target, executions, seconds, findings) of every row of the table."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and re.fullmatch(r"\d{4}-\d\d-\d\d", cells[0]):
            yield cells[1], *(int(cell.replace(",", "")) for cell in cells[3:])


def total_line(text):
    rows = [row for row in rows_of(text) if row[0] in COUNTED]
    return (f"{TOTAL}{sum(row[1] for row in rows):,} executions, "
            f"{sum(row[3] for row in rows)} findings.")


def last_number(pattern, log):
    found = re.findall(pattern, log)
    return int(found[-1]) if found else 0


def main(target, log_path, code):
    log = pathlib.Path(log_path).read_text(errors="replace")
    # A lean target parses several inputs for each of libFuzzer's, and tells how many.
    executions = last_number(r"stat::inputs_parsed:\s*(\d+)", log) \
        or last_number(r"stat::number_of_executed_units:\s*(\d+)", log) \
        or last_number(r"(?m)^#(\d+)\s", log)
    seconds = last_number(r"Done \d+ runs in (\d+) second", log)
    row = (f"| {datetime.date.today()} | {target} | address, undefined | {executions:,} | "
           f"{seconds:,} | {int(code != '0')} |\n")
    text = RESULTS.read_text().rstrip("\n") + "\n" + row
    text = re.sub(rf"(?m)^{TOTAL}.*$", total_line(text), text)
    RESULTS.write_text(text)
    print(row, end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
