"""Prints how many combinations the contract table has, and what is left out and why."""

from tests.contract.combinations import EXCLUSIONS, EXPERTS, FAMILIES, GATES, all_combinations, pairwise_combinations


def pytest_terminal_summary(terminalreporter):
    ran = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if "test_contract_table" in report.nodeid
    ]
    if not ran:
        return
    terminalreporter.write_line(
        f"contract table: {len(GATES)} gates x {len(EXPERTS)} experts x {len(FAMILIES)} families x 2 objectives, "
        f"{len(all_combinations())} valid combinations, {len(pairwise_combinations())} of them cover all pairs"
    )
    for exclusion in EXCLUSIONS:
        what = ", ".join(filter(None, (exclusion.gate, exclusion.experts, exclusion.family, exclusion.objective)))
        terminalreporter.write_line(f"  left out: {what}: {exclusion.reason}")
