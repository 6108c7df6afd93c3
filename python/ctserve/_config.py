"""The config file, and cfg as hooks and applications see it."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Iterator

from ctserve import _core
from ctserve._errors import StartError, report, summary

CONFIG_FAILED = 1


def read(spec: str, required: bool) -> dict[str, Any]:
    """Execute a config file as module `__config__` and return its names.

    spec: a path, "file:PATH" or "python:MODULE".
    required: False for the default path, where a missing file is fine (an empty dict comes back).
    Raises StartError with code 1. Runs in: master, before any fork and on reload.
    Source: gunicorn, Application.load_config_from_module_name_or_filename.
    """
    put_on_path(os.getcwd())
    if spec.startswith("python:"):
        return _read_module(spec[len("python:"):])
    path = spec[len("file:"):] if spec.startswith("file:") else spec
    if not os.path.exists(path):
        if required:
            raise StartError(CONFIG_FAILED, "config file %r doesn't exist" % path)
        return {}
    return _read_file(path)


def put_on_path(folder: str) -> None:
    """First on sys.path, unless it is on it already."""
    if folder not in sys.path:
        sys.path.insert(0, folder)


def apply_paths(chdir: str | None, pythonpath: str | None) -> None:
    """gunicorn's chdir and pythonpath, once everything has been read.

    Raises StartError with code 1 when the directory cannot be entered.
    """
    if chdir:
        try:
            os.chdir(chdir)
        except OSError as error:
            raise StartError(CONFIG_FAILED, "can't chdir to %r: %s"
                             % (chdir, error.strerror)) from None
    put_on_path(os.getcwd())
    for path in (pythonpath or "").split(","):
        if path.strip():
            put_on_path(os.path.abspath(path))


def _read_module(name: str) -> dict[str, Any]:
    import importlib

    try:
        return dict(vars(importlib.import_module(name)))
    except Exception as error:
        raise StartError(CONFIG_FAILED, report(error, "Failed to read config module %s: %s"
                                               % (name, summary(error)))) from None


def _read_file(path: str) -> dict[str, Any]:
    from importlib.machinery import ModuleSpec, SourceFileLoader, SourcelessFileLoader
    from types import ModuleType

    if path.endswith(".pyc"):
        loader: Any = SourcelessFileLoader("__config__", path)
    else:
        if not path.endswith(".py"):
            print("WARNING: configuration file should have a valid Python extension.",
                  file=sys.stderr)
        loader = SourceFileLoader("__config__", path)
    module = ModuleType("__config__")
    module.__file__ = path
    module.__loader__ = loader
    spec = ModuleSpec("__config__", loader, origin=path)
    spec.has_location = True
    module.__spec__ = spec
    sys.modules["__config__"] = module
    try:
        loader.exec_module(module)
    except (SystemExit, KeyboardInterrupt):
        raise
    except Exception as error:
        raise StartError(CONFIG_FAILED, report(error, "Failed to read config file: %s: %s"
                                               % (path, summary(error)))) from None
    return dict(vars(module))


# -- hooks ------------------------------------------------------------------------------------


def arity(function: Callable[..., Any]) -> int:
    """How many arguments `function` takes by position; -1 when it does not tell."""
    import inspect

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return -1
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in parameters)


def check_hook(name: str, value: Any, arity_min: int, arity_max: int) -> tuple[Any, int]:
    """The callable for a hook setting and its arity.

    value: a callable, or a dotted string "package.module.function".
    Raises StartError with code 1 when it is not callable or takes another number of arguments.
    """
    if isinstance(value, str):
        value = _import_hook(name, value)
    if not callable(value):
        raise StartError(CONFIG_FAILED, "Invalid value for %s: %r is not callable" % (name, value))
    count = arity(value)
    if not arity_min <= count <= arity_max:
        wanted = str(arity_max) if arity_min == arity_max else "%d to %d" % (arity_min, arity_max)
        raise StartError(CONFIG_FAILED, "Invalid value for %s: Value must have an arity of: %s "
                                        "(%s takes %s)" % (name, wanted, _name_of(value),
                                                           "any" if count < 0 else count))
    return value, count


def _import_hook(name: str, dotted: str) -> Any:
    import importlib

    module_name, dot, attribute = dotted.rpartition(".")
    if not dot:
        raise StartError(CONFIG_FAILED, "Invalid value for %s: %r is not an import string; "
                                        "format: module[.submodules...].object" % (name, dotted))
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except AttributeError:
        raise StartError(CONFIG_FAILED, "Invalid value for %s: Can not load %r from %r"
                         % (name, attribute, module_name)) from None
    except Exception as error:
        raise StartError(CONFIG_FAILED, report(error, "Invalid value for %s: %s"
                                               % (name, summary(error)))) from None


def _name_of(value: Any) -> str:
    return getattr(value, "__qualname__", None) or type(value).__qualname__


_QUALNAMES = {"pre_fork": "Prefork", "post_fork": "Postfork", "ssl_context": "NewSSLContext",
              "nworkers_changed": "NumWorkersChanged"}


def default_hook(name: str) -> Callable[..., Any]:
    """What cfg.NAME is while nobody set it: a callable that does nothing."""

    def nothing(*arguments: Any) -> None:
        return None

    if name == "ssl_context":
        def nothing(config: Any, default_ssl_context_factory: Any) -> Any:  # noqa: F811
            return default_ssl_context_factory()
    owner = _QUALNAMES.get(name) or "".join(part.capitalize() for part in name.split("_"))
    nothing.__name__ = name
    nothing.__qualname__ = "%s.%s" % (owner, name)
    return nothing


# -- cfg --------------------------------------------------------------------------------------


class Setting:
    """One row of the settings table with the value in force."""

    __slots__ = ("name", "section", "default", "short", "order", "value")

    def __init__(self, name: str, section: str, default: Any, doc: str, order: int,
                 value: Any) -> None:
        self.name = name
        self.section = section
        self.default = default
        self.short = doc
        self.order = order
        self.value = value

    def get(self) -> Any:
        return self.value

    def set(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: Any) -> bool:
        return self.order < other.order

    def __repr__(self) -> str:
        return "<ctserve.Setting %s value=%r>" % (self.name, self.value)


class Config:
    """The settings in force: `cfg.NAME`, `cfg.settings[NAME].get()`.

    A value set from here on changes what Python sees, not what the server has begun with.
    Runs in: every process. Source: gunicorn.config.Config.
    """

    def __init__(self) -> None:
        object.__setattr__(self, "settings", {})
        self.refresh()

    def refresh(self) -> None:
        """Read everything again from the server; custom attributes stay."""
        values = _core.settings()
        settings = {}
        for order, (name, section, kind, default, doc) in enumerate(_core.setting_rows()):
            value = values[name]
            if kind == "hook" and value is None:
                value = default_hook(name)
            settings[name] = Setting(name, section, default, doc, order, value)
        object.__setattr__(self, "settings", settings)

    def __getattr__(self, name: str) -> Any:
        settings = self.__dict__.get("settings", {})
        if name not in settings:
            raise AttributeError("No configuration setting for: %s" % name)
        return settings[name].get()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.settings:
            raise AttributeError("Invalid access! Use cfg.set(%r, ...)" % name)
        object.__setattr__(self, name, value)

    def set(self, name: str, value: Any) -> None:
        """Set one value; an unknown name raises AttributeError."""
        if name not in self.settings:
            raise AttributeError("No configuration setting for: %s" % name)
        self.settings[name].set(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self.settings)

    def __str__(self) -> str:
        width = max(len(name) for name in self.settings)
        return "\n".join("%s = %s" % (name.ljust(width), value_text(self.settings[name].get()))
                         for name in sorted(self.settings))

    @property
    def worker_class_str(self) -> str:
        chosen = self.settings["worker_class"].get()
        if isinstance(chosen, type):
            return "%s.%s" % (chosen.__module__, chosen.__qualname__)
        if str(chosen).endswith("sync") and int(self.settings["threads"].get() or 1) > 1:
            return "gthread"
        return str(chosen)

    @property
    def address(self) -> list[Any]:
        return [_parse_address(text) for text in self.settings["bind"].get() or []]

    @property
    def uid(self) -> int:
        return os.geteuid()

    @property
    def gid(self) -> int:
        return os.getegid()

    @property
    def env(self) -> dict[str, str]:
        pairs = (item.partition("=") for item in self.settings["raw_env"].get() or [])
        return {name: value for name, _, value in pairs}

    @property
    def is_ssl(self) -> bool:
        return bool(self.settings["certfile"].get() or self.settings["keyfile"].get())

    @property
    def proc_name(self) -> str:
        name = self.settings["proc_name"].get()
        return name if name is not None else self.settings["default_proc_name"].get()


def _parse_address(text: str) -> Any:
    """gunicorn's form of a bind: (host, port), a unix path, or a descriptor."""
    if text.startswith("unix:"):
        path = text[len("unix:"):]
        return path[2:] if path.startswith("//") else path
    if text.startswith("fd://"):
        return int(text[len("fd://"):])
    text = text[len("tcp://"):] if text.startswith("tcp://") else text
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, int(rest[1:] or 8000) if rest.startswith(":") else 8000
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, "8000"
    return host.lower() or "0.0.0.0", int(port) if port.isdigit() else 8000


def value_text(value: Any) -> str:
    """A value as --print-config shows it: callables as <qualname()>."""
    if callable(value):
        return "<%s()>" % _name_of(value)
    return str(value)
