"""The README's first hour on a machine that has nothing: a bare Debian, made here. Standard library only."""
