"""Two layers of attention that share one list of lengths."""

from __future__ import annotations

from helpers import Case

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
