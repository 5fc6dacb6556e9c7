"""Refinement: schedule, alignment of chunks, merge of halves and groups, final volumes."""
