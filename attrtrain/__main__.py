"""`python -m attrtrain <command>`."""

from attrtrain.cli import program

program()
