"""The table of known routers in words, for lists and pages."""

from gatewise.nn.known.table import CONTRACTS, REFUSALS

__all__ = ["described"]


def described() -> list[dict[str, str | None]]:
    """One entry for each model type and class of routers, sorted: the known ones, and then those that are refused.

    Returns:
        Entries with model_type, router, formula, selection, correction_bias, skipped and refused; None where there is
        nothing to say.

    Example:
        >>> next(entry["correction_bias"] for entry in described() if entry["model_type"] == "deepseek_v3")
        'buffer e_score_correction_bias of the router'
    """
    known = [
        _entry(
            model_type,
            path,
            formula=contract.formula,
            selection=contract.selection_words,
            correction_bias=None if contract.bias is None else contract.bias.words,
            skipped=contract.skipped or None,
        )
        for contract in CONTRACTS
        for model_type, path in contract.routers.items()
    ]
    refused = [
        _entry(model_type, path, refused=refusal.reason)
        for refusal in REFUSALS
        for model_type, path in refusal.routers.items()
    ]
    return [*sorted(known, key=_key), *sorted(refused, key=_key)]


def _entry(model_type: str, path: str, **found: str | None) -> dict[str, str | None]:
    nothing = dict.fromkeys(("formula", "selection", "correction_bias", "skipped", "refused"))
    return {"model_type": model_type, "router": path.partition(":")[2], **nothing, **found}


def _key(entry: dict[str, str | None]) -> tuple[str, str]:
    return str(entry["model_type"]), str(entry["router"])
