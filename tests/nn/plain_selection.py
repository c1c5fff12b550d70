"""Selections by plain loops over tokens and experts, from the definitions and not from the code."""

import math


def sigma(z):
    return 1.0 / (1.0 + math.exp(-z)) if z >= 0.0 else math.exp(z) / (1.0 + math.exp(z))


def softmax(values):
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    return [p / sum(powers) for p in powers]


def scores(selection, z):
    if selection.score == "sigmoid":
        return [sigma(v) for v in z]
    if selection.score == "sqrt_softplus":
        return [math.sqrt(math.log1p(math.exp(v)) if v < 30.0 else v) for v in z]
    return softmax(z)


def select(selection, z, bias):
    """The chosen experts and their weights, {expert: weight}, of one token's logits."""
    if selection.cap is not None:
        z = [selection.cap * math.tanh(v / selection.cap) for v in z]
    if selection.method == "sparse_mixer":
        return mixed(selection, z)
    s = z if selection.weights != "score" else scores(selection, z)
    c = [a + b for a, b in zip(s, bias, strict=True)]
    allowed = set(range(len(z)))
    if selection.n_groups > 1:
        size = len(z) // selection.n_groups
        groups = [list(range(g * size, (g + 1) * size)) for g in range(selection.n_groups)]
        if selection.group_score == "two_largest":
            value = [sum(sorted((c[e] for e in group), reverse=True)[:2]) for group in groups]
        else:
            value = [max(s[e] for e in group) for group in groups]
        best = sorted(range(len(groups)), key=lambda g: -value[g])[: selection.top_groups]
        allowed = {e for g in best for e in groups[g]}
    chosen = sorted(allowed, key=lambda e: -c[e])[: selection.top_k]
    if selection.weights == "softmax":
        weights = softmax([z[e] for e in chosen])
    elif selection.weights == "sigmoid":
        weights = [sigma(z[e]) for e in chosen]
    else:
        weights = [s[e] for e in chosen]
    if selection.renormalise == "sum":
        weights = [w / sum(weights) for w in weights]
    elif selection.renormalise == "floored_sum":
        weights = [w / max(sum(weights), selection.floor) for w in weights]
    return {e: selection.factor * w for e, w in zip(chosen, weights, strict=True)}


def mixed(selection, z):
    left, found = list(range(len(z))), {}
    for _ in range(selection.top_k):
        best = max(left, key=lambda e: z[e])
        most = z[best]
        near = [e for e in left if (most - z[e]) / max(abs(z[e]), most) <= 2.0 * selection.mixer_epsilon]
        found[best] = selection.factor * softmax([z[e] for e in near])[near.index(best)]
        left.remove(best)
    return found
