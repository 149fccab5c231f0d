"""`--help` of every flow, and what it says without an argument, from its source: nothing else is imported.

It runs no flow. `flows/__init__.py` calls it before anything else is imported.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

FLOWS = Path(__file__).resolve().parents[1]
HELP = frozenset({"-h", "--help"})
BY_NAME = "An argument can be given by its name too, in any order: --use-case VALUE, or --use-case=VALUE."
EXIT_STATUS = (
    "Exit status: 0 passed, 3 none, budget or rejected, 4 undecided or passed by an estimate alone, 2 bad input,\n"
    "1 error. Standard output carries one line of JSON, standard error all that is meant for people. Without an\n"
    "argument this is printed."
)


def answer_help(command: list[str]) -> None:
    """Print the usage of the flow that `command` (python -m flows.NAME …) would run and exit, if it asks for help or
    gives no argument: that is bad input, and spends nothing by mistake.
    """
    module = module_of(command)
    given = command[command.index(module) + 1 :] if module else []
    if module and HELP & set(given):
        print(usage_of(module.removeprefix("flows.")))
        raise SystemExit(0)
    if module and not given:
        print(usage_of(module.removeprefix("flows.")), file=sys.stderr)
        print(json.dumps({"outcome": "bad_input", "reason": f"no argument was given; see `python -m {module} --help`"}))
        raise SystemExit(2)


def module_of(command: list[str]) -> str | None:
    """The flow's module that a command runs (`flows.NAME`); None for any other command."""
    named = command[command.index("-m") + 1 : command.index("-m") + 2] if "-m" in command else []
    is_flow = bool(named) and named[0].startswith("flows.") and (FLOWS / f"{named[0][6:]}.py").exists()
    return named[0] if is_flow else None


def usage_of(name: str) -> str:
    """What the flow of that name does and which arguments it takes, from its docstring and signature."""
    tree = ast.parse((FLOWS / f"{name}.py").read_text(encoding="utf-8"))
    flow = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    what, _, arguments = (ast.get_docstring(flow) or "").partition("\n\nArgs:\n")
    if _is_stage(flow):
        usage = "USE_CASE"
        arguments = (
            "    use_case: Name of a saved use case, or the path or URI of a YAML file; its climb is opened or resumed."
        )
    else:
        usage = " ".join(_arguments(flow))
    return f"usage: python -m flows.{name} {usage}\n\n{what}\n\n{arguments}\n\n{BY_NAME}\n{EXIT_STATUS}"


def _is_stage(flow: ast.FunctionDef) -> bool:
    return [argument.arg for argument in flow.args.args] == ["climb"]


def _arguments(flow: ast.FunctionDef) -> list[str]:
    """What a shell can give, in order: those with a default in brackets; what only the run form can say is left out.
    A list has all that is said in order (…).
    """
    names, defaults = [argument.arg for argument in flow.args.args], flow.args.defaults
    required = len(names) - len(defaults)
    optional = zip(names[required:], defaults, strict=True)
    said = [f"[{name.upper()}]" for name, default in optional if isinstance(default, ast.Constant)]
    lists = {argument.arg for argument in flow.args.args if isinstance(argument.annotation, ast.Subscript)}
    return [name.upper() + (" …" if name in lists else "") for name in names[:required]] + said


if __name__ == "__main__":
    print(usage_of(sys.argv[1]))
