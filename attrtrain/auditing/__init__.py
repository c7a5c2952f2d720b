"""Are labels fit to train on? What is odd about them, and are they learnable at all, or noise?

permutation.py    what a test gives          structure.py   do attributes go together, are photographs alike
held_out.py       do features tell labels    description.py what a label file knows of an object
noise_test.py     the verdict and its rules  quick.py       the cheap part, with which training starts
quick_shards.py   the same of a split        assemble.py    all of it, put together
counts.py · votes.py · boxes.py · relations.py · pictures.py · coverage.py   what is odd
findings.py       what of it somebody should act on
features.py       frozen features of crops; the only one that imports torch
shard_table.py    a shard folder as an ObjectTable
document.py       audit.json                 page.py        audit.html
"""
