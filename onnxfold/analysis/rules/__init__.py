"""Operator rules: small functions that state facts about the axes of one node, one file per operator family.

The table is put together here, explicitly; importing a family has no effect of its own.
"""

from . import attention, conv, features, index, layout, linear, norm, pointwise, pool, recurrent, reduce, reshape
from . import quantized as quantized
from . import residual as residual
from .table import Rule, RuleTable

FAMILIES = (
    pointwise,
    conv,
    linear,
    attention,
    recurrent,
    norm,
    pool,
    quantized,
    reduce,
    layout,
    index,
    reshape,
    features,
)


def default_rules(fold_residual: bool = False) -> RuleTable:
    """All rules that ship with onnxfold; with `fold_residual`, those that follow norms over channels."""
    table = RuleTable([entry for family in FAMILIES for entry in family.RULES])
    return table.replacing(residual.RULES) if fold_residual else table


__all__ = ["FAMILIES", "Rule", "RuleTable", "default_rules"]
