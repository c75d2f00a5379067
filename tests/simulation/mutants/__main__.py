"""The table of the mutants and how each was found: `python -m tests.simulation.mutants`."""

import sys

from tests.simulation.__main__ import database_server
from tests.simulation.laboratory import laboratory
from tests.simulation.mutants.surgery import hunt
from tests.simulation.mutants.table import MUTANTS, SEEDS

if __name__ == "__main__":
    missed = 0
    with database_server() as url, laboratory(url) as lab:
        print("| mutant | switched off with it | found by the check | seeds | steps |\n|---|---|---|---|---|")
        for mutant in MUTANTS:
            found = hunt(lab, mutant, SEEDS)
            missed += found is None
            seeds, steps = found or ("not found", "")
            print(f"| {mutant.name} | {mutant.without} | {mutant.breaks} | {seeds} | {steps} |", flush=True)
    sys.exit(missed > 0)
