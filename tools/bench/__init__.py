"""How close attrtrain is to what the machine can do, and how it stands beside what people use today.

    python -m tools.bench loader --out bench/        one benchmark: a table, and bench/loader.json
    python -m tools.bench all --out bench/           all of them, one after the other

    __main__.py     arguments, and which benchmarks there are
    contest.py      contenders run in turn, each in a fresh process on the same cores
    child.py        what such a process does
    result.py       rows → ratios, table, JSON
    machine.py      what it ran on
    data.py         the same real crops for everybody
    install.py      installs the peers, one by one
    <benchmark>.py  what is measured; <benchmark>_*.py its contenders

Seconds of one machine say little about another; ratios between contenders that took turns on it do.
"""
