"""Checks that the files of a run do not contradict themselves: numbered invariants, a file a family."""
