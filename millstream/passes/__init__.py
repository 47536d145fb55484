"""Passes: changes of Programs that leave their results as they are."""

from millstream.passes._pass import Rule, Uses, Work, find, program_pass, register, run, work_on

__all__ = ["Rule", "Uses", "Work", "find", "program_pass", "register", "run", "work_on"]
