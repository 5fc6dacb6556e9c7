"""Figures of every stage, one look throughout: functions take arrays or tables and a path (.png or .svg)."""
