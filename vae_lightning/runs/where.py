"""Conditions on runs, such as `model.latent_dim <= 16 and data == 'kmnist10k'`: compared, never executed."""

import ast
import operator
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from ..errors import UsageError
from .claiming import state_of
from .options import options
from .run import Run

__all__ = ["matching", "value_of"]

COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, others: value in others,
    ast.NotIn: lambda value, others: value not in others,
}
LONGEST = 1000  # characters


def matching(runs: Sequence[Run], condition: str) -> list[Run]:
    """Returns the runs that meet a condition.

    A condition compares names with values, by `==`, `!=`, `<`, `<=`, `>`, `>=`, `in` and `not in`, joined by `and`,
    `or` and `not`. Names are those of `value_of`. A run without such a value meets no comparison but `!=` and `not in`.

    Args:
        runs: to choose from.
        condition: such as `latent_dim <= 16 and test/elbo > -250`.

    Raises:
        UsageError: if it is not such a condition, or a name is that of nothing in any run.
    """
    if len(condition) > LONGEST:
        raise UsageError(f"where: at most {LONGEST} characters")
    try:
        tree = ast.parse(condition.strip(), mode="eval").body
        keys = sorted(_keys(tree))
        known = {key: [value_of(run, key) for run in runs] for key in keys}
        for key, values in known.items():
            if runs and all(value is None for value in values):
                raise UsageError(f"where: no run has {key!r}{_suggestion(key, runs)}")
        return [
            run
            for position, run in enumerate(runs)
            if _holds(tree, {key: values[position] for key, values in known.items()})
        ]
    except UsageError:
        raise
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UsageError(f"where={condition}: {getattr(error, 'msg', None) or error}") from error


def value_of(run: Run, key: str) -> Any:
    """Returns what a run has under a name; None if it has nothing.

    In this order: `name`, `state`; a dotted option or the choice of a group (`model.latent_dim`, `model/objective`); a
    metric (`test/elbo`, or `elbo` for short); the only group, or else the only one of the options with the fewest
    parts, that ends with the name (`objective`, `latent_dim`).
    """
    if key in ("name", "state"):
        return run.name if key == "name" else state_of(run)
    metrics = run.metrics if run.finished else {}
    found = run.option(key)
    for value in (found, metrics.get(key), metrics.get(f"test/{key}")):
        if value is not None:
            return value
    if not run.has_config:
        return None
    groups = [choice for group, choice in run.choices.items() if group.endswith(f"/{key}")]
    found = {option: value for option, value in options(run.config).items() if option.endswith(f".{key}")}
    parts = min((option.count(".") for option in found), default=0)
    values = [value for option, value in found.items() if option.count(".") == parts]
    return next((found[0] for found in (groups, values) if len(found) == 1), None)


def _keys(node: ast.AST) -> set[str]:
    """The names in a condition; an error for everything that a condition cannot have."""
    if isinstance(node, ast.BoolOp):
        return set().union(*map(_keys, node.values))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _keys(node.operand)
    if isinstance(node, ast.Compare) and all(type(op) in COMPARED for op in node.ops):
        names = set()
        for part in (node.left, *node.comparators):
            if name := _name(part):
                names.add(name)
            else:
                _literal(part)
        return names
    raise ValueError("a condition compares names with values, as in latent_dim <= 16 and data == 'kmnist10k'")


def _name(node: ast.AST) -> str:
    """The name that `a.b/c` is; empty if it is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{before}.{node.attr}" if (before := _name(node.value)) else ""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        before, after = _name(node.left), _name(node.right)
        return f"{before}/{after}" if before and after else ""
    return ""


def _literal(node: ast.expr) -> Any:
    """A number, a text, a truth value or a list of such."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"neither a name nor a value: {ast.unparse(node)}") from None


def _holds(node: ast.AST, values: dict[str, Any]) -> bool:
    if isinstance(node, ast.BoolOp):
        joined = all if isinstance(node.op, ast.And) else any
        return joined(_holds(part, values) for part in node.values)
    if isinstance(node, ast.UnaryOp):
        return not _holds(node.operand, values)
    assert isinstance(node, ast.Compare)
    sides = [values[name] if (name := _name(part)) else _literal(part) for part in (node.left, *node.comparators)]
    return all(_compared(op, left, right) for op, left, right in zip(node.ops, sides, sides[1:], strict=False))


def _compared(op: ast.cmpop, left: Any, right: Any) -> bool:
    if left is None or right is None:
        return isinstance(op, ast.NotEq | ast.NotIn) and left is not right
    return bool(COMPARED[type(op)](left, right))


def _suggestion(key: str, runs: Sequence[Run]) -> str:
    known: set[str] = {"name", "state"}
    for run in runs:
        known |= set(run.metrics) if run.finished else set()
        known |= {*options(run.config), *run.choices} if run.has_config else set()
    short = {name.removeprefix("test/").rpartition(".")[2]: name for name in known}
    near = get_close_matches(key, [*known, *short], n=1)
    return f"; did you mean {near[0]}?" if near else ""
