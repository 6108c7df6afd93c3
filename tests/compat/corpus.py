"""gunicorn's own request corpus: 119 cases that need no setting, and 24 that do.

Found beside the checkout (../shared/corpus), or made from gunicorn's source release on PyPI.
Strings are Latin-1: one character is one byte.
"""
import ast
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
from urllib.parse import urlsplit

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELEASE = "gunicorn==27.0.1"

#: Answer of gunicorn's WSGI workers to what its parser raises, where that is not 400.
STATUS = {"LimitRequestLine": 414, "LimitRequestHeaders": 431, "UnsupportedTransferCoding": 501,
          "ExpectationFailed": 417, "NoMoreData": "closed"}


class NoCorpus(Exception):
    """Why there is none."""


def load():
    """[(case, raw)]; a case is a dict with name, valid, requests or status."""
    return [(case, raw) for case, raw in load_all() if not case["settings"]]


def load_with_settings():
    """The 24 cases that need settings: case["settings"] is a dict."""
    return [(case, raw) for case, raw in load_all() if case["settings"]]


def load_all():
    beside = ROOT.parent / "shared" / "corpus" / "gunicorn-requests"
    if (beside / "cases.jsonl").exists():
        return from_folder(beside)
    return from_release()


def from_folder(folder):
    lines = (folder / "cases.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [(case, (folder / case["file"]).read_bytes())
            for case in found]


def from_release():
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary",
             "gunicorn", "--dest", folder, RELEASE],
            capture_output=True, text=True)
        archives = list(pathlib.Path(folder).glob("gunicorn-*.tar.gz"))
        if not archives:
            raise NoCorpus(f"no corpus beside the checkout, and pip could not get {RELEASE}: "
                           + done.stderr.strip()[-200:])
        with tarfile.open(archives[0]) as archive:
            files = {name.split("tests/requests/", 1)[1]: archive.extractfile(name).read()
                     for name in archive.getnames()
                     if "tests/requests/" in name and name.endswith((".http", ".py"))}
    cases = [convert(name[:-5], files[name], files.get(name[:-5] + ".py", b"").decode())
             for name in sorted(files) if name.endswith(".http")]
    return [pair for pair in cases if pair is not None]


def unescape(text):
    """The bytes of a .http file: line ends mean nothing, escapes stand for bytes."""
    data = text.replace(b"\n", b"").replace(b"\\r\\n", b"\r\n").replace(b"\\0", b"\0")
    data = data.replace(b"\\n", b"\n").replace(b"\\t", b"\t").replace(b"\\r", b"\r")
    return re.sub(rb"\\x([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), data)


def convert(name, text, expectation):
    """One case, or None without an expectation."""
    if not expectation:
        return None
    kind, _, stem = name.partition("/")
    tree = ast.parse(expectation)
    case = {"name": f"{kind}-{stem}", "valid": kind == "valid", "settings": settings_of(tree)}
    values = {node.targets[0].id: node.value for node in tree.body
              if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)}
    if case["valid"]:
        value = values["request"]
        nodes = value.elts if isinstance(value, ast.List) else [value]
        if isinstance(value, ast.List) and all(isinstance(n, ast.Name) for n in nodes):
            nodes = [values[n.id] for n in nodes]
        case["requests"] = [request_of(node, values) for node in nodes]
    else:
        node = values["request"]
        exception = node.id if isinstance(node, ast.Name) else node.attr
        case["status"] = STATUS.get(exception, 400)
    return case, unescape(text)


def settings_of(tree):
    """What the case sets: {"header_map": "refuse"}."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)
             and isinstance(node.func, ast.Attribute) and node.func.attr == "set"]
    found = {ast.literal_eval(call.args[0]): ast.literal_eval(call.args[1]) for call in calls}
    if found.get("proxy_protocol") is True:
        found["proxy_protocol"] = "auto"    # what its validator makes of it
    return found


def value_of(node):
    """A literal, or literals put together by a few methods or +; nothing is executed."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        subject = value_of(node.func.value)
        arguments = [value_of(argument) for argument in node.args]
        if node.func.attr in ("join", "encode", "decode", "replace"):
            return getattr(subject, node.func.attr)(*arguments)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return value_of(node.left) + value_of(node.right)
    return ast.literal_eval(node)


class Names(ast.NodeTransformer):
    """Names stand for what was assigned to them."""

    def __init__(self, values):
        self.values = values

    def visit_Name(self, node):
        return self.visit(self.values[node.id]) if node.id in self.values else node


def request_of(node, values):
    if isinstance(node, ast.Name):
        node = values[node.id]
    fields = {ast.literal_eval(key): value for key, value in zip(node.keys, node.values)}
    raw = ast.literal_eval(fields["uri"].args[0])
    parts = urlsplit("/" + raw.lstrip("/") if raw.startswith("//") else raw)
    path = parts.path
    if raw.startswith("//"):
        path = raw.partition("?")[0].partition("#")[0]
    body = value_of(fields["body"])
    return {"method": ast.literal_eval(fields["method"]),
            "uri": {"raw": raw, "path": path, "query": parts.query, "fragment": parts.fragment},
            "version": list(ast.literal_eval(fields["version"])),
            "headers": [[value_of(part) for part in pair.elts]
                        for pair in Names(values).visit(fields["headers"]).elts],
            "body": body.decode("latin-1") if isinstance(body, bytes) else body}


if __name__ == "__main__":
    loaded = from_release() if sys.argv[1:] == ["release"] else load()
    print(len(loaded), "cases", sum(case["valid"] for case, _ in loaded), "valid")
