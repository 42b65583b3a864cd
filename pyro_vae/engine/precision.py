"""Precision: the matrix products of a graph in bfloat16, and all other operations unchanged."""

import copy
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

_ATEN = torch.ops.aten
# The operations that multiply matrices, with the places of their factors among the arguments.
_PRODUCTS: dict[Any, tuple[int, ...]] = {
    _ATEN.mm.default: (0, 1),
    _ATEN.bmm.default: (0, 1),
    _ATEN.convolution.default: (0, 1),
    _ATEN.convolution_backward.default: (0, 1, 2),
}
# With fewer multiplications, the conversions cost more than the product saves.
_PAYS_FROM = 4_000_000
# Products with a term added; the sum keeps the graph's own precision.
_SUMS: dict[Any, Any] = {
    _ATEN.addmm.default: _ATEN.mm.default,
    _ATEN.baddbmm.default: _ATEN.bmm.default,
}


def with_bfloat16_products(module: GraphModule) -> GraphModule:
    """Return a copy of a traced graph with bfloat16 factors in float32 products and convolutions.

    A large product is accumulated in float32, and its result is rounded to 8 significant bits.
    Small products stay in float32. So do all operations between the products, including the
    log-densities and their sums. No global setting is changed.
    """
    graph = copy.deepcopy(module.graph)
    for node in list(graph.nodes):
        if node.target in _SUMS and node.kwargs == {} and _pays(node, *node.args[1:]):
            _split_sum(graph, node)
    for node in list(graph.nodes):
        if node.target in _PRODUCTS:
            factors = [node.args[place] for place in _PRODUCTS[node.target]]
            if _pays(node, *factors):
                _round_factors(graph, node)
    return GraphModule(module, graph)  # it shares the tensors of the original


def _pays(node: Node, *factors: Any) -> bool:
    """Return True if the factors are float32 and their product is large.

    Convolutions always count as large.
    """
    values = [factor.meta["val"] for factor in factors]
    if any(value.dtype != torch.float32 for value in values):
        return False
    is_convolution = node.target in (_ATEN.convolution.default, _ATEN.convolution_backward.default)
    return is_convolution or values[0].numel() * values[1].shape[-1] >= _PAYS_FROM


def _split_sum(graph: Graph, node: Node) -> None:
    term, *factors = node.args
    with graph.inserting_before(node):
        product = graph.call_function(_SUMS[node.target], tuple(factors))
        product.meta = node.meta
        total = graph.call_function(_ATEN.add.Tensor, (product, term))
        total.meta = node.meta
    node.replace_all_uses_with(total)
    graph.erase_node(node)


def _round_factors(graph: Graph, node: Node) -> None:
    places = _PRODUCTS[node.target]
    factors: list[Any] = [node.args[place] for place in places]
    with graph.inserting_before(node):
        for place, factor in zip(places, factors, strict=True):
            node.update_arg(place, _cast(graph, factor, torch.bfloat16))
        if node.target is _ATEN.convolution.default and isinstance(node.args[2], Node):
            node.update_arg(2, _cast(graph, node.args[2], torch.bfloat16))
    outputs = list(node.users) if node.target is _ATEN.convolution_backward.default else [node]
    for output in outputs:
        with graph.inserting_after(output):
            restored = _cast(graph, output, torch.float32)
        for user in list(output.users):
            if user is not restored:
                user.replace_input_with(output, restored)


def _cast(graph: Graph, node: Any, dtype: torch.dtype) -> Node:
    cast = graph.call_function(torch.ops.prims.convert_element_type.default, (node, dtype))
    cast.meta = {"val": node.meta["val"].to(dtype)} if "val" in node.meta else {}
    return cast
