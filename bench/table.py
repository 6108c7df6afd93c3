"""The results as a page: one section per row, versions of everything on top.

A section stays in the page as long as everything on top is the same; a row that is run again
replaces its own section only. So one command makes the page and single rows may be repeated.
"""
import pathlib

INTRO = """# What a request costs

Made by `bench/run`; what each row does: `bench/run --list`. CPU is the scheduler's run time of
the whole process tree divided by requests, median and spread over the rounds, taken in turn with
the peers; compare ratios, not figures of different days. A ratio, ours divided by the peer's, is
taken in each round, and its median and spread are given: a minute in which the machine was busy
is in both sides of it. nginx answers without Python and is no peer. Instructions are user
instructions per request (callgrind) in thousands, system calls are counted by strace; both
without the agent, which is another process. Goals that are not reached, what was tried and where
the cost sits: [NOTES.md](NOTES.md).

"""


class Section:
    """One row of the bench: lines of text and tables, printed as they come and kept for the page."""

    def __init__(self, name, doc):
        self.name, self.doc = name, doc
        self.lines = []

    def line(self, text=""):
        print(text, flush=True)
        self.lines.append(text)

    def table(self, heads, rows):
        """A Markdown table whose columns line up on a terminal as well."""
        rows = [[str(cell) for cell in row] for row in rows]
        widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
        for row in [heads, ["-" * width for width in widths], *rows]:
            self.line("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
        self.line()

    def text(self):
        return f"## {self.name}\n\n{self.doc}\n\n" + "\n".join(self.lines).strip() + "\n"


def store(path, versions, section, order):
    """Put the section into the page at `path`."""
    path = pathlib.Path(path)
    head = INTRO + "".join(f"* {name}: {version}\n" for name, version in versions) + "\n"
    kept = {}
    if path.exists():
        old_head, *old = path.read_text().split("\n## ")
        if old_head.strip() == head.strip():
            kept = {text.splitlines()[0]: "## " + text.strip() + "\n" for text in old}
    kept[section.name] = section.text()
    body = "\n".join(kept[name] for name in order if name in kept)
    beside = path.with_suffix(".new")
    beside.write_text(head + body)
    beside.replace(path)
