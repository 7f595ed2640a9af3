"""Operator rules: small functions that state facts about the axes of one node, one file per operator family.

The table is put together here, explicitly; importing a family has no effect of its own.
"""

from . import attention, conv, features, index, layout, linear, norm, pointwise, pool, recurrent, reduce, reshape
from . import quantized as quantized
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


def default_rules() -> RuleTable:
    """All rules that ship with onnxfold."""
    return RuleTable([entry for family in FAMILIES for entry in family.RULES])


__all__ = ["FAMILIES", "Rule", "RuleTable", "default_rules"]
