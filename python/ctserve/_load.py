"""From `module:app` on the command line to a callable, or to a sentence about why not.

Forms: `module` (attribute `application`), `module:attribute`, `module:factory(literals)`, and a
file, `path/to/x.py[:attribute]`. Exit codes as gunicorn's: 3 when importing raised, 4 when the
module is there but what was asked for is not an application.
"""

from __future__ import annotations

import os
import sys
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Callable

from ctserve._errors import StartError, report, summary

BOOT_FAILED = 3
LOAD_FAILED = 4
NO_APP = 1

CANDIDATES_COUNT_MAX = 5
SCANNED_FILES_COUNT_MAX = 40
SCANNED_FILE_BYTES_MAX = 65536

_CO_COROUTINE = 0x80
_CO_VARARGS = 0x04
_CO_ASYNC_GENERATOR = 0x200


def load(uri: str) -> tuple[Callable[..., Any], str, str]:
    """Import what `uri` names.

    Returns the callable, "WSGI", and why it was taken for that.
    Raises StartError with code 3 or 4; an ASGI application is refused with 4.
    Runs in: worker, or master with preload_app; main thread. Source: gunicorn, util.import_app.
    """
    module_name, attribute, is_file = _split(uri)
    module = _import(uri, module_name)
    if attribute is None:
        attribute = _default_attribute(module) if is_file else "application"
    app = _evaluate(uri, module, module_name, attribute)
    if app is None:
        raise StartError(LOAD_FAILED, "%s is None, not an application" % uri)
    if not callable(app):
        raise StartError(LOAD_FAILED, "\n".join(
            ["%s is not callable: it is %s %s" % (uri, _article(type(app).__name__),
                                                  type(app).__name__)]
            + _callables_lines(module, module_name)))
    return _judge(uri, app)


def missing_app() -> StartError:
    """Nobody said which application: what, an example, what lies here."""
    found = candidates_here()
    example = found[0] if found else "app:app"
    lines = ["no application was named",
             "  for example: ctserve %s --workers 4" % example]
    if found:
        lines.append("  found here: " + ", ".join(found))
    else:
        lines.append("  found nothing that looks like one in " + os.getcwd())
    return StartError(NO_APP, "\n".join(lines))


def candidates_here() -> list[str]:
    """`module:name` of what looks like an application in *.py of the working directory. Nothing is
    imported; files and bytes are bounded."""
    import re

    made = re.compile(r"^(\w+)\s*(?::[^=\n]+)?=\s*(?:\w+\.)*"
                      r"(?:Flask|Bottle|Sanic|get_wsgi_application|WSGIApplication|Pyramid"
                      r"|make_wsgi_app|create_app|make_app|App|API)\(", re.M)
    written = re.compile(r"^def (\w+)\(\s*(?:environ|env)\b[^,]*,\s*\w+[^,]*\)", re.M)
    found: list[str] = []
    try:
        names = sorted(name for name in os.listdir(".") if name.endswith(".py"))
    except OSError:
        return found
    for name in names[:SCANNED_FILES_COUNT_MAX]:
        if not name[:-3].isidentifier() or name.endswith(".conf.py"):
            continue
        try:
            with open(name, encoding="utf-8", errors="replace") as file:
                text = file.read(SCANNED_FILE_BYTES_MAX)
        except OSError:
            continue
        for match in list(made.finditer(text)) + list(written.finditer(text)):
            found.append("%s:%s" % (name[:-3], match.group(1)))
    return found[:CANDIDATES_COUNT_MAX]


def _split(uri: str) -> tuple[str, str | None, bool]:
    """Module name, attribute expression or None, and whether a file was named."""
    name, colon, attribute = uri.partition(":")
    asked = attribute if colon else None
    if colon and not attribute:
        raise StartError(LOAD_FAILED, "%s ends with a colon: the name of the application is "
                                      "missing\n  for example: ctserve %sapp" % (uri, uri))
    if not name.endswith(".py"):
        return name, asked, False
    path = os.path.abspath(name)
    if not os.path.isfile(path):
        # `package.py` could be a module called `py`; without the file it is a mistake.
        raise StartError(BOOT_FAILED, "there is no file %s\n  asked for: %s" % (path, uri))
    folder, stem = os.path.dirname(path), os.path.basename(path)[:-3]
    parts = [] if stem == "__init__" else [stem]
    while os.path.exists(os.path.join(folder, "__init__.py")) and folder != os.path.dirname(folder):
        parts.insert(0, os.path.basename(folder))
        folder = os.path.dirname(folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return ".".join(parts), asked, True


def _import(uri: str, name: str) -> Any:
    import importlib

    try:
        importlib.import_module(name)
        return sys.modules[name]
    except (SystemExit, KeyboardInterrupt):
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise StartError(BOOT_FAILED, _missing_module(uri, name, error.name)) from None
        raise _raised(uri, error) from None
    except ValueError as error:
        if not name or name.startswith("."):
            raise StartError(BOOT_FAILED, "%r is not the name of a module" % name) from None
        raise _raised(uri, error) from None
    except TypeError as error:
        if name.startswith("."):
            raise StartError(BOOT_FAILED, "%r is not the name of a module" % name) from None
        raise _raised(uri, error) from None
    except BaseException as error:
        raise _raised(uri, error) from None


def _raised(uri: str, error: BaseException) -> StartError:
    return StartError(BOOT_FAILED, report(error, "%s could not be imported: %s"
                                          % (uri, summary(error))))


def _missing_module(uri: str, name: str, missing: str) -> str:
    lines = ["No module named '%s'" % missing, "  asked for: %s" % uri,
             "  looked in: %s" % _places()]
    near = _near_modules(missing)
    if near:
        lines.append("  is here: %s" % ", ".join(near))
    return "\n".join(lines)


def _places() -> str:
    first = sys.path[0] if sys.path else "nothing"
    return "%s and %d more on sys.path" % (first or os.getcwd(), max(len(sys.path) - 1, 0))


def _near_modules(missing: str) -> list[str]:
    import difflib

    names = set()
    try:
        with os.scandir(".") as entries:
            for entry in entries:
                stem = entry.name[:-3] if entry.name.endswith(".py") else entry.name
                if stem.isidentifier() and (entry.name.endswith(".py") or entry.is_dir()):
                    names.add(stem)
                if len(names) >= 500:
                    break
    except OSError:
        return []
    return difflib.get_close_matches(missing.partition(".")[0], sorted(names), 3)


def _default_attribute(module: Any) -> str:
    """A file was named without an attribute: its `application`, else its `app`."""
    for name in ("application", "app"):
        if hasattr(module, name):
            return name
    return "application"


def _evaluate(uri: str, module: Any, module_name: str, expression: str) -> Any:
    if expression.isidentifier():
        return _attribute(uri, module, module_name, expression)
    import ast

    try:
        node = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError):
        node = None
    if isinstance(node, ast.Name):
        return _attribute(uri, module, module_name, node.id)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise StartError(LOAD_FAILED, "%r is neither a name nor a call of a function\n"
                                      "  asked for: %s" % (expression, uri))
    try:
        positional = [ast.literal_eval(argument) for argument in node.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
        if None in keywords:
            raise ValueError("**")
    except (ValueError, TypeError, SyntaxError):
        raise StartError(LOAD_FAILED, "the arguments of %r are not literals\n  asked for: %s"
                         % (expression, uri)) from None
    factory = _attribute(uri, module, module_name, node.func.id)
    return _call_factory(uri, factory, positional, keywords)


def _call_factory(uri: str, factory: Any, positional: list, keywords: dict) -> Any:
    try:
        return factory(*positional, **keywords)
    except TypeError as error:
        # Raised by the call itself, not inside the factory: the arguments do not fit.
        trace = error.__traceback__
        if trace is not None and trace.tb_next is None:
            raise StartError(LOAD_FAILED, "%s does not take these arguments: %s"
                             % (uri, error)) from None
        raise _raised(uri, error) from None
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _raised(uri, error) from None


def _attribute(uri: str, module: Any, module_name: str, name: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        raise StartError(LOAD_FAILED, "\n".join(
            ["module '%s' has no attribute '%s'" % (module_name, name),
             "  asked for: %s%s" % (uri, "" if ":" in uri else " (that is %s:%s)" % (uri, name))]
            + _callables_lines(module, module_name))) from None


def _callables_lines(module: Any, module_name: str) -> list[str]:
    """One line with what could have been meant: callables of the module's own, no classes of
    elsewhere; a function without arguments is shown as a factory."""
    found = []
    for name, value in list(vars(module).items()):
        # A proxy of a request that is not there raises at every touch.
        if name.startswith("_") or type(value).__module__ == "werkzeug.local":
            continue
        if not callable(value) or isinstance(value, type):
            continue
        code = value.__code__ if isinstance(value, FunctionType) else None
        if code is not None and value.__module__ != module.__name__:
            continue
        found.append("%s:%s%s" % (module_name, name, "()" if code is not None and
                                  code.co_argcount == 0 else ""))
    if not found:
        return ["  %s has no callable of its own" % module_name]
    return ["  callable there: " + ", ".join(found[:CANDIDATES_COUNT_MAX])]


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"


def _code_of(app: Any) -> tuple[Any, int]:
    """The code object that runs when `app` is called, and how many first arguments are bound.
    (None, 0) when that cannot be told."""
    bound = 0
    for _ in range(8):  # partials of partials; bounded
        if type(app).__name__ != "partial" or type(app).__module__ != "functools":
            break
        bound += len(app.args)
        app = app.func
    if isinstance(app, FunctionType):
        return app.__code__, bound
    if isinstance(app, MethodType):
        return getattr(app.__func__, "__code__", None), bound + 1
    if isinstance(app, BuiltinFunctionType):
        return None, 0
    method = app.__init__ if isinstance(app, type) else type(app).__call__
    return getattr(method, "__code__", None), bound + 1


def _judge(uri: str, app: Any) -> tuple[Callable[..., Any], str, str]:
    code, bound = _code_of(app)
    why = None
    if code is not None and code.co_flags & (_CO_COROUTINE | _CO_ASYNC_GENERATOR):
        why = "it is a coroutine function"
        if not isinstance(app, (FunctionType, MethodType, type)):
            why = "its __call__ is a coroutine function"
    elif code is not None:
        names = code.co_varnames[bound:code.co_argcount]
        if names[:3] == ("scope", "receive", "send") or (
                isinstance(app, type) and names[:1] == ("scope",)):
            why = "it takes (%s)" % ", ".join(names[:3])
    if why is not None:
        raise StartError(LOAD_FAILED, "%s is an ASGI application (%s); this version of ctserve "
                                      "serves WSGI only\n  an adapter can serve it: "
                                      "a2wsgi.ASGIMiddleware(app)" % (uri, why))
    if code is None or code.co_flags & _CO_VARARGS:
        return app, "WSGI", "callable"
    return app, "WSGI", "callable takes %d arguments" % (code.co_argcount - bound)
