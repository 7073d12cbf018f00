"""Drives a program that nobody can edit: it is asked to save by what it reads from its terminal, and then ended."""
