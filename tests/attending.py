"""Attention as test models: two layers that share one list of lengths; caches of keys and values."""

from __future__ import annotations

import helpers
from helpers import Case
from onnx import ModelProto

H, D, T, WIDTH = 4, 3, 5, 6  # heads, their dimension, tokens, width of the stream
TWO = f"""(float[N,{T},{WIDTH}] x) => (float y) {{
    d = Shape<start=0, end=1>(x) f = Concat<axis=0>(d, tokens, number, size)
    q1 = MatMul(x, q) k1 = MatMul(x, k) v1 = MatMul(x, v) qh = Reshape(q1, f) qt = Transpose<perm=[0,2,1,3]>(qh)
    kh = Reshape(k1, f) kt = Transpose<perm=[0,2,3,1]>(kh) vh = Reshape(v1, f) vt = Transpose<perm=[0,2,1,3]>(vh)
    s = MatMul(qt, kt) p = Softmax<axis=-1>(s) a = MatMul(p, vt) t = Transpose<perm=[0,2,1,3]>(a)
    j = Reshape(t, joined) z = MatMul(j, o)
    q4 = MatMul(z, q2) k4 = MatMul(z, k2) v4 = MatMul(z, v2) qi = Reshape(q4, f) qu = Transpose<perm=[0,2,1,3]>(qi)
    ki = Reshape(k4, f) ku = Transpose<perm=[0,2,3,1]>(ki) vi = Reshape(v4, f) vu = Transpose<perm=[0,2,1,3]>(vi)
    s2 = MatMul(qu, ku) p2 = Softmax<axis=-1>(s2) a2 = MatMul(p2, vu) t2 = Transpose<perm=[0,2,1,3]>(a2)
    j2 = Reshape(t2, joined) y = MatMul(j2, o2) }}"""

TWO_LAYERS = Case(
    "two-layers", TWO,
    {**{f"{n}{i}": (WIDTH, H * D) for n in "qkv" for i in ("", "2")}, "o": (H * D, WIDTH), "o2": (H * D, WIDTH)},
    (H, WIDTH, H), {"tokens": [T], "number": [H], "size": [D], "joined": [0, T, -1]},
)  # fmt: skip

HEADS, DIM, NEW = 4, 8, 5  # heads in caches, their dimension, new tokens
QKV = {"q": (6, 32), "k": (6, 32), "v": (6, 32), "w": (6, 96), "b": (96,), "o": (32, 6)}
PAST = f"float[N,{HEADS},P,{DIM}] pk, float[N,{HEADS},P,{DIM}] pv"
OUT = f"float[N,{NEW},6] y, float[N,{HEADS},T,{DIM}] k2, float[N,{HEADS},T,{DIM}] v2"
SPLIT = """q1 = MatMul(x, q) k1 = MatMul(x, k) v1 = MatMul(x, v) qh = Reshape(q1, heads) kh = Reshape(k1, heads)
    vh = Reshape(v1, heads) qt = Transpose<perm=[0,2,1,3]>(qh) kn = Transpose<perm=[0,2,1,3]>(kh)
    vn = Transpose<perm=[0,2,1,3]>(vh)"""
SCORES = """kt = Transpose<perm=[0,1,3,2]>(k2) s = MatMul(qt, kt) p = Softmax<axis=-1>(s) a = MatMul(p, v2)
    t = Transpose<perm=[0,2,1,3]>(a) j = Reshape(t, joined) y = MatMul(j, o)"""
TARGETS = {"heads": [0, 0, HEADS, DIM], "joined": [0, 0, HEADS * DIM]}
PAIRS = "k2 = Concat<axis=2>(pk, kn) v2 = Concat<axis=-2>(pv, vn)"


def cached(body: str = f"{SPLIT} {PAIRS} {SCORES}", past: str = PAST, out: str = OUT, opset: int = 17) -> ModelProto:
    """`body` from x [N, new tokens, 6] and a cache to y, and the longer cache."""
    weights = {n: s for n, s in QKV.items() if f" {n})" in body or f" {n}," in body}
    text = f"(float[N,{NEW},6] x, {past}) => ({out}) {{ {body} }}"
    return helpers.model(text, weights, TARGETS if "heads)" in body else {}, opset)
