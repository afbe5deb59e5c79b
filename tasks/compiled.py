"""What is a Millrace workflow? A Flyte workflow whose snapshots are checked when it is compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar, cast

import flytekit
from flytekit.core.condition import BranchNode
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.node import Node
from flytekit.core.workflow import PythonFunctionWorkflow
from flytekit.models.types import LiteralType

from lakehouse.errors import WrongTableError
from lakehouse.flyte import table_of
from tasks.described import described

P = ParamSpec("P")
R = TypeVar("R")

_START = "start-node"


def workflow(function: Callable[P, R]) -> Callable[P, R]:
    """Declare a workflow; WrongTableError when it is compiled if a snapshot of the wrong table is passed on.

    What the console says of its inputs is its docstring, completed: see tasks.described. Flytekit leaves the comparison
    of columns to a cluster's compiler, which a local run never meets.
    """
    function.__doc__ = described(function)
    declared: PythonFunctionWorkflow = flytekit.workflow(_with_conditions_of_its_own(function))
    compile_nodes = declared.compile

    def compile_and_check(**kwargs: object) -> None:
        compile_nodes(**kwargs)
        _check_snapshots(declared)

    declared.compile = compile_and_check
    return cast(Callable[P, R], declared)


def _with_conditions_of_its_own(function: Callable[P, R]) -> Callable[P, R]:
    """The function, so that a condition in it ends with itself.

    In a local run flytekit lets a condition inside a branch share the branch's state: when the inner one is over, the
    branch counts as not taken, and what comes after it is left out without a word.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        context = FlyteContextManager.current_context()
        builder = context.new_builder()
        builder.in_a_condition = False
        with FlyteContextManager.with_context(builder):
            return function(*args, **kwargs)

    return run


def _check_snapshots(declared: PythonFunctionWorkflow) -> None:
    # Its property `nodes` would compile again. A branch's inner nodes have ids of their own count; none is bound to.
    nodes = {node.id: node for node in declared._nodes}
    for node in _all_nodes(declared._nodes):
        if isinstance(node.flyte_entity, BranchNode):
            continue
        for binding in node.bindings:
            promise = binding.binding.promise
            if promise is None:
                continue
            expected = table_of(node.flyte_entity.interface.inputs[binding.var].type)
            source = _source_type(declared, nodes, promise.node_id, promise.var)
            given = table_of(source) if source is not None else None
            if expected is not None and given is not None and given != expected:
                where = f"Input {binding.var!r} of {node.flyte_entity.name} in workflow {declared.name}"
                raise WrongTableError.given(where=where, expected=expected, got=given)


def _source_type(
    declared: PythonFunctionWorkflow, nodes: dict[str, Node], node_id: str, name: str
) -> LiteralType | None:
    if node_id in ("", _START):
        return declared.interface.inputs[name].type
    entity = nodes[node_id].flyte_entity
    # What a branch gives back has the type of the branch that ran; the branches' own nodes are checked themselves.
    return None if isinstance(entity, BranchNode) else entity.interface.outputs[name].type


def _all_nodes(nodes: list[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        if isinstance(node.flyte_entity, BranchNode):
            block = node.flyte_entity._ifelse_block
            branches = [block.case, *(block.other or [])]
            inner = [branch.then_node for branch in branches]
            yield from _all_nodes([*inner, *([block.else_node] if block.else_node else [])])
